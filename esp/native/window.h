/* The replay window (RFC 4303 §3.4.3, appendix A); esp.seqnum.ReplayWindow's twin. One thread at a time, which
 * window_take sees to where several may come. */
#ifndef ESP_NATIVE_WINDOW_H
#define ESP_NATIVE_WINDOW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "drop.h"

struct window {
    _Atomic uint64_t top; /* the newest number marked */
    uint32_t size;    /* packets; 0 turns the check off, and top is followed all the same */
    uint32_t mask;    /* of words: there is a power of two of them, and 64 numbers more room than `size` needs */
    unsigned users;   /* SAs that have it: one that takes another's place under the same keys takes its window too */
    pthread_mutex_t turn;
    uint64_t seen[];  /* a bit for each number */
};

#define WINDOW_LARGEST 65536 /* as esp.sa checks it */
/* NULL where it would be larger than that, or there is no memory. */
struct window *window_new(uint32_t size);
/* Gives it up; the last user frees it. */
void window_release(struct window *window);

/* Waits until no other thread has it. An SA and the one that takes its place under the same keys have one window, and
 * neither is opened by while the other is. */
static inline void window_take(struct window *window) {
    pthread_mutex_lock(&window->turn);
}

static inline void window_give(struct window *window) {
    pthread_mutex_unlock(&window->turn);
}

static inline uint64_t window_top(const struct window *window) {
    return atomic_load_explicit(&window->top, memory_order_relaxed);
}

/* The extended number whose low half is `low`, if its packet is authentic (RFC 4303 appendix A2.2). */
uint64_t window_extended(const struct window *window, uint32_t low);
/* Why `number` must not be accepted; -1 if it may. Changes nothing. */
int window_check(const struct window *window, uint64_t number);
/* Records a number that has passed the check and whose packet is authentic. */
void window_mark(struct window *window, uint64_t number);
/* Whether it has been marked and is not too old. */
int window_seen(const struct window *window, uint64_t number);

#endif
