/* How large the segments of a connection may be: as its peer, the tunnel and the paths behind the tunnel have it. */
#ifndef KINKVPN_SEGMENTS_H
#define KINKVPN_SEGMENTS_H

#include <stddef.h>
#include <stdint.h>

struct stack;
struct tcp_pcb;

/* The tunnel carries less than it did: what was cut for more is cut again, and sent again. */
void segments_shrink(struct stack *stack);
/* The MSS of `tcp` towards a peer that takes `agreed`. */
uint16_t segments_mss(const struct stack *stack, const struct tcp_pcb *tcp, uint16_t agreed);
/* Whether `packet` is an ICMPv6 "packet too big" (RFC 8201). lwIP would believe any, and does not cut again. One about
 * what is on its way in a connection of ours is heard, and all connections to there have smaller segments then.
 */
int segments_hear(struct stack *stack, const uint8_t *packet, size_t octets);

#endif
