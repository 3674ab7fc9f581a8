#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "coalesce.h"
#include "segment.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    DATAGRAM = 65536,       /* more than UDP can carry, a run of datagrams included */
    DATAGRAMS = 32,         /* of one receive; a path without GRO fills them with single ones, and TCP is put together across them */
    RECEIVES = 4,           /* of one turn: then the TUN has its turn */
    ETHERNET = 14,          /* destination, source, type (IEEE 802.3) */
    FRONT = 32,             /* room for what stands before a packet of the TUN: a multiple of 16 */
    PACKET = 65536 + 64,    /* the longest of the TUN, and that */
    READS = 64,             /* of one turn */
    TURN_OCTETS = 384 * 1024,
    PACKETS_RING = 8 << 20, /* twice what a socket's buffer holds: Python may be away as long as with the portable engine */
    CONTROL_RING = 1 << 18,
    NEWS_RING = 1 << 16,
    BULK_OCTETS = 16384,    /* a turn with as many is one of many: */
    BULK_NS = 1000000,      /* for so long after it more is to be expected at once, */
    LINGER_NS = 30000,      /* and waited for awake: falling asleep and being woken takes a virtual machine as long */
    ERRORS_MS = 1,          /* how often to look at a socket that has errors to tell: poll would return at once each time */
};

struct incoming {
    struct mmsghdr headers[DATAGRAMS];
    struct iovec vectors[DATAGRAMS];
    struct remote sources[DATAGRAMS];
    _Alignas(struct cmsghdr) uint8_t ancillary[DATAGRAMS][64];
    _Alignas(64) uint8_t octets[DATAGRAMS][DATAGRAM];
};

struct loop_private {
    struct incoming incoming;
    struct coalescer *coalescer;
    struct outbox *outbox;
    int gone;        /* errno of the TUN */
    size_t carried;  /* octets of this turn */
    double bulk_end; /* when it is not expected any more that more comes at once */
    double now;
    _Alignas(64) uint8_t packet[PACKET];
    _Alignas(64) uint8_t piece[PACKET];
};

/* --- what goes up --- */

static void wake(struct loop *loop) {
    if (atomic_exchange(&loop->signalled, 1))
        return;
    uint64_t one = 1;
    if (write(loop->settings.wake, &one, sizeof one) < 0)
        atomic_store(&loop->signalled, 0);
}

static int put(struct loop *loop, int ring, const struct record *record, const uint8_t *octets) {
    int fits = ring_put(&loop->rings[ring], record, octets);
    wake(loop);
    return fits;
}

/* A packet for Python; one that finds no room is dropped. */
static void hand_up(struct loop *loop, struct record record, const uint8_t *octets) {
    _Atomic int64_t *share = &loop->shares[record.share %= SHARES];
    if (atomic_load_explicit(share, memory_order_relaxed) + record.octets <= SHARE_OCTETS) {
        atomic_fetch_add_explicit(share, record.octets, memory_order_relaxed);
        if (put(loop, RING_PACKETS, &record, octets))
            return;
        atomic_fetch_sub_explicit(share, record.octets, memory_order_relaxed);
    }
    count(&loop->lane->drops[DROP_ENGINE_BUSY], 1);
}

void loop_packet_taken(struct loop *loop, const struct record *record) {
    atomic_fetch_sub_explicit(&loop->shares[record->share], record->octets, memory_order_relaxed);
}

/* Tells Python to look at an SA; where there is no room, at all of them. That a packet came from elsewhere the next packet
 * tells, for where it came from stands nowhere else. */
static void tell(struct loop *loop, uint64_t number, unsigned what, _Atomic unsigned *attention,
                 const struct remote *source) {
    struct record record = {.kind = RECORD_ATTENTION, .detail = (uint8_t)what, .number = number};
    if (source != NULL)
        record.source = *source;
    if (!ring_put(&loop->rings[RING_NEWS], &record, NULL)) {
        atomic_fetch_and(attention, ~(unsigned)ATTENTION_MOVED);
        atomic_store(&loop->unread, 1);
    }
    wake(loop);
}

static void trouble(struct loop *loop, int what, int error) {
    struct record record = {.kind = RECORD_TROUBLE, .detail = (uint8_t)what, .number = (uint64_t)error};
    put(loop, RING_NEWS, &record, NULL);
}

static void tell_errors(struct loop *loop, unsigned port) {
    if (atomic_fetch_or(&loop->errors, 1u << port) & 1u << port)
        return;
    struct record record = {.kind = RECORD_ERRORS, .number = port};
    if (!put(loop, RING_NEWS, &record, NULL))
        atomic_fetch_and(&loop->errors, ~(1u << port));
}

/* --- from the TUN --- */

static void flush(struct loop *loop) {
    struct outbox *outbox = loop->own->outbox;
    outbox_flush(outbox);
    struct outbox_report report = outbox_take_report(outbox);
    count(&loop->counters.sends, report.calls);
    count(&loop->counters.datagrams_sent, report.datagrams - report.refused);
    if (report.refused) {
        count(&loop->counters.refused, report.refused);
        count(&loop->lane->drops[DROP_LINK_REFUSED], report.refused);
    }
    for (unsigned i = 0; report.errors; i++, report.errors >>= 1)
        if (report.errors & 1)
            tell_errors(loop, i);
    if (report.fell_back)
        trouble(loop, TROUBLE_UDP_SEGMENT, report.fell_back);
}

/* Seals one packet: whole, or the next of `segments`. 0 if the SA does not carry it any more. */
static int seal(struct loop *loop, struct outbound *sa, struct segments *segments, const uint8_t *packet, size_t octets) {
    struct loop_private *own = loop->own;
    const struct remote *remote = atomic_load_explicit(&sa->remote, memory_order_acquire);
    uint8_t *esp = outbox_place(own->outbox, outbound_esp(sa, octets), remote, sa->outer_class[traffic_class_of(packet)]);
    if (esp == NULL) { /* no socket of that family */
        if (segments != NULL)
            segments_take(segments, own->piece);
        count(&loop->counters.refused, 1);
        count(&loop->lane->drops[DROP_LINK_REFUSED], 1);
        return 1;
    }
    if (segments != NULL)
        segments_take(segments, esp + outbound_front(sa));
    else
        memcpy(esp + outbound_front(sa), packet, octets);
    unsigned attention;
    if (lane_seal(loop->lane, sa, esp, octets, own->now, &attention) == 0)
        outbox_withdraw(own->outbox);
    if (attention)
        tell(loop, sa->id, attention, &sa->attention, NULL);
    return 1;
}

/* All that is left of `segments`, for Python. */
static void hand_up_segments(struct loop *loop, struct segments *segments, unsigned share) {
    for (size_t octets; (octets = segments_next_octets(segments)) != 0;) {
        segments_take(segments, loop->own->piece);
        hand_up(loop, (struct record){.octets = (uint32_t)octets, .kind = RECORD_PACKET, .share = share}, loop->own->piece);
    }
}

static void carry_out(struct loop *loop, const struct vnet *vnet, uint8_t *packet, size_t octets) {
    struct segments segments;
    struct outbound *sa;
    unsigned share, pieces = segments_begin(&segments, vnet, packet, octets);
    if (pieces == 0) {
        count(&loop->lane->drops[DROP_NOT_IP], 1);
        return;
    }
    size_t largest = pieces > 1 ? segments.largest : octets;
    count(&loop->counters.packets_read, pieces);
    switch (lane_choose(loop->lane, packet, octets, largest, pieces, loop->own->now, &sa, &share)) {
    case DROPPED:
        return;
    case SLOW:
        if (pieces > 1)
            hand_up_segments(loop, &segments, share);
        else
            hand_up(loop, (struct record){.octets = (uint32_t)octets, .kind = RECORD_PACKET, .share = share}, packet);
        return;
    case SEAL:
        break;
    }
    if (pieces == 1) {
        seal(loop, sa, NULL, packet, octets);
        return;
    }
    for (size_t next; (next = segments_next_octets(&segments)) != 0;) {
        if (outbound_ended(sa, loop->own->now)) {
            hand_up_segments(loop, &segments, share);
            return;
        }
        seal(loop, sa, &segments, packet, next);
    }
}

/* What a packet of the TUN begins with. */
static struct vnet read_vnet(const struct loop *loop, const uint8_t *at) {
    struct vnet vnet = {0};
    if (loop->settings.vnet)
        memcpy(&vnet, at, sizeof vnet);
    if (loop->settings.ethernet) { /* lengths count from its first octet; one that is too small makes no sense as it is */
        vnet.hdr_len -= vnet.gso_type ? ETHERNET : 0;
        vnet.csum_start -= vnet.flags & VNET_NEEDS_CSUM ? ETHERNET : 0;
    }
    return vnet;
}

/* A turn of the TUN; whether there may be more. */
static int drain_tun(struct loop *loop) {
    struct loop_private *own = loop->own;
    size_t taken = 0, front = (loop->settings.vnet ? sizeof(struct vnet) : 0) + (loop->settings.ethernet ? ETHERNET : 0);
    /* The packet begins at a multiple of 16. */
    uint8_t *packet = own->packet + FRONT, *at = packet - front;
    int more = 0;
    for (int i = 0; i < READS && taken < TURN_OCTETS; i++) {
        ssize_t octets = read(loop->settings.tun, at, PACKET - FRONT);
        count(&loop->counters.reads, 1);
        more = octets > 0;
        if (octets < 0) {
            if (errno != EAGAIN && errno != EINTR)
                own->gone = errno;
            break;
        }
        if ((size_t)octets <= front)
            continue;
        struct vnet vnet = read_vnet(loop, at);
        taken += (size_t)octets;
        carry_out(loop, &vnet, packet, (size_t)octets - front);
    }
    flush(loop);
    own->carried += taken;
    return more;
}

/* --- to the TUN --- */

/* Writes a packet with an Ethernet header, from where its vnet header counts. */
static ssize_t write_frame(const struct loop *loop, const struct iovec *vectors, int count_) {
    struct vnet vnet = *(const struct vnet *)vectors[0].iov_base;
    uint8_t front[sizeof vnet + ETHERNET], *ethernet = front + sizeof vnet;
    struct iovec framed[COALESCED_VECTORS];
    vnet.hdr_len += vnet.gso_type ? ETHERNET : 0;
    vnet.csum_start += vnet.flags & VNET_NEEDS_CSUM ? ETHERNET : 0;
    memcpy(front, &vnet, sizeof vnet);
    memcpy(ethernet, loop->settings.hardware, sizeof loop->settings.hardware);
    put16(ethernet + ETHERNET - 2, *(const uint8_t *)vectors[1].iov_base >> 4 == 4 ? 0x0800 : 0x86DD);
    memcpy(framed, vectors, (size_t)count_ * sizeof *vectors);
    size_t skipped = loop->settings.vnet ? 0 : sizeof vnet;
    framed[0] = (struct iovec){front + skipped, sizeof front - skipped};
    return writev(loop->settings.tun, framed, count_);
}

/* A coalescer_write. */
static void write_packet(void *context, const struct iovec *vectors, int count_, unsigned packets) {
    struct loop *loop = context;
    int bare = !loop->settings.vnet;
    ssize_t written = loop->settings.ethernet ? write_frame(loop, vectors, count_)
                                              : writev(loop->settings.tun, vectors + bare, count_ - bare);
    count(&loop->counters.writes, 1);
    if (written >= 0) {
        count(&loop->counters.packets_written, packets);
        return;
    }
    int error = errno;
    count(&loop->lane->drops[DROP_TUN_REFUSED], packets);
    if (error == EBADFD || error == EBADF || error == ENXIO)
        loop->own->gone = error;
    if (error == EINVAL && packets > 1) { /* a kind of packet that this kernel does not take: never again */
        int udp = ((const struct vnet *)vectors[0].iov_base)->gso_type == VNET_GSO_UDP_L4;
        loop->settings.coalesce_udp = 0;
        loop->settings.coalesce_tcp &= udp;
        trouble(loop, udp ? TROUBLE_COALESCE_UDP : TROUBLE_COALESCE, error);
    }
}

/* One ESP packet, in place. */
static void carry_in(struct loop *loop, uint8_t *esp, size_t octets, const struct remote *source, uint8_t traffic_class) {
    struct inbound *sa = NULL;
    struct opened opened;
    unsigned attention;
    enum verdict verdict =
        lane_open(loop->lane, esp, octets, traffic_class, loop->own->now, &sa, &opened, &attention);
    if (verdict == SLOW) {
        struct record record = {.octets = (uint32_t)octets, .kind = RECORD_DATAGRAM, .traffic_class = traffic_class,
                                .share = octets < ESP_HEADER ? 0 : get32(esp), .source = *source};
        hand_up(loop, record, esp);
        return;
    }
    int moved = sa != NULL && opened.advanced &&
                !remote_equal(source, atomic_load_explicit(&sa->remote, memory_order_acquire));
    if (moved) {
        unsigned before = atomic_fetch_or_explicit(&sa->attention, ATTENTION_MOVED, memory_order_relaxed);
        attention |= ATTENTION_MOVED & ~before;
    }
    if (attention)
        tell(loop, sa->id, attention, &sa->attention, source);
    if (verdict != OPEN)
        return;
    /* What comes from elsewhere than before waits until Python has moved the endpoint: the answer has to go there. */
    if (!opened.unclamped && !moved) {
        coalescer_add(loop->own->coalescer, opened.packet, opened.octets);
        return;
    }
    struct record record = {.octets = (uint32_t)opened.octets, .kind = RECORD_OPENED, .number = sa->id, .share = sa->spi,
                            .source = *source};
    hand_up(loop, record, opened.packet);
}

/* One datagram of a UDP socket (RFC 3948 §2). */
static void sort(struct loop *loop, uint8_t *datagram, size_t octets, const struct remote *source, uint8_t traffic_class) {
    struct loop_counters *counters = &loop->counters;
    if (octets == 1 && datagram[0] == 0xff) {
        count(&counters->keepalives_received, 1);
    } else if (octets < 4) {
        count(&counters->junk_received, 1);
        count(&loop->lane->drops[DROP_MALFORMED], 1);
    } else if (get32(datagram) == 0) {
        struct record record = {.octets = (uint32_t)octets - 4, .kind = RECORD_CONTROL, .source = *source};
        count(&counters->control_received, 1);
        if (!put(loop, RING_CONTROL, &record, datagram + 4))
            count(&loop->lane->drops[DROP_ENGINE_BUSY], 1);
    } else {
        count(&counters->esp_received, 1);
        carry_in(loop, datagram, octets, source, traffic_class);
    }
}

static uint8_t read_ancillary(struct msghdr *header, size_t *each) {
    uint8_t traffic_class = 0;
    for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL; item = CMSG_NXTHDR(header, item)) {
        int value = 0;
        size_t octets = item->cmsg_len - CMSG_LEN(0);
        memcpy(&value, CMSG_DATA(item), octets < sizeof value ? octets : sizeof value);
        if (item->cmsg_level == SOL_UDP && item->cmsg_type == UDP_GRO && value > 0)
            *each = (size_t)value;
        else if ((item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_TOS) ||
                 (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_TCLASS))
            traffic_class = (uint8_t)value;
    }
    return traffic_class;
}

/* One of a receive: a datagram, or a run of them. */
static void take_datagram(struct loop *loop, const struct port *port, unsigned number) {
    struct incoming *incoming = &loop->own->incoming;
    struct msghdr *header = &incoming->headers[number].msg_hdr;
    uint8_t *octets = incoming->octets[number];
    size_t total = incoming->headers[number].msg_len, each = total;
    loop->own->carried += total;
    uint8_t traffic_class = read_ancillary(header, &each);
    struct remote *source = &incoming->sources[number];
    source->octets = header->msg_namelen;
    if (port->raw) {
        if (port->family == AF_INET) { /* comes with its IP header, as long as that says (raw(7)) */
            size_t front = total ? (octets[0] & 0x0fu) * 4 : 0;
            front = front < total ? front : total;
            octets += front;
            total -= front;
            source->address.v4.sin_port = 0;
        } else {
            source->address.v6.sin6_port = 0; /* there the kernel names the protocol */
        }
        count(&loop->counters.datagrams_received, 1);
        count(&loop->counters.esp_received, 1);
        carry_in(loop, octets, total, source, traffic_class);
        return;
    }
    uint16_t from = port->family == AF_INET ? source->address.v4.sin_port : source->address.v6.sin6_port;
    for (size_t at = 0; at < total; at += each) {
        size_t octets_here = total - at < each ? total - at : each;
        count(&loop->counters.datagrams_received, 1);
        if (from == 0) /* would look as if it had come without UDP */
            count(&loop->lane->drops[DROP_MALFORMED], 1);
        else
            sort(loop, octets + at, octets_here, source, traffic_class);
    }
    if (total == 0)
        sort(loop, octets, 0, source, traffic_class);
}

/* A turn of one socket; whether there may be more. */
static int drain_port(struct loop *loop, unsigned number) {
    const struct port *port = &loop->settings.ports[number];
    struct incoming *incoming = &loop->own->incoming;
    for (int turn = 0; turn < RECEIVES && !atomic_load(&loop->stop); turn++) {
        for (int i = 0; i < DATAGRAMS; i++) {
            struct msghdr *header = &incoming->headers[i].msg_hdr;
            header->msg_namelen = sizeof incoming->sources[i].address;
            header->msg_controllen = sizeof incoming->ancillary[i];
        }
        int got = recvmmsg(port->fd, incoming->headers, DATAGRAMS, MSG_DONTWAIT, NULL);
        count(&loop->counters.receives, 1);
        if (got < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return 0;
            if (errno == EBADF) { /* closed under us: it would say so for ever */
                loop->own->gone = errno;
                return 0;
            }
            tell_errors(loop, number); /* about an earlier datagram of ours; anybody can forge one */
            continue;
        }
        for (int i = 0; i < got; i++)
            take_datagram(loop, port, (unsigned)i);
        coalescer_flush(loop->own->coalescer);
        if (!loop->settings.coalesce_tcp || !loop->settings.coalesce_udp)
            coalescer_allow(loop->own->coalescer, loop->settings.coalesce_tcp, loop->settings.coalesce_udp);
        if (got < DATAGRAMS)
            return 0;
    }
    return 1;
}

/* --- the loop --- */

struct loop *loop_new(struct lane *lane, const struct loop_settings *settings) {
    struct loop *loop = aligned_alloc(64, (sizeof *loop + 63) / 64 * 64);
    if (loop == NULL)
        return NULL;
    memset(loop, 0, sizeof *loop);
    loop->lane = lane;
    loop->settings = *settings;
    loop->settings.coalesce_tcp &= settings->vnet != 0; /* without a vnet header nobody could tell what was put together */
    loop->settings.coalesce_udp &= settings->vnet != 0;
    loop->alarm = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct loop_private *own = loop->own = aligned_alloc(64, (sizeof *own + 63) / 64 * 64);
    int complete = own != NULL && loop->alarm >= 0;
    complete &= ring_init(&loop->rings[RING_PACKETS], PACKETS_RING) == 0;
    complete &= ring_init(&loop->rings[RING_CONTROL], CONTROL_RING) == 0;
    complete &= ring_init(&loop->rings[RING_NEWS], NEWS_RING) == 0;
    if (own != NULL) {
        memset(own, 0, sizeof *own); /* now, not when traffic first comes: the pages are there from the start */
        own->outbox = outbox_new(settings->ports, settings->port_count, settings->runs);
        own->coalescer = coalescer_new(write_packet, loop, loop->settings.coalesce_tcp, loop->settings.coalesce_udp);
        complete &= own->outbox != NULL && own->coalescer != NULL;
        for (int i = 0; i < DATAGRAMS; i++) {
            own->incoming.vectors[i] = (struct iovec){own->incoming.octets[i], DATAGRAM};
            own->incoming.headers[i].msg_hdr = (struct msghdr){
                .msg_name = &own->incoming.sources[i].address, .msg_iov = &own->incoming.vectors[i], .msg_iovlen = 1,
                .msg_control = own->incoming.ancillary[i],
            };
        }
    }
    if (!complete) {
        loop_free(loop);
        return NULL;
    }
    return loop;
}

void loop_free(struct loop *loop) {
    if (loop == NULL)
        return;
    if (loop->own != NULL) {
        outbox_free(loop->own->outbox);
        coalescer_free(loop->own->coalescer);
        free(loop->own);
    }
    for (int i = 0; i < RINGS; i++)
        ring_clear(&loop->rings[i]);
    if (loop->alarm >= 0)
        close(loop->alarm);
    free(loop);
}

void loop_rouse(struct loop *loop) {
    uint64_t one = 1;
    (void)!write(loop->alarm, &one, sizeof one);
}

void loop_stop(struct loop *loop) {
    atomic_store(&loop->stop, 1);
    loop_rouse(loop);
}

int loop_look(struct loop *loop) {
    /* An exchange, and not a store: what was put in a ring before `signalled` was found set is seen after it. */
    atomic_exchange(&loop->signalled, 0);
    return atomic_exchange(&loop->unread, 0);
}

void loop_count(const struct loop *loop, struct loop_counters *into) {
    const _Atomic uint64_t *from = (const _Atomic uint64_t *)&loop->counters; /* there is nothing else in it */
    _Atomic uint64_t *to = (_Atomic uint64_t *)into;
    for (size_t i = 0; i < sizeof *into / sizeof *to; i++)
        atomic_store_explicit(&to[i], counted(&from[i]), memory_order_relaxed);
}

void loop_errors_taken(struct loop *loop, unsigned port) {
    atomic_fetch_and(&loop->errors, ~(1u << port));
    loop_rouse(loop);
}

static double clock_now(const struct loop *loop) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9 + loop->settings.clock_offset;
}

/* Looks for more where much has just been carried, and leaves the processor to whoever else wants it meanwhile. As poll. */
static int linger(struct loop *loop, struct pollfd *watched, unsigned count_) {
    struct loop_private *own = loop->own;
    double now = clock_now(loop), until = now + LINGER_NS * 1e-9;
    if (own->carried >= BULK_OCTETS)
        own->bulk_end = now + BULK_NS * 1e-9;
    own->carried = 0;
    for (; now < until && now < own->bulk_end; now = clock_now(loop)) {
        int found = poll(watched, count_, 0);
        count(&loop->counters.polls, 1);
        if (found)
            return found;
        sched_yield();
    }
    return 0;
}

/* Sleeps until something is to be done, unless `busy`; which of the sockets and the TUN may have something. */
static unsigned sleep_until_ready(struct loop *loop, int busy) {
    struct pollfd ready[MAX_SOCKETS + 2];
    unsigned ports = loop->settings.port_count, errors = atomic_load(&loop->errors), found = 0;
    unsigned watched = loop->settings.receives & ~errors;
    for (unsigned i = 0; i < ports; i++) /* a negative descriptor is passed over (poll(2)) */
        ready[i] = (struct pollfd){watched >> i & 1 ? loop->settings.ports[i].fd : -1, POLLIN, 0};
    ready[ports] = (struct pollfd){loop->settings.tun, POLLIN, 0};
    ready[ports + 1] = (struct pollfd){loop->alarm, POLLIN, 0};
    lane_leave(loop->lane);
    int number = busy ? 0 : linger(loop, ready, ports + 2);
    if (number == 0)
        number = poll(ready, ports + 2, busy ? 0 : errors ? ERRORS_MS : -1);
    lane_enter(loop->lane);
    count(&loop->counters.polls, 1);
    loop->own->now = clock_now(loop);
    for (unsigned i = 0; number > 0 && i <= ports; i++) {
        if (ready[i].revents & POLLERR && i < ports)
            tell_errors(loop, i);
        found |= (ready[i].revents != 0) << i;
    }
    if (ready[ports + 1].revents) {
        uint64_t drained;
        (void)!read(loop->alarm, &drained, sizeof drained);
    }
    return found | (errors & loop->settings.receives);
}

int loop_run(struct loop *loop) {
    unsigned ports = loop->settings.port_count, busy = 0;
    while (!atomic_load(&loop->stop) && !loop->own->gone) {
        unsigned ready = sleep_until_ready(loop, busy != 0) | busy;
        busy = 0;
        for (unsigned i = 0; i < ports; i++)
            if (ready >> i & 1)
                busy |= (unsigned)drain_port(loop, i) << i;
        if (ready >> ports & 1)
            busy |= (unsigned)drain_tun(loop) << ports;
    }
    lane_leave(loop->lane);
    return loop->own->gone;
}
