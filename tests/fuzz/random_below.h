/* Numbers that look like chance, and are the same for the same seed: `state`, which is never 0. */
#ifndef FUZZ_RANDOM_BELOW_H
#define FUZZ_RANDOM_BELOW_H

#include <stdint.h>

static uint64_t state;

static uint64_t random_below(uint64_t end) {
    state ^= state << 13; /* xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    return state % end;
}

#endif
