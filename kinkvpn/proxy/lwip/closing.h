/* Connections whose descriptors have gone, and that lwIP has still to bring to their end: they may hold what was to be
 * sent, and a peer could have them stay for ever, by an answer to each probe of its window of zero.
 */
#ifndef KINKVPN_CLOSING_H
#define KINKVPN_CLOSING_H

#include <stdint.h>

struct stack;
struct tcp_pcb;

/* It is nobody's any more, and has `window` octets of the stack's until it is gone. The oldest makes room for it. */
void closing_add(struct stack *stack, struct tcp_pcb *tcp, uint64_t window);
/* Gives up those that have had their time; to be called now and then. */
void closing_check(struct stack *stack);
void closing_end_all(struct stack *stack);

#endif
