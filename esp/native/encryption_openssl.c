/* CBC, counter mode, and nothing, by OpenSSL. */
#include "encryption.h"

#include <stdlib.h>

#include <openssl/crypto.h>

#include "openssl.h"

struct openssl_encryption {
    struct encryption encryption;
    EVP_CIPHER_CTX *context, *ivs; /* of CBC: what makes IVs of numbers */
    unsigned iv;
    uint64_t mask;
    uint8_t counter[16]; /* nonce, IV, and the count of blocks, which begins with one (RFC 3686 §4) */
};

/* RFC 2410. */
static int nothing_apply(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) { return 1; }

static int counter_decrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    struct openssl_encryption *self = (struct openssl_encryption *)encryption;
    int octets;
    memcpy(self->counter + 4, iv, 8);
    return EVP_CipherInit_ex(self->context, NULL, NULL, NULL, self->counter, -1) > 0 &&
           EVP_CipherUpdate(self->context, iv + 8, &octets, iv + 8, text) > 0;
}

static int counter_encrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    put64(iv, sequence ^ ((struct openssl_encryption *)encryption)->mask);
    return counter_decrypt(encryption, iv, text, sequence);
}

/* One chain runs through all packets of the SA, as an IV set for each costs more than a short packet. A block of CBC
 * needs only the block before it, and the IV goes in as that one; what comes out for the IV itself means nothing. */
static int chain_decrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    struct openssl_encryption *self = (struct openssl_encryption *)encryption;
    int octets;
    return EVP_CipherUpdate(self->context, iv, &octets, iv, self->iv + text) > 0;
}

/* Everybody has seen where the chain ended. So the packet begins with a block that nobody can know, and the ciphertext
 * of that block is the IV: unpredictable, as RFC 3602 §3 demands. The block is the sequence number, encrypted under the
 * SA's own key for that. */
static int chain_encrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    struct openssl_encryption *self = (struct openssl_encryption *)encryption;
    uint8_t block[16] = {0};
    int octets;
    put64(block + 8, sequence);
    if (EVP_CipherUpdate(self->ivs, block, &octets, block, sizeof block) <= 0)
        return 0;
    memcpy(iv, block, self->iv);
    return chain_decrypt(encryption, iv, text, sequence);
}

static void encryption_free(struct encryption *encryption) {
    struct openssl_encryption *self = (struct openssl_encryption *)encryption;
    EVP_CIPHER_CTX_free(self->context);
    EVP_CIPHER_CTX_free(self->ivs);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

static int counter_key(struct openssl_encryption *self, const struct cipher_suite *suite,
                       const struct cipher_keys *keys) {
    self->encryption.apply = keys->sealing ? counter_encrypt : counter_decrypt;
    memcpy(self->counter, keys->salt, suite->salt);
    self->counter[15] = 1;
    self->context = openssl_context(openssl_name_of(suite), keys->encryption, keys->sealing);
    return self->context != NULL;
}

static int chain_key(struct openssl_encryption *self, const struct cipher_suite *suite,
                     const struct cipher_keys *keys) {
    self->encryption.apply = keys->sealing ? chain_encrypt : chain_decrypt;
    self->context = openssl_context(openssl_name_of(suite), keys->encryption, keys->sealing);
    self->ivs = openssl_context("AES-192-ECB", keys->chain, 1);
    return self->context && self->ivs;
}

struct encryption *encryption_openssl(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    struct openssl_encryption *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->encryption.free = encryption_free;
    self->encryption.apply = nothing_apply;
    self->iv = suite->iv;
    self->mask = keys->mask;
    if (suite->cipher == CIPHER_NULL ||
        (suite->cipher == CIPHER_AES_CTR ? counter_key : chain_key)(self, suite, keys))
        return &self->encryption;
    encryption_free(&self->encryption);
    return NULL;
}
