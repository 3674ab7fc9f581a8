#include "sa.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "counter.h"

enum { IPV4_IN_ESP = 4, IPV6_IN_ESP = 41, NO_NEXT_HEADER = 59 };

struct silence *silence_new(int watched) {
    struct silence *silence = calloc(1, sizeof *silence);
    if (silence == NULL)
        return NULL;
    atomic_store(&silence->since, __builtin_inf());
    atomic_store(&silence->heard_at, -__builtin_inf());
    atomic_store(&silence->watched, watched);
    silence->users = 1;
    return silence;
}

void silence_release(struct silence *silence) {
    if (silence != NULL && --silence->users == 0)
        free(silence);
}

struct outbound *outbound_new(unsigned first_lane, unsigned lanes) {
    size_t octets = sizeof(struct outbound) + (1 + lanes) * sizeof(struct sealer); /* both are multiples of 64 */
    struct outbound *sa = aligned_alloc(64, octets);
    if (sa == NULL)
        return NULL;
    memset(sa, 0, octets);
    sa->first_lane = first_lane;
    sa->sealer_count = 1 + lanes;
    return sa;
}

void outbound_free(struct outbound *sa) {
    if (sa == NULL)
        return;
    for (unsigned i = 0; i < sa->sealer_count; i++)
        cipher_free(sa->sealers[i].cipher);
    silence_release(atomic_load(&sa->silence));
    free((void *)atomic_load(&sa->remote));
    free(sa);
}

void inbound_free(struct inbound *sa) {
    if (sa == NULL)
        return;
    cipher_free(sa->cipher);
    silence_release(atomic_load(&sa->silence));
    window_release(sa->window);
    free((void *)atomic_load(&sa->remote));
    free(sa);
}

uint8_t traffic_class_of(const uint8_t *packet) {
    return packet[0] >> 4 == 4 ? packet[1] : (uint8_t)(packet[0] << 4 | packet[1] >> 4);
}

size_t outbound_front(const struct outbound *sa) {
    return ESP_HEADER + sa->suite.iv;
}

size_t outbound_text(const struct outbound *sa, size_t octets) {
    size_t block = sa->suite.block; /* a power of two, at least 4 (RFC 4303 §2.4) */
    return (octets + 2 + block - 1) & ~(block - 1);
}

size_t outbound_esp(const struct outbound *sa, size_t octets) {
    return ESP_HEADER + sa->suite.iv + outbound_text(sa, octets) + sa->suite.icv;
}

/* Every padding there is: 1, 2, 3, ... (RFC 4303 §2.4). */
static const uint8_t PADDING[256] = {
#define ROW(n) n + 1, n + 2, n + 3, n + 4, n + 5, n + 6, n + 7, n + 8
    ROW(0),   ROW(8),   ROW(16),  ROW(24),  ROW(32),  ROW(40),  ROW(48),  ROW(56),  ROW(64),  ROW(72),  ROW(80),
    ROW(88),  ROW(96),  ROW(104), ROW(112), ROW(120), ROW(128), ROW(136), ROW(144), ROW(152), ROW(160), ROW(168),
    ROW(176), ROW(184), ROW(192), ROW(200), ROW(208), ROW(216), ROW(224), ROW(232), ROW(240), 249, 250, 251, 252, 253,
    254,      255,
#undef ROW
};

/* The next number up to `end`, or 0 when there is none. Several threads may seal by one SA, and each number is given out
 * once. */
static uint64_t next_sequence(struct outbound *sa, uint64_t end) {
    uint64_t last = atomic_load_explicit(&sa->sequence, memory_order_relaxed);
    do {
        if (last >= end)
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(&sa->sequence, &last, last + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return last + 1;
}

uint64_t outbound_octets(const struct outbound *sa) {
    uint64_t octets = 0;
    for (unsigned i = 0; i < sa->sealer_count; i++)
        octets += counted(&sa->sealers[i].octets);
    return octets;
}

int outbound_over(const struct outbound *sa) {
    return (sa->hard_sequence != UINT64_MAX && counted(&sa->sequence) >= sa->hard_sequence) ||
           (sa->hard_octets != UINT64_MAX && outbound_octets(sa) >= sa->hard_octets);
}

int inbound_over(const struct inbound *sa) {
    return counted(&sa->packets) >= sa->hard_packets || counted(&sa->octets) >= sa->hard_octets;
}

size_t outbound_seal(struct outbound *sa, struct sealer *sealer, uint8_t *esp, size_t octets, double now) {
    /* No lane goes beyond the lifetime by a packet. Python may: it looks at limits once for all fragments of one. */
    uint64_t end = sealer == sa->sealers || sa->hard_sequence > sa->sequence_max ? sa->sequence_max : sa->hard_sequence;
    uint64_t sequence = next_sequence(sa, end);
    if (sequence == 0) {
        count(outbound_over(sa) ? &sealer->expired : &sealer->exhausted, 1);
        return 0;
    }
    struct cipher *cipher = sealer->cipher;
    size_t front = outbound_front(sa), text = outbound_text(sa, octets), pad = text - octets - 2;
    uint8_t *payload = esp + front, *trailer = payload + octets;
    int next_header = payload[0] >> 4 == 4 ? IPV4_IN_ESP : IPV6_IN_ESP;
    for (size_t i = 0; i < pad; i++)
        trailer[i] = PADDING[i];
    trailer[pad] = (uint8_t)pad;
    trailer[pad + 1] = (uint8_t)next_header;
    put32(esp, sa->spi);
    put32(esp + 4, (uint32_t)sequence);
    cipher->seal(cipher, esp, text, sequence);
    count(&sealer->octets, text);
    atomic_store_explicit(&sealer->sent_at, now, memory_order_relaxed);
    return front + text + sa->suite.icv;
}

/* RFC 6040 §4.2, figure 4: the ECN field of a packet that leaves the tunnel, by inner << 2 | outer; -1: dropped, for its
 * transport takes the loss of packets, and nothing else, for congestion. 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE. */
static const int8_t LEAVES[ECN_PAIRS] = {0, 0, 0, -1, 1, 1, 1, 3, 2, 1, 2, 3, 3, 3, 3, 3};
/* Those that no ingress and no path should make. */
static const uint8_t UNUSED[ECN_PAIRS] = {0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0};

static void set_traffic_class(uint8_t *packet, uint8_t traffic_class) {
    if (traffic_class_of(packet) == traffic_class)
        return;
    if (packet[0] >> 4 == 6) {
        packet[0] = 0x60 | traffic_class >> 4;
        packet[1] = (uint8_t)((traffic_class & 0x0f) << 4) | (packet[1] & 0x0f);
        return;
    }
    /* RFC 1624 §3, equation 3: HC' = ~(~HC + ~m + m'), where the word m is version, IHL and TOS. */
    uint32_t word = get16(packet), total = (get16(packet + 10) ^ 0xffffu) + (word ^ 0xffffu) + ((word & 0xff00u) | traffic_class);
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    packet[1] = traffic_class;
    put16(packet + 10, (uint16_t)~total);
}

/* The mark of the path on the packet; why it is dropped, or -1. */
static int mark(const struct inbound *sa, uint8_t *packet, uint8_t outer, _Atomic uint64_t unused_ecn[ECN_PAIRS]) {
    uint8_t inner = traffic_class_of(packet);
    unsigned pair = (inner & 3u) << 2 | (outer & 3u);
    if (UNUSED[pair])
        count(&unused_ecn[pair], 1);
    if (LEAVES[pair] < 0)
        return DROP_CE_ON_NOT_ECT;
    set_traffic_class(packet, (uint8_t)(((sa->dscp_inward ? outer : inner) & ~3u) | (unsigned)LEAVES[pair]));
    return -1;
}

/* Where the payload ends and what it is; why it is none, or -1 (RFC 4303 §2.4-2.7). */
static int unwrap(const struct inbound *sa, uint8_t *text, size_t octets, uint8_t traffic_class,
                  _Atomic uint64_t unused_ecn[ECN_PAIRS], struct opened *opened) {
    size_t pad = text[octets - 2];
    int next_header = text[octets - 1];
    if (octets < 2 + pad || memcmp(text + octets - 2 - pad, PADDING, pad) != 0)
        return DROP_BAD_PADDING;
    struct flow flow;
    size_t total = flow_parse(text, octets - 2 - pad, &flow);
    if (total == 0 || next_header != (flow.version == 4 ? IPV4_IN_ESP : IPV6_IN_ESP)) {
        if (next_header == IPV4_IN_ESP || next_header == IPV6_IN_ESP)
            return DROP_NOT_IP;
        return next_header == NO_NEXT_HEADER ? DROP_DUMMY : DROP_BAD_NEXT_HEADER;
    }
    opened->packet = text;
    opened->octets = total;
    if ((traffic_class & 3) || sa->dscp_inward) {
        int drop = mark(sa, text, traffic_class, unused_ecn);
        if (drop >= 0)
            return drop;
    }
    return box_match(&sa->box, &flow) == MATCH_YES ? -1 : DROP_SELECTOR_MISMATCH;
}

/* esp.inbound: so many packets in a row that are not authentic make an SA with extended numbers ask whether it has missed
 * 2^32 of them, and look so many subspaces ahead (RFC 4303 appendix A3). */
enum { RESYNCHRONIZE_AFTER = 1024, SUBSPACES_AHEAD = 8, LONGEST = 65536 };

/* Whether the packet is authentic under the number of a later subspace, which `sequence` then is. `copy` is the packet as
 * it came: the cipher has been over the other. */
static int resynchronize(struct cipher *cipher, uint8_t *esp, const uint8_t *copy, size_t octets, size_t text,
                         uint64_t *sequence) {
    uint64_t number = *sequence;
    for (int i = 0; i < SUBSPACES_AHEAD && number <= UINT64_MAX - (1ull << 32); i++) {
        number += 1ull << 32;
        memcpy(esp, copy, octets);
        if (cipher->open(cipher, esp, text, number)) {
            *sequence = number;
            return 1;
        }
    }
    return 0;
}

/* Whether the packet is authentic; then it is open, and `sequence` its number. */
static int authenticate(struct inbound *sa, uint8_t *esp, size_t octets, size_t text, uint64_t *sequence) {
    struct cipher *cipher = sa->cipher;
    if (!sa->esn)
        return cipher->open(cipher, esp, text, *sequence);
    if (counted(&sa->packets) != sa->failed_after) {
        sa->failed = 0;
        sa->failed_after = counted(&sa->packets);
    }
    uint8_t copy[LONGEST];
    int last_chance = (sa->failed + 1) % RESYNCHRONIZE_AFTER == 0 && octets <= LONGEST;
    if (last_chance)
        memcpy(copy, esp, octets);
    if (cipher->open(cipher, esp, text, *sequence))
        return 1;
    sa->failed++;
    return last_chance && resynchronize(cipher, esp, copy, octets, text, sequence);
}

void inbound_open(struct inbound *sa, uint8_t *esp, size_t octets, uint8_t traffic_class,
                  _Atomic uint64_t unused_ecn[ECN_PAIRS], struct opened *opened) {
    const struct cipher_suite *suite = &sa->cipher->suite;
    size_t around = ESP_HEADER + suite->iv + suite->icv;
    opened->advanced = 0;
    if (octets < around + suite->block || (octets - around) % suite->block) {
        opened->drop = DROP_MALFORMED;
        return;
    }
    size_t text = octets - around;
    uint64_t sequence = get32(esp + 4);
    if (sa->esn)
        sequence = window_extended(sa->window, (uint32_t)sequence);
    opened->drop = window_check(sa->window, sequence);
    if (opened->drop >= 0)
        return;
    if (!authenticate(sa, esp, octets, text, &sequence)) {
        opened->drop = DROP_AUTHENTICATION_FAILED;
        return;
    }
    opened->advanced = sequence > window_top(sa->window);
    window_mark(sa->window, sequence);
    count(&sa->packets, 1);
    count(&sa->octets, text);
    opened->drop = unwrap(sa, esp + ESP_HEADER + suite->iv, text, traffic_class, unused_ecn, opened);
}
