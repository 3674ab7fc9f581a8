#include "received.h"

#include <malloc.h>
#include <string.h>

#include "lwip/priv/tcp_priv.h"

enum { BLOCK = 2048 }; /* octets at least, of what small pieces are copied into */

static void link_last(struct received *received, struct pbuf *piece, size_t room) {
    piece->next = NULL;
    if (received->first == NULL)
        received->first = piece;
    else
        received->last->next = piece;
    received->last = piece;
    received->room = room;
}

static void append(struct received *received, const struct pbuf *piece) {
    struct pbuf *last = received->last;
    memcpy((uint8_t *)last->payload + last->len, piece->payload, piece->len);
    last->len = last->tot_len = (u16_t)(last->len + piece->len);
    received->room -= piece->len;
}

/* A segment of one octet has the memory of its packet, and one that lwIP has cut at either end that of the whole. */
static int wastes(const struct pbuf *piece) {
    return malloc_usable_size((void *)piece) / 2 > piece->len;
}

static void add_one(struct received *received, struct pbuf *piece) {
    if (received->room < piece->len) {
        size_t size = LWIP_MAX((size_t)piece->len, BLOCK);
        struct pbuf *block = wastes(piece) ? pbuf_alloc(PBUF_RAW, (u16_t)size, PBUF_RAM) : NULL;
        if (block == NULL) {
            link_last(received, piece, 0);
            return;
        }
        block->len = block->tot_len = 0;
        link_last(received, block, size);
    }
    append(received, piece);
    pbuf_free(piece);
}

void received_add(struct received *received, struct pbuf *octets) {
    while (octets != NULL) {
        struct pbuf *next = octets->next;
        octets->next = NULL; /* pbuf_free would take all that are behind it along */
        octets->tot_len = octets->len;
        if (octets->len > 0)
            add_one(received, octets);
        else
            pbuf_free(octets);
        octets = next;
    }
}

size_t received_vectors(const struct received *received, struct iovec *vectors, size_t most) {
    size_t count = 0, taken = received->taken;
    for (struct pbuf *at = received->first; at != NULL && count < most; at = at->next, taken = 0)
        vectors[count++] = (struct iovec){(uint8_t *)at->payload + taken, at->len - taken};
    return count;
}

static void drop_first(struct received *received) {
    struct pbuf *done = received->first;
    received->first = done->next;
    done->next = NULL;
    pbuf_free(done);
    if (received->first == NULL)
        received->room = 0;
}

void received_take(struct received *received, size_t octets) {
    received->taken += octets;
    while (received->first != NULL && received->taken >= received->first->len) {
        received->taken -= received->first->len;
        drop_first(received);
    }
}

void received_free(struct received *received) {
    while (received->first != NULL)
        drop_first(received);
}

/* Not the octets that there are: of one that later ones lie over the first octet is left, and the memory of it all. */
static size_t memory_of(struct tcp_seg *early) {
    size_t octets = malloc_usable_size(early);
    for (struct pbuf *piece = early->p; piece != NULL; piece = piece->next)
        octets += malloc_usable_size(piece);
    return octets;
}

uint32_t received_early_limit(const struct tcp_pcb *tcp) {
    size_t memory = 0;
    uint32_t octets = 0;
    for (struct tcp_seg *at = tcp->ooseq; at != NULL; at = at->next) {
        memory += memory_of(at);
        if (memory > 2 * (size_t)tcp->rcv_wnd)
            return octets;
        octets += at->p->tot_len;
    }
    return UINT32_MAX;
}
