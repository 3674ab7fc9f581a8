/* Suites by Intel's ipsec-mb, where it is installed: it has the wide AES instructions that OpenSSL 3.0 leaves alone. */
#include "cipher_library.h"

#if defined(__x86_64__) && __has_include(<intel-ipsec-mb.h>)

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <intel-ipsec-mb.h>
#include <openssl/crypto.h>

/* The library, found once for the process. Its direct functions keep nothing in the manager, so all threads share it. */
static struct {
    pthread_once_t once;
    IMB_MGR *manager; /* NULL where there is none */
    char name[64];
} mb = {.once = PTHREAD_ONCE_INIT};

static const char *mb_architecture(const IMB_MGR *manager) {
    switch (manager->used_arch) {
    case IMB_ARCH_SSE:
        return "sse";
    case IMB_ARCH_AVX:
        return "avx";
    case IMB_ARCH_AVX2:
        return "avx2";
    case IMB_ARCH_AVX512:
        return "avx512";
    default: /* AES without the processor's help takes its time by what the key is */
        return NULL;
    }
}

/* Within a major version what is new comes behind what was there, so a later one than that of the header will do. */
static int mb_fits(unsigned version) {
    return version >= IMB_VERSION_NUM && version >> 16 == IMB_VERSION_NUM >> 16;
}

static void mb_load(void) {
    void *library = dlopen("libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    unsigned (*version)(void) = dlsym(library, "imb_get_version");
    const char *(*version_name)(void) = dlsym(library, "imb_get_version_str");
    IMB_MGR *(*allocate)(uint64_t) = dlsym(library, "alloc_mb_mgr");
    void (*initialise)(IMB_MGR *, IMB_ARCH *) = dlsym(library, "init_mb_mgr_auto");
    if (!version || !version_name || !allocate || !initialise || !mb_fits(version()))
        return;
    IMB_MGR *manager = allocate(0);
    if (!manager)
        return;
    initialise(manager, NULL);
    const char *architecture = mb_architecture(manager);
    /* It tries each algorithm on known answers before it says so. */
    if (!architecture || !(manager->features & IMB_FEATURE_SELF_TEST_PASS))
        return;
    snprintf(mb.name, sizeof mb.name, "ipsec-mb %s (%s)", version_name(), architecture);
    mb.manager = manager;
}

static IMB_MGR *mb_manager(void) {
    pthread_once(&mb.once, mb_load);
    return mb.manager;
}

struct mb {
    struct gcm_key_data key; /* first, for its alignment of 64 octets, which the instructions insist on */
    struct cipher cipher;
    struct gcm_context_data context;
    aes_gcm_enc_dec_t apply;
    uint64_t mask;
    uint8_t nonce[12]; /* the salt, and behind it the IV of the packet */
};

static struct mb *mb_of(struct cipher *cipher) { return (struct mb *)((char *)cipher - offsetof(struct mb, cipher)); }

/* GCM (RFC 4106). */
static void mb_gcm(struct mb *self, uint8_t *packet, size_t text, uint64_t sequence, uint8_t *tag, size_t octets) {
    uint8_t additional[12], *body = packet + CIPHER_HEADER + 8;
    size_t count = cipher_additional(additional, &self->cipher, packet, sequence);
    memcpy(self->nonce + 4, packet + CIPHER_HEADER, 8);
    self->apply(&self->key, &self->context, body, body, text, self->nonce, additional, count, tag, octets);
}

static void mb_gcm_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {
    struct mb *self = mb_of(cipher);
    put64(packet + CIPHER_HEADER, sequence ^ self->mask);
    mb_gcm(self, packet, text, sequence, packet + CIPHER_HEADER + 8 + text, cipher->suite.icv);
}

static int mb_gcm_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {
    uint8_t tag[CIPHER_TAG];
    mb_gcm(mb_of(cipher), packet, text, sequence, tag, cipher->suite.icv);
    return CRYPTO_memcmp(tag, packet + CIPHER_HEADER + 8 + text, cipher->suite.icv) == 0;
}

static void mb_free(struct cipher *cipher) {
    struct mb *self = mb_of(cipher);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

static int mb_offered(const struct cipher_suite *suite) { return mb_manager() && suite->cipher == CIPHER_AES_GCM; }

static void mb_gcm_key(struct mb *self, const struct cipher_keys *keys, unsigned octets) {
    IMB_MGR *manager = mb_manager();
    switch (octets) {
    case IMB_KEY_128_BYTES:
        manager->gcm128_pre(keys->encryption, &self->key);
        self->apply = keys->sealing ? manager->gcm128_enc : manager->gcm128_dec;
        break;
    case IMB_KEY_192_BYTES:
        manager->gcm192_pre(keys->encryption, &self->key);
        self->apply = keys->sealing ? manager->gcm192_enc : manager->gcm192_dec;
        break;
    default:
        manager->gcm256_pre(keys->encryption, &self->key);
        self->apply = keys->sealing ? manager->gcm256_enc : manager->gcm256_dec;
    }
}

static struct cipher *mb_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    struct mb *self = aligned_alloc(_Alignof(struct mb), sizeof *self);
    if (!self)
        return NULL;
    memset(self, 0, sizeof *self);
    self->cipher.seal = mb_gcm_seal;
    self->cipher.open = mb_gcm_open;
    self->cipher.free = mb_free;
    self->mask = keys->mask;
    memcpy(self->nonce, keys->salt, suite->salt);
    mb_gcm_key(self, keys, suite->encryption);
    return &self->cipher;
}

static const char *mb_name(void) { return mb_manager() ? mb.name : NULL; }

#else

static const char *mb_name(void) { return NULL; }
static int mb_offered(const struct cipher_suite *suite) { return 0; }
static struct cipher *mb_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys) { return NULL; }

#endif

const struct cipher_provider cipher_ipsec_mb = {mb_name, mb_offered, mb_keyed};
