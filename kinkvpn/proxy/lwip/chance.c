/* What lwIP has no opinion about: random numbers, initial sequence numbers, the sum of a checksum, the time. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "lwip/ip_addr.h"
#include "lwip/sys.h"

static void fill(void *octets, size_t count) {
    for (size_t had = 0; had < count;) {
        ssize_t got = getrandom((uint8_t *)octets + had, count - had, 0);
        if (got > 0)
            had += (size_t)got;
    }
}

uint32_t stack_random(void) {
    static uint32_t pool[64];
    static unsigned left;
    if (left == 0) {
        fill(pool, sizeof pool);
        left = sizeof pool / sizeof *pool;
    }
    return pool[--left];
}

static uint64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint32_t sys_now(void) {
    return (uint32_t)(nanoseconds() / 1000000u);
}

static uint64_t rotate(uint64_t value, int by) {
    return value << by | value >> (64 - by);
}

static void sip_round(uint64_t v[4]) {
    v[0] += v[1], v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-2-4 of whole words. */
uint64_t stack_siphash(const uint64_t key[2], const uint64_t *words, unsigned count) {
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    for (unsigned i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)(count * 8) << 56;
        v[3] ^= word;
        sip_round(v), sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* RFC 6528 §3: a clock of 4 us, and for each pair of endpoints a distance that nobody else can know. */
uint32_t stack_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port) {
    static uint64_t key[2];
    static int keyed;
    if (!keyed) {
        fill(key, sizeof key);
        keyed = 1;
    }
    uint64_t words[5] = {0};
    size_t octets = IP_IS_V6(local) ? 16 : 4;
    memcpy(words, &local->u_addr, octets);
    memcpy(words + 2, &remote->u_addr, octets);
    words[4] = (uint64_t)octets << 32 | (uint32_t)local_port << 16 | remote_port;
    return (uint32_t)(nanoseconds() / 4000u) + (uint32_t)stack_siphash(key, words, 5);
}

/* RFC 1071, in the order of this machine, as lwIP has it. */
uint16_t stack_checksum(const void *octets, int count) {
    const uint8_t *at = octets;
    uint64_t sum = 0, carries = 0;
    for (; count >= 8; at += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        sum += word;
        carries += sum < word;
    }
    uint64_t last = 0;
    memcpy(&last, at, (size_t)count);
    sum += last;
    carries += sum < last;
    sum = (sum >> 32) + (uint32_t)sum + carries;
    sum = (sum >> 16) + (uint16_t)sum;
    sum = (sum >> 16) + (uint16_t)sum;
    sum = (sum >> 16) + (uint16_t)sum;
    return (uint16_t)sum;
}
