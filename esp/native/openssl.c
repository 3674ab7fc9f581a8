/* What OpenSSL calls things, and its contexts, keyed. */
#include "openssl.h"

#include <openssl/core_names.h>

/* By enum cipher_algorithm, and by the length of the key where the peers choose it: 256, 192, 128 bits. */
static const char *const names[][3] = {
    [CIPHER_AES_GCM] = {"AES-256-GCM", "AES-192-GCM", "AES-128-GCM"},
    [CIPHER_AES_CCM] = {"AES-256-CCM", "AES-192-CCM", "AES-128-CCM"},
    [CIPHER_AES_GMAC] = {"AES-256-GCM", "AES-192-GCM", "AES-128-GCM"},
    [CIPHER_CHACHA20_POLY1305] = {"ChaCha20-Poly1305"},
    [CIPHER_AES_CBC] = {"AES-256-CBC", "AES-192-CBC", "AES-128-CBC"},
    [CIPHER_AES_CTR] = {"AES-256-CTR", "AES-192-CTR", "AES-128-CTR"},
    [CIPHER_CAMELLIA_CBC] = {"CAMELLIA-256-CBC", "CAMELLIA-192-CBC", "CAMELLIA-128-CBC"},
    [CIPHER_TRIPLE_DES_CBC] = {NULL, "DES-EDE3-CBC"},
    [CIPHER_NULL] = {NULL},
};

const char *openssl_name_of(const struct cipher_suite *suite) {
    unsigned shorter = (32 - suite->encryption) / 8;
    if (suite->cipher < 0 || suite->cipher > CIPHER_NULL || shorter > 2)
        return NULL;
    return names[suite->cipher][shorter];
}

EVP_CIPHER_CTX *openssl_context(const char *name, const uint8_t *key, int sealing) {
    EVP_CIPHER *algorithm = name ? EVP_CIPHER_fetch(NULL, name, NULL) : NULL;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    static const uint8_t zeros[EVP_MAX_IV_LENGTH];
    /* Without padding, which is ESP's matter. EVP_CIPHER_CTX_set_padding would say so again for every IV: 40 ns. */
    unsigned pad = 0;
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_uint(OSSL_CIPHER_PARAM_PADDING, &pad), OSSL_PARAM_construct_end()};
    int keyed = algorithm && context && EVP_CipherInit_ex2(context, algorithm, key, zeros, sealing, params) > 0;
    EVP_CIPHER_free(algorithm); /* the context holds it */
    if (keyed)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}
