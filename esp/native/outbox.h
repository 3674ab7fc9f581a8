/* ESP packets on their way out: a batch of them sealed where they lie, and sent in as few calls as the kernel allows. */
#ifndef ESP_NATIVE_OUTBOX_H
#define ESP_NATIVE_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include "remote.h"

#define MAX_SOCKETS 4

/* A socket of the link. */
struct port {
    int fd;
    int family;
    int raw; /* IP protocol 50, without UDP */
};

struct outbox;

/* What it could not send, and why it does without a run of datagrams in one call from now on. */
struct outbox_report {
    uint64_t datagrams, refused, calls;
    uint32_t errors;   /* bit for each port that has an error to tell */
    int fell_back;     /* the errno that ended the sending of runs; 0 while they go */
};

/* ports stay the caller's. runs: whether runs of datagrams may leave in one call (UDP_SEGMENT). */
struct outbox *outbox_new(const struct port *ports, unsigned count, int runs);
void outbox_free(struct outbox *);
/* Where to seal an ESP packet of `octets`, which goes to `remote` with that traffic class; it is sent with the others.
 * NULL where no port reaches the remote. There is room for SA_BACK octets more behind it. `remote` has to live until outbox_flush. */
uint8_t *outbox_place(struct outbox *, size_t octets, const struct remote *remote, uint8_t traffic_class);
/* The packet placed last was not sealed after all. */
void outbox_withdraw(struct outbox *);
/* Sends all of it. */
void outbox_flush(struct outbox *);
/* What has happened since the last call. */
struct outbox_report outbox_take_report(struct outbox *);

#endif
