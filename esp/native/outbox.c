#define _GNU_SOURCE
#include "outbox.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "sa.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    OCTETS = 512 * 1024,  /* of a batch: four reads of 64 kB and what ESP adds; more would fall out of the cache */
    MESSAGES = 256,
    RUN = 64,             /* datagrams in one call: kernels before 6.9 take no more (UDP_MAX_SEGMENTS) */
    RUN_OCTETS = 65000,   /* and no more than an IP packet holds */
};

struct message {
    size_t at, octets;
    const struct remote *remote;
    uint16_t each;    /* octets of every datagram but the last */
    uint16_t count;
    uint8_t port, traffic_class, closed;
};

struct ancillary {
    _Alignas(struct cmsghdr) uint8_t octets[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t))];
};

struct outbox {
    struct port ports[MAX_SOCKETS];
    unsigned port_count, count;
    int runs;
    size_t used;
    struct outbox_report report;
    struct message messages[MESSAGES];
    struct mmsghdr headers[MESSAGES];
    struct iovec vectors[MESSAGES];
    struct ancillary ancillary[MESSAGES];
    size_t before; /* the last message as it was before the packet placed last: its octets, 0 for a new one */
    _Alignas(64) uint8_t octets[OCTETS];
};

struct outbox *outbox_new(const struct port *ports, unsigned count, int runs) {
    struct outbox *outbox = aligned_alloc(64, (sizeof *outbox + 63) / 64 * 64);
    if (outbox == NULL)
        return NULL;
    memset(outbox, 0, sizeof *outbox);
    memcpy(outbox->ports, ports, count * sizeof *ports);
    outbox->port_count = count;
    outbox->runs = runs;
    return outbox;
}

void outbox_free(struct outbox *outbox) {
    free(outbox);
}

static int port_for(const struct outbox *outbox, const struct remote *remote) {
    int family = remote->address.any.sa_family;
    int raw = (family == AF_INET ? remote->address.v4.sin_port : remote->address.v6.sin6_port) == 0;
    for (unsigned i = 0; i < outbox->port_count; i++)
        if (outbox->ports[i].family == family && outbox->ports[i].raw == raw)
            return (int)i;
    return -1;
}

uint8_t *outbox_place(struct outbox *outbox, size_t octets, const struct remote *remote, uint8_t traffic_class) {
    if (outbox->used + octets + SA_BACK > OCTETS)
        outbox_flush(outbox);
    uint8_t *place = outbox->octets + outbox->used;
    if (outbox->count) {
        struct message *last = &outbox->messages[outbox->count - 1];
        if (last->remote == remote && last->traffic_class == traffic_class && !last->closed && octets <= last->each &&
            last->count < RUN && last->octets + octets <= RUN_OCTETS && outbox->runs && !outbox->ports[last->port].raw) {
            outbox->before = last->octets;
            last->octets += octets;
            last->count++;
            last->closed = octets < last->each;
            outbox->used += octets;
            return place;
        }
        if (outbox->count == MESSAGES) {
            outbox_flush(outbox);
            place = outbox->octets;
        }
    }
    int port = port_for(outbox, remote);
    if (port < 0)
        return NULL;
    outbox->messages[outbox->count++] = (struct message){
        .at = outbox->used, .octets = octets, .remote = remote, .each = (uint16_t)octets, .count = 1,
        .port = (uint8_t)port, .traffic_class = traffic_class,
    };
    outbox->before = 0;
    outbox->used += octets;
    return place;
}

void outbox_withdraw(struct outbox *outbox) {
    struct message *last = &outbox->messages[outbox->count - 1];
    outbox->used -= last->octets - outbox->before;
    last->octets = outbox->before;
    last->closed = 0;
    if (--last->count == 0)
        outbox->count--;
}

/* The header fields and the length of a run, as ancillary data: options of the socket are Python's. */
static void dress(struct msghdr *header, struct ancillary *ancillary, const struct port *port, uint8_t traffic_class,
                  unsigned run) {
    header->msg_control = ancillary->octets;
    header->msg_controllen = sizeof ancillary->octets;
    struct cmsghdr *item = CMSG_FIRSTHDR(header);
    int value = traffic_class;
    item->cmsg_level = port->family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    item->cmsg_type = port->family == AF_INET ? IP_TOS : IPV6_TCLASS;
    item->cmsg_len = CMSG_LEN(sizeof value);
    memcpy(CMSG_DATA(item), &value, sizeof value);
    header->msg_controllen = CMSG_SPACE(sizeof value);
    if (run) {
        uint16_t each = (uint16_t)run;
        item = (struct cmsghdr *)(ancillary->octets + CMSG_SPACE(sizeof value));
        item->cmsg_level = SOL_UDP;
        item->cmsg_type = UDP_SEGMENT;
        item->cmsg_len = CMSG_LEN(sizeof each);
        memcpy(CMSG_DATA(item), &each, sizeof each);
        header->msg_controllen += CMSG_SPACE(sizeof each);
    }
}

static void refuse(struct outbox *outbox, unsigned datagrams) {
    outbox->report.refused += datagrams;
}

/* Whether the error may be about an earlier datagram, as ICMP says, so that this one is worth another try. */
static int of_another(int error) {
    return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == EPROTO ||
           error == EACCES || error == EHOSTDOWN || error == ENOPROTOOPT || error == EMSGSIZE;
}

static int send_one(struct outbox *outbox, const struct port *port, struct msghdr *header) {
    outbox->report.calls++;
    if (sendmsg(port->fd, header, MSG_DONTWAIT) >= 0)
        return 0;
    return errno;
}

/* Each datagram of a run by itself. */
static void send_singly(struct outbox *outbox, const struct message *message, struct msghdr header) {
    const struct port *port = &outbox->ports[message->port];
    struct ancillary ancillary;
    dress(&header, &ancillary, port, message->traffic_class, 0);
    size_t end = message->at + message->octets;
    for (size_t at = message->at; at < end; at += message->each) {
        struct iovec vector = {outbox->octets + at, end - at < message->each ? end - at : message->each};
        header.msg_iov = &vector;
        int error = send_one(outbox, port, &header);
        if (error && of_another(error)) {
            outbox->report.errors |= 1u << message->port;
            error = send_one(outbox, port, &header);
        }
        if (error)
            refuse(outbox, 1);
    }
}

/* What the kernel would not take at once: the message of that number. */
static void send_again(struct outbox *outbox, unsigned number, int error) {
    struct message *message = &outbox->messages[number];
    if (error == EAGAIN || error == ENOBUFS || error == ENOMEM) {
        refuse(outbox, message->count); /* a full queue drops, and the senders inside slow down */
        return;
    }
    if (message->count > 1) {
        /* EIO: the device does not compute checksums; the kernel will not either. That is so for every run. EINVAL and EMSGSIZE
         * are said of datagrams that are longer than the path, which by themselves may go in fragments. */
        if (error == EIO || error == EOPNOTSUPP) {
            outbox->runs = 0;
            outbox->report.fell_back = error;
        }
        send_singly(outbox, message, outbox->headers[number].msg_hdr);
        return;
    }
    if (of_another(error)) {
        outbox->report.errors |= 1u << message->port;
        error = send_one(outbox, &outbox->ports[message->port], &outbox->headers[number].msg_hdr);
    }
    if (error)
        refuse(outbox, message->count);
}

/* Sends messages from `first` to before `end`, all by one port. */
static void send_some(struct outbox *outbox, unsigned first, unsigned end) {
    int fd = outbox->ports[outbox->messages[first].port].fd;
    while (first < end) {
        int sent = sendmmsg(fd, outbox->headers + first, end - first, MSG_DONTWAIT);
        outbox->report.calls++;
        if (sent > 0) {
            first += (unsigned)sent;
        } else {
            send_again(outbox, first, sent < 0 ? errno : EAGAIN);
            first++;
        }
    }
}

void outbox_flush(struct outbox *outbox) {
    for (unsigned i = 0; i < outbox->count; i++) {
        struct message *message = &outbox->messages[i];
        struct msghdr *header = &outbox->headers[i].msg_hdr;
        outbox->vectors[i] = (struct iovec){outbox->octets + message->at, message->octets};
        *header = (struct msghdr){
            .msg_name = (void *)&message->remote->address, .msg_namelen = message->remote->octets,
            .msg_iov = &outbox->vectors[i], .msg_iovlen = 1,
        };
        dress(header, &outbox->ancillary[i], &outbox->ports[message->port], message->traffic_class,
              message->count > 1 ? message->each : 0);
        outbox->report.datagrams += message->count;
    }
    for (unsigned first = 0, end; first < outbox->count; first = end) {
        for (end = first + 1; end < outbox->count; end++)
            if (outbox->messages[end].port != outbox->messages[first].port)
                break;
        send_some(outbox, first, end);
    }
    outbox->count = 0;
    outbox->used = 0;
}

struct outbox_report outbox_take_report(struct outbox *outbox) {
    struct outbox_report report = outbox->report;
    outbox->report = (struct outbox_report){0};
    return report;
}
