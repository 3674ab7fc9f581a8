/* Suites by Intel's ipsec-mb: it has the wide AES instructions that OpenSSL 3.0 leaves alone, and is less in the way. */
#include "cipher_library.h"

#include "ipsec_mb.h"

#ifndef ESP_NO_IPSEC_MB

#include <stdlib.h>

#include <openssl/crypto.h>

#include "encryption.h"

struct combined {
    struct gcm_key_data key; /* first, for its alignment of 64 octets, which the instructions insist on */
    struct cipher cipher;
    union {
        struct gcm_context_data gcm;
        struct chacha20_poly1305_context_data chacha;
    } context;
    aes_gcm_enc_dec_t gcm;
    aes_gmac_init_t gmac_init;
    aes_gmac_update_t gmac_update;
    aes_gmac_finalize_t gmac_finalize;
    chacha_poly_init_t chacha_init;
    chacha_poly_enc_dec_update_t chacha_update;
    chacha_poly_finalize_t chacha_finalize;
    uint64_t mask;
    uint8_t chacha_key[32];
    uint8_t nonce[12]; /* the salt, and behind it the IV of the packet */
};

static struct combined *combined_of(struct cipher *cipher) {
    return (struct combined *)((char *)cipher - offsetof(struct combined, cipher));
}

/* What each mode does to the packet, whose IV stands there, and to the nonce; all of them write a tag of the suite's
 * length. */
typedef void combined_apply(struct combined *, uint8_t *packet, size_t text, const uint8_t *additional, size_t count,
                            uint8_t *tag);

/* RFC 4106. */
static void gcm_apply(struct combined *self, uint8_t *packet, size_t text, const uint8_t *additional, size_t count,
                      uint8_t *tag) {
    uint8_t *body = packet + CIPHER_HEADER + 8;
    self->gcm(&self->key, &self->context.gcm, body, body, text, self->nonce, additional, count, tag,
              self->cipher.suite.icv);
}

/* GCM of nothing; IV and text are among what it authenticates (RFC 4543 §3.3, §3.5). */
static void gmac_apply(struct combined *self, uint8_t *packet, size_t text, const uint8_t *additional, size_t count,
                       uint8_t *tag) {
    self->gmac_init(&self->key, &self->context.gcm, self->nonce, sizeof self->nonce);
    self->gmac_update(&self->key, &self->context.gcm, additional, count);
    self->gmac_update(&self->key, &self->context.gcm, packet + CIPHER_HEADER, 8 + text);
    self->gmac_finalize(&self->key, &self->context.gcm, tag, self->cipher.suite.icv);
}

/* RFC 7634. */
static void chacha_apply(struct combined *self, uint8_t *packet, size_t text, const uint8_t *additional, size_t count,
                         uint8_t *tag) {
    uint8_t *body = packet + CIPHER_HEADER + 8;
    self->chacha_init(self->chacha_key, &self->context.chacha, self->nonce, additional, count);
    self->chacha_update(self->chacha_key, &self->context.chacha, body, body, text);
    self->chacha_finalize(&self->context.chacha, tag, self->cipher.suite.icv);
}

static inline void combined_do(struct combined *self, uint8_t *packet, size_t text, uint64_t sequence, uint8_t *tag,
                               combined_apply *apply) {
    uint8_t additional[12];
    size_t count = cipher_additional(additional, &self->cipher, packet, sequence);
    memcpy(self->nonce + 4, packet + CIPHER_HEADER, 8);
    apply(self, packet, text, additional, count, tag);
}

static inline void combined_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence,
                                 combined_apply *apply) {
    struct combined *self = combined_of(cipher);
    put64(packet + CIPHER_HEADER, sequence ^ self->mask);
    combined_do(self, packet, text, sequence, packet + CIPHER_HEADER + 8 + text, apply);
}

static inline int combined_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence,
                                combined_apply *apply) {
    uint8_t tag[CIPHER_TAG];
    combined_do(combined_of(cipher), packet, text, sequence, tag, apply);
    return CRYPTO_memcmp(tag, packet + CIPHER_HEADER + 8 + text, cipher->suite.icv) == 0;
}

#define COMBINED(mode)                                                                                                 \
    static void mode##_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {                  \
        combined_seal(cipher, packet, text, sequence, mode##_apply);                                                   \
    }                                                                                                                  \
    static int mode##_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {                   \
        return combined_open(cipher, packet, text, sequence, mode##_apply);                                            \
    }

COMBINED(gcm)
COMBINED(gmac)
COMBINED(chacha)

static void combined_free(struct cipher *cipher) {
    struct combined *self = combined_of(cipher);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

#define GCM_KEY(self, manager, keys, bits)                                                                             \
    do {                                                                                                               \
        manager->gcm##bits##_pre(keys->encryption, &self->key);                                                        \
        self->gcm = keys->sealing ? manager->gcm##bits##_enc : manager->gcm##bits##_dec;                               \
        self->gmac_init = manager->gmac##bits##_init;                                                                  \
        self->gmac_update = manager->gmac##bits##_update;                                                              \
        self->gmac_finalize = manager->gmac##bits##_finalize;                                                          \
    } while (0)

static void gcm_key(struct combined *self, const IMB_MGR *manager, const struct cipher_suite *suite,
                    const struct cipher_keys *keys) {
    self->cipher.seal = suite->cipher == CIPHER_AES_GMAC ? gmac_seal : gcm_seal;
    self->cipher.open = suite->cipher == CIPHER_AES_GMAC ? gmac_open : gcm_open;
    if (suite->encryption == IMB_KEY_128_BYTES)
        GCM_KEY(self, manager, keys, 128);
    else if (suite->encryption == IMB_KEY_192_BYTES)
        GCM_KEY(self, manager, keys, 192);
    else
        GCM_KEY(self, manager, keys, 256);
}

static void chacha_key(struct combined *self, const IMB_MGR *manager, const struct cipher_keys *keys) {
    self->cipher.seal = chacha_seal;
    self->cipher.open = chacha_open;
    self->chacha_init = manager->chacha20_poly1305_init;
    self->chacha_update =
        keys->sealing ? manager->chacha20_poly1305_enc_update : manager->chacha20_poly1305_dec_update;
    self->chacha_finalize = manager->chacha20_poly1305_finalize;
    memcpy(self->chacha_key, keys->encryption, sizeof self->chacha_key);
}

static struct cipher *combined_new(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    struct combined *self = aligned_alloc(_Alignof(struct combined), sizeof *self);
    if (!self)
        return NULL;
    memset(self, 0, sizeof *self);
    self->cipher.free = combined_free;
    self->mask = keys->mask;
    memcpy(self->nonce, keys->salt, suite->salt);
    if (suite->cipher == CIPHER_CHACHA20_POLY1305)
        chacha_key(self, ipsec_mb(), keys);
    else
        gcm_key(self, ipsec_mb(), suite, keys);
    return &self->cipher;
}

static struct cipher *mb_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    if (suite->integrity == INTEGRITY_NONE)
        return combined_new(suite, keys);
    return separate_new(encryption_ipsec_mb(suite, keys), suite, keys);
}

/* What it is faster at. It would do others, by putting packets of many SAs side by side: one packet alone then takes
 * several times what it takes OpenSSL. */
static int mb_offered(const struct cipher_suite *suite) {
    switch (suite->cipher) {
    case CIPHER_AES_GCM:
    case CIPHER_AES_GMAC:
    case CIPHER_CHACHA20_POLY1305:
    case CIPHER_AES_CBC:
    case CIPHER_AES_CTR:
        return ipsec_mb() != NULL;
    default:
        return 0;
    }
}

const struct cipher_provider cipher_ipsec_mb = {ipsec_mb_name, mb_offered, mb_keyed};

#else

static const char *nothing_name(void) { return NULL; }
static int nothing_offered(const struct cipher_suite *suite) { return 0; }
static struct cipher *nothing_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys) { return NULL; }

const struct cipher_provider cipher_ipsec_mb = {nothing_name, nothing_offered, nothing_keyed};

#endif
