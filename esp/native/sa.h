/* SAs at work: packets are sealed for a peer, those of a peer authenticated, opened and checked (RFC 4303 §3.3, §3.4).
 *
 * Tunnel mode. What an SA asks for that is not here (transport mode, AH, IP-TFS, padding) the reference engine does.
 *
 * Every field is written by one thread, those under "control" by Python's, unless its comment says how it is shared.
 * Others read what they find there; a counter that is a packet old does no harm.
 */
#ifndef ESP_NATIVE_SA_H
#define ESP_NATIVE_SA_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "cipher.h"
#include "drop.h"
#include "flow.h"
#include "remote.h"
#include "window.h"

#define ESP_HEADER 8 /* SPI and sequence number (RFC 4303 §2) */

struct policy;

/* Whether a peer answers: esp.silence.Silence, for all its SAs. */
struct silence {
    _Atomic double since, heard_at;
    atomic_int watched; /* Python knows that a packet has no answer yet; set where nobody asks */
    unsigned users;     /* control: SAs, and Python */
};

struct silence *silence_new(int watched);
void silence_release(struct silence *silence);

/* Room between an ESP packet's start and its payload, and behind the payload, for any suite: 16 of IV; 255 of padding,
 * two of trailer and 32 of ICV. */
#define SA_FRONT (ESP_HEADER + 16)
#define SA_BACK (255 + 2 + 32)

/* What Python is to look at, in `attention`. */
enum { ATTENTION_ALARM = 1, ATTENTION_SILENCE = 2, ATTENTION_LARGE = 4, ATTENTION_EXHAUSTED = 8, ATTENTION_MOVED = 16 };

/* What one thread seals with, and what it has sealed: nobody else writes here, or waits for it. */
struct sealer {
    struct cipher *cipher;
    _Atomic uint64_t octets; /* of payload and trailer */
    _Atomic double sent_at;
    _Atomic uint64_t exhausted, expired; /* packets for which there was no number, and for which its lifetime was over */
} __attribute__((aligned(64)));

/* An SA has a sealer for each thread that may seal by it, and one counter. That of one lane alone (RFC 9611 §4: a queue
 * has an SA of its own) has two, Python's and the lane's, and its counter moves from one cache to another only where
 * Python seals. */
struct outbound {
    /* control */
    uint64_t id;
    uint32_t spi;
    uint64_t sequence_max;
    _Atomic uint64_t alarm_sequence, alarm_octets; /* Python is told from there on */
    uint64_t hard_sequence, hard_octets;           /* and from there on carries it no more */
    _Atomic double hard_at, tell_at;
    _Atomic uint32_t largest, told_above;
    _Atomic(struct silence *) silence;
    _Atomic(const struct remote *) remote;
    struct cipher_suite suite;
    uint8_t outer_class[256]; /* by inner traffic class */
    unsigned first_lane, sealer_count;
    /* set by lanes, cleared by Python */
    _Atomic unsigned attention;
    /* all: the one counter, whose numbers are given out once each */
    _Alignas(64) _Atomic uint64_t sequence;
    struct sealer sealers[]; /* Python's, then one for each lane from first_lane on */
};

struct inbound {
    /* control */
    uint64_t id;
    uint32_t spi;
    int foreign; /* the reference engine runs it: nothing else here is set */
    int esn, dscp_inward;
    _Atomic uint64_t alarm_packets, alarm_octets;
    uint64_t hard_packets, hard_octets;
    _Atomic double hard_at;
    _Atomic(struct silence *) silence;
    const struct policy *policy; /* what it serves: spd.h */
    struct box box;
    _Atomic(const struct remote *) remote;
    struct window *window;
    /* set by lanes, cleared by Python */
    _Atomic unsigned attention;
    /* the lane that has the window, where several may come (window_take) */
    struct cipher *cipher;
    _Atomic uint64_t packets, octets;
    uint64_t failed, failed_after;
    _Atomic uint64_t drops[DROPS];
};

/* One without ciphers, for `lanes` of them from first_lane on; NULL where there is no memory. */
struct outbound *outbound_new(unsigned first_lane, unsigned lanes);
void outbound_free(struct outbound *sa);
void inbound_free(struct inbound *sa);

/* The sealer of a lane that may use the SA. Python's is the first of them all. */
static inline struct sealer *outbound_sealer(struct outbound *sa, unsigned lane) {
    return &sa->sealers[1 + lane - sa->first_lane];
}
/* Seals the `octets` of IP packet that lie at `esp + outbound_front(sa)`, with SA_BACK octets of room behind them, and counts
 * it. Octets of the ESP packet; 0 when the counter is at its end, which must not cycle (RFC 4303 §3.3.3), or at that of the
 * SA's lifetime in packets. */
size_t outbound_seal(struct outbound *sa, struct sealer *sealer, uint8_t *esp, size_t octets, double now);
/* What all its sealers have sealed, octets of payload and trailer. */
uint64_t outbound_octets(const struct outbound *sa);
/* Whether packets or octets have ended its lifetime (RFC 4301 §4.4.2.1). */
int outbound_over(const struct outbound *sa);
int inbound_over(const struct inbound *sa);
/* Octets before the payload of an ESP packet: header and IV. */
size_t outbound_front(const struct outbound *sa);
/* Octets of payload and trailer that `octets` of IP packet are sealed as. */
size_t outbound_text(const struct outbound *sa, size_t octets);
/* Likewise of the whole ESP packet. */
size_t outbound_esp(const struct outbound *sa, size_t octets);
/* DSCP and ECN of an IPv4 or IPv6 packet. */
uint8_t traffic_class_of(const uint8_t *packet);

/* Combinations of inner and outer ECN field that nobody should make are counted here, by inner << 2 | outer. */
#define ECN_PAIRS 16

struct opened {
    uint8_t *packet; /* the IP packet, in place */
    size_t octets;
    int drop;     /* why there is none, or -1 */
    int advanced; /* it is the newest so far */
    int unclamped; /* a SYN, and no lane knows what goes through the other way */
};

/* Authenticates, opens and checks an ESP packet of `sa`, in place. Nothing of the SA changes before the ICV is verified
 * (RFC 4303 §3.4.3-3.4.4), but for what it counts as failed. `esp` must have ESP_HEADER octets. */
void inbound_open(struct inbound *sa, uint8_t *esp, size_t octets, uint8_t traffic_class,
                  _Atomic uint64_t unused_ecn[ECN_PAIRS], struct opened *opened);

#endif
