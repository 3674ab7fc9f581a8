#include "checksum.h"

typedef uint32_t __attribute__((aligned(1), may_alias)) words_at_any_address;

/* Two words at a time: the compiler makes vectors of it, as wide as the architecture's least processor has them. */
static inline uint64_t sum_of_any(const uint8_t *octets, size_t count) {
    const words_at_any_address *words = (const words_at_any_address *)octets;
    uint64_t sum = 0;
    for (size_t i = 0; i < count / 4; i++)
        sum += words[i];
    octets += count & ~(size_t)3;
    if (count & 2) {
        uint16_t word;
        memcpy(&word, octets, sizeof word);
        sum += word;
    }
    if (count & 1)
        sum += checksum_number((uint16_t)(octets[count & 2] << 8));
    return sum;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* A multiply-add takes pairs of signed words: one instruction for sixteen words, where unsigned ones would have to be
 * widened first. With its highest bit turned over, a word is a signed one that is 2^15 less; that is given back at the
 * end. Measured with 1,368 octets in the first cache: 26 ns, against 40 widened by AVX2, 28 by AVX-512 and 66 by SSE2.
 * Sums of 32 bits hold 2^15 blocks. Copies as well if `into` is not NULL: the compiler makes two of it. */
__attribute__((target("avx2"), always_inline)) static inline uint64_t
sum_of_blocks(uint8_t *restrict into, const uint8_t *restrict from, size_t blocks) {
    const __m256i highest = _mm256_set1_epi16(INT16_MIN), once = _mm256_set1_epi16(1);
    __m256i even = _mm256_setzero_si256(), odd = even;
    for (size_t i = 0; i < blocks; i++, from += 64) {
        __m256i first = _mm256_loadu_si256((const void *)from), second = _mm256_loadu_si256((const void *)(from + 32));
        if (into) {
            _mm256_storeu_si256((void *)(into + i * 64), first);
            _mm256_storeu_si256((void *)(into + i * 64 + 32), second);
        }
        even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_xor_si256(first, highest), once));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_xor_si256(second, highest), once));
    }
    int32_t sums[8];
    _mm256_storeu_si256((void *)sums, _mm256_add_epi32(even, odd));
    int64_t sum = (int64_t)blocks * 32 * 32768;
    for (int i = 0; i < 8; i++)
        sum += sums[i];
    return (uint64_t)sum;
}

__attribute__((target("avx2"))) static uint64_t sum_by_avx2(const uint8_t *octets, size_t blocks) {
    return sum_of_blocks(NULL, octets, blocks);
}

__attribute__((target("avx2"))) static uint64_t copy_by_avx2(uint8_t *restrict into, const uint8_t *restrict from,
                                                             size_t blocks) {
    return sum_of_blocks(into, from, blocks);
}

/* Blocks of 64 octets that the vectors take; below a few of them they gain nothing. The longest packet has 1,024. */
static inline size_t blocks_of(size_t count) {
    return count >= 128 && count < 65536 && __builtin_cpu_supports("avx2") ? count / 64 : 0;
}
#else
static inline size_t blocks_of(size_t count) {
    return 0;
}
static inline uint64_t sum_by_avx2(const uint8_t *octets, size_t blocks) {
    return 0;
}
static inline uint64_t copy_by_avx2(uint8_t *restrict into, const uint8_t *restrict from, size_t blocks) {
    return 0;
}
#endif

uint64_t checksum_sum(const uint8_t *octets, size_t count) {
    size_t blocks = blocks_of(count);
    uint64_t sum = blocks ? sum_by_avx2(octets, blocks) : 0;
    return sum + sum_of_any(octets + blocks * 64, count - blocks * 64);
}

uint64_t checksum_copy(uint8_t *restrict into, const uint8_t *restrict from, size_t count) {
    size_t blocks = blocks_of(count), done = blocks * 64;
    uint64_t sum = blocks ? copy_by_avx2(into, from, blocks) : 0;
    memcpy(into + done, from + done, count - done);
    return sum + sum_of_any(from + done, count - done);
}
