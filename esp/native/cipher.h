/* A suite keyed for one SA and one direction: packets sealed and opened in place (RFC 4303 §3.3.2, §3.4.4).
 *
 * One thread at a time: a cipher has state of its own. Keys are copied in, wiped on the way out, and never given back.
 */
#ifndef ESP_NATIVE_CIPHER_H
#define ESP_NATIVE_CIPHER_H

#include <stddef.h>
#include <stdint.h>

/* As esp.suite.Cipher and esp.suite.Integrity have them, in the order of their members. */
enum cipher_algorithm {
    CIPHER_AES_GCM, CIPHER_AES_CCM, CIPHER_AES_GMAC, CIPHER_CHACHA20_POLY1305, CIPHER_AES_CBC, CIPHER_AES_CTR,
    CIPHER_CAMELLIA_CBC, CIPHER_TRIPLE_DES_CBC, CIPHER_NULL,
};
enum integrity_algorithm {
    INTEGRITY_HMAC_MD5_96, INTEGRITY_HMAC_SHA1_96, INTEGRITY_HMAC_SHA2_256_128, INTEGRITY_HMAC_SHA2_384_192,
    INTEGRITY_HMAC_SHA2_512_256, INTEGRITY_AES_XCBC_96, INTEGRITY_NONE = -1,
};
/* Who does the work. */
enum cipher_library { CIPHER_OPENSSL, CIPHER_IPSEC_MB, CIPHER_LIBRARIES };

/* Sizes in octets, as esp.suite.Suite has them. */
struct cipher_suite {
    int cipher, integrity;
    unsigned encryption, salt, integrity_key, iv, icv, block;
};

struct cipher;
struct cipher {
    /* packet: SPI and the low half of the sequence number, then room for the IV, `text` octets of payload and trailer (a
     * multiple of the suite's block), and room for the ICV. Writes IV and ICV, encrypts the text where it is. */
    void (*seal)(struct cipher *, uint8_t *packet, size_t text, uint64_t sequence);
    /* The same the other way; `text` octets lie between IV and ICV. 1 if the ICV is right. If not, 0, and what is where
     * the text and the ICV were is nobody's. The sequence number is as the receiver has inferred it (RFC 4303 §2.2.1). */
    int (*open)(struct cipher *, uint8_t *packet, size_t text, uint64_t sequence);
    void (*free)(struct cipher *);
    struct cipher_suite suite;
    int library;
    int esn;
};

/* Whether `library` is there, serves this processor, and has this suite. */
int cipher_offered(int library, const struct cipher_suite *suite);
/* The name and version of a library as it runs, "ipsec-mb 1.3 (avx512)"; NULL where it is not there. */
const char *cipher_library_name(int library);
/* The library that is the faster one for the suite, of those that offer it. */
int cipher_preferred(const struct cipher_suite *suite);

/* A cipher, or NULL where it is not offered or there is no memory.
 *
 * keymat: suite->encryption + salt + integrity_key octets. seed: 32 unpredictable octets; the mask of counter-mode IVs
 * is the first eight of them, most significant first (see esp.crypto.make_sealer for what it is good for); the IVs of
 * CBC are made of the rest. */
struct cipher *cipher_new(int library, const struct cipher_suite *suite, const uint8_t *keymat, int esn, int sealing,
                          const uint8_t seed[32]);
/* Wipes and frees; NULL is fine. */
void cipher_free(struct cipher *cipher);

#endif
