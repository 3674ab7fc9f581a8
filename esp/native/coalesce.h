/* Segments of one flow put together again on their way into the TUN: one write for a batch's worth of TCP or UDP.
 *
 * What is given stays where it is until `coalescer_flush`. Order is kept within a flow. What is put together is, cut
 * again, what it was: only segments whose checksums are right, whose headers differ in nothing but what cutting makes
 * differ, and that follow on each other.
 */
#ifndef ESP_NATIVE_COALESCE_H
#define ESP_NATIVE_COALESCE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "segment.h"

/* The most that one write has: 64 segments and the vnet header. */
#define COALESCED_VECTORS 65

/* Called for each packet that is ready, out of coalescer_add or coalescer_flush: `vectors[0]` is the vnet header,
 * `vectors[1]` and those that follow the packet; at most COALESCED_VECTORS. `packets` is how many of those given went
 * into it. */
typedef void coalescer_write(void *context, const struct iovec *vectors, int count, unsigned packets);

struct coalescer;

/* tcp, udp: whether segments of that protocol may be put together. NULL where there is no memory; none is taken
 * later. */
struct coalescer *coalescer_new(coalescer_write *write, void *context, int tcp, int udp);
void coalescer_free(struct coalescer *);
/* The same switches later; what waits is written first. */
void coalescer_allow(struct coalescer *, int tcp, int udp);
/* A whole IP packet of `octets`, which may be written to. One that is not well-formed is written as it is. */
void coalescer_add(struct coalescer *, uint8_t *packet, size_t octets);
/* Writes all that waits; after that nothing is kept of what was given. */
void coalescer_flush(struct coalescer *);

#endif
