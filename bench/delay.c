/* A long path: carries Ethernet frames between two devices, each so much later than it came.
 *
 *     delay LEFT RIGHT MICROSECONDS
 *
 * A run of datagrams that the kernel hands on whole is one frame, and leaves as one. ARP and ICMPv6 are late like all else.
 * Says `ready`; at the end of its input prints how many frames it had no room for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frames.h"

enum {
    ROOM = 10 + 14 + 65536,     /* vnet header, Ethernet header, the longest packet */
    UNDER_WAY = 1 << 16,        /* frames */
    OCTETS = 256 << 20,         /* that is 20 ms at 100 Gbit/s */
};

struct frame {
    uint64_t due;
    uint32_t at, octets;
};

struct direction {
    int in, out;
    uint64_t late, dropped;
    uint32_t first, behind, from, to; /* frames and octets that are under way; these wrap at the ends of their rings */
    struct frame frames[UNDER_WAY];
    uint8_t *octets;
};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void take(struct direction *way) {
    for (;;) {
        if (OCTETS - way->to < ROOM)
            way->to = 0;
        uint32_t ahead = way->first == way->behind ? OCTETS : (way->from - way->to + OCTETS) % OCTETS;
        int full = ahead < 2 * ROOM || way->behind - way->first >= UNDER_WAY;
        ssize_t got = recv(way->in, way->octets + (full ? OCTETS : way->to), ROOM, MSG_DONTWAIT);
        if (got < 0)
            return;
        if (full) {
            way->dropped++;
            continue;
        }
        way->frames[way->behind++ % UNDER_WAY] = (struct frame){now() + way->late, way->to, (uint32_t)got};
        way->to += (uint32_t)got;
    }
}

static void give(struct direction *way) {
    for (; way->first != way->behind && way->frames[way->first % UNDER_WAY].due <= now(); way->first++) {
        struct frame *frame = &way->frames[way->first % UNDER_WAY];
        if (send(way->out, way->octets + frame->at, frame->octets, 0) < 0)
            way->dropped++;
        way->from = frame->at + frame->octets;
    }
}

static void *carry(void *argument) {
    struct direction *way = argument;
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        struct pollfd ready = {way->in, POLLIN, 0};
        struct timespec pause = {1, 0};
        if (way->first != way->behind) {
            uint64_t due = way->frames[way->first % UNDER_WAY].due, time = now();
            uint64_t left = due > time ? due - time : 0;
            pause = (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        }
        ppoll(&ready, 1, &pause, NULL);
        take(way);
        give(way);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "delay LEFT RIGHT MICROSECONDS\n");
        return 2;
    }
    int devices[2] = {frames_open(arguments[1]), frames_open(arguments[2])};
    struct direction *ways[2];
    for (int i = 0; i < 2; i++) {
        ways[i] = calloc(1, sizeof *ways[i]);
        if (ways[i] == NULL || (ways[i]->octets = malloc(OCTETS + ROOM)) == NULL)
            fail("malloc");
        ways[i]->in = devices[i];
        ways[i]->out = devices[!i];
        ways[i]->late = strtoull(arguments[3], NULL, 10) * 1000;
        pthread_t thread;
        if (pthread_create(&thread, NULL, carry, ways[i]))
            fail("pthread_create");
    }
    puts("ready");
    fflush(stdout);
    char octet;
    while (read(0, &octet, 1) > 0)
        ;
    printf("%llu\n", (unsigned long long)(ways[0]->dropped + ways[1]->dropped));
    return 0;
}
