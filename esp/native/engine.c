#include "engine.h"

#include <stdlib.h>

#include "bytes.h"

/* In the place of an SA that has gone: a search goes on behind it. */
static struct inbound GONE;

static struct sad *sad_new(size_t places) {
    struct sad *sad = calloc(1, sizeof *sad + places * sizeof sad->at[0]);
    if (sad != NULL)
        sad->mask = places - 1;
    return sad;
}

struct engine *engine_new(unsigned lanes, uint32_t clamp) {
    struct engine *engine = aligned_alloc(64, (sizeof *engine + 63) / 64 * 64);
    if (engine == NULL || lanes == 0 || lanes > MAX_LANES) {
        free(engine);
        return NULL;
    }
    memset(engine, 0, sizeof *engine);
    atomic_store(&engine->epoch, 1);
    engine->clamp = clamp;
    engine->lanes = lanes;
    int complete = 1;
    for (unsigned i = 0; i < lanes; i++) {
        struct lane *lane = &engine->lane[i];
        lane->engine = engine;
        lane->number = i;
        lane->tell_unknown_at = -1e300;
        lane_leave(lane);
        lane->decisions = calloc(DECISIONS, sizeof *lane->decisions);
        complete &= lane->decisions != NULL;
    }
    struct spd *spd = calloc(1, sizeof *spd);
    if (spd != NULL)
        spd->generation = 1;
    atomic_store(&engine->spd, spd);
    atomic_store(&engine->sad, sad_new(64));
    if (!complete || spd == NULL || atomic_load(&engine->sad) == NULL) {
        engine_free(engine);
        return NULL;
    }
    return engine;
}

void engine_free(struct engine *engine) {
    if (engine == NULL)
        return;
    engine_reclaim(engine);
    for (unsigned i = 0; i < engine->lanes; i++)
        free(engine->lane[i].decisions);
    free(atomic_load(&engine->spd));
    free(atomic_load(&engine->sad));
    free(engine);
}

/* --- the control --- */

static void advance(struct engine *engine) {
    atomic_fetch_add_explicit(&engine->epoch, 1, memory_order_seq_cst);
}

void engine_retire(struct engine *engine, void *what, void (*release)(void *)) {
    struct retired *retired = malloc(sizeof *retired);
    if (retired == NULL)
        return; /* a leak is better than a packet that reads what is not there */
    *retired = (struct retired){atomic_load(&engine->epoch), what, release, engine->retired};
    engine->retired = retired;
    advance(engine);
    engine_reclaim(engine);
}

size_t engine_reclaim(struct engine *engine) {
    uint64_t reached = LANE_OUTSIDE;
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < engine->lanes; i++) {
        uint64_t seen = atomic_load_explicit(&engine->lane[i].seen, memory_order_seq_cst);
        reached = seen < reached ? seen : reached;
    }
    size_t waiting = 0;
    for (struct retired **at = &engine->retired; *at != NULL;) {
        struct retired *retired = *at;
        if (retired->epoch < reached) {
            *at = retired->next;
            retired->release(retired->what);
            free(retired);
        } else {
            at = &retired->next;
            waiting++;
        }
    }
    return waiting;
}

void engine_set_spd(struct engine *engine, struct spd *spd) {
    struct spd *before = atomic_load(&engine->spd);
    spd->generation = before->generation + 1;
    atomic_store_explicit(&engine->spd, spd, memory_order_seq_cst);
    engine_retire(engine, before, free);
}

static size_t place_of(const struct sad *sad, uint32_t spi) {
    return (spi * 0x9e3779b1u >> 7) & sad->mask; /* SPIs are the receiver's own choice, and random */
}

static void put(struct sad *sad, struct inbound *sa) {
    size_t at = place_of(sad, sa->spi);
    for (;; at = (at + 1) & sad->mask) {
        struct inbound *there = atomic_load_explicit(&sad->at[at], memory_order_relaxed);
        if (there == NULL)
            sad->used++;
        if (there == NULL || there == &GONE)
            break;
    }
    atomic_store_explicit(&sad->at[at], sa, memory_order_release);
}

/* A table with room, in place of one that is half full with what is there and what has gone. */
static struct sad *grown(struct engine *engine, struct sad *before) {
    size_t living = 0;
    for (size_t i = 0; i <= before->mask; i++) {
        struct inbound *sa = atomic_load_explicit(&before->at[i], memory_order_relaxed);
        living += sa != NULL && sa != &GONE;
    }
    size_t places = 64;
    while (places < (living + 1) * 4)
        places *= 2;
    struct sad *sad = sad_new(places);
    if (sad == NULL)
        return NULL;
    for (size_t i = 0; i <= before->mask; i++) {
        struct inbound *sa = atomic_load_explicit(&before->at[i], memory_order_relaxed);
        if (sa != NULL && sa != &GONE)
            put(sad, sa);
    }
    atomic_store_explicit(&engine->sad, sad, memory_order_seq_cst);
    engine_retire(engine, before, free);
    return sad;
}

int engine_add_inbound(struct engine *engine, struct inbound *sa) {
    struct sad *sad = atomic_load(&engine->sad);
    for (size_t at = place_of(sad, sa->spi);; at = (at + 1) & sad->mask) {
        struct inbound *there = atomic_load_explicit(&sad->at[at], memory_order_relaxed);
        if (there == NULL)
            break;
        if (there != &GONE && there->spi == sa->spi) { /* its place: no packet finds neither */
            atomic_store_explicit(&sad->at[at], sa, memory_order_seq_cst);
            return 0;
        }
    }
    if ((sad->used + 1) * 2 > sad->mask + 1 && (sad = grown(engine, sad)) == NULL)
        return -1;
    put(sad, sa);
    return 0;
}

void engine_remove_inbound(struct engine *engine, struct inbound *sa) {
    struct sad *sad = atomic_load(&engine->sad);
    for (size_t at = place_of(sad, sa->spi);; at = (at + 1) & sad->mask) {
        struct inbound *there = atomic_load_explicit(&sad->at[at], memory_order_relaxed);
        if (there == NULL)
            return;
        if (there == sa) {
            atomic_store_explicit(&sad->at[at], &GONE, memory_order_seq_cst);
            return;
        }
    }
}

/* --- a lane --- */

static enum verdict dropped(struct lane *lane, enum drop reason, unsigned packets) {
    count(&lane->drops[reason], packets);
    return DROPPED;
}

int outbound_ended(const struct outbound *sa, double now) {
    return now >= sa->hard_at || outbound_over(sa);
}

enum verdict lane_choose(struct lane *lane, const uint8_t *packet, size_t octets, size_t largest, unsigned packets,
                         double now, struct outbound **sa, unsigned *share) {
    struct flow flow;
    *share = 0;
    if (octets == 0 || flow_parse(packet, octets, &flow) != octets)
        return dropped(lane, DROP_NOT_IP, packets);
    const struct spd *spd = atomic_load_explicit(&lane->engine->spd, memory_order_acquire);
    if (flow.fragment && spd->by_ports)
        return SLOW;
    struct policy *policy = spd_lookup(spd, lane->decisions, &flow);
    if (policy == NULL)
        return dropped(lane, DROP_NO_POLICY, packets);
    *share = (unsigned)((uintptr_t)policy / sizeof(struct policy));
    if (policy->action != ACTION_PROTECT)
        return dropped(lane, policy->action == ACTION_BYPASS ? DROP_BYPASS_NOT_ROUTED : DROP_POLICY_DISCARD, packets);
    struct outbound *carrier = atomic_load_explicit(&policy->carriers[lane->number], memory_order_acquire);
    if (carrier == NULL || largest > carrier->largest || outbound_ended(carrier, now))
        return SLOW;
    *sa = carrier;
    return SEAL;
}

/* Sets what Python is to look at; what was not set before. */
static unsigned attend(_Atomic unsigned *attention, unsigned what) {
    if (!what || (atomic_load_explicit(attention, memory_order_relaxed) & what) == what)
        return 0;
    return what & ~atomic_fetch_or_explicit(attention, what, memory_order_relaxed);
}

/* Octets of the largest packet that goes through by `sa`. */
static size_t clamp_for(const struct lane *lane, const struct outbound *sa) {
    uint32_t largest = sa->largest;
    return largest < lane->engine->clamp ? largest : lane->engine->clamp;
}

size_t lane_seal(struct lane *lane, struct outbound *sa, uint8_t *esp, size_t octets, double now, unsigned *attention) {
    *attention = 0;
    uint8_t *packet = esp + outbound_front(sa);
    if (lane->engine->clamp && is_syn(packet, octets))
        mss_clamp(packet, octets, clamp_for(lane, sa));
    size_t sealed = outbound_seal(sa, outbound_sealer(sa, lane->number), esp, octets, now);
    if (sealed == 0) {
        int ended = outbound_over(sa); /* another thread had the last number */
        *attention = attend(&sa->attention, ended ? ATTENTION_ALARM : ATTENTION_EXHAUSTED);
        dropped(lane, ended ? DROP_SA_EXPIRED : DROP_SEQUENCE_EXHAUSTED, 1);
        return 0;
    }
    count(&lane->packets_out, 1);
    count(&lane->octets_out, octets);
    unsigned what = 0;
    if (octets > sa->told_above && now >= sa->tell_at)
        what |= ATTENTION_LARGE;
    struct silence *silence = atomic_load_explicit(&sa->silence, memory_order_acquire);
    if (atomic_load_explicit(&silence->since, memory_order_relaxed) > now)
        atomic_store(&silence->since, now); /* before `watched` is read: Python clears that, and then reads this */
    if (!atomic_load(&silence->watched)) {
        atomic_store_explicit(&silence->watched, 1, memory_order_relaxed);
        what |= ATTENTION_SILENCE;
    }
    uint64_t alarm_octets = counted(&sa->alarm_octets);
    if (counted(&sa->sequence) >= counted(&sa->alarm_sequence) ||
        (alarm_octets != UINT64_MAX && outbound_octets(sa) >= alarm_octets))
        what |= ATTENTION_ALARM;
    *attention = attend(&sa->attention, what);
    return sealed;
}

static struct inbound *find(const struct sad *sad, uint32_t spi) {
    for (size_t at = place_of(sad, spi);; at = (at + 1) & sad->mask) {
        struct inbound *there = atomic_load_explicit(&sad->at[at], memory_order_acquire);
        if (there == NULL || (there != &GONE && there->spi == spi))
            return there;
    }
}

enum verdict lane_open(struct lane *lane, uint8_t *esp, size_t octets, uint8_t traffic_class, double now,
                       struct inbound **found, struct opened *opened, unsigned *attention) {
    *attention = 0;
    if (octets < ESP_HEADER)
        return dropped(lane, DROP_MALFORMED, 1);
    struct inbound *sa = find(atomic_load_explicit(&lane->engine->sad, memory_order_acquire), get32(esp));
    if (sa == NULL) {
        if (now < lane->tell_unknown_at)
            return dropped(lane, DROP_UNKNOWN_SPI, 1);
        lane->tell_unknown_at = now + 1.0; /* esp.engine.UNKNOWN_SPI_SECONDS; the control counts and tells this one */
        return SLOW;
    }
    if (sa->foreign)
        return SLOW;
    /* As a rule all packets of an SA come to one lane, for the sockets sort them by SPI. Not those of a run that the kernel
     * has put together of several SAs' packets (UDP_GRO looks at no SPI), nor those of raw ESP. */
    int shared = lane->engine->lanes > 1;
    if (shared)
        window_take(sa->window);
    if (now >= sa->hard_at || inbound_over(sa)) { /* asked by who has the window, so that nobody comes between */
        if (shared)
            window_give(sa->window);
        return SLOW;
    }
    *found = sa;
    uint64_t before = counted(&sa->packets);
    inbound_open(sa, esp, octets, traffic_class, lane->unused_ecn, opened);
    uint64_t after = counted(&sa->packets);
    if (opened->drop >= 0)
        count(&sa->drops[opened->drop], 1);
    if (shared)
        window_give(sa->window);
    if (after != before) { /* it was authentic, whatever else is wrong with it */
        struct silence *silence = atomic_load_explicit(&sa->silence, memory_order_acquire);
        if (silence->heard_at < now) {
            atomic_store_explicit(&silence->heard_at, now, memory_order_relaxed);
            atomic_store_explicit(&silence->since, __builtin_inf(), memory_order_relaxed);
        }
        if (after >= sa->alarm_packets || counted(&sa->octets) >= sa->alarm_octets)
            *attention = attend(&sa->attention, ATTENTION_ALARM);
    }
    if (opened->drop >= 0)
        return dropped(lane, (enum drop)opened->drop, 1);
    count(&lane->packets_in, 1);
    count(&lane->octets_in, opened->octets);
    opened->unclamped = 0;
    if (lane->engine->clamp && is_syn(opened->packet, opened->octets)) {
        /* What the inside will send by it has to go through the other way. */
        const struct outbound *back = atomic_load_explicit(&sa->policy->carriers[lane->number], memory_order_acquire);
        opened->unclamped = back == NULL;
        if (back != NULL)
            mss_clamp(opened->packet, opened->octets, clamp_for(lane, back));
    }
    return OPEN;
}
