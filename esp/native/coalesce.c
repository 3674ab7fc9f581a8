#include "coalesce.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "headers.h"

/* Flows at once: eight may share what their hashes have in common, of eight such sets. A ninth makes one of them be
 * written early, which costs speed and nothing else: nobody is kept from choosing addresses to that end. 64 is what a
 * word has bits for, and as many as a batch has datagrams. */
enum { WAYS = 8, SETS = 8, FLOWS = WAYS * SETS };
/* Segments of one write: 65,535 octets are 47 of 1,368, and 64 is the most that the kernel's own GRO makes of UDP. */
enum { SEGMENTS = COALESCED_VECTORS - 1, LONGEST = 65535 };

/* Segments that follow on each other and wait: what they have in common stands in the first of them. */
struct group {
    uint8_t *packet;
    uint32_t hash, next; /* next: the sequence number that has to follow */
    uint32_t octets;     /* of all, as one packet */
    uint16_t transport, headers, size;
    uint16_t count;
    uint8_t protocol;
    struct iovec vectors[COALESCED_VECTORS];
};

struct coalescer {
    coalescer_write *write;
    void *context;
    uint64_t waiting; /* a bit for each group that is in use */
    int tcp, udp;
    struct group groups[FLOWS];
};

/* A packet as it comes: where its headers end, and whose it is. */
struct arrival {
    uint8_t *packet;
    size_t octets;
    uint32_t hash;
    uint16_t transport, headers;
    uint8_t protocol;
};

/* Of a packet: it has no ports and nothing to be kept in order with; it may belong to any flow; its ports are plain. */
enum sight { OTHER, OPAQUE, PLAIN };

static uint32_t mixed(uint64_t number) {
    return (uint32_t)(number * 0x9E3779B97F4A7C15 >> 32);
}

static enum sight look_at_ipv4(struct arrival *a) {
    const uint8_t *packet = a->packet;
    a->transport = IPV4_OCTETS;
    a->protocol = packet[IPV4_PROTOCOL];
    if (a->protocol != TCP && a->protocol != UDP)
        return OTHER;
    int plain = packet[0] == 0x45 && !(get16(packet + IPV4_FRAGMENT) & ~DONT_FRAGMENT);
    if (!plain || get16(packet + IPV4_LENGTH) != a->octets || a->octets < IPV4_OCTETS + UDP_OCTETS)
        return OPAQUE;
    a->hash = mixed(get64(packet + IPV4_ADDRESSES) ^ mixed(get32(packet + IPV4_OCTETS) ^ a->protocol));
    return PLAIN;
}

static enum sight look_at_ipv6(struct arrival *a) {
    const uint8_t *packet = a->packet, *addresses = packet + IPV6_ADDRESSES;
    a->transport = IPV6_OCTETS;
    a->protocol = packet[IPV6_NEXT_HEADER];
    switch (a->protocol) {
    case HOP_BY_HOP: case ROUTING: case FRAGMENT: case DESTINATION:
        return OPAQUE;
    case TCP: case UDP:
        break;
    default:
        return OTHER;
    }
    if ((size_t)get16(packet + IPV6_LENGTH) + IPV6_OCTETS != a->octets || a->octets < IPV6_OCTETS + UDP_OCTETS)
        return OPAQUE;
    uint64_t source = get64(addresses) * 3 + get64(addresses + 8);
    uint64_t destination = get64(addresses + 16) * 5 + get64(addresses + 24);
    a->hash = mixed(source ^ mixed(destination ^ mixed(get32(packet + IPV6_OCTETS) ^ a->protocol)));
    return PLAIN;
}

static enum sight look(struct arrival *a) {
    if (a->octets >= IPV4_OCTETS && a->packet[0] >> 4 == 4)
        return look_at_ipv4(a);
    if (a->octets >= IPV6_OCTETS && a->packet[0] >> 4 == 6)
        return look_at_ipv6(a);
    return OTHER;
}

static uint64_t pseudo_header(const uint8_t *packet, size_t transport, uint8_t protocol, size_t octets) {
    uint64_t sum = checksum_number(protocol) + checksum_number((uint16_t)(octets - transport));
    if (transport == IPV4_OCTETS)
        return sum + checksum_header(packet + IPV4_ADDRESSES, 8);
    return sum + checksum_header(packet + IPV6_ADDRESSES, 32);
}

/* Both checksums: what is written together gets a new one of each, and a wrong one must not become right by that. */
static int is_verified(const struct arrival *a) {
    if (a->transport == IPV4_OCTETS && checksum_fold(checksum_header(a->packet, IPV4_OCTETS)) != 0xFFFF)
        return 0;
    uint64_t sum = pseudo_header(a->packet, a->transport, a->protocol, a->octets);
    return checksum_fold(sum + checksum_sum(a->packet + a->transport, a->octets - a->transport)) == 0xFFFF;
}

/* Whether it has data that may stand among others': of TCP, nothing that changes the state of a connection but its end.
 * Sets headers. UDP without a checksum has none that could be right (RFC 768). */
static int is_segment(struct arrival *a) {
    const uint8_t *header = a->packet + a->transport;
    size_t octets = a->octets - a->transport, own = UDP_OCTETS;
    if (a->protocol == TCP) {
        if (octets < TCP_OCTETS || (header[TCP_FLAGS] & ~(FIN | PSH | ECE | CWR)) != ACK)
            return 0;
        own = (header[TCP_OFFSET] >> 4) * 4u;
        if (own < TCP_OCTETS)
            return 0;
    } else if (get16(header + UDP_LENGTH) != octets || !get16(header + UDP_CHECKSUM)) {
        return 0;
    }
    a->headers = (uint16_t)(a->transport + own);
    return own < octets && is_verified(a);
}

/* Addresses and ports lie side by side in both versions. */
static int is_of_flow(const struct group *g, const struct arrival *a) {
    if (g->hash != a->hash || g->transport != a->transport || g->protocol != a->protocol)
        return 0;
    if (a->transport == IPV4_OCTETS)
        return !memcmp(g->packet + IPV4_ADDRESSES, a->packet + IPV4_ADDRESSES, 8 + 4);
    return !memcmp(g->packet + IPV6_ADDRESSES, a->packet + IPV6_ADDRESSES, 32 + 4);
}

/* Identifications count up where a router may make fragments; where it may not, they say nothing (RFC 6864 §4.1). */
static int is_next_in_network(const struct group *g, const struct arrival *a) {
    const uint8_t *first = g->packet, *packet = a->packet;
    if (a->transport == IPV6_OCTETS) /* version, traffic class, flow label */
        return get32(first) == get32(packet) && first[IPV6_HOP_LIMIT] == packet[IPV6_HOP_LIMIT];
    uint16_t fragment = get16(packet + IPV4_FRAGMENT);
    uint16_t identification = (uint16_t)(get16(first + IPV4_IDENTIFICATION) + g->count);
    return first[IPV4_TOS] == packet[IPV4_TOS] && first[IPV4_TTL] == packet[IPV4_TTL] &&
           get16(first + IPV4_FRAGMENT) == fragment &&
           (fragment & DONT_FRAGMENT || get16(packet + IPV4_IDENTIFICATION) == identification);
}

/* CWR is of the first segment alone (RFC 3168 §6.1.2): with it, another group begins. */
static int is_next_in_tcp(const struct group *g, const struct arrival *a) {
    const uint8_t *first = g->packet + g->transport, *header = a->packet + a->transport;
    return get32(header + TCP_SEQUENCE) == g->next &&
           get32(first + TCP_ACKNOWLEDGMENT) == get32(header + TCP_ACKNOWLEDGMENT) &&
           first[TCP_OFFSET] == header[TCP_OFFSET] && get16(first + TCP_WINDOW) == get16(header + TCP_WINDOW) &&
           get16(first + TCP_URGENT) == get16(header + TCP_URGENT) &&
           (first[TCP_FLAGS] & ECE) == (header[TCP_FLAGS] & (ECE | CWR)) &&
           !memcmp(first + TCP_OCTETS, header + TCP_OCTETS, a->headers - a->transport - TCP_OCTETS);
}

static int is_next(const struct group *g, const struct arrival *a) {
    return a->octets - a->headers <= g->size && is_next_in_network(g, a) &&
           (a->protocol == UDP || is_next_in_tcp(g, a));
}

static void write_alone(struct coalescer *c, const struct arrival *a) {
    struct vnet vnet = {0};
    struct iovec vectors[] = {{&vnet, sizeof vnet}, {a->packet, a->octets}};
    c->write(c->context, vectors, 2, 1);
}

/* Makes the headers of the first those of all. */
static void lengthen(struct group *g) {
    uint8_t *packet = g->packet;
    if (g->transport == IPV6_OCTETS) {
        put16(packet + IPV6_LENGTH, (uint16_t)(g->octets - IPV6_OCTETS));
    } else {
        put16(packet + IPV4_LENGTH, (uint16_t)g->octets);
        put16(packet + IPV4_CHECKSUM, 0);
        checksum_put(packet + IPV4_CHECKSUM, checksum_header(packet, IPV4_OCTETS));
    }
    if (g->protocol == UDP)
        put16(packet + g->transport + UDP_LENGTH, (uint16_t)(g->octets - g->transport));
}

static uint8_t gso_type_of(const struct group *g) {
    if (g->protocol == UDP)
        return VNET_GSO_UDP_L4;
    uint8_t ecn = g->packet[g->transport + TCP_FLAGS] & CWR ? VNET_GSO_ECN : 0;
    return ecn | (g->transport == IPV4_OCTETS ? VNET_GSO_TCPV4 : VNET_GSO_TCPV6);
}

/* One that stayed alone too has been verified, and the kernel need not do it again: with NEEDS_CSUM the field holds the
 * sum of the pseudo-header and is believed. */
static void write_group(struct coalescer *c, struct group *g) {
    uint16_t offset = g->protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
    struct vnet vnet = {.flags = VNET_NEEDS_CSUM, .csum_start = g->transport, .csum_offset = offset};
    if (g->count > 1) {
        lengthen(g);
        vnet.gso_type = gso_type_of(g);
        vnet.hdr_len = g->headers;
        vnet.gso_size = g->size;
    }
    uint16_t sum = checksum_fold(pseudo_header(g->packet, g->transport, g->protocol, g->octets));
    memcpy(g->packet + g->transport + offset, &sum, sizeof sum);
    g->vectors[0] = (struct iovec){&vnet, sizeof vnet};
    c->waiting &= ~(1ull << (g - c->groups));
    c->write(c->context, g->vectors, g->count + 1, g->count);
}

static unsigned set_of(uint32_t hash) {
    return (hash & (SETS - 1)) * WAYS;
}

static struct group *find(struct coalescer *c, const struct arrival *a) {
    struct group *set = c->groups + set_of(a->hash);
    for (unsigned ways = c->waiting >> set_of(a->hash) & 0xFF; ways; ways &= ways - 1)
        if (is_of_flow(set + __builtin_ctz(ways), a))
            return set + __builtin_ctz(ways);
    return NULL;
}

/* A group that is free, or made so. */
static struct group *place(struct coalescer *c, uint32_t hash) {
    unsigned ways = ~(c->waiting >> set_of(hash)) & 0xFF;
    struct group *g = c->groups + set_of(hash) + (ways ? (unsigned)__builtin_ctz(ways) : hash >> 29);
    if (!ways)
        write_group(c, g);
    return g;
}

static struct group *begin(struct coalescer *c, const struct arrival *a) {
    struct group *g = place(c, a->hash);
    g->packet = a->packet;
    g->hash = a->hash;
    g->transport = a->transport;
    g->protocol = a->protocol;
    g->headers = a->headers;
    g->octets = (uint32_t)a->octets;
    g->size = (uint16_t)(a->octets - a->headers);
    g->next = get32(a->packet + a->transport + TCP_SEQUENCE) + g->size;
    g->count = 1;
    g->vectors[1] = (struct iovec){a->packet, a->octets};
    c->waiting |= 1ull << (g - c->groups);
    return g;
}

static void append(struct group *g, const struct arrival *a) {
    size_t payload = a->octets - a->headers;
    g->octets += (uint32_t)payload;
    g->next += (uint32_t)payload;
    g->count++;
    g->vectors[g->count] = (struct iovec){a->packet + a->headers, payload};
    if (g->protocol == TCP)
        g->packet[g->transport + TCP_FLAGS] |= a->packet[a->transport + TCP_FLAGS] & (FIN | PSH);
}

/* Whether nothing may follow `a`, which is the last of the group. */
static int is_full(const struct group *g, const struct arrival *a) {
    if (g->protocol == TCP && g->packet[g->transport + TCP_FLAGS] & (FIN | PSH))
        return 1;
    return a->octets - a->headers < g->size || g->count == SEGMENTS || g->octets + g->size > LONGEST;
}

struct coalescer *coalescer_new(coalescer_write *write, void *context, int tcp, int udp) {
    struct coalescer *c = calloc(1, sizeof *c);
    if (c) {
        c->write = write;
        c->context = context;
        coalescer_allow(c, tcp, udp);
    }
    return c;
}

void coalescer_free(struct coalescer *c) {
    free(c);
}

void coalescer_allow(struct coalescer *c, int tcp, int udp) {
    coalescer_flush(c);
    c->tcp = tcp;
    c->udp = udp;
}

void coalescer_add(struct coalescer *c, uint8_t *packet, size_t octets) {
    struct arrival a = {.packet = packet, .octets = octets};
    enum sight sight = look(&a);
    if (sight == OPAQUE)
        coalescer_flush(c);
    if (sight != PLAIN || !(a.protocol == TCP ? c->tcp : c->udp)) {
        write_alone(c, &a);
        return;
    }
    struct group *g = find(c, &a);
    int segment = is_segment(&a);
    if (g && segment && is_next(g, &a)) {
        append(g, &a);
    } else {
        if (g)
            write_group(c, g);
        if (!segment) {
            write_alone(c, &a);
            return;
        }
        g = begin(c, &a);
    }
    if (is_full(g, &a))
        write_group(c, g);
}

void coalescer_flush(struct coalescer *c) {
    while (c->waiting)
        write_group(c, c->groups + __builtin_ctzll(c->waiting));
}
