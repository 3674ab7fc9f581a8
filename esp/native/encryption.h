/* The cipher of a suite whose ICV is another algorithm's (RFC 4303 §3.3.2.1). */
#ifndef ESP_NATIVE_ENCRYPTION_H
#define ESP_NATIVE_ENCRYPTION_H

#include "cipher_library.h"

struct encryption {
    /* Sealing: writes the IV, and encrypts the text behind it where it is. Opening: decrypts, and what was the IV is
     * nobody's. 0 where the library has failed. */
    int (*apply)(struct encryption *, uint8_t *iv, size_t text, uint64_t sequence);
    void (*free)(struct encryption *);
};

/* By OpenSSL; NULL where it has no such cipher, or no memory. */
struct encryption *encryption_openssl(const struct cipher_suite *, const struct cipher_keys *);
/* By ipsec-mb, which has to be there: CBC or counter mode of AES. NULL where there is no memory. */
struct encryption *encryption_ipsec_mb(const struct cipher_suite *, const struct cipher_keys *);

/* The whole suite, with an ICV made by OpenSSL whoever encrypts: one packet at a time, nobody makes them faster. Takes
 * the encryption, NULL included, and frees it even where it fails. */
struct cipher *separate_new(struct encryption *, const struct cipher_suite *, const struct cipher_keys *);

#endif
