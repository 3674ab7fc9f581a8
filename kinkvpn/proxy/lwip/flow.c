#define _GNU_SOURCE
#include "flow.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "closing.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/sys.h"
#include "lwip/tcp.h"
#include "lwip/udp.h"
#include "received.h"
#include "segments.h"

enum {
    CHUNK = 65535,            /* octets of one tcp_write, which counts them in 16 bits */
    CHUNKS = 8,               /* of one turn */
    UNSENT = 256 * 1024,      /* octets that lwIP keeps beyond the window: it walks them, segment by segment */
    DATAGRAMS = 64,           /* of one turn */
    BACKLOG = 64,             /* half open and not yet accepted, of a listener */
    INITIAL_SEGMENTS = 10,    /* RFC 6928 */
    LEAST_WINDOW = 65535,     /* what a connection has promised before it is established */
    LEAST_MSS = 48,           /* as Linux has it since CVE-2019-11479: a header for each octet is nobody's wish */
    LEAST_SEGMENT = 512,      /* on average, of what waits to be sent: a segment costs a quarter of that */
    SEGMENTS = 512,           /* of one tcp_write, however small the peer will have them */
    IDLE_MS = 120000,         /* until a peer that says nothing is asked whether it is there */
    PORTS_FROM = 49152, PORTS = 16384, /* RFC 6335 §6 */
    TRIES = 64,
};

struct flow {
    struct stack *stack;
    struct flow *next, **link; /* of all */
    struct flow *next_due;
    int what, fd, pair; /* pair: what `fd` has taken the place of, or -1 */
    struct tcp_pcb *tcp;
    struct udp_pcb *udp;
    struct received received;
    uint8_t *rest; /* read from `fd`, and not taken by lwIP yet */
    size_t rest_octets;
    uint64_t window; /* octets of the stack's that it has been promised */
    uint32_t moved;  /* sys_now() when octets have last gone in either direction */
    uint16_t mss;    /* that the peer has agreed to */
    unsigned is_due : 1, readable : 1, writable : 1, connected : 1, peer_ended : 1, shut : 1, ended : 1, hung_up : 1;
    int error;
};

static uint8_t scratch[CHUNK];

static void make_due(struct flow *flow) {
    if (flow->is_due)
        return;
    flow->is_due = 1;
    flow->next_due = flow->stack->due;
    flow->stack->due = flow;
}

void flow_all_due(struct stack *stack) {
    for (struct flow *flow = stack->first; flow != NULL; flow = flow->next)
        make_due(flow);
}

static void watch(struct flow *flow) {
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = flow}};
    fcntl(flow->fd, F_SETFL, fcntl(flow->fd, F_GETFL) | O_NONBLOCK);
    epoll_ctl(flow->stack->epoll, EPOLL_CTL_ADD, flow->fd, &event);
    flow->readable = flow->writable = 1;
    make_due(flow);
}

/* NULL where there is no memory, or there are too many. */
static struct flow *add(struct stack *stack, int what, int fd) {
    struct flow *flow = stack->counters.flows < stack->flows ? calloc(1, sizeof *flow) : NULL;
    if (flow == NULL)
        return NULL;
    *flow = (struct flow){.stack = stack, .what = what, .fd = fd, .pair = -1, .next = stack->first, .link = &stack->first};
    if (stack->first != NULL)
        stack->first->link = &flow->next;
    stack->first = flow;
    stack->counters.flows++;
    return flow;
}

/* lwIP goes on alone with what it still has of this connection, or forgets it at once. */
static void detach(struct flow *flow, int abort) {
    struct tcp_pcb *tcp = flow->tcp;
    flow->tcp = NULL;
    if (tcp == NULL)
        return;
    tcp_arg(tcp, NULL);
    if (flow->what == STACK_LISTEN) {
        tcp_accept(tcp, NULL);
        tcp_close(tcp);
        return;
    }
    tcp_recv(tcp, NULL);
    tcp_sent(tcp, NULL);
    tcp_err(tcp, NULL);
    tcp_set_flags(tcp, TF_RXCLOSED);
    if (abort) {
        tcp_abort(tcp);
        return;
    }
    closing_add(flow->stack, tcp, flow->window);
    flow->window = 0;
}

static void answer(int fd, int error) {
    uint8_t octet = (uint8_t)error;
    (void)!send(fd, &octet, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Both sides are done with it, or one has had enough. Its memory goes at the end of the turn: events may name it. */
static void end(struct flow *flow, int abort) {
    struct stack *stack = flow->stack;
    detach(flow, abort);
    if (flow->udp != NULL)
        udp_remove(flow->udp);
    received_free(&flow->received);
    free(flow->rest);
    if (flow->pair >= 0) {
        struct linger at_once = {1, 0};
        if (flow->error)
            setsockopt(flow->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        answer(flow->pair, flow->error);
        close(flow->pair);
    }
    /* Whoever has sent it may have it open still, and as long as it is open epoll would go on telling of it. */
    epoll_ctl(stack->epoll, EPOLL_CTL_DEL, flow->fd, NULL);
    close(flow->fd);
    *flow->link = flow->next;
    if (flow->next != NULL)
        flow->next->link = flow->link;
    stack->windows += flow->window;
    stack->counters.flows--;
    flow->ended = 1;
    flow->fd = -1;
    flow->next = stack->ended;
    stack->ended = flow;
}

void flow_end_all(struct stack *stack) {
    while (stack->first != NULL)
        end(stack->first, 1);
    flow_serve(stack);
}

void flow_ready(struct flow *flow, uint32_t events) {
    if (flow->ended)
        return;
    flow->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    flow->writable |= (events & (EPOLLOUT | EPOLLERR)) != 0;
    flow->hung_up |= (events & (EPOLLHUP | EPOLLERR)) != 0;
    make_due(flow);
}

/* --- addresses --- */

static void to_lwip(const struct stack_endpoint *endpoint, ip_addr_t *address, u16_t *port) {
    memset(address, 0, sizeof *address);
    memcpy(&address->u_addr, endpoint->address, endpoint->version == 6 ? 16 : 4);
    IP_SET_TYPE(address, endpoint->version == 6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_V4);
    *port = (u16_t)(endpoint->port[0] << 8 | endpoint->port[1]);
}

static void from_lwip(const ip_addr_t *address, u16_t port, struct stack_endpoint *endpoint) {
    *endpoint = (struct stack_endpoint){.version = IP_IS_V6(address) ? 6 : 4, .port = {(uint8_t)(port >> 8), (uint8_t)port}};
    memcpy(endpoint->address, &address->u_addr, IP_IS_V6(address) ? 16 : 4);
}

/* RFC 6056 §3.3.1; lwIP would take the next one each time. */
static u16_t any_port(void) {
    return (u16_t)(PORTS_FROM + LWIP_RAND() % PORTS);
}

static int errno_of(err_t error) {
    switch (error) {
    case ERR_OK: return 0;
    case ERR_RST: return ECONNREFUSED;
    case ERR_RTE: return ENETUNREACH;
    case ERR_USE: return EADDRINUSE;
    case ERR_ABRT: return ETIMEDOUT;
    case ERR_MEM: case ERR_BUF: return ENOBUFS;
    default: return EIO;
    }
}

/* --- TCP, as lwIP calls us --- */

static err_t on_received(void *argument, struct tcp_pcb *tcp, struct pbuf *octets, err_t error) {
    struct flow *flow = argument;
    (void)tcp, (void)error;
    make_due(flow);
    flow->moved = sys_now();
    if (octets == NULL) {
        flow->peer_ended = 1;
        if (flow->shut)
            detach(flow, 0); /* in TIME-WAIT it is lwIP's, which forgets it some day */
        return ERR_OK;
    }
    received_add(&flow->received, octets);
    return ERR_OK;
}

static err_t on_sent(void *argument, struct tcp_pcb *tcp, u16_t octets) {
    struct flow *flow = argument;
    (void)tcp, (void)octets;
    make_due(flow);
    flow->moved = sys_now();
    return ERR_OK;
}

/* lwIP has freed it. */
static void on_error(void *argument, err_t error) {
    struct flow *flow = argument;
    flow->tcp = NULL;
    if (!flow->peer_ended || !flow->shut)
        flow->error = flow->connected && error == ERR_RST ? ECONNRESET : error == ERR_CLSD ? ECONNRESET : errno_of(error);
    make_due(flow);
}

static void establish(struct flow *flow) {
    struct stack *stack = flow->stack;
    /* A quarter of what is left: few connections have all they can use, and thousands still have what they need. */
    uint64_t window = LWIP_MIN((uint64_t)TCP_WND_MAX(flow->tcp), stack->windows / 4);
    flow->window = window;
    stack->windows -= window;
    flow->tcp->rcv_wnd = LWIP_MAX((tcpwnd_size_t)window, LWIP_MIN(LEAST_WINDOW, flow->tcp->rcv_wnd));
    flow->tcp->snd_buf = LWIP_MAX((tcpwnd_size_t)window, LEAST_WINDOW);
    flow->mss = flow->tcp->mss = LWIP_MAX(flow->tcp->mss, LEAST_MSS);
    flow->tcp->cwnd = INITIAL_SEGMENTS * flow->tcp->mss;
    flow->connected = 1;
    tcp_nagle_disable(flow->tcp); /* whoever is at the other side of the descriptor has decided about that */
    ip_set_option(flow->tcp, SOF_KEEPALIVE);
    flow->tcp->keep_idle = IDLE_MS;
    make_due(flow);
}

static void attend(struct flow *flow, struct tcp_pcb *tcp) {
    flow->tcp = tcp;
    tcp_arg(tcp, flow);
    tcp_recv(tcp, on_received);
    tcp_sent(tcp, on_sent);
    tcp_err(tcp, on_error);
}

static err_t on_connected(void *argument, struct tcp_pcb *tcp, err_t error) {
    struct flow *flow = argument;
    (void)tcp, (void)error;
    establish(flow);
    answer(flow->fd, 0);
    return ERR_OK;
}

/* The other end of `flow`, for who listens at `listener`. */
static int hand_over(int listener, int fd, const struct stack_endpoint *from) {
    struct iovec vector = {(void *)from, sizeof *from};
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(sizeof fd)] = {0};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    return sendmsg(listener, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
}

static err_t on_accepted(void *argument, struct tcp_pcb *tcp, err_t error) {
    struct flow *listener = argument, *flow;
    struct stack_endpoint from;
    int pair[2];
    if (error != ERR_OK || tcp == NULL || listener == NULL)
        return ERR_VAL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_MEM; /* lwIP aborts it */
    from_lwip(&tcp->remote_ip, tcp->remote_port, &from);
    flow = hand_over(listener->fd, pair[1], &from) ? NULL : add(listener->stack, STACK_CONNECT, pair[0]);
    close(pair[1]);
    if (flow == NULL) {
        close(pair[0]);
        return ERR_MEM;
    }
    attend(flow, tcp);
    establish(flow);
    watch(flow);
    return ERR_OK;
}

/* --- TCP, for the descriptor --- */

/* Octets that have come, to the descriptor; 0, or the errno with which that ended. */
static int deliver(struct flow *flow) {
    if (flow->pair < 0)
        return 0; /* nobody has said yet where to */
    while (flow->received.first != NULL && flow->writable) {
        struct iovec vectors[64];
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = received_vectors(&flow->received, vectors, 64)};
        ssize_t written = sendmsg(flow->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0 && errno == EAGAIN) {
            flow->writable = 0;
            return 0;
        }
        if (written < 0)
            return errno;
        for (size_t left = (size_t)written; left > 0 && flow->tcp != NULL; left -= LWIP_MIN(left, CHUNK))
            tcp_recved(flow->tcp, (u16_t)LWIP_MIN(left, CHUNK));
        received_take(&flow->received, (size_t)written);
        flow->moved = sys_now();
    }
    if (flow->received.first == NULL && flow->peer_ended && !flow->hung_up)
        shutdown(flow->fd, SHUT_WR);
    return 0;
}

/* A descriptor that came through ours takes its place. */
static void replace(struct flow *flow, int fd) {
    if (flow->pair >= 0) {
        close(fd);
        return;
    }
    epoll_ctl(flow->stack->epoll, EPOLL_CTL_DEL, flow->fd, NULL);
    flow->pair = flow->fd;
    flow->fd = fd;
    flow->hung_up = 0;
    watch(flow);
}

/* As read(2), and a descriptor that comes along is seen to: then there may be nothing else, and EAGAIN says so. */
static ssize_t take(struct flow *flow, size_t most) {
    struct iovec vector = {scratch, most};
    _Alignas(struct cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))];
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = ancillary, .msg_controllen = sizeof ancillary};
    ssize_t got = recvmsg(flow->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (rights == NULL || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return got;
    int fd;
    memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    replace(flow, fd);
    if (got > 1)
        return got - 1; /* the last octet is the one that it came with, and means nothing; others were before it */
    errno = EAGAIN;
    return -1;
}

static int give(struct flow *flow, const uint8_t *octets, size_t count) {
    if (tcp_write(flow->tcp, octets, (u16_t)count, TCP_WRITE_FLAG_COPY) == ERR_OK)
        return 1;
    uint8_t *kept = malloc(count);
    if (kept == NULL)
        return 0;
    memcpy(kept, octets, count);
    free(flow->rest);
    flow->rest = kept;
    flow->rest_octets = count;
    return 0;
}

static size_t room(const struct flow *flow) {
    const struct tcp_pcb *tcp = flow->tcp;
    uint64_t most = LWIP_MAX(flow->window, LEAST_WINDOW);
    if (tcp == NULL || tcp->snd_lbb - tcp->snd_nxt > UNSENT || tcp_sndqueuelen(tcp) > most / LEAST_SEGMENT)
        return 0;
    size_t segment = LWIP_MAX(LWIP_MIN(tcp->mss, tcp->snd_wnd_max / 2), 1); /* as lwIP will have it */
    return LWIP_MIN(LWIP_MIN(tcp_sndbuf(tcp), CHUNK), SEGMENTS * segment);
}

/* What the descriptor has, to lwIP; 0, or the errno with which the descriptor ended. */
static int collect(struct flow *flow) {
    if (flow->rest != NULL) {
        uint8_t *rest = flow->rest;
        if (room(flow) < flow->rest_octets || tcp_write(flow->tcp, rest, (u16_t)flow->rest_octets, TCP_WRITE_FLAG_COPY))
            return 0;
        flow->rest = NULL;
        free(rest);
    }
    for (int i = 0; flow->readable && !flow->shut; i++) {
        size_t most = room(flow);
        if (most == 0)
            return 0; /* on_sent calls again */
        if (i == CHUNKS) {
            make_due(flow);
            return 0;
        }
        ssize_t got = take(flow, most);
        if (got < 0 && errno != EAGAIN)
            return errno;
        if (got < 0) {
            flow->readable = 0;
        } else if (got == 0) {
            flow->shut = 1;
            flow->moved = sys_now();
            tcp_shutdown(flow->tcp, 0, 1);
        } else if (!give(flow, scratch, (size_t)got)) {
            return 0;
        }
    }
    return 0;
}

static void serve_tcp(struct flow *flow) {
    if (!flow->connected) {
        if (flow->error)
            answer(flow->fd, flow->error);
        if (flow->error || flow->hung_up)
            end(flow, 1);
        return;
    }
    /* lwIP takes an MSS out of any segment; it may be in a SYN alone (RFC 9293 §3.7.1), and has been heard then. */
    if (flow->tcp != NULL)
        flow->tcp->mss = segments_mss(flow->stack, flow->tcp, flow->mss);
    int error = deliver(flow);
    if (error == 0 && flow->tcp != NULL)
        error = collect(flow);
    /* One that was reset before anybody said where to takes what it had along: nothing would be told of it again. */
    if (error || (flow->tcp == NULL && flow->error && (flow->received.first == NULL || !flow->writable || flow->pair < 0))) {
        flow->error = error ? error : flow->error;
        end(flow, 1);
        return;
    }
    if (flow->received.first == NULL && flow->peer_ended && flow->shut) {
        end(flow, 0);
        return;
    }
    /* Nobody is left to take anything: what we still have for the peer goes there, and what it sends is refused. */
    if (flow->hung_up && flow->shut && flow->rest == NULL) {
        end(flow, flow->received.first != NULL);
        return;
    }
    if (flow->tcp != NULL)
        tcp_output(flow->tcp);
}

void flow_check(struct stack *stack) {
    uint32_t now = sys_now();
    for (struct flow *flow = stack->first, *next; flow != NULL; flow = next) {
        next = flow->next;
        if (!flow->connected || !(flow->shut || flow->peer_ended) || now - flow->moved < stack->patience)
            continue;
        stack->counters.given_up++;
        flow->error = ETIMEDOUT;
        end(flow, 1);
    }
}

static void begin_connect(struct flow *flow, const ip_addr_t *address, u16_t port) {
    struct tcp_pcb *tcp = tcp_new_ip_type(IP_GET_TYPE(address));
    err_t error = tcp == NULL ? ERR_MEM : ERR_USE;
    for (int i = 0; error == ERR_USE && i < TRIES; i++)
        error = tcp_bind(tcp, NULL, any_port());
    if (error == ERR_OK) {
        attend(flow, tcp);
        error = tcp_connect(tcp, address, port, on_connected);
    } else if (tcp != NULL) {
        tcp_close(tcp);
    }
    if (error != ERR_OK) {
        flow->error = errno_of(error);
        make_due(flow);
    }
}

/* --- listeners --- */

static void begin_listen(struct flow *flow, const ip_addr_t *address, u16_t port) {
    struct tcp_pcb *tcp = tcp_new_ip_type(IP_GET_TYPE(address)), *listening = NULL;
    err_t error = tcp == NULL ? ERR_MEM : tcp_bind(tcp, address, port);
    if (error == ERR_OK)
        listening = tcp_listen_with_backlog_and_err(tcp, BACKLOG, &error);
    if (listening == NULL && tcp != NULL)
        tcp_close(tcp);
    flow->error = errno_of(error);
    answer(flow->fd, flow->error);
    if (listening == NULL) {
        end(flow, 0);
        return;
    }
    flow->tcp = listening;
    tcp_arg(listening, flow);
    tcp_accept(listening, on_accepted);
}

/* --- UDP --- */

static void on_datagram(void *argument, struct udp_pcb *udp, struct pbuf *datagram, const ip_addr_t *from, u16_t port) {
    struct flow *flow = argument;
    struct stack_endpoint source;
    struct iovec vectors[1 + IP_REASS_MAX_PBUFS] = {{&source, sizeof source}}; /* in all fragments that there may be */
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = 1};
    (void)udp;
    from_lwip(from, port, &source);
    for (struct pbuf *at = datagram; at != NULL && message.msg_iovlen < 1 + IP_REASS_MAX_PBUFS; at = at->next)
        vectors[message.msg_iovlen++] = (struct iovec){at->payload, at->len};
    (void)!sendmsg(flow->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL); /* one that is not taken is lost, as on any way */
    pbuf_free(datagram);
}

static void send_datagram(struct flow *flow, const struct stack_endpoint *to, const uint8_t *octets, size_t count) {
    ip_addr_t address;
    u16_t port;
    struct pbuf *datagram = pbuf_alloc(PBUF_TRANSPORT, (u16_t)count, PBUF_RAM);
    if (datagram == NULL)
        return;
    memcpy(datagram->payload, octets, count);
    to_lwip(to, &address, &port);
    udp_sendto(flow->udp, datagram, &address, port);
    pbuf_free(datagram);
}

static void serve_udp(struct flow *flow) {
    struct stack_endpoint to;
    for (int i = 0; flow->readable; i++) {
        if (i == DATAGRAMS) {
            make_due(flow);
            return;
        }
        ssize_t got = recv(flow->fd, scratch, sizeof scratch, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) {
            flow->readable = 0;
        } else if (got <= 0) {
            end(flow, 0);
            return;
        } else if ((size_t)got >= sizeof to && got <= CHUNK - 64) {
            memcpy(&to, scratch, sizeof to);
            send_datagram(flow, &to, scratch + sizeof to, (size_t)got - sizeof to);
        }
    }
}

static void begin_udp(struct flow *flow, const ip_addr_t *address, u16_t port) {
    flow->udp = udp_new_ip_type(IPADDR_TYPE_ANY);
    err_t error = flow->udp == NULL ? ERR_MEM : ERR_USE;
    for (int i = 0; error == ERR_USE && i < (port ? 1 : TRIES); i++)
        error = udp_bind(flow->udp, port ? address : IP_ANY_TYPE, port ? port : any_port());
    answer(flow->fd, errno_of(error));
    if (error == ERR_OK)
        udp_recv(flow->udp, on_datagram, flow);
    else
        end(flow, 0);
}

/* --- all of them --- */

void flow_begin(struct stack *stack, int what, const struct stack_endpoint *endpoint, int fd) {
    ip_addr_t address;
    u16_t port;
    struct flow *flow = add(stack, what, fd);
    if (flow == NULL) {
        answer(fd, ENOBUFS);
        close(fd);
        return;
    }
    to_lwip(endpoint, &address, &port);
    watch(flow);
    if (what == STACK_CONNECT)
        begin_connect(flow, &address, port);
    else if (what == STACK_LISTEN)
        begin_listen(flow, &address, port);
    else
        begin_udp(flow, &address, port);
}

int flow_serve(struct stack *stack) {
    struct flow *due = stack->due;
    stack->due = NULL;
    while (due != NULL) {
        struct flow *flow = due;
        due = flow->next_due;
        flow->is_due = 0;
        if (flow->ended)
            continue;
        if (flow->what == STACK_UDP)
            serve_udp(flow);
        else if (flow->what == STACK_CONNECT)
            serve_tcp(flow);
        else if (flow->hung_up)
            end(flow, 0);
    }
    /* One that has ended and is due again goes the next time. */
    for (struct flow **at = &stack->ended; *at != NULL;) {
        struct flow *flow = *at;
        if (flow->is_due) {
            at = &flow->next;
            continue;
        }
        *at = flow->next;
        free(flow);
    }
    return stack->due != NULL;
}
