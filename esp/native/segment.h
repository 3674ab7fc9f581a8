/* Large packets of the TUN cut into those that travel: TSO and USO, both versions of IP (linux/virtio_net.h). */
#ifndef ESP_NATIVE_SEGMENT_H
#define ESP_NATIVE_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

/* struct virtio_net_hdr, of ten octets, in host order unless TUNSETVNETLE says otherwise. */
struct vnet {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
} __attribute__((packed));

#define VNET_NEEDS_CSUM 1
#define VNET_GSO_NONE 0
#define VNET_GSO_TCPV4 1
#define VNET_GSO_TCPV6 4
#define VNET_GSO_UDP_L4 5
#define VNET_GSO_ECN 0x80

/* A packet that is being cut. The packet stays where it is, and is read until the last segment has been taken. */
struct segments {
    const uint8_t *packet;
    size_t octets;       /* of the packet */
    size_t headers;      /* octets that each segment begins with */
    size_t largest;      /* octets of the largest segment, headers included */
    unsigned count;      /* of segments */
    unsigned taken;
    /* The rest is the implementation's: it is made for one pass, on the stack. */
    size_t transport;       /* where that header begins */
    uint16_t size;          /* octets of payload of each segment but the last; 0 where nothing is cut */
    uint16_t identification;
    uint32_t sequence;
    uint64_t constant[2];   /* sums of what is the same in each: of the network header, of the transport header */
    int version, protocol;
};

/* Makes ready to cut `packet`, as it was read with `vnet`. Returns the number of segments; 1 for a packet that is
 * whole, whose checksum is completed in place where the kernel left that to us, so that it need not be taken; 0 for
 * what makes no sense. Nothing that `vnet` says of lengths is believed unless the packet says so too.
 *
 * IPv4 options and IPv6 hop-by-hop, routing and destination options come along into each segment. Fragments, other
 * extension headers, UFO, and what has no payload are refused. */
unsigned segments_begin(struct segments *, const struct vnet *vnet, uint8_t *packet, size_t octets);
/* Octets of the next segment; 0 once all have been taken. */
size_t segments_next_octets(const struct segments *);
/* Writes the next segment to `into`, complete with all checksums. */
void segments_take(struct segments *, uint8_t *into);

#endif
