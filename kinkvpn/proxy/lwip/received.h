/* Octets that have come for a descriptor and that it has not taken yet, in lwIP's buffers. */
#ifndef KINKVPN_RECEIVED_H
#define KINKVPN_RECEIVED_H

#include <stddef.h>
#include <sys/uio.h>

#include "lwip/pbuf.h"

struct tcp_pcb;

struct received {
    struct pbuf *first, *last;
    size_t taken; /* of the first of them */
    size_t room;  /* behind what the last of them has */
};

/* Takes `octets` over. No more memory is held than about twice what has come, in whatever pieces. */
void received_add(struct received *received, struct pbuf *octets);
/* The front of them; how many vectors that is. */
size_t received_vectors(const struct received *received, struct iovec *vectors, size_t most);
/* So many of the front have been taken. */
void received_take(struct received *received, size_t octets);
void received_free(struct received *received);
/* How many octets `tcp` may keep of what has come out of order: as many as cost twice the memory of what it has still
 * promised to take, or less; otherwise any number. lwIP throws away what is behind them.
 */
uint32_t received_early_limit(const struct tcp_pcb *tcp);

#endif
