/* A device as a source and a sink of Ethernet frames, each behind its vnet header; for the programs that are paths. */
#pragma once

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

enum {
    FRAMES_OCTETS = 64 << 20, /* of what waits in either direction: a path loses what it is told to, and nothing else */
};

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

static inline int frames_open(const char *name) {
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1, octets = FRAMES_OCTETS;
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    address.sll_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || !address.sll_ifindex)
        fail(name);
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof octets) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &octets, sizeof octets) ||
        bind(fd, (struct sockaddr *)&address, sizeof address))
        fail(name);
    return fd;
}
