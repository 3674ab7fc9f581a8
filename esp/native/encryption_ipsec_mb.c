/* Counter mode, and CBC on its way back, by ipsec-mb: what many blocks at once make faster. */
#include "encryption.h"

#include "ipsec_mb.h"

#ifndef ESP_NO_IPSEC_MB

#include <stdlib.h>

#include <openssl/crypto.h>

struct mb_encryption {
    uint8_t encrypting[15 * 16], decrypting[15 * 16]; /* the key, expanded; first, for its alignment */
    uint8_t counter[16]; /* nonce, IV, and the count of blocks, which begins with one (RFC 3686 §4) */
    struct encryption encryption;
    IMB_MGR *manager;
    IMB_JOB job; /* as the packets before and after have it, too */
    uint64_t mask;
} __attribute__((aligned(64)));

static struct mb_encryption *encryption_of(struct encryption *encryption) {
    return (struct mb_encryption *)((char *)encryption - offsetof(struct mb_encryption, encryption));
}

/* Done on the spot. These modes do not use what a manager keeps, which is why all threads can have the same one. */
static int done(struct mb_encryption *self, uint8_t *text, size_t octets) {
    IMB_JOB *job = &self->job;
    job->src = job->dst = text;
    job->msg_len_to_cipher_in_bytes = octets;
    return !octets ||
           self->manager->submit_cipher_burst_nocheck(self->manager, job, 1, job->cipher_mode,
                                                      job->cipher_direction, job->key_len_in_bytes) == 1;
}

static int counter_decrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    struct mb_encryption *self = encryption_of(encryption);
    memcpy(self->counter + 4, iv, 8);
    return done(self, iv + 8, text);
}

static int counter_encrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    put64(iv, sequence ^ encryption_of(encryption)->mask);
    return counter_decrypt(encryption, iv, text, sequence);
}

static int chain_decrypt(struct encryption *encryption, uint8_t *iv, size_t text, uint64_t sequence) {
    struct mb_encryption *self = encryption_of(encryption);
    self->job.iv = iv;
    return done(self, iv + 16, text);
}

static void encryption_free(struct encryption *encryption) {
    struct mb_encryption *self = encryption_of(encryption);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

static void encryption_key(struct mb_encryption *self, const struct cipher_suite *suite, const uint8_t *key) {
    const IMB_MGR *manager = self->manager;
    keyexp_t expand = suite->encryption == IMB_KEY_128_BYTES   ? manager->keyexp_128
                      : suite->encryption == IMB_KEY_192_BYTES ? manager->keyexp_192
                                                               : manager->keyexp_256;
    expand(key, self->encrypting, self->decrypting);
    self->job.enc_keys = self->encrypting;
    self->job.dec_keys = self->decrypting;
    self->job.key_len_in_bytes = suite->encryption;
}

static void counter_job(struct mb_encryption *self, const struct cipher_suite *suite, const struct cipher_keys *keys) {
    self->encryption.apply = keys->sealing ? counter_encrypt : counter_decrypt;
    self->job.cipher_mode = IMB_CIPHER_CNTR;
    self->job.cipher_direction = IMB_DIR_ENCRYPT;
    self->job.iv = self->counter;
    memcpy(self->counter, keys->salt, suite->salt);
    self->counter[15] = 1;
}

static void chain_job(struct mb_encryption *self) {
    self->encryption.apply = chain_decrypt;
    self->job.cipher_mode = IMB_CIPHER_CBC;
    self->job.cipher_direction = IMB_DIR_DECRYPT;
}

struct encryption *encryption_ipsec_mb(const struct cipher_suite *suite, const struct cipher_keys *keys) {
    /* A block of CBC waits for the one before it when it is encrypted: there is nothing to be done at once. */
    if (suite->cipher == CIPHER_AES_CBC && keys->sealing)
        return encryption_openssl(suite, keys);
    struct mb_encryption *self = aligned_alloc(_Alignof(struct mb_encryption), sizeof *self);
    if (!self)
        return NULL;
    memset(self, 0, sizeof *self); /* all of the job: what is not set in it means something */
    self->encryption.free = encryption_free;
    self->manager = ipsec_mb();
    self->mask = keys->mask;
    encryption_key(self, suite, keys->encryption);
    self->job.iv_len_in_bytes = 16;
    if (suite->cipher == CIPHER_AES_CTR)
        counter_job(self, suite, keys);
    else
        chain_job(self);
    return &self->encryption;
}

#endif
