/* Separate algorithms: an encryption, and an ICV over what it has made (RFC 4303 §3.3.2.1, §3.4.4.1). */
#include "encryption.h"

#include <stdlib.h>

#include <openssl/crypto.h>

#include "integrity.h"

struct separate {
    struct cipher cipher;
    struct encryption *encryption;
    struct integrity *integrity;
};

/* What the algorithm makes of all before the ICV. The high half of an extended number is authenticated behind that and
 * not sent (RFC 4303 §3.3.2.1): it lies where the ICV is to be, or was, while that is done. */
static int separate_icv(struct separate *self, uint8_t *packet, size_t covered, uint64_t sequence,
                        uint8_t made[INTEGRITY_LARGEST]) {
    if (self->cipher.esn) {
        put32(packet + covered, sequence >> 32);
        covered += 4;
    }
    return self->integrity->of(self->integrity, packet, covered, made);
}

static void separate_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {
    struct separate *self = (struct separate *)cipher;
    size_t covered = CIPHER_HEADER + cipher->suite.iv + text;
    uint8_t made[INTEGRITY_LARGEST];
    if (self->encryption->apply(self->encryption, packet + CIPHER_HEADER, text, sequence) &&
        separate_icv(self, packet, covered, sequence, made))
        memcpy(packet + covered, made, cipher->suite.icv);
    else
        cipher_spoil(cipher, packet, text);
}

/* The ICV first, and only then the cipher (RFC 4303 §3.4.4.1). */
static int separate_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {
    struct separate *self = (struct separate *)cipher;
    size_t covered = CIPHER_HEADER + cipher->suite.iv + text;
    uint8_t made[INTEGRITY_LARGEST], icv[INTEGRITY_LARGEST];
    memcpy(icv, packet + covered, cipher->suite.icv);
    return separate_icv(self, packet, covered, sequence, made) && CRYPTO_memcmp(made, icv, cipher->suite.icv) == 0 &&
           self->encryption->apply(self->encryption, packet + CIPHER_HEADER, text, sequence);
}

static void separate_free(struct cipher *cipher) {
    struct separate *self = (struct separate *)cipher;
    if (self->encryption)
        self->encryption->free(self->encryption);
    if (self->integrity)
        self->integrity->free(self->integrity);
    free(self);
}

struct cipher *separate_new(struct encryption *encryption, const struct cipher_suite *suite,
                            const struct cipher_keys *keys) {
    struct separate *self = calloc(1, sizeof *self);
    if (!self) {
        if (encryption)
            encryption->free(encryption);
        return NULL;
    }
    self->cipher.seal = separate_seal;
    self->cipher.open = separate_open;
    self->cipher.free = separate_free;
    self->encryption = encryption;
    self->integrity = integrity_new(suite->integrity, keys->integrity, suite->integrity_key);
    if (self->encryption && self->integrity)
        return &self->cipher;
    separate_free(&self->cipher);
    return NULL;
}
