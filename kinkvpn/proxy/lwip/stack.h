/* A TCP/IP stack in a thread of this process, lwIP's, whose connections are descriptors for everybody else.
 *
 * Who wants something makes a socket pair and hands one end over. A TCP connection is a stream that begins, for who
 * connects, with an octet that says what became of it: 0, or an errno. A listener is a SOCK_SEQPACKET: such an octet, then
 * a message for each connection, with its descriptor (SCM_RIGHTS) and where it comes from. A UDP socket is one too: each
 * message is an endpoint and the datagram that goes there or has come from there. Closing the other end ends any of them.
 *
 * What is written there goes into the tunnel. What comes from there goes to a descriptor that is sent through the pair
 * (SCM_RIGHTS) and takes its place in both directions: octets do not pass through Python, and through the pair comes an
 * octet at the end: 0, or the errno of a reset.
 */
#ifndef KINKVPN_STACK_H
#define KINKVPN_STACK_H

#include <stdint.h>

enum { STACK_CONNECT, STACK_LISTEN, STACK_UDP };

/* Before a datagram and with an accepted connection: 4 or 6, the address at the front of its 16 octets, the port. */
struct stack_endpoint {
    uint8_t version;
    uint8_t address[16];
    uint8_t port[2];
};

struct stack_settings {
    int device; /* reads and writes packets, or a vnet header and a packet; does not block */
    int vnet;
    unsigned mtu;
    unsigned flows;    /* no more of them at a time */
    unsigned patience; /* ms, for connections that have begun to end and do not */
    uint64_t windows;  /* octets that all connections together may have promised to take, and as many to send */
    unsigned addresses;
    struct stack_endpoint own[4];
};

struct stack_counters {
    uint64_t received, sent, refused; /* packets; those that the device had no room for */
    uint64_t flows, closing;          /* now; those that have no descriptor any more and are not at their end */
    uint64_t given_up;                /* for want of patience */
};

struct stack;

/* There is one lwIP in a process: NULL with errno EBUSY while it is in use. */
struct stack *stack_new(const struct stack_settings *settings);
void stack_free(struct stack *stack);
/* Until stack_stop: 0, or the errno with which the device went. */
int stack_run(struct stack *stack);
/* These from any thread. */
void stack_stop(struct stack *stack);
void stack_set_mtu(struct stack *stack, unsigned mtu);
/* Takes `fd` over, and answers through it: 0, or ENOBUFS where too much is asked at once; then `fd` is the caller's. */
int stack_ask(struct stack *stack, int what, const struct stack_endpoint *endpoint, int fd);
void stack_count(const struct stack *stack, struct stack_counters *into);

#endif
