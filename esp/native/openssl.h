/* What OpenSSL calls things, and its contexts, keyed. */
#ifndef ESP_NATIVE_OPENSSL_H
#define ESP_NATIVE_OPENSSL_H

#include <openssl/evp.h>

#include "cipher.h"

/* The name of a suite's cipher; NULL for none. */
const char *openssl_name_of(const struct cipher_suite *);
/* A context under `key` that pads nothing, and whose IV is of zeros where it has one. NULL where OpenSSL was built
 * without that cipher, where a policy forbids it, or where there is no memory. */
EVP_CIPHER_CTX *openssl_context(const char *name, const uint8_t *key, int sealing);

#endif
