/* The engine's fast path: what lanes share, and what one lane does with a packet (RFC 4301 §5).
 *
 * A lane is one thread that carries packets. Python's thread is the control: it alone installs and removes, and it never
 * waits for a lane nor a lane for it. What lanes find is reached by pointers that are exchanged in one store; what has
 * been taken out is freed when every lane has been seen outside since (quiescent-state-based reclamation).
 *
 * What a lane does not do itself it leaves to the control, by the verdict SLOW: it is then as if it had not looked.
 */
#ifndef ESP_NATIVE_ENGINE_H
#define ESP_NATIVE_ENGINE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "counter.h"
#include "mss.h"
#include "sa.h"
#include "spd.h"

struct engine;

struct lane {
    struct engine *engine;
    unsigned number;
    _Atomic uint64_t seen; /* the epoch that it has come to; LANE_OUTSIDE while it holds nothing */
    _Atomic uint64_t packets_out, octets_out, packets_in, octets_in;
    _Atomic uint64_t drops[DROPS];
    _Atomic uint64_t unused_ecn[ECN_PAIRS];
    double tell_unknown_at;
    struct decision *decisions; /* DECISIONS of them */
} __attribute__((aligned(64)));
#define LANE_OUTSIDE UINT64_MAX

/* Inbound SAs by SPI: open addressing, at most half full. */
struct sad {
    size_t mask, used; /* places that are not NULL */
    _Atomic(struct inbound *) at[];
};

struct retired {
    uint64_t epoch;
    void *what;
    void (*release)(void *);
    struct retired *next;
};

struct engine {
    _Atomic(struct spd *) spd;
    _Atomic(struct sad *) sad;
    _Atomic uint64_t epoch;
    uint32_t clamp; /* octets of the largest packet that the inside takes, to lower the MSS of SYNs to; 0: they are let be */
    unsigned lanes;
    struct lane lane[MAX_LANES];
    struct retired *retired; /* the control's */
};

/* NULL where there is no memory. */
struct engine *engine_new(unsigned lanes, uint32_t clamp);
void engine_free(struct engine *engine);

/* --- the control --- */

/* Takes the place of the SPD there is. */
void engine_set_spd(struct engine *engine, struct spd *spd);
/* 0, or -1 where there is no memory. Takes the place of the SA with its SPI, if there is one. */
int engine_add_inbound(struct engine *engine, struct inbound *sa);
void engine_remove_inbound(struct engine *engine, struct inbound *sa);
/* Has `release(what)` called when no lane can reach it any more: at once if all are outside. */
void engine_retire(struct engine *engine, void *what, void (*release)(void *));
/* Does what has become possible of that; the number that still waits. */
size_t engine_reclaim(struct engine *engine);

/* --- a lane --- */

static inline void lane_enter(struct lane *lane) {
    atomic_store_explicit(&lane->seen, atomic_load_explicit(&lane->engine->epoch, memory_order_acquire),
                          memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* before it looks at anything: engine_reclaim's other half */
}

static inline void lane_leave(struct lane *lane) {
    atomic_store_explicit(&lane->seen, LANE_OUTSIDE, memory_order_release);
}

enum verdict { SEAL, OPEN = SEAL, SLOW, DROPPED };

/* The SA that seals a packet of the inside, of whose flow all of `octets` are; `share` is a number that packets of one
 * policy have in common, and seldom with those of another.
 *
 * octets: of the packet, as its header has to have them. packets, largest: how many it will be cut into, and octets of the
 * largest of them. */
enum verdict lane_choose(struct lane *lane, const uint8_t *packet, size_t octets, size_t largest, unsigned packets,
                         double now, struct outbound **sa, unsigned *share);
/* Whether its hard lifetime is over (RFC 4301 §4.4.2.1): asked by lane_choose, and between the segments of a packet. */
int outbound_ended(const struct outbound *sa, double now);
/* Has `sa` seal the `octets` of IP packet at `esp + outbound_front(sa)`, and counts it. Octets of the ESP packet; 0 where it
 * has been dropped. `attention`: what Python is to look at, and has not been told of yet. */
size_t lane_seal(struct lane *lane, struct outbound *sa, uint8_t *esp, size_t octets, double now, unsigned *attention);

/* What a datagram of the outside is, ESP by its first octets, and nothing is changed unless the verdict is OPEN or DROPPED. */
enum verdict lane_open(struct lane *lane, uint8_t *esp, size_t octets, uint8_t traffic_class, double now,
                       struct inbound **sa, struct opened *opened, unsigned *attention);

#endif
