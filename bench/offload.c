/* What bench/offload.py runs: writes for each kind of packet IP version, protocol, octets of a segment, and nanoseconds
 * a segment to sum its checksum, to cut it, and to put it together again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "coalesce.h"
#include "headers.h"
#include "stopwatch.h"

/* As many segments of 1,420 octets as one packet has, and often enough that asking for the time costs nothing. */
enum { SEGMENTS = 44, ROOM = 1536, REPEATS = 16, LARGEST = 65535 };

static uint8_t large[LARGEST], segments[SEGMENTS][ROOM], headers[128];
static size_t octets[SEGMENTS];
static uint64_t written, summed;

static void write_nowhere(void *context, const struct iovec *vectors, int count, unsigned packets) {
    (void)context, (void)vectors, (void)count;
    written += packets;
}

/* Headers for `size` octets of payload in each segment; timestamps in TCP. */
static size_t make_large(int version, int protocol, size_t size, struct vnet *vnet) {
    size_t transport = version == 4 ? IPV4_OCTETS : IPV6_OCTETS;
    size_t own = protocol == TCP ? TCP_OCTETS + 12 : UDP_OCTETS, total = transport + own + SEGMENTS * size;
    memset(large, 1, total);
    large[0] = version == 4 ? 0x45 : 0x60;
    put16(large + (version == 4 ? IPV4_LENGTH : IPV6_LENGTH), version == 4 ? total : total - IPV6_OCTETS);
    large[version == 4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER] = protocol;
    if (version == 4)
        put16(large + IPV4_FRAGMENT, DONT_FRAGMENT);
    put16(large + transport + UDP_LENGTH, total - transport);
    if (protocol == TCP) {
        large[transport + TCP_OFFSET] = own / 4 << 4;
        large[transport + TCP_FLAGS] = ACK;
    }
    *vnet = (struct vnet){.gso_size = size, .gso_type = protocol == UDP ? VNET_GSO_UDP_L4 : version == 4 ? 1 : 4};
    return total;
}

static void cut(const struct vnet *vnet, size_t total) {
    struct segments cutting;
    if (segments_begin(&cutting, vnet, large, total) != SEGMENTS)
        abort();
    for (int i = 0; i < SEGMENTS; i++) {
        octets[i] = segments_next_octets(&cutting);
        segments_take(&cutting, segments[i]);
    }
}

static void coalesce(struct coalescer *coalescer) {
    memcpy(segments[0], headers, sizeof headers); /* which have become those of all */
    for (int i = 0; i < SEGMENTS; i++)
        coalescer_add(coalescer, segments[i], octets[i]);
    coalescer_flush(coalescer);
}

static void measure(struct coalescer *coalescer, int version, int protocol, size_t size, int rounds) {
    double sum[rounds], apart[rounds], together[rounds];
    struct vnet vnet;
    size_t total = make_large(version, protocol, size, &vnet);
    for (int round = 0; round < rounds; round++) {
        uint64_t first = now();
        for (int i = 0; i < REPEATS; i++)
            cut(&vnet, total);
        memcpy(headers, segments[0], sizeof headers);
        uint64_t second = now();
        for (int i = 0; i < REPEATS; i++)
            coalesce(coalescer);
        uint64_t third = now();
        for (int i = 0; i < REPEATS * SEGMENTS; i++)
            summed += checksum_sum(segments[i % SEGMENTS], octets[0]);
        sum[round] = (now() - third) / (double)(REPEATS * SEGMENTS);
        apart[round] = (second - first) / (double)(REPEATS * SEGMENTS);
        together[round] = (third - second) / (double)(REPEATS * SEGMENTS);
    }
    printf("%d %d %zu %.0f %.0f %.0f\n", version, protocol, octets[0], median(sum, rounds), median(apart, rounds),
           median(together, rounds));
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 300;
    static const size_t whole[] = {64, 576, 1420};
    struct coalescer *coalescer = coalescer_new(write_nowhere, NULL, 1, 1);
    for (int version = 4; version <= 6; version += 2)
        for (int protocol = TCP; protocol <= UDP; protocol += UDP - TCP)
            for (int i = 0; i < 3; i++) {
                size_t front = version == 4 ? IPV4_OCTETS : IPV6_OCTETS;
                front += protocol == TCP ? TCP_OCTETS + 12 : UDP_OCTETS;
                if (whole[i] > front)
                    measure(coalescer, version, protocol, whole[i] - front, rounds);
            }
    coalescer_free(coalescer);
    return written && summed ? 0 : 1;
}
