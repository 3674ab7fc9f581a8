/* What lwIP has on one side and a descriptor on the other: TCP connections, listeners, UDP sockets. */
#ifndef KINKVPN_FLOW_H
#define KINKVPN_FLOW_H

#include <stdatomic.h>
#include <stdint.h>

#include "stack.h"

enum {
    VNET = 10,  /* octets of a struct virtio_net_hdr */
    PATHS = 16, /* that are narrower than the tunnel */
};

struct stack_private;
struct flow;
struct closing;

struct path {
    uint8_t to[16];
    uint16_t mtu;
    uint32_t since; /* sys_now() */
};

struct stack {
    int device, vnet, wake, epoll;
    int full; /* the device has taken no more: what waits goes on when it does */
    _Atomic unsigned mtu;
    atomic_int stop;
    unsigned flows;
    uint32_t patience; /* ms */
    uint64_t windows;  /* octets that may yet be promised */
    struct stack_counters counters;
    struct flow *first, *due, *ended;
    struct closing *closing, **last_closing;
    struct path paths[PATHS];
    int heard; /* of one of them */
    struct stack_private *own;
};

/* These in the stack's thread. */
void flow_begin(struct stack *stack, int what, const struct stack_endpoint *endpoint, int fd);
void flow_ready(struct flow *flow, uint32_t events);
/* Whatever is due, in turn; whether something is due again at once. */
int flow_serve(struct stack *stack);
void flow_all_due(struct stack *stack);
/* Gives up those that have been half closed, and silent, for longer than the stack's patience; now and then. */
void flow_check(struct stack *stack);
void flow_end_all(struct stack *stack);

#endif
