/* The packet loop of one lane: TUN to sockets and back, in a thread of its own, without Python.
 *
 * Everything is made at the start, and of a fixed size; nothing waits in here. What a batch does not send or write is
 * dropped and counted, and what comes while a batch is at work waits in the queues of the kernel, which drop when full.
 */
#ifndef ESP_NATIVE_LOOP_H
#define ESP_NATIVE_LOOP_H

#include <stdatomic.h>
#include <stdint.h>

#include "engine.h"
#include "outbox.h"
#include "ring.h"

struct loop_settings {
    int tun;
    int vnet;     /* reads and writes of the TUN begin with a vnet header */
    int ethernet; /* and go on with an Ethernet header: the TUN is a packet socket at one end of a veth pair */
    uint8_t hardware[12]; /* destination and source of that */
    struct port ports[MAX_SOCKETS];
    unsigned port_count;
    unsigned receives; /* bit for each port that this loop receives by: what comes by the others is another's */
    int runs, coalesce_tcp, coalesce_udp;
    double clock_offset; /* what CLOCK_MONOTONIC is behind the engine's `now`, seconds */
    int wake;            /* eventfd: Python is to look at the rings */
};

/* What passed, besides what the lane counts; written by the loop. */
struct loop_counters {
    _Atomic uint64_t esp_received, control_received, keepalives_received, junk_received, refused;
    _Atomic uint64_t polls, reads, writes, receives, sends; /* calls */
    _Atomic uint64_t packets_read, packets_written, datagrams_received, datagrams_sent;
};

/* Records that wait: packets that Python has to do, KINK, and what else it is told. */
enum { RING_PACKETS, RING_CONTROL, RING_NEWS, RINGS };

/* No policy and no SA has more of the packets' ring than a part: what waits for one that Python is slow with, or for a peer
 * that does not answer, leaves room for the others'. */
#define SHARES 1024
#define SHARE_OCTETS (2 << 20)

/* Offloads that may fail in service, in `detail` of RECORD_TROUBLE. */
enum { TROUBLE_UDP_SEGMENT = 1, TROUBLE_COALESCE_UDP = 2, TROUBLE_COALESCE = 3 };

struct loop {
    struct lane *lane;
    struct loop_settings settings;
    struct loop_counters counters;
    struct ring rings[RINGS];
    _Atomic int64_t shares[SHARES]; /* octets that wait in the packets' ring */
    atomic_int signalled;     /* Python has been woken, and has not looked since */
    atomic_int stop;
    atomic_int unread;        /* there was no room to tell of some SA: what its `attention` has is yet to be looked at */
    _Atomic unsigned errors;  /* bit for each port whose errors Python has been told of, and has not taken */
    int alarm;                /* eventfd that ends a sleep */
    struct loop_private *own;
};

/* NULL where there is no memory or no descriptor. */
struct loop *loop_new(struct lane *lane, const struct loop_settings *settings);
void loop_free(struct loop *loop);
/* Carries packets until loop_stop: 0, or the errno with which the TUN went; EBADF where somebody closed it, or a socket. */
int loop_run(struct loop *loop);
/* From any thread; the loop ends with the batch that it is at. */
void loop_stop(struct loop *loop);
/* From any thread; the loop takes a turn, and so counts a poll, whether there is anything to do or not. */
void loop_rouse(struct loop *loop);
/* Python is about to look at the rings, and is woken again by what comes after. Whether it has to look at all SAs, too. */
int loop_look(struct loop *loop);
/* The counters as they are, each whole. */
void loop_count(const struct loop *loop, struct loop_counters *into);
/* Python has taken a record of the packets' ring. */
void loop_packet_taken(struct loop *loop, const struct record *record);
/* Python has taken the errors of that port. */
void loop_errors_taken(struct loop *loop, unsigned port);

#endif
