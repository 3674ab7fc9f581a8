/* What the door, cipher.c, and the files of the libraries have in common. */
#ifndef ESP_NATIVE_CIPHER_LIBRARY_H
#define ESP_NATIVE_CIPHER_LIBRARY_H

#include <string.h>

#include "bytes.h"
#include "cipher.h"

#define CIPHER_HEADER 8 /* SPI and the low half of the sequence number (RFC 4303 §2) */
#define CIPHER_TAG 16   /* of every combined mode, before it is cut */

/* KEYMAT cut as esp.suite.Suite.split does it, and the seed. They point to what the caller has. */
struct cipher_keys {
    const uint8_t *encryption, *salt, *integrity;
    uint64_t mask;        /* of counter-mode IVs */
    const uint8_t *chain; /* 24 octets: the key that the IVs of CBC are made with */
    int sealing;
};

struct cipher_provider {
    const char *(*name)(void);
    int (*offered)(const struct cipher_suite *);
    /* Keyed, with seal, open and free; the door fills in the rest. NULL where there is no memory. */
    struct cipher *(*keyed)(const struct cipher_suite *, const struct cipher_keys *);
};

extern const struct cipher_provider cipher_openssl, cipher_ipsec_mb;

/* What a combined mode authenticates besides the text: the header, with all of the sequence number where it is extended
 * (RFC 4106 §5). Returns its octets. */
static inline size_t cipher_additional(uint8_t into[12], const struct cipher *cipher, const uint8_t *packet,
                                       uint64_t sequence) {
    if (!cipher->esn) {
        memcpy(into, packet, 8);
        return 8;
    }
    memcpy(into, packet, 4);
    put32(into + 4, sequence >> 32);
    memcpy(into + 8, packet + 4, 4);
    return 12;
}

/* A library that fails in the middle of a packet, as one does that wanted memory, must not let its text travel. What is
 * left is a packet that the peer refuses. */
static inline void cipher_spoil(const struct cipher *cipher, uint8_t *packet, size_t text) {
    memset(packet + CIPHER_HEADER, 0, cipher->suite.iv + text + cipher->suite.icv);
}

#endif
