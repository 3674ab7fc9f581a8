/* Fuzz target of cutting and putting together: any octets are cut, or refused; what has been cut is put together and
 * cut again the same; nothing is lost, and nothing read beyond its end.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -Iesp/native tests/fuzz/native_offload.c \
 *         esp/native/{checksum,coalesce,segment}.c
 *     ./a.out CORPUS
 *
 * With -DDRIVER it has a main() of its own for any compiler: `./a.out RUNS SEED FILE...` mutates the files by a seeded
 * generator. Input: a vnet header and a packet as they are read from a TUN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "coalesce.h"

#define CHECK(what) ((what) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what), abort()))

/* One more of the pieces is kept free, for a packet alone. */
enum { PIECES = 1024, LONGEST = 1 << 13 };

/* Memory of its own for each, so that AddressSanitizer sees each octet beyond it. */
struct pieces {
    unsigned count;
    uint8_t *octets[PIECES];
    size_t sizes[PIECES];
};

static unsigned long long runs_cut, runs_together;

static uint8_t *copied(const void *octets, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    CHECK(copy);
    memcpy(copy, octets, size);
    return copy;
}

static void clear(struct pieces *pieces) {
    for (unsigned i = 0; i < pieces->count; i++)
        free(pieces->octets[i]);
    pieces->count = 0;
}

/* Adds the segments of a packet; how many they are, or 0 where it is refused, or more than there is room for. */
static unsigned cut(const struct vnet *vnet, const uint8_t *packet, size_t octets, struct pieces *into) {
    struct segments segments;
    uint8_t *copy = copied(packet, octets);
    unsigned count = segments_begin(&segments, vnet, copy, octets);
    if (count >= PIECES) {
        free(copy);
        return 0;
    }
    size_t largest = count > 1 ? segments.largest : octets, sum = 0;
    for (unsigned i = 0; into->count < PIECES && i < count; i++, into->count++) {
        size_t next = segments_next_octets(&segments);
        CHECK(next && next <= largest);
        sum += next;
        into->sizes[into->count] = next;
        CHECK(into->octets[into->count] = malloc(next));
        segments_take(&segments, into->octets[into->count]);
    }
    if (sum) {
        CHECK(segments_next_octets(&segments) == 0);
        CHECK(sum == octets + (count - 1) * segments.headers);
    }
    free(copy);
    return sum ? count : 0;
}

/* A coalescer_write: cuts it again, as the kernel would have to in order to send it on. */
static void cut_again(void *context, const struct iovec *vectors, int count, unsigned packets) {
    struct pieces *pieces = context;
    uint8_t *packet = malloc(1 << 16);
    size_t octets = 0;
    CHECK(packet && count >= 2 && count <= COALESCED_VECTORS && vectors[0].iov_len == sizeof(struct vnet));
    for (int i = 1; i < count; i++) {
        CHECK(octets + vectors[i].iov_len < 1 << 16);
        memcpy(packet + octets, vectors[i].iov_base, vectors[i].iov_len);
        octets += vectors[i].iov_len;
    }
    CHECK(!octets || cut(vectors[0].iov_base, packet, octets, pieces) == packets);
    runs_together += packets > 1;
    free(packet);
}

/* Zero has two forms in ones' complement: a word may have become the other one. */
static int is_same(const uint8_t *one, const uint8_t *other, size_t octets) {
    for (size_t i = 0; i < octets; i++) {
        if (one[i] == other[i])
            continue;
        uint16_t a = i + 1 < octets ? get16(one + i) : 1, b = i + 1 < octets ? get16(other + i) : 1;
        if (a + b != 0xFFFF || (a && b))
            return 0;
        i++;
    }
    return 1;
}

/* A packet as it came out of the TUN, whole or not: whatever it is, it is written, and once. */
static void check_alone(struct coalescer *coalescer, const uint8_t *packet, size_t octets, struct pieces *again) {
    unsigned before = again->count;
    uint8_t *copy = copied(packet, octets);
    coalescer_add(coalescer, copy, octets);
    coalescer_flush(coalescer);
    CHECK(!octets || again->count == before + 1);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct pieces pieces, given, again; /* more than a stack should have */
    struct vnet vnet;
    if (size < sizeof vnet)
        return 0;
    memcpy(&vnet, data, sizeof vnet);
    cut(&vnet, data + sizeof vnet, size - sizeof vnet, &pieces);
    runs_cut += pieces.count > 1;
    struct coalescer *coalescer = coalescer_new(cut_again, &again, 1, 1);
    CHECK(coalescer);
    given.count = pieces.count;
    for (unsigned i = 0; i < pieces.count; i++) {
        given.octets[i] = copied(pieces.octets[i], given.sizes[i] = pieces.sizes[i]);
        coalescer_add(coalescer, given.octets[i], given.sizes[i]);
    }
    coalescer_flush(coalescer);
    CHECK(again.count == pieces.count);
    for (unsigned i = 0; i < pieces.count; i++)
        CHECK(again.sizes[i] == pieces.sizes[i] && is_same(again.octets[i], pieces.octets[i], pieces.sizes[i]));
    check_alone(coalescer, data + sizeof vnet, size - sizeof vnet, &again);
    coalescer_free(coalescer);
    clear(&given);
    clear(&pieces);
    clear(&again);
    return 0;
}

#ifdef DRIVER

#include "random_below.h"

/* A few octets overwritten, most of them in headers; or the end cut off. */
static size_t mutate(uint8_t *data, size_t size) {
    static const uint8_t TELLING[] = {0, 1, 4, 6, 17, 43, 60, 0x45, 0x60, 0x7f, 0x80, 0xff};
    for (uint64_t left = random_below(4); left; left--) {
        size_t at = random_below(random_below(4) && size > 80 ? 80 : size);
        switch (random_below(4)) {
        case 0:
            data[at] ^= 1 << random_below(8);
            break;
        case 1:
            data[at] = TELLING[random_below(sizeof TELLING)];
            break;
        case 2:
            data[at] = random_below(256);
            break;
        default:
            size = random_below(8) ? size : at + 1;
        }
    }
    return size;
}

int main(int count, char **words) {
    static uint8_t seeds[64][LONGEST], data[LONGEST];
    size_t sizes[64], files = 0;
    CHECK(count > 3 && count <= 3 + 64);
    for (int i = 3; i < count; i++, files++) {
        FILE *file = fopen(words[i], "rb");
        CHECK(file);
        sizes[files] = fread(seeds[files], 1, LONGEST, file);
        fclose(file);
        LLVMFuzzerTestOneInput(seeds[files], sizes[files]);
    }
    unsigned long long cut_as_is = runs_cut, together_as_is = runs_together, runs = strtoull(words[1], NULL, 10);
    state = strtoull(words[2], NULL, 10) | 1;
    for (unsigned long long run = 0; run < runs; run++) {
        size_t seed = random_below(files);
        memcpy(data, seeds[seed], sizes[seed]);
        LLVMFuzzerTestOneInput(data, mutate(data, sizes[seed]));
    }
    printf("%llu cut and %llu put together of the files as they are, %llu and %llu of %llu mutated\n", cut_as_is,
           together_as_is, runs_cut - cut_as_is, runs_together - together_as_is, runs);
    return 0;
}

#endif
