/* The door to the libraries: which there are, and what each of them does the same way. */
#include "cipher_library.h"

#include <stdlib.h>

#ifdef ESP_NO_CIPHER

/* What the packet loop costs without its ciphers: for the bench alone. */
static const char *nothing_name(void) { return "none: protects nothing"; }
static int nothing_offered(const struct cipher_suite *suite) { return 1; }
static void nothing_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {}
static int nothing_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) { return 1; }
static void nothing_free(struct cipher *cipher) { free(cipher); }

static struct cipher *nothing_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    struct cipher *cipher = calloc(1, sizeof *cipher);
    if (cipher) {
        cipher->seal = nothing_seal;
        cipher->open = nothing_open;
        cipher->free = nothing_free;
    }
    return cipher;
}

static const struct cipher_provider nothing = {nothing_name, nothing_offered, nothing_keyed};
static const struct cipher_provider *const providers[CIPHER_LIBRARIES] = {[CIPHER_OPENSSL] = &nothing};

#else

static const struct cipher_provider *const providers[CIPHER_LIBRARIES] = {
    [CIPHER_OPENSSL] = &cipher_openssl,
    [CIPHER_IPSEC_MB] = &cipher_ipsec_mb,
};

#endif

static const struct cipher_provider *provider_of(int library) {
    return library < 0 || library >= CIPHER_LIBRARIES ? NULL : providers[library];
}

const char *cipher_library_name(int library) {
    const struct cipher_provider *provider = provider_of(library);
    return provider ? provider->name() : NULL;
}

int cipher_offered(int library, const struct cipher_suite *suite) {
    const struct cipher_provider *provider = provider_of(library);
    return provider && provider->offered(suite);
}

int cipher_preferred(const struct cipher_suite *suite) {
    return cipher_offered(CIPHER_IPSEC_MB, suite) ? CIPHER_IPSEC_MB : CIPHER_OPENSSL;
}

struct cipher *cipher_new(int library, const struct cipher_suite *suite, const uint8_t *keymat, int esn, int sealing,
                          const uint8_t seed[32]) {
    if (!cipher_offered(library, suite))
        return NULL;
    const struct cipher_keys keys = {
        .encryption = keymat,
        .salt = keymat + suite->encryption,
        .integrity = keymat + suite->encryption + suite->salt,
        .mask = get64(seed),
        .chain = seed + 8,
        .sealing = sealing,
    };
    struct cipher *cipher = provider_of(library)->keyed(suite, &keys);
    if (cipher) {
        cipher->suite = *suite;
        cipher->library = library;
        cipher->esn = esn;
    }
    return cipher;
}

void cipher_free(struct cipher *cipher) {
    if (cipher)
        cipher->free(cipher);
}
