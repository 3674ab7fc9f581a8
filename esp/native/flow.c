#include "flow.h"

#include "bytes.h"

enum { HOP_BY_HOP = 0, ICMP = 1, TCP = 6, UDP = 17, DCCP = 33, ROUTING = 43, FRAGMENT = 44, ICMPV6 = 58,
       DESTINATION = 60, SCTP = 132, MOBILITY = 135, UDP_LITE = 136 };

/* esp.inner.MAX_EXTENSIONS, for its reason. */
#define MAX_EXTENSIONS 8

static int has_ports(int protocol) {
    return protocol == TCP || protocol == UDP || protocol == DCCP || protocol == SCTP || protocol == UDP_LITE;
}

static int is_extension(int protocol) {
    return protocol == HOP_BY_HOP || protocol == ROUTING || protocol == DESTINATION;
}

/* Ports, or what stands in their place, of the transport header at `offset`. */
static void read_ports(const uint8_t *packet, size_t offset, size_t total, struct flow *flow) {
    flow->source_port = flow->destination_port = OPAQUE;
    if (has_ports(flow->protocol)) {
        if (offset + 4 <= total) {
            flow->source_port = get16(packet + offset);
            flow->destination_port = get16(packet + offset + 2);
        }
    } else if (flow->protocol == ICMP || flow->protocol == ICMPV6) {
        if (offset + 1 < total)
            flow->source_port = flow->destination_port = get16(packet + offset); /* type and code (RFC 792) */
    } else if (flow->protocol == MOBILITY) {
        if (offset + 2 < total)
            flow->source_port = flow->destination_port = packet[offset + 2] << 8; /* type (RFC 6275 §6.1.1) */
    }
}

static size_t parse_ipv4(const uint8_t *packet, size_t octets, struct flow *flow) {
    size_t header = (packet[0] & 0x0f) * 4, total = get16(packet + 2);
    if (header < 20 || header > total || total > octets)
        return 0;
    uint16_t fragment = get16(packet + 6);
    flow->protocol = packet[9];
    memcpy(flow->addresses, packet + 12, 8);
    flow->fragment = (fragment & 0x3fff) != 0;
    if (fragment & 0x1fff)
        flow->source_port = flow->destination_port = OPAQUE;
    else
        read_ports(packet, header, total, flow);
    return total;
}

/* Upper-layer protocol and ports behind the extension headers (RFC 8200 §4). */
static void follow(const uint8_t *packet, int protocol, size_t total, struct flow *flow) {
    size_t offset = 40;
    flow->protocol = OPAQUE;
    flow->source_port = flow->destination_port = OPAQUE;
    for (int i = 0; i <= MAX_EXTENSIONS; i++) {
        if (protocol == FRAGMENT) {
            flow->fragment = 1;
            if (offset + 8 > total)
                return;
            protocol = packet[offset];
            if (get16(packet + offset + 2) >> 3) { /* not the first: one more extension header is not in here */
                if (!is_extension(protocol) && protocol != FRAGMENT)
                    flow->protocol = protocol;
                return;
            }
            offset += 8;
        } else if (is_extension(protocol)) {
            if (offset + 2 > total)
                return;
            protocol = packet[offset];
            offset += (packet[offset + 1] + 1) * 8;
        } else {
            flow->protocol = protocol;
            read_ports(packet, offset, total, flow);
            return;
        }
    }
}

static size_t parse_ipv6(const uint8_t *packet, size_t octets, struct flow *flow) {
    if (octets < 40)
        return 0;
    size_t total = 40 + (size_t)get16(packet + 4);
    if (total > octets)
        return 0;
    memcpy(flow->addresses, packet + 8, 32);
    follow(packet, packet[6], total, flow);
    return total;
}

size_t flow_parse(const uint8_t *packet, size_t octets, struct flow *flow) {
    memset(flow, 0, sizeof *flow);
    if (octets < 20)
        return 0;
    flow->version = packet[0] >> 4;
    if (flow->version == 4)
        return parse_ipv4(packet, octets, flow);
    return flow->version == 6 ? parse_ipv6(packet, octets, flow) : 0;
}

static int within(const uint64_t address[2], const uint64_t range[2][2]) {
    const uint64_t *first = range[0], *last = range[1];
    int above = address[0] > first[0] || (address[0] == first[0] && address[1] >= first[1]);
    int below = address[0] < last[0] || (address[0] == last[0] && address[1] <= last[1]);
    return above && below;
}

/* MATCH_YES keeps `found` as it is. */
static int place(int32_t shown, const int32_t range[2], enum match *found) {
    if (range[0] <= shown && shown <= range[1])
        return 1;
    *found = MATCH_UNKNOWN;
    return shown == OPAQUE;
}

enum match box_match(const struct box *box, const struct flow *flow) {
    if (box->version != flow->version)
        return MATCH_NO;
    const uint8_t *at = (const uint8_t *)flow->addresses;
    uint64_t source[2], destination[2];
    if (flow->version == 4) {
        source[0] = destination[0] = 0;
        source[1] = get32(at);
        destination[1] = get32(at + 4);
    } else {
        source[0] = get64(at);
        source[1] = get64(at + 8);
        destination[0] = get64(at + 16);
        destination[1] = get64(at + 24);
    }
    if (!within(source, box->source) || !within(destination, box->destination))
        return MATCH_NO;
    enum match found = MATCH_YES;
    if (!place(flow->protocol, box->protocol, &found) || !place(flow->source_port, box->source_port, &found) ||
        !place(flow->destination_port, box->destination_port, &found))
        return MATCH_NO;
    return found;
}
