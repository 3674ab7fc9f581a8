/* What bench/cipher.py runs: reads suites, one a line, in the order of struct cipher_suite; writes for each library that
 * offers one, and each size, its number, the octets of text, and nanoseconds to seal and to open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cipher.h"
#include "stopwatch.h"

/* Together more than the first cache holds, as packets that come out of the kernel are. */
enum { PACKETS = 64, ROOM = 2048 };

static uint8_t packets[PACKETS][ROOM];

static void measure(const struct cipher_suite *suite, int library, size_t text, int rounds) {
    static const uint8_t keymat[128] = {1}, seed[32] = {2};
    double sealed[rounds], opened[rounds];
    struct cipher *sealer = cipher_new(library, suite, keymat, 0, 1, seed);
    struct cipher *opener = cipher_new(library, suite, keymat, 0, 0, seed);
    uint64_t sequence = 0;
    for (int round = 0; round < rounds; round++) {
        uint64_t first = sequence + 1, began = now();
        for (int i = 0; i < PACKETS; i++) {
            put32(packets[i] + 4, ++sequence);
            sealer->seal(sealer, packets[i], text, sequence);
        }
        uint64_t between = now();
        int right = 0;
        for (int i = 0; i < PACKETS; i++)
            right += opener->open(opener, packets[i], text, first + i);
        opened[round] = (now() - between) / (double)PACKETS;
        sealed[round] = (between - began) / (double)PACKETS;
        if (right != PACKETS)
            abort();
    }
    printf("%d %zu %.0f %.0f\n", library, text, median(sealed, rounds), median(opened, rounds));
    cipher_free(sealer);
    cipher_free(opener);
}

int main(int count, char **arguments) {
    int rounds = count > 1 ? atoi(arguments[1]) : 300;
    static const size_t sizes[] = {64, 576, 1424};
    struct cipher_suite suite;
    while (scanf("%d %d %u %u %u %u %u %u", &suite.cipher, &suite.integrity, &suite.encryption, &suite.salt,
                 &suite.integrity_key, &suite.iv, &suite.icv, &suite.block) == 8) {
        for (int library = 0; library < CIPHER_LIBRARIES; library++)
            for (int size = 0; cipher_offered(library, &suite) && size < 3; size++)
                measure(&suite, library, sizes[size], rounds);
        puts("-");
    }
    return 0;
}
