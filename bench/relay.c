/* A path with faults: carries Ethernet frames between two devices, and loses, holds back and repeats some of them.
 *
 *     relay LEFT RIGHT SEED LOST HELD REPEATED      the last three: of a million frames
 *
 * Which ones follows from the seed and the frame's number in its direction. A frame that is held back goes after the
 * next 1 to SPAN of its direction, or when nothing has come for QUIET; one that is repeated goes at once and again so
 * much later. ARP and ICMPv6 are spared. A run of datagrams that the kernel hands on whole is one frame.
 * Says `ready`; at the end of its input prints what it did, a JSON object for each direction, left to right first. Counted
 * are packets of ESP in UDP; of all else (KINK) only the frames that were lost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "frames.h"

enum {
    BATCH = 64,
    PLACES = 64,                 /* for frames that are held back; where all are taken, none is */
    SPAN = 48,                   /* more than an engine takes with one receive: it meets disorder within and across batches */
    QUIET_US = 1000,
    FRONT = sizeof(struct virtio_net_hdr),
    ROOM = FRONT + 14 + 65536,
    MILLION = 1000000,
    ESP_PORT = 4500,
};

struct odds {
    uint32_t lost, held, repeated;
};

struct place {
    uint32_t wait; /* frames to let pass; 0: free */
    size_t octets;
    uint8_t data[ROOM];
};

struct direction {
    int in, out;
    uint64_t random;
    struct odds odds;
    uint64_t packets, lost, held, repeated, others_lost, refused;
    unsigned count; /* of what goes out with this batch */
    struct mmsghdr sending[2 * BATCH + PLACES];
    struct iovec vectors[2 * BATCH + PLACES];
    struct mmsghdr receiving[BATCH];
    struct iovec spaces[BATCH];
    uint8_t batch[BATCH][ROOM];
    struct place places[PLACES];
    uint8_t leaving[PLACES]; /* its frame goes out with this batch */
};

static atomic_int stop;

/* xorshift64* (Vigna 2016) */
static uint32_t draw(struct direction *way, uint32_t below) {
    way->random ^= way->random >> 12;
    way->random ^= way->random << 25;
    way->random ^= way->random >> 27;
    return (uint32_t)((way->random * 0x2545f4914f6cdd1dull >> 32) * below >> 32);
}

static void send_later(struct direction *way, uint8_t *data, size_t octets) {
    way->vectors[way->count] = (struct iovec){data, octets};
    way->sending[way->count].msg_hdr = (struct msghdr){.msg_iov = &way->vectors[way->count], .msg_iovlen = 1};
    way->count++;
}

static void send_all(struct direction *way) {
    for (unsigned done = 0; done < way->count;) {
        int sent = sendmmsg(way->out, way->sending + done, way->count - done, 0);
        if (sent > 0) {
            done += (unsigned)sent;
        } else {
            way->refused++;
            done++;
        }
    }
    way->count = 0;
    for (int i = 0; i < PLACES; i++)
        if (way->leaving[i])
            way->leaving[i] = 0, way->places[i].wait = 0;
}

/* Whether there was a place. */
static int hold(struct direction *way, const uint8_t *data, size_t octets) {
    for (int i = 0; i < PLACES; i++) {
        struct place *place = &way->places[i];
        if (place->wait || way->leaving[i])
            continue;
        place->wait = 2 + draw(way, SPAN); /* this frame counts itself */
        place->octets = octets;
        memcpy(place->data, data, octets);
        return 1;
    }
    return 0;
}

/* One frame has passed, or all are to go: those held back whose turn it is. */
static void release(struct direction *way, int all) {
    for (int i = 0; i < PLACES; i++) {
        struct place *place = &way->places[i];
        if (!place->wait || way->leaving[i] || (!all && --place->wait))
            continue;
        way->leaving[i] = 1;
        send_later(way, place->data, place->octets);
    }
}

/* ARP and ICMPv6: whoever does not find its neighbour loses more than it was to. */
static int spared(const uint8_t *frame, size_t octets) {
    uint16_t type = octets < FRONT + 14 ? 0 : (uint16_t)(frame[FRONT + 12] << 8 | frame[FRONT + 13]);
    if (type == ETHERTYPE_IPV6)
        return octets < FRONT + 14 + 40 || frame[FRONT + 14 + 6] == 58;
    return type != ETHERTYPE_IP;
}

/* How many packets of ESP (RFC 3948 §2.1) a frame is; 0 for another. */
static unsigned esp_packets(const uint8_t *frame, size_t octets) {
    const struct virtio_net_hdr *run = (const struct virtio_net_hdr *)frame;
    const uint8_t *ip = frame + FRONT + 14;
    size_t front = FRONT + 14 + (ip[0] >> 4 == 4 ? (ip[0] & 0x0fu) * 4 : 40) + 8;
    if (octets < front + 4 || ip[ip[0] >> 4 == 4 ? 9 : 6] != 17)
        return 0;
    const uint8_t *udp = frame + front - 8;
    if ((udp[2] << 8 | udp[3]) != ESP_PORT || !(udp[8] | udp[9] | udp[10] | udp[11]))
        return 0;
    return run->gso_type == VIRTIO_NET_HDR_GSO_NONE || !run->gso_size
               ? 1 : (unsigned)((octets - front + run->gso_size - 1) / run->gso_size);
}

static void pass(struct direction *way, uint8_t *frame, size_t octets) {
    if (spared(frame, octets)) {
        send_later(way, frame, octets);
        return;
    }
    /* Three draws for each frame, whatever comes of them. */
    int lost = draw(way, MILLION) < way->odds.lost, held = draw(way, MILLION) < way->odds.held;
    int repeated = draw(way, MILLION) < way->odds.repeated;
    unsigned packets = esp_packets(frame, octets);
    way->packets += packets;
    if (lost) {
        way->lost += packets;
        way->others_lost += !packets;
    } else if (held && hold(way, frame, octets)) {
        way->held += packets;
    } else {
        send_later(way, frame, octets);
        if (repeated && hold(way, frame, octets))
            way->repeated += packets;
    }
    release(way, 0);
}

static void *carry(void *argument) {
    struct direction *way = argument;
    while (!atomic_load(&stop)) {
        int got = recvmmsg(way->in, way->receiving, BATCH, MSG_WAITFORONE, NULL);
        if (got < 0 && errno != EAGAIN && errno != EINTR && errno != ENETDOWN)
            fail("recvmmsg");
        for (int i = 0; i < got; i++)
            pass(way, way->batch[i], way->receiving[i].msg_len);
        if (got <= 0)
            release(way, 1);
        send_all(way);
    }
    return NULL;
}

/* Receiving from `fd` ends after QUIET_US without a frame: what is held back goes then. */
static int quiet_after(int fd) {
    struct timeval quiet = {.tv_usec = QUIET_US};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet))
        fail("SO_RCVTIMEO");
    return fd;
}

static struct direction *direction_new(int in, int out, uint64_t seed, struct odds odds) {
    struct direction *way = calloc(1, sizeof *way);
    if (way == NULL)
        fail("calloc");
    way->in = in;
    way->out = out;
    way->odds = odds;
    way->random = (seed + 1) * 0x9e3779b97f4a7c15ull | 1; /* never 0, where xorshift stays */
    for (int i = 0; i < BATCH; i++) {
        way->spaces[i] = (struct iovec){way->batch[i], ROOM};
        way->receiving[i].msg_hdr = (struct msghdr){.msg_iov = &way->spaces[i], .msg_iovlen = 1};
    }
    return way;
}

static void tell(const struct direction *way) {
    struct tpacket_stats queue = {0};
    socklen_t octets = sizeof queue;
    getsockopt(way->in, SOL_PACKET, PACKET_STATISTICS, &queue, &octets);
    printf("{\"packets\": %llu, \"lost\": %llu, \"held\": %llu, \"repeated\": %llu, \"others_lost\": %llu, "
           "\"refused\": %llu, \"overrun\": %u}\n",
           (unsigned long long)way->packets, (unsigned long long)way->lost, (unsigned long long)way->held,
           (unsigned long long)way->repeated, (unsigned long long)way->others_lost, (unsigned long long)way->refused,
           queue.tp_drops);
}

int main(int count, char **arguments) {
    if (count != 7) {
        fprintf(stderr, "relay LEFT RIGHT SEED LOST HELD REPEATED\n");
        return 2;
    }
    int left = quiet_after(frames_open(arguments[1])), right = quiet_after(frames_open(arguments[2]));
    uint64_t seed = strtoull(arguments[3], NULL, 10);
    struct odds odds = {(uint32_t)atol(arguments[4]), (uint32_t)atol(arguments[5]), (uint32_t)atol(arguments[6])};
    struct direction *ways[2] = {direction_new(left, right, 2 * seed, odds), direction_new(right, left, 2 * seed + 1, odds)};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, carry, ways[i]))
            fail("pthread_create");
    puts("ready");
    fflush(stdout);
    char octet;
    while (read(0, &octet, 1) > 0)
        ;
    atomic_store(&stop, 1);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        tell(ways[i]);
    }
    return 0;
}
