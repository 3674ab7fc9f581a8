#define _GNU_SOURCE
#include "stack.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "closing.h"
#include "flow.h"
#include "lwip/init.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/timeouts.h"
#include "segments.h"

enum {
    PACKET = 65536 + 16, /* the longest, and its vnet header */
    READS = 256,         /* packets of one turn: then the connections have theirs */
    EVENTS = 128,
    SMALL = 128,         /* octets: acknowledgements, beginnings, ends */
    HELD = 512,          /* of those */
    CHECK_MS = 1000, /* at most, between two looks at what has to end some day */
    NEEDS_CSUM = 1, DATA_VALID = 2, /* linux/virtio_net.h: somebody has looked, and what he made of it comes without one */
};

struct command {
    int what, fd;
    struct stack_endpoint endpoint;
};

struct held {
    uint16_t octets;
    uint8_t packet[SMALL];
};

struct stack_private {
    struct held held[HELD]; /* a ring of packets that the device had no room for */
    unsigned held_first, held_count;
    struct netif netif;
    int added, gone;
    int readable; /* the device may have something */
    pthread_mutex_t lock;
    struct command commands[256];
    unsigned asked;
    _Alignas(64) uint8_t packet[PACKET];
};

static atomic_int in_use;
static const uint8_t PLAIN[VNET]; /* nothing to be done about it */

/* --- packets --- */

static ssize_t write_packet(struct stack *stack, const struct iovec *vectors, int count) {
    ssize_t written = writev(stack->device, vectors, count);
    if (written < 0)
        stack->full = 1;
    else
        stack->counters.sent++;
    return written;
}

/* lwIP sends data again, when told; what only its timers would bring again, or nothing at all, is small. */
static int hold(struct stack_private *own, const struct pbuf *packet) {
    if (packet->tot_len > SMALL || own->held_count == HELD)
        return 0;
    struct held *held = &own->held[(own->held_first + own->held_count++) % HELD];
    held->octets = pbuf_copy_partial(packet, held->packet, packet->tot_len, 0);
    return 1;
}

static void put_held(struct stack *stack) {
    struct stack_private *own = stack->own;
    while (own->held_count > 0) {
        struct held *held = &own->held[own->held_first];
        struct iovec vectors[2] = {{(void *)PLAIN, stack->vnet ? VNET : 0}, {held->packet, held->octets}};
        if (write_packet(stack, vectors, 2) < 0)
            return;
        own->held_first = (own->held_first + 1) % HELD;
        own->held_count--;
    }
}

static err_t put_packet(struct netif *netif, const struct pbuf *packet) {
    struct stack *stack = netif->state;
    struct iovec vectors[64] = {{(void *)PLAIN, stack->vnet ? VNET : 0}};
    int count = 1;
    for (const struct pbuf *at = packet; at != NULL; at = at->next) {
        if (count == 64)
            return ERR_BUF;
        vectors[count++] = (struct iovec){at->payload, at->len};
    }
    if (write_packet(stack, vectors, count) >= 0 || hold(stack->own, packet))
        return ERR_OK;
    stack->counters.refused++;
    return ERR_MEM; /* TCP keeps what it could not send */
}

static err_t put_ip4(struct netif *netif, struct pbuf *packet, const ip4_addr_t *to) {
    (void)to;
    return put_packet(netif, packet);
}

static err_t put_ip6(struct netif *netif, struct pbuf *packet, const ip6_addr_t *to) {
    (void)to;
    return put_packet(netif, packet);
}

static err_t begin_netif(struct netif *netif) {
    struct stack *stack = netif->state;
    netif->name[0] = 'k', netif->name[1] = 'v';
    netif->mtu = (u16_t)stack->mtu;
    netif->output = put_ip4;
    netif->output_ip6 = put_ip6;
    return ERR_OK;
}

/* A turn of the device; whether there may be more. */
static int drain_device(struct stack *stack) {
    struct stack_private *own = stack->own;
    size_t front = stack->vnet ? VNET : 0;
    for (int i = 0; i < READS; i++) {
        ssize_t got = read(stack->device, own->packet, sizeof own->packet);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != EAGAIN)
            own->gone = errno;
        if (got < 0)
            return 0;
        if (got == 0) {
            own->gone = ENODEV;
            return 0;
        }
        if ((size_t)got <= front)
            continue;
        size_t octets = (size_t)got - front;
        if (segments_hear(stack, own->packet + front, octets))
            continue;
        struct pbuf *packet = octets <= 65535 ? pbuf_alloc(PBUF_RAW, (u16_t)octets, PBUF_RAM) : NULL;
        if (packet == NULL)
            continue;
        memcpy(packet->payload, own->packet + front, octets);
        int looked = front && own->packet[0] & (NEEDS_CSUM | DATA_VALID);
        own->netif.chksum_flags = looked ? NETIF_CHECKSUM_ENABLE_ALL & ~(NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP)
                                         : NETIF_CHECKSUM_ENABLE_ALL;
        stack->counters.received++;
        if (own->netif.input(packet, &own->netif) != ERR_OK)
            pbuf_free(packet);
        own->netif.chksum_flags = NETIF_CHECKSUM_ENABLE_ALL;
    }
    return 1;
}

/* --- what others ask for --- */

int stack_ask(struct stack *stack, int what, const struct stack_endpoint *endpoint, int fd) {
    struct stack_private *own = stack->own;
    pthread_mutex_lock(&own->lock);
    int fits = own->asked < sizeof own->commands / sizeof *own->commands;
    if (fits)
        own->commands[own->asked++] = (struct command){what, fd, *endpoint};
    pthread_mutex_unlock(&own->lock);
    uint64_t one = 1;
    (void)!write(stack->wake, &one, sizeof one);
    return fits ? 0 : ENOBUFS;
}

static void do_commands(struct stack *stack) {
    struct stack_private *own = stack->own;
    struct command commands[sizeof own->commands / sizeof *own->commands];
    pthread_mutex_lock(&own->lock);
    unsigned count = own->asked;
    memcpy(commands, own->commands, count * sizeof *commands);
    own->asked = 0;
    pthread_mutex_unlock(&own->lock);
    for (unsigned i = 0; i < count; i++)
        flow_begin(stack, commands[i].what, &commands[i].endpoint, commands[i].fd);
}

void stack_set_mtu(struct stack *stack, unsigned mtu) {
    atomic_store(&stack->mtu, mtu);
}

void stack_stop(struct stack *stack) {
    uint64_t one = 1;
    atomic_store(&stack->stop, 1);
    (void)!write(stack->wake, &one, sizeof one);
}

void stack_count(const struct stack *stack, struct stack_counters *into) {
    *into = stack->counters;
}

/* --- the loop --- */

/* The device takes packets again. Connections that have no descriptor any more are no flow's matter. */
static void go_on(struct stack *stack) {
    stack->full = 0;
    put_held(stack);
    for (struct tcp_pcb *tcp = tcp_active_pcbs, *next; tcp != NULL && !stack->full; tcp = next) {
        next = tcp->next;
        if (tcp->callback_arg == NULL)
            tcp_output(tcp);
    }
    flow_all_due(stack);
}

/* Sleeps until there is something to do, unless `busy`. */
static void wait_for_events(struct stack *stack, int busy) {
    struct epoll_event events[EVENTS];
    uint32_t pause = busy ? 0 : sys_timeouts_sleeptime();
    int count = epoll_wait(stack->epoll, events, EVENTS, pause == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? -1 : (int)pause);
    for (int i = 0; i < count; i++) {
        struct epoll_event *event = &events[i];
        if (event->data.ptr == &stack->wake) {
            uint64_t drained;
            (void)!read(stack->wake, &drained, sizeof drained);
        } else if (event->data.ptr == &stack->device) {
            stack->own->readable |= (event->events & ~(uint32_t)EPOLLOUT) != 0;
            if (event->events & EPOLLOUT && stack->full)
                go_on(stack);
        } else {
            flow_ready(event->data.ptr, event->events);
        }
    }
}

static void check_later(struct stack *stack);

static void check(void *stack) {
    flow_check(stack);
    closing_check(stack);
    check_later(stack);
}

static void check_later(struct stack *stack) {
    sys_timeout(LWIP_MIN(CHECK_MS, stack->patience / 4 + 1), check, stack);
}

static void take_mtu(struct stack *stack) {
    u16_t before = stack->own->netif.mtu, now = (u16_t)atomic_load(&stack->mtu);
    stack->own->netif.mtu = now;
    if (now < before)
        segments_shrink(stack);
}

int stack_run(struct stack *stack) {
    struct stack_private *own = stack->own;
    int busy = 0;
    own->readable = 1;
    check_later(stack);
    while (!atomic_load(&stack->stop) && !own->gone) {
        wait_for_events(stack, busy);
        take_mtu(stack);
        do_commands(stack);
        if (own->readable)
            own->readable = drain_device(stack);
        sys_check_timeouts();
        busy = flow_serve(stack) | own->readable;
    }
    sys_untimeout(check, stack);
    return own->gone;
}

static void add_addresses(struct netif *netif, const struct stack_settings *settings) {
    ip4_addr_t own = {0}, mask = {0xffffffff}, none = {0};
    for (unsigned i = 0; i < settings->addresses; i++)
        if (settings->own[i].version == 4)
            memcpy(&own, settings->own[i].address, sizeof own);
    netif_add(netif, &own, &mask, &none, netif->state, begin_netif, ip_input);
    for (unsigned i = 0, at = 0; i < settings->addresses; i++) {
        if (settings->own[i].version != 6)
            continue;
        ip6_addr_t address = {0};
        memcpy(address.addr, settings->own[i].address, sizeof address.addr);
        netif_ip6_addr_set(netif, (s8_t)at, &address);
        netif_ip6_addr_set_state(netif, (s8_t)at++, IP6_ADDR_PREFERRED);
    }
    netif_set_default(netif);
    netif_set_link_up(netif);
    netif_set_up(netif);
}

struct stack *stack_new(const struct stack_settings *settings) {
    static int begun;
    if (atomic_exchange(&in_use, 1)) {
        errno = EBUSY;
        return NULL;
    }
    struct stack *stack = calloc(1, sizeof *stack);
    struct stack_private *own = aligned_alloc(64, (sizeof *own + 63) / 64 * 64);
    if (stack == NULL || own == NULL) {
        free(stack);
        free(own);
        atomic_store(&in_use, 0);
        errno = ENOMEM;
        return NULL;
    }
    memset(own, 0, sizeof *own);
    stack->own = own;
    stack->device = settings->device;
    stack->vnet = settings->vnet;
    stack->mtu = settings->mtu;
    stack->flows = settings->flows;
    stack->windows = settings->windows;
    stack->patience = settings->patience;
    stack->last_closing = &stack->closing;
    stack->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    stack->epoll = epoll_create1(EPOLL_CLOEXEC);
    pthread_mutex_init(&own->lock, NULL);
    struct epoll_event event = {EPOLLIN, {.ptr = &stack->wake}};
    epoll_ctl(stack->epoll, EPOLL_CTL_ADD, stack->wake, &event);
    event = (struct epoll_event){EPOLLIN | EPOLLOUT | EPOLLET, {.ptr = &stack->device}};
    if (stack->wake < 0 || epoll_ctl(stack->epoll, EPOLL_CTL_ADD, stack->device, &event) < 0) {
        int error = errno;
        stack_free(stack);
        errno = error;
        return NULL;
    }
    if (!begun) {
        lwip_init();
        begun = 1;
    }
    own->netif.state = stack;
    add_addresses(&own->netif, settings);
    own->added = 1;
    return stack;
}

void stack_free(struct stack *stack) {
    struct stack_private *own = stack->own;
    for (unsigned i = 0; i < own->asked; i++)
        close(own->commands[i].fd);
    flow_end_all(stack);
    closing_end_all(stack);
    if (own->added) {
        netif_set_down(&own->netif);
        netif_remove(&own->netif);
    }
    if (stack->epoll >= 0)
        close(stack->epoll);
    if (stack->wake >= 0)
        close(stack->wake);
    pthread_mutex_destroy(&own->lock);
    free(own);
    free(stack);
    atomic_store(&in_use, 0);
}
