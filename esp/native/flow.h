/* What the engine reads of an inner packet: its length, and the flow it belongs to (RFC 791, RFC 8200); esp.inner's twin. */
#ifndef ESP_NATIVE_FLOW_H
#define ESP_NATIVE_FLOW_H

#include <stddef.h>
#include <stdint.h>

#define OPAQUE (-1) /* shown by no octet of this packet (RFC 4301 §4.4.1.1) */

/* Comparable as octets: nothing in it is padding, and what is not used is zero. */
struct flow {
    uint64_t addresses[4]; /* as in the packet: source, destination; of IPv4 the first of the four has both */
    int32_t source_port, destination_port; /* or OPAQUE; what ICMP has instead stands in both places */
    int16_t protocol;                      /* or OPAQUE */
    uint8_t version;                       /* of IP */
    uint8_t fragment;                      /* whether it is a fragment of whatever kind, atomic ones included */
    uint32_t zero;
};

/* Octets of the IP packet that `packet` starts with, and its flow. 0 where it is neither IPv4 nor IPv6, is cut, or its
 * lengths contradict each other. */
size_t flow_parse(const uint8_t *packet, size_t octets, struct flow *flow);

/* What may stand in each place of a flow: first and last, in the order of the packet. OPAQUE is less than all that is shown. */
struct box {
    uint64_t source[2][2], destination[2][2]; /* first and last; high and low half, in host order */
    int32_t protocol[2], source_port[2], destination_port[2];
    int version;
    int names_opaque; /* asks for OPAQUE somewhere */
};

/* Whether a flow is of a box; UNKNOWN: the packet does not show what is asked for. */
enum match { MATCH_NO, MATCH_YES, MATCH_UNKNOWN };
enum match box_match(const struct box *box, const struct flow *flow);

#endif
