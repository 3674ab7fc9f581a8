#include "segments.h"

#include <string.h>

#include "flow.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/sys.h"

enum {
    IP6 = 40, ICMP6 = 8, TCP = 20, TIMESTAMPS = 12, /* octets of each header, and of an option */
    NEXT_TCP = 6, NEXT_ICMP6 = 58,
    TOO_BIG = 2,      /* RFC 4443 §3.2 */
    LEAST_MTU = 1280, /* RFC 8201 §4: what says less is not believed */
    KEPT_MS = 600000, /* RFC 8201 §4: then larger ones are tried again */
};

/* What is known of the path to `to`, or NULL. */
static struct path *find(struct stack *stack, const void *to) {
    for (unsigned i = 0; i < PATHS; i++)
        if (stack->paths[i].mtu && sys_now() - stack->paths[i].since < KEPT_MS && !memcmp(stack->paths[i].to, to, 16))
            return &stack->paths[i];
    return NULL;
}

/* A place for `to`; the oldest makes room for it. */
static struct path *place(struct stack *stack, const void *to) {
    struct path *found = find(stack, to), *oldest = stack->paths;
    for (unsigned i = 0; found == NULL && i < PATHS; i++)
        if (sys_now() - stack->paths[i].since > sys_now() - oldest->since)
            oldest = &stack->paths[i];
    return found != NULL ? found : oldest;
}

static unsigned mtu_to(const struct stack *stack, const ip_addr_t *to) {
    struct path *path = IP_IS_V6(to) && stack->heard ? find((struct stack *)stack, ip_2_ip6(to)->addr) : NULL;
    unsigned mtu = atomic_load_explicit(&stack->mtu, memory_order_relaxed);
    return path != NULL ? LWIP_MIN(path->mtu, mtu) : mtu;
}

uint16_t segments_mss(const struct stack *stack, const struct tcp_pcb *tcp, uint16_t agreed) {
    unsigned headers = (IP_IS_V6(&tcp->remote_ip) ? IP6 : IP_HLEN) + TCP, mtu = mtu_to(stack, &tcp->remote_ip);
    return (uint16_t)LWIP_MIN(agreed, LWIP_MAX(mtu, headers + TIMESTAMPS + 1) - headers);
}

/* lwIP splits the first of those that are not sent; each of them is the first for that while. */
static void cut_again(struct tcp_pcb *tcp) {
    uint16_t most = (uint16_t)(tcp->mss - (tcp->flags & TF_TIMESTAMP ? TIMESTAMPS : 0));
    tcp_rexmit_rto_prepare(tcp); /* what is on its way does not arrive */
    struct tcp_seg *first = tcp->unsent;
    for (struct tcp_seg *at = first; at != NULL; at = at->next) {
        tcp->unsent = at;
        if (tcp_split_unsent_seg(tcp, most) != ERR_OK)
            break;
    }
    tcp->unsent = first;
    tcp_output(tcp);
}

/* Of all connections, or of those to `to`. */
static void shrink(struct stack *stack, const ip6_addr_t *to) {
    for (struct tcp_pcb *tcp = tcp_active_pcbs, *next; tcp != NULL; tcp = next) {
        next = tcp->next;
        uint16_t mss = segments_mss(stack, tcp, tcp->mss);
        if (mss == tcp->mss || (to != NULL && !(IP_IS_V6(&tcp->remote_ip) && ip6_addr_cmp(ip_2_ip6(&tcp->remote_ip), to))))
            continue;
        tcp->mss = mss;
        cut_again(tcp);
    }
}

void segments_shrink(struct stack *stack) {
    shrink(stack, NULL);
}

static uint16_t get16(const uint8_t *at) {
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* RFC 4443 §2.3: over addresses, length and next header too. */
static int sum_is_right(const uint8_t *packet, uint16_t length) {
    uint32_t sum = stack_checksum(packet + 8, 32) + PP_HTONS(length) + PP_HTONS(NEXT_ICMP6) + stack_checksum(packet + IP6, length);
    sum = (sum & 0xffff) + (sum >> 16);
    return ((sum & 0xffff) + (sum >> 16)) == 0xffff;
}

/* The connection that `quoted` has gone out of, the front of a packet, if it is on its way still (RFC 5927 §4.1). */
static struct tcp_pcb *sender_of(const uint8_t *quoted) {
    const uint8_t *segment = quoted + IP6;
    if (quoted[0] >> 4 != 6 || quoted[6] != NEXT_TCP)
        return NULL;
    for (struct tcp_pcb *tcp = tcp_active_pcbs; tcp != NULL; tcp = tcp->next)
        if (IP_IS_V6(&tcp->remote_ip) && tcp->local_port == get16(segment) && tcp->remote_port == get16(segment + 2) &&
            !memcmp(ip_2_ip6(&tcp->local_ip)->addr, quoted + 8, 16) &&
            !memcmp(ip_2_ip6(&tcp->remote_ip)->addr, quoted + 24, 16))
            return TCP_SEQ_GEQ(get32(segment + 4), tcp->lastack) && TCP_SEQ_LT(get32(segment + 4), tcp->snd_nxt) ? tcp : NULL;
    return NULL;
}

int segments_hear(struct stack *stack, const uint8_t *packet, size_t octets) {
    const uint8_t *message = packet + IP6, *quoted = message + ICMP6;
    if (octets < IP6 + ICMP6 || packet[0] >> 4 != 6 || packet[6] != NEXT_ICMP6 || message[0] != TOO_BIG)
        return 0;
    uint16_t length = get16(packet + 4);
    if (length < ICMP6 + IP6 + TCP || length > octets - IP6 || !sum_is_right(packet, length))
        return 1;
    struct tcp_pcb *tcp = sender_of(quoted);
    uint32_t mtu = get32(message + 4);
    if (tcp == NULL || mtu < LEAST_MTU || mtu >= mtu_to(stack, &tcp->remote_ip))
        return 1;
    const ip6_addr_t to = *ip_2_ip6(&tcp->remote_ip);
    struct path *path = place(stack, to.addr);
    memcpy(path->to, to.addr, sizeof path->to);
    path->mtu = (uint16_t)mtu;
    path->since = sys_now();
    stack->heard = 1;
    shrink(stack, &to);
    return 1;
}
