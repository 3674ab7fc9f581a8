/* Suites by OpenSSL: its contexts are keyed once for an SA, and a packet sets the IV and nothing else. */
#include "cipher_library.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

struct openssl {
    struct cipher cipher;
    EVP_CIPHER_CTX *context;
    uint64_t mask;
    uint8_t nonce[16]; /* the salt, and behind it the IV of the packet */
};

/* Nonce and additional data of a packet, which is what all combined modes but CCM begin with. */
static int openssl_begin(struct openssl *self, const uint8_t *packet, uint64_t sequence) {
    uint8_t additional[12];
    int octets;
    memcpy(self->nonce + self->cipher.suite.salt, packet + CIPHER_HEADER, 8);
    size_t count = cipher_additional(additional, &self->cipher, packet, sequence);
    return EVP_CipherInit_ex(self->context, NULL, NULL, NULL, self->nonce, -1) > 0 &&
           EVP_CipherUpdate(self->context, NULL, &octets, additional, count) > 0;
}

static int openssl_final(struct openssl *self, uint8_t *end) {
    int octets;
    return EVP_CipherFinal_ex(self->context, end, &octets) > 0;
}

static int openssl_tag_written(struct openssl *self, uint8_t *icv) {
    return EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_GET_TAG, self->cipher.suite.icv, icv) > 0;
}

static int openssl_tag_expected(struct openssl *self, uint8_t *icv) {
    return EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_SET_TAG, self->cipher.suite.icv, icv) > 0;
}

/* GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634). */
static void combined_seal(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {
    struct openssl *self = (struct openssl *)cipher;
    uint8_t *body = packet + CIPHER_HEADER + 8, *icv = body + text;
    int octets;
    cipher_store64(packet + CIPHER_HEADER, sequence ^ self->mask);
    if (!(openssl_begin(self, packet, sequence) &&
          EVP_CipherUpdate(self->context, body, &octets, body, text) > 0 && openssl_final(self, icv) &&
          openssl_tag_written(self, icv)))
        cipher_spoil(cipher, packet, text);
}

static int combined_open(struct cipher *cipher, uint8_t *packet, size_t text, uint64_t sequence) {
    struct openssl *self = (struct openssl *)cipher;
    uint8_t *body = packet + CIPHER_HEADER + 8, *icv = body + text;
    int octets;
    return openssl_begin(self, packet, sequence) && EVP_CipherUpdate(self->context, body, &octets, body, text) > 0 &&
           openssl_tag_expected(self, icv) && openssl_final(self, icv);
}

static void openssl_free(struct cipher *cipher) {
    struct openssl *self = (struct openssl *)cipher;
    EVP_CIPHER_CTX_free(self->context);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

/* What OpenSSL has under that name; NULL for what this one was built without, or a policy forbids. */
static EVP_CIPHER *openssl_fetch(const struct cipher_suite *suite) {
    char name[32];
    unsigned bits = suite->encryption * 8;
    switch (suite->cipher) {
    case CIPHER_AES_GCM:
        snprintf(name, sizeof name, "AES-%u-GCM", bits);
        break;
    default:
        return NULL;
    }
    return EVP_CIPHER_fetch(NULL, name, NULL);
}

static int openssl_offered(const struct cipher_suite *suite) {
    EVP_CIPHER *algorithm = openssl_fetch(suite);
    EVP_CIPHER_free(algorithm);
    return algorithm != NULL;
}

static int openssl_key(struct openssl *self, const struct cipher_suite *suite, const struct cipher_keys *keys) {
    EVP_CIPHER *algorithm = openssl_fetch(suite);
    self->context = EVP_CIPHER_CTX_new();
    int keyed = algorithm && self->context &&
                EVP_CipherInit_ex(self->context, algorithm, NULL, keys->encryption, NULL, keys->sealing) > 0;
    EVP_CIPHER_free(algorithm); /* the context holds it */
    return keyed;
}

static struct cipher *openssl_keyed(const struct cipher_suite *suite, const struct cipher_keys *keys, int esn) {
    struct openssl *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->mask = keys->mask;
    memcpy(self->nonce, keys->salt, suite->salt);
    self->cipher.seal = combined_seal;
    self->cipher.open = combined_open;
    self->cipher.free = openssl_free;
    if (openssl_key(self, suite, keys))
        return &self->cipher;
    openssl_free(&self->cipher);
    return NULL;
}

static const char *openssl_name(void) { return OpenSSL_version(OPENSSL_VERSION); }

const struct cipher_provider cipher_openssl = {openssl_name, openssl_offered, openssl_keyed};
