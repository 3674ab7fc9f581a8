#include "segment.h"

#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "headers.h"

/* RFC 8200 §4.1 knows seven extension headers in their order; a longer chain is somebody's trick. */
enum { EXTENSIONS = 8 };

/* A whole packet. The kernel leaves the sum of the pseudo-header in the field, so that all that is left is to sum from
 * there to the end. What is not an IP packet passes as well: that is found out by who asks for its flow. */
static int complete(const struct vnet *vnet, uint8_t *packet, size_t octets) {
    if (!octets)
        return 0;
    if (!(vnet->flags & VNET_NEEDS_CSUM))
        return 1;
    size_t start = vnet->csum_start, field = start + vnet->csum_offset;
    if (field + 2 > octets)
        return 0;
    checksum_put_nonzero(packet + field, checksum_sum(packet + start, octets - start));
    return 1;
}

/* Where the upper-layer header of an IPv6 packet begins, whose protocol goes to *protocol. Fragments are not cut: their
 * header is a protocol like any other that is neither TCP nor UDP. */
static size_t behind_extensions(const uint8_t *packet, size_t octets, int *protocol) {
    size_t offset = IPV6_OCTETS;
    *protocol = packet[IPV6_NEXT_HEADER];
    for (int i = 0; i < EXTENSIONS; i++) {
        if (*protocol != HOP_BY_HOP && *protocol != ROUTING && *protocol != DESTINATION)
            return offset;
        if (offset + 2 > octets)
            return 0;
        *protocol = packet[offset];
        offset += (packet[offset + 1] + 1u) * 8;
    }
    return 0;
}

/* Sets version, protocol and transport; 0 where the packet is not whole, or says another length than it has. */
static int find_transport(struct segments *s) {
    const uint8_t *packet = s->packet;
    s->version = s->octets ? packet[0] >> 4 : 0;
    if (s->version == 4 && s->octets >= IPV4_OCTETS) {
        s->transport = (packet[0] & 15) * 4u;
        s->protocol = packet[IPV4_PROTOCOL];
        int fragment = get16(packet + IPV4_FRAGMENT) & IS_FRAGMENT;
        return s->transport >= IPV4_OCTETS && !fragment && get16(packet + IPV4_LENGTH) == s->octets;
    }
    if (s->version == 6 && s->octets >= IPV6_OCTETS) {
        s->transport = behind_extensions(packet, s->octets, &s->protocol);
        return s->transport && (size_t)get16(packet + IPV6_LENGTH) + IPV6_OCTETS == s->octets;
    }
    return 0;
}

/* Whether the packet is what its gso_type promises, and its headers end inside it. */
static int find_headers(struct segments *s, unsigned gso_type) {
    const uint8_t *header = s->packet + s->transport;
    int tcp = (gso_type == VNET_GSO_TCPV4 && s->version == 4) || (gso_type == VNET_GSO_TCPV6 && s->version == 6);
    if (tcp && s->protocol == TCP && s->transport + TCP_OCTETS <= s->octets) {
        s->headers = s->transport + (header[TCP_OFFSET] >> 4) * 4u;
        return s->headers >= s->transport + TCP_OCTETS && s->headers < s->octets;
    }
    if (gso_type == VNET_GSO_UDP_L4 && s->protocol == UDP && s->transport + UDP_OCTETS <= s->octets) {
        s->headers = s->transport + UDP_OCTETS;
        return get16(header + UDP_LENGTH) == s->octets - s->transport && s->headers < s->octets;
    }
    return 0;
}

/* The sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) without the length, less what stands in the field. With
 * NEEDS_CSUM the field has it, and for the last address of a source route, which the IP header does not show: the
 * two cancel out, but for the length. */
static uint64_t pseudo_header(const struct segments *s, int in_field, const uint8_t *field) {
    if (in_field) {
        uint16_t length = htobe16((uint16_t)(s->octets - s->transport));
        return checksum_less((const uint8_t *)&length);
    }
    uint64_t addresses = s->version == 4 ? checksum_header(s->packet + IPV4_ADDRESSES, 8)
                                         : checksum_header(s->packet + IPV6_ADDRESSES, 32);
    return addresses + checksum_number((uint16_t)s->protocol) + checksum_less(field);
}

/* What is the same in the sums of all segments: the IPv4 header but for total length, identification and checksum; the
 * transport header and its pseudo-header but for lengths, sequence number, flags and checksum. */
static void sum_constants(struct segments *s, const struct vnet *vnet) {
    const uint8_t *packet = s->packet, *header = packet + s->transport;
    if (s->version == 4)
        s->constant[0] = checksum_header(packet, s->transport) + checksum_less(packet + IPV4_LENGTH) +
                         checksum_less(packet + IPV4_IDENTIFICATION) + checksum_less(packet + IPV4_CHECKSUM);
    uint64_t sum = checksum_header(header, s->headers - s->transport);
    if (s->protocol == TCP)
        sum += checksum_less(header + TCP_SEQUENCE) + checksum_less(header + TCP_SEQUENCE + 2) +
               checksum_less(header + TCP_OFFSET);
    else
        sum += checksum_less(header + UDP_LENGTH);
    const uint8_t *field = header + (s->protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
    s->constant[1] = sum + pseudo_header(s, vnet->flags & VNET_NEEDS_CSUM, field);
}

unsigned segments_begin(struct segments *s, const struct vnet *vnet, uint8_t *packet, size_t octets) {
    *s = (struct segments){.packet = packet, .octets = octets, .headers = octets, .largest = octets};
    if (vnet->gso_type == VNET_GSO_NONE)
        return s->count = (unsigned)complete(vnet, packet, octets);
    if (!vnet->gso_size || !find_transport(s) || !find_headers(s, vnet->gso_type & ~VNET_GSO_ECN))
        return 0;
    unsigned offset = s->protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
    if (vnet->flags & VNET_NEEDS_CSUM && (vnet->csum_start != s->transport || vnet->csum_offset != offset))
        return 0;
    size_t payload = octets - s->headers;
    if (payload <= vnet->gso_size) { /* there is nothing to cut */
        s->headers = octets;
        return s->count = (unsigned)complete(vnet, packet, octets);
    }
    s->size = vnet->gso_size;
    s->largest = s->headers + s->size;
    s->identification = get16(packet + IPV4_IDENTIFICATION);
    s->sequence = get32(packet + s->transport + TCP_SEQUENCE);
    sum_constants(s, vnet);
    return s->count = (unsigned)((payload + s->size - 1) / s->size);
}

size_t segments_next_octets(const struct segments *s) {
    size_t left = s->octets - s->headers - (size_t)s->taken * s->size;
    if (s->taken >= s->count)
        return 0;
    return s->headers + (left < s->size ? left : s->size);
}

static void finish_network(const struct segments *s, uint8_t *packet, size_t octets) {
    if (s->version == 6) {
        put16(packet + IPV6_LENGTH, (uint16_t)(octets - IPV6_OCTETS));
        return;
    }
    uint16_t identification = (uint16_t)(s->identification + s->taken);
    put16(packet + IPV4_LENGTH, (uint16_t)octets);
    put16(packet + IPV4_IDENTIFICATION, identification);
    checksum_put(packet + IPV4_CHECKSUM,
                 s->constant[0] + checksum_number((uint16_t)octets) + checksum_number(identification));
}

/* FIN and PSH belong to the last octet of the data, CWR to the first (RFC 3168 §6.1.2). */
static void finish_tcp(const struct segments *s, uint8_t *header, uint64_t sum) {
    put32(header + TCP_SEQUENCE, s->sequence + (uint32_t)s->taken * s->size);
    if (s->taken + 1 < s->count)
        header[TCP_FLAGS] &= (uint8_t)~(FIN | PSH);
    if (s->taken)
        header[TCP_FLAGS] &= (uint8_t)~CWR;
    sum += checksum_header(header + TCP_SEQUENCE, 4) + checksum_number(get16(header + TCP_OFFSET));
    checksum_put(header + TCP_CHECKSUM, sum);
}

static void finish_udp(uint8_t *header, uint16_t length, uint64_t sum) {
    put16(header + UDP_LENGTH, length);
    checksum_put_nonzero(header + UDP_CHECKSUM, sum + checksum_number(length));
}

static void finish_transport(const struct segments *s, uint8_t *header, uint16_t length, uint64_t sum) {
    sum += checksum_number(length); /* that of the pseudo-header */
    if (s->protocol == TCP)
        finish_tcp(s, header, sum);
    else
        finish_udp(header, length, sum);
}

void segments_take(struct segments *s, uint8_t *into) {
    size_t octets = segments_next_octets(s);
    if (!octets)
        return;
    memcpy(into, s->packet, s->headers);
    if (s->size) {
        const uint8_t *payload = s->packet + s->headers + (size_t)s->taken * s->size;
        uint64_t sum = s->constant[1] + checksum_copy(into + s->headers, payload, octets - s->headers);
        finish_network(s, into, octets);
        finish_transport(s, into + s->transport, (uint16_t)(octets - s->transport), sum);
    }
    s->taken++;
}
