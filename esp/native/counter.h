/* Counters that one thread writes and others read: no locked instruction, and no torn number. */
#ifndef ESP_NATIVE_COUNTER_H
#define ESP_NATIVE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

static inline void count(_Atomic uint64_t *counter, uint64_t more) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

static inline uint64_t counted(const _Atomic uint64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
