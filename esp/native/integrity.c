/* HMAC and AES-XCBC-MAC. */

/* The hashes by OpenSSL's old functions, whose states lie where we put them and are copied like any structure. What it
 * would have us use in their place allocates twice for each HMAC, at some 120 ns. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "integrity.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/md5.h>
#include <openssl/sha.h>

#include "cipher.h"
#include "openssl.h"

#define BLOCK 16    /* AES */
#define CHUNK 1024  /* of what CBC writes and nobody reads */

union digest_state {
    MD5_CTX md5;
    SHA_CTX sha1;
    SHA256_CTX sha256;
    SHA512_CTX sha512;
};

struct digest {
    void (*begin)(union digest_state *);
    void (*add)(union digest_state *, const uint8_t *octets, size_t count);
    void (*end)(union digest_state *, uint8_t *into);
    unsigned block, octets;
};

#define DIGEST(name, NAME, member)                                                                                     \
    static void name##_begin(union digest_state *state) { NAME##_Init(&state->member); }                               \
    static void name##_add(union digest_state *state, const uint8_t *octets, size_t count) {                           \
        NAME##_Update(&state->member, octets, count);                                                                  \
    }                                                                                                                  \
    static void name##_end(union digest_state *state, uint8_t *into) { NAME##_Final(into, &state->member); }

DIGEST(md5, MD5, md5)
DIGEST(sha1, SHA1, sha1)
DIGEST(sha256, SHA256, sha256)
DIGEST(sha384, SHA384, sha512)
DIGEST(sha512, SHA512, sha512)

static const struct digest digests[] = {
    [INTEGRITY_HMAC_MD5_96] = {md5_begin, md5_add, md5_end, 64, 16},
    [INTEGRITY_HMAC_SHA1_96] = {sha1_begin, sha1_add, sha1_end, 64, 20},
    [INTEGRITY_HMAC_SHA2_256_128] = {sha256_begin, sha256_add, sha256_end, 64, 32},
    [INTEGRITY_HMAC_SHA2_384_192] = {sha384_begin, sha384_add, sha384_end, 128, 48},
    [INTEGRITY_HMAC_SHA2_512_256] = {sha512_begin, sha512_add, sha512_end, 128, 64},
};

/* RFC 2104 §4: of the padded keys, which come first, only the states that they leave are kept. */
struct hmac {
    struct integrity integrity;
    const struct digest *digest;
    union digest_state inner, outer, work;
};

static int hmac_of(struct integrity *integrity, const uint8_t *octets, size_t count,
                   uint8_t made[INTEGRITY_LARGEST]) {
    struct hmac *self = (struct hmac *)integrity;
    const struct digest *digest = self->digest;
    self->work = self->inner;
    digest->add(&self->work, octets, count);
    digest->end(&self->work, made);
    self->work = self->outer;
    digest->add(&self->work, made, digest->octets);
    digest->end(&self->work, made);
    return 1;
}

static void hmac_free(struct integrity *integrity) {
    OPENSSL_cleanse(integrity, sizeof(struct hmac));
    free(integrity);
}

static void hmac_pad(const struct digest *digest, union digest_state *state, const uint8_t *key, size_t octets,
                     uint8_t padding) {
    uint8_t padded[128];
    memset(padded, padding, sizeof padded);
    for (size_t i = 0; i < octets; i++)
        padded[i] ^= key[i];
    digest->begin(state);
    digest->add(state, padded, digest->block);
    OPENSSL_cleanse(padded, sizeof padded);
}

static struct integrity *hmac_new(const struct digest *digest, const uint8_t *key, size_t octets) {
    struct hmac *self = octets > digest->block ? NULL : calloc(1, sizeof *self); /* RFC 4868 §2.1.1: never longer */
    if (!self)
        return NULL;
    self->integrity = (struct integrity){hmac_of, hmac_free};
    self->digest = digest;
    hmac_pad(digest, &self->inner, key, octets, 0x36);
    hmac_pad(digest, &self->outer, key, octets, 0x5c);
    return &self->integrity;
}

/* RFC 3566 §4: CBC under K1, of which the last block has K2 or K3 added.
 *
 * One chain runs through all packets, as setting an IV for each costs more than it saves. Each MAC begins with a chain of
 * zeros, and this one stands where the MAC before ended: a block ahead of the packet takes it back. */
struct xcbc {
    struct integrity integrity;
    EVP_CIPHER_CTX *context;
    uint8_t full[BLOCK], padded[BLOCK]; /* K2 and K3 */
    uint8_t zero[BLOCK];                /* what K1 encrypts to zeros */
    uint8_t chain[BLOCK];
    uint8_t written[CHUNK];
};

static void add(uint8_t block[BLOCK], const uint8_t other[BLOCK]) {
    for (int i = 0; i < BLOCK; i++)
        block[i] ^= other[i];
}

static int xcbc_chain(struct xcbc *self, const uint8_t *octets, size_t count) {
    int written;
    for (; count > CHUNK; octets += CHUNK, count -= CHUNK)
        if (EVP_CipherUpdate(self->context, self->written, &written, octets, CHUNK) <= 0)
            return 0;
    return EVP_CipherUpdate(self->context, self->written, &written, octets, count) > 0;
}

static int xcbc_of(struct integrity *integrity, const uint8_t *octets, size_t count,
                   uint8_t made[INTEGRITY_LARGEST]) {
    struct xcbc *self = (struct xcbc *)integrity;
    size_t before = count ? (count - 1) / BLOCK * BLOCK : 0, rest = count - before;
    uint8_t last[BLOCK] = {0};
    memcpy(last, octets + before, rest);
    if (rest < BLOCK)
        last[rest] = 0x80;
    add(last, rest < BLOCK ? self->padded : self->full);
    add(self->chain, self->zero);
    if (!(xcbc_chain(self, self->chain, BLOCK) && xcbc_chain(self, octets, before) && xcbc_chain(self, last, BLOCK)))
        return 0;
    memcpy(self->chain, self->written, BLOCK);
    memcpy(made, self->written, BLOCK);
    return 1;
}

static void xcbc_free(struct integrity *integrity) {
    struct xcbc *self = (struct xcbc *)integrity;
    EVP_CIPHER_CTX_free(self->context);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

/* `block` under `key`, one way or the other. */
static int xcbc_block(const uint8_t *key, int encrypt, uint8_t block[BLOCK]) {
    EVP_CIPHER_CTX *context = openssl_context("AES-128-ECB", key, encrypt);
    int octets, done = context && EVP_CipherUpdate(context, block, &octets, block, BLOCK) > 0;
    EVP_CIPHER_CTX_free(context);
    return done;
}

static int xcbc_key(struct xcbc *self, const uint8_t *key) {
    uint8_t first[BLOCK];
    memset(first, 1, BLOCK);
    memset(self->full, 2, BLOCK);
    memset(self->padded, 3, BLOCK);
    int done = xcbc_block(key, 1, first) && xcbc_block(key, 1, self->full) && xcbc_block(key, 1, self->padded) &&
               xcbc_block(first, 0, self->zero) && (self->context = openssl_context("AES-128-CBC", first, 1));
    OPENSSL_cleanse(first, sizeof first);
    return done;
}

static struct integrity *xcbc_new(const uint8_t *key, size_t octets) {
    struct xcbc *self = octets != BLOCK ? NULL : calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->integrity = (struct integrity){xcbc_of, xcbc_free};
    if (xcbc_key(self, key))
        return &self->integrity;
    xcbc_free(&self->integrity);
    return NULL;
}

struct integrity *integrity_new(int algorithm, const uint8_t *key, size_t octets) {
    if (algorithm == INTEGRITY_AES_XCBC_96)
        return xcbc_new(key, octets);
    if (algorithm < 0 || algorithm > INTEGRITY_HMAC_SHA2_512_256)
        return NULL;
    return hmac_new(&digests[algorithm], key, octets);
}
