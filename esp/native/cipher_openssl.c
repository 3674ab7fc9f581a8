/* Suites by OpenSSL: its contexts are keyed once for an SA, and a packet sets the IV and nothing else. */
#include "cipher_library.h"

#include <stdlib.h>

#include <openssl/crypto.h>

#include "encryption.h"
#include "openssl.h"

/* A combined mode. */
struct combined {
    struct cipher cipher;
    EVP_CIPHER_CTX *context;
    uint64_t mask;
    uint8_t nonce[12]; /* the salt, and behind it the IV of the packet */
};

static int combined_nonce(struct combined *self, const uint8_t *packet) {
    memcpy(self->nonce + self->cipher.suite.salt, packet + CIPHER_HEADER, 8);
    return EVP_CipherInit_ex(self->context, NULL, NULL, NULL, self->nonce, -1) > 0;
}

static int combined_additional(struct combined *self, const uint8_t *packet, uint64_t sequence) {
    uint8_t additional[12];
    int octets;
    size_t count = cipher_additional(additional, &self->cipher, packet, sequence);
    return EVP_CipherUpdate(self->context, NULL, &octets, additional, count) > 0;
}

static int combined_text(struct combined *self, uint8_t *packet, size_t text) {
    uint8_t *body = packet + CIPHER_HEADER + 8;
    int octets;
    return EVP_CipherUpdate(self->context, body, &octets, body, text) > 0;
}

/* All that is left to be done for a tag when all has gone in. */
static int combined_final(struct combined *self) {
    uint8_t none[CIPHER_TAG];
    int octets;
    return EVP_CipherFinal_ex(self->context, none, &octets) > 0;
}

static int combined_expect(struct combined *self, uint8_t *icv) {
    return EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_SET_TAG, self->cipher.suite.icv, icv) > 0;
}

/* RFC 4106. */
static int gcm_apply(struct combined *self, uint8_t *packet, size_t text, uint64_t sequence) {
    return combined_additional(self, packet, sequence) && combined_text(self, packet, text) && combined_final(self);
}

/* OpenSSL 3.0's ChaCha20 leaves the upper halves of the vector registers in use, and then whatever in this thread does
 * not know of them waits for them: its own SHA-256 takes 430 ns more for a packet, until somebody says that they are
 * free. */
#ifdef __x86_64__
__attribute__((target("avx"))) static void free_registers(void) { __builtin_ia32_vzeroupper(); }
static int has_upper_halves(void) { return __builtin_cpu_supports("avx"); }
#else
static void free_registers(void) {}
static int has_upper_halves(void) { return 0; }
#endif

/* RFC 7634: in OpenSSL's hands as GCM is. */
static int chacha_apply(struct combined *self, uint8_t *packet, size_t text, uint64_t sequence) {
    int done = gcm_apply(self, packet, text, sequence);
    if (has_upper_halves())
        free_registers();
    return done;
}

/* GCM of nothing; IV and text are among what it authenticates (RFC 4543 §3.3, §3.5). */
static int gmac_apply(struct combined *self, uint8_t *packet, size_t text, uint64_t sequence) {
    int octets;
    return combined_additional(self, packet, sequence) &&
           EVP_CipherUpdate(self->context, NULL, &octets, packet + CIPHER_HEADER, 8 + text) > 0 &&
           combined_final(self);
}

/* CCM wants to know the length of the text before anything else (RFC 4309 §4), and has nothing left for the end. */
static int ccm_apply(struct combined *self, uint8_t *packet, size_t text, uint64_t sequence) {
    int octets;
    return EVP_CipherUpdate(self->context, NULL, &octets, NULL, text) > 0 &&
           combined_additional(self, packet, sequence) && combined_text(self, packet, text);
}

typedef int combined_apply(struct combined *, uint8_t *packet, size_t text, uint64_t sequence);

static inline void combined_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence,
                                 combined_apply *apply) {
    struct combined *self = (struct combined *)cipher;
    put64(packet + CIPHER_HEADER, sequence ^ self->mask);
    if (!(combined_nonce(self, packet) && apply(self, packet, text, sequence) &&
          EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_GET_TAG, cipher->suite.icv,
                              packet + CIPHER_HEADER + 8 + text) > 0))
        cipher_spoil(cipher, packet, text);
}

static inline int combined_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence,
                                combined_apply *apply) {
    struct combined *self = (struct combined *)cipher;
    return combined_nonce(self, packet) && combined_expect(self, packet + CIPHER_HEADER + 8 + text) &&
           apply(self, packet, text, sequence);
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
COMBINED(ccm)
COMBINED(chacha)

static void combined_free(struct cipher *cipher) {
    struct combined *self = (struct combined *)cipher;
    EVP_CIPHER_CTX_free(self->context);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

static const struct {
    void (*seal)(struct cipher *, uint8_t *packet, size_t text, uint64_t sequence);
    int (*open)(struct cipher *, uint8_t *packet, size_t text, uint64_t sequence);
} modes[] = {
    [CIPHER_AES_GCM] = {gcm_seal, gcm_open},
    [CIPHER_AES_CCM] = {ccm_seal, ccm_open},
    [CIPHER_AES_GMAC] = {gmac_seal, gmac_open},
    [CIPHER_CHACHA20_POLY1305] = {chacha_seal, chacha_open},
};

/* CCM's nonce is shorter than OpenSSL assumes (RFC 4309 §4), and what it makes depends on the length of the ICV. The key
 * follows both. */
static int ccm_sizes(struct combined *self, const struct cipher_suite *suite, const struct cipher_keys *keys) {
    return EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_SET_IVLEN, suite->salt + 8, NULL) > 0 &&
           EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_SET_TAG, suite->icv, NULL) > 0 &&
           EVP_CipherInit_ex(self->context, NULL, NULL, keys->encryption, NULL, -1) > 0;
}

static struct cipher *combined_new(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    struct combined *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->cipher.seal = modes[suite->cipher].seal;
    self->cipher.open = modes[suite->cipher].open;
    self->cipher.free = combined_free;
    self->mask = keys->mask;
    memcpy(self->nonce, keys->salt, suite->salt);
    self->context = openssl_context(openssl_name_of(suite), keys->encryption, keys->sealing);
    if (self->context && (suite->cipher != CIPHER_AES_CCM || ccm_sizes(self, suite, keys)))
        return &self->cipher;
    combined_free(&self->cipher);
    return NULL;
}

static struct cipher *openssl_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    if (suite->integrity == INTEGRITY_NONE)
        return combined_new(suite, keys);
    return separate_new(encryption_openssl(suite, keys), suite, keys);
}

static int openssl_offered(const struct cipher_suite *suite) {
    if (suite->cipher == CIPHER_NULL)
        return 1;
    const char *name = openssl_name_of(suite);
    EVP_CIPHER *algorithm = name ? EVP_CIPHER_fetch(NULL, name, NULL) : NULL;
    EVP_CIPHER_free(algorithm);
    return algorithm != NULL;
}

static const char *openssl_name(void) { return OpenSSL_version(OPENSSL_VERSION); }

const struct cipher_provider cipher_openssl = {openssl_name, openssl_offered, openssl_keyed};
