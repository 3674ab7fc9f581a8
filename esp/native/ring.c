#include "ring.h"

#include <stdlib.h>
#include <string.h>

/* Records begin at multiples of 8 and lie in one piece: where the end of the memory is too near for one, the rest of it
 * is skipped, which a record of this kind says. */
#define SKIP UINT16_MAX

static size_t room_for(size_t octets) {
    return (sizeof(struct record) + octets + 7) & ~(size_t)7;
}

int ring_init(struct ring *ring, size_t capacity) {
    memset(ring, 0, sizeof *ring);
    ring->capacity = capacity;
    ring->octets = aligned_alloc(64, capacity);
    return ring->octets == NULL ? -1 : 0;
}

void ring_clear(struct ring *ring) {
    free(ring->octets);
    ring->octets = NULL;
}

int ring_put(struct ring *ring, const struct record *record, const uint8_t *octets) {
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    size_t at = head & (ring->capacity - 1), left = ring->capacity - at, need = room_for(record->octets);
    size_t skipped = need > left ? left : 0;
    if (head + skipped + need - tail > ring->capacity)
        return 0;
    if (skipped) {
        if (left >= sizeof(struct record))
            ((struct record *)(ring->octets + at))->kind = SKIP;
        at = 0;
    }
    memcpy(ring->octets + at, record, sizeof *record);
    if (record->octets)
        memcpy(ring->octets + at + sizeof *record, octets, record->octets);
    atomic_store_explicit(&ring->head, head + skipped + need, memory_order_release);
    return 1;
}

const struct record *ring_peek(struct ring *ring, const uint8_t **octets) {
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail == atomic_load_explicit(&ring->head, memory_order_acquire))
        return NULL;
    size_t at = tail & (ring->capacity - 1), left = ring->capacity - at;
    const struct record *record = (const struct record *)(ring->octets + at);
    if (left < sizeof(struct record) || record->kind == SKIP) {
        atomic_store_explicit(&ring->tail, tail + left, memory_order_release);
        record = (const struct record *)ring->octets;
    }
    *octets = (const uint8_t *)record + sizeof *record;
    return record;
}

void ring_drop(struct ring *ring) {
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    const struct record *record = (const struct record *)(ring->octets + (tail & (ring->capacity - 1)));
    atomic_store_explicit(&ring->tail, tail + room_for(record->octets), memory_order_release);
}
