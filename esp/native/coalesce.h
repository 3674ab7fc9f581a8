/* Segments of one flow put together again on their way into the TUN: one write for a batch's worth of TCP or UDP.
 *
 * What is given stays where it is until `coalescer_flush`. Order is kept within a flow.
 */
#ifndef ESP_NATIVE_COALESCE_H
#define ESP_NATIVE_COALESCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "segment.h"

/* Called for each packet that is ready: `vectors[0]` is the vnet header, `vectors[1]` and those that follow the packet. `packets` is how
 * many of those given went into it. */
typedef void coalescer_write(void *context, const struct iovec *vectors, int count, unsigned packets);

struct coalescer;

/* tcp, udp: whether segments of that protocol may be put together. NULL where there is no memory; it takes no more later. */
struct coalescer *coalescer_new(coalescer_write *write, void *context, int tcp, int udp);
void coalescer_free(struct coalescer *);
void coalescer_allow(struct coalescer *, int tcp, int udp);
/* A whole, well-formed IP packet of `octets`, which may be written to. */
void coalescer_add(struct coalescer *, uint8_t *packet, size_t octets);
/* Writes all that waits; after that nothing is kept of what was given. */
void coalescer_flush(struct coalescer *);

#endif
