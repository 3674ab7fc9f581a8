/* The internet checksum (RFC 1071).
 *
 * A sum is one of 16-bit words as they lie in memory, whatever this machine's order of octets (§2 (B)): what has been
 * folded is stored with memcpy, and a number that lies nowhere is added as checksum_number has it. No packet has
 * words enough for 64 bits to overflow.
 */
#ifndef ESP_NATIVE_CHECKSUM_H
#define ESP_NATIVE_CHECKSUM_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* An odd last octet counts as if a zero followed it. */
uint64_t checksum_sum(const uint8_t *octets, size_t count);
/* The same, of what is copied on the way. */
uint64_t checksum_copy(uint8_t *restrict into, const uint8_t *restrict from, size_t count);

/* Of a header, whose octets are a multiple of four and few. */
static inline uint64_t checksum_header(const uint8_t *octets, size_t count) {
    uint64_t sum = 0;
    for (; count >= 4; octets += 4, count -= 4) {
        uint32_t words;
        memcpy(&words, octets, sizeof words);
        sum += words;
    }
    return sum;
}

static inline uint64_t checksum_number(uint16_t number) {
    return htobe16(number);
}

/* What takes the word at `at` out of a sum again. */
static inline uint64_t checksum_less(const uint8_t *at) {
    uint16_t word;
    memcpy(&word, at, sizeof word);
    return 0xFFFFu ^ word;
}

static inline uint16_t checksum_fold(uint64_t sum) {
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)((sum & 0xFFFF) + (sum >> 16));
}

/* Puts what `sum`, taken with zeros in the field, makes of it. */
static inline void checksum_put(uint8_t *field, uint64_t sum) {
    uint16_t folded = (uint16_t)~checksum_fold(sum);
    memcpy(field, &folded, sizeof folded);
}

/* The same, but never 0, which in UDP says that there is none (RFC 768), and is as good as 0xFFFF elsewhere. */
static inline void checksum_put_nonzero(uint8_t *field, uint64_t sum) {
    uint16_t folded = (uint16_t)~checksum_fold(sum);
    folded = folded ? folded : 0xFFFF;
    memcpy(field, &folded, sizeof folded);
}

#endif
