#include "window.h"

#include <stdlib.h>
#include <string.h>

struct window *window_new(uint32_t size) {
    if (size > WINDOW_LARGEST)
        return NULL;
    uint32_t words = 2;
    while (words * 64u < size + 64u)
        words *= 2;
    struct window *window = calloc(1, sizeof *window + words * sizeof window->seen[0]);
    if (window != NULL) {
        window->size = size;
        window->mask = words - 1;
        window->users = 1;
        pthread_mutex_init(&window->turn, NULL);
    }
    return window;
}

void window_release(struct window *window) {
    if (window == NULL || --window->users)
        return;
    pthread_mutex_destroy(&window->turn);
    free(window);
}

uint64_t window_extended(const struct window *window, uint32_t low) {
    const uint64_t last = UINT64_MAX - UINT32_MAX; /* subspace: none follows it (RFC 4303 §3.3.3) */
    uint64_t bottom = last, top = window_top(window);
    if (top < last) {
        if (top + 1 < window->size)
            return low; /* before the first subspace there is none */
        bottom = top + 1 - window->size;
    } else if (top - last + 1 < window->size) {
        bottom = top + 1 - window->size;
    }
    return bottom + (uint32_t)(low - (uint32_t)bottom);
}

int window_seen(const struct window *window, uint64_t number) {
    return (window->seen[number / 64 & window->mask] >> number % 64) & 1;
}

int window_check(const struct window *window, uint64_t number) {
    uint64_t top = window_top(window);
    if (number > top || window->size == 0)
        return -1;
    /* The first packet has number 1 (RFC 4303 §2.2): zero is older than any. */
    if (top - number >= window->size || number == 0)
        return DROP_TOO_OLD;
    return window_seen(window, number) ? DROP_REPLAYED : -1;
}

void window_mark(struct window *window, uint64_t number) {
    uint64_t top = window_top(window);
    if (number > top) {
        /* The words between belonged to numbers that have left the window: there is a word more than it needs. */
        uint64_t from = top / 64 + 1, to = number / 64;
        if (to >= from) {
            if (to - from >= window->mask)
                memset(window->seen, 0, (window->mask + 1) * sizeof window->seen[0]);
            else
                for (uint64_t word = from; word <= to; word++)
                    window->seen[word & window->mask] = 0;
        }
        atomic_store_explicit(&window->top, number, memory_order_relaxed);
    }
    if (window->size)
        window->seen[number / 64 & window->mask] |= 1ull << number % 64;
}
