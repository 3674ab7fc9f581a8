/* What an ICV is made with where the cipher makes none: HMAC and AES-XCBC-MAC (RFC 4303 §2.8). */
#ifndef ESP_NATIVE_INTEGRITY_H
#define ESP_NATIVE_INTEGRITY_H

#include <stddef.h>
#include <stdint.h>

#define INTEGRITY_LARGEST 64 /* octets that any of them makes, before they are cut to an ICV */

struct integrity {
    /* All that the algorithm makes of `octets`; the ICV is what it begins with. 0 where the library has failed. */
    int (*of)(struct integrity *, const uint8_t *octets, size_t count, uint8_t made[INTEGRITY_LARGEST]);
    void (*free)(struct integrity *);
};

/* algorithm: of enum integrity_algorithm. NULL where it is none of them, or there is no memory. */
struct integrity *integrity_new(int algorithm, const uint8_t *key, size_t octets);

#endif
