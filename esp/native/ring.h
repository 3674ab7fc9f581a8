/* A bounded queue from one thread to another: records of any length, in order, no lock and no allocation. */
#ifndef ESP_NATIVE_RING_H
#define ESP_NATIVE_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "remote.h"

/* What comes up from a lane. */
enum record_kind {
    RECORD_PACKET,    /* of the inside, that the lane leaves to Python */
    RECORD_DATAGRAM,  /* of the outside, likewise */
    RECORD_OPENED,    /* opened: a SYN that no lane clamps, or what came from elsewhere than before */
    RECORD_CONTROL,   /* a datagram behind the non-ESP marker */
    RECORD_ATTENTION, /* an SA to look at: `detail` has why */
    RECORD_TROUBLE,   /* an offload that failed and stays off: `detail`, and `number` is the errno */
    RECORD_ERRORS,    /* a socket has errors to tell, the one of that `number` */
};

struct record {
    uint32_t octets; /* of what follows it */
    uint16_t kind;
    uint8_t traffic_class, detail;
    uint64_t number; /* of the SA, or as the kind has it */
    uint32_t share;  /* whose part of the ring it takes */
    struct remote source;
};

struct ring {
    size_t capacity; /* a power of two */
    _Alignas(64) _Atomic size_t head; /* the writer's */
    _Alignas(64) _Atomic size_t tail; /* the reader's */
    uint8_t *octets;
};

/* 0, or -1 where there is no memory. */
int ring_init(struct ring *ring, size_t capacity);
void ring_clear(struct ring *ring);
/* 1, or 0 where there is no room: then nothing has been written. */
int ring_put(struct ring *ring, const struct record *record, const uint8_t *octets);
/* The oldest record and what follows it, or NULL; it stays until ring_drop. */
const struct record *ring_peek(struct ring *ring, const uint8_t **octets);
void ring_drop(struct ring *ring);

#endif
