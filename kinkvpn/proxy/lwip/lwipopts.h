/* lwIP as we build it: no threads and no sockets of its own, windows for long fat paths, nothing that a peer could fill
 * without a bound.
 */
#ifndef KINKVPN_LWIPOPTS_H
#define KINKVPN_LWIPOPTS_H

#include <stdint.h>

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_SINGLE_NETIF 1
#define LWIP_NETIF_LOOPBACK 0
#define LWIP_HAVE_LOOPIF 0
#define LWIP_STATS 0
#define LWIP_NOASSERT 1 /* its assertions are about who calls it */

/* Memory is malloc's; how much of it there can be follows from the connections that we let in and from their windows. */
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT 8
#define MEMP_NUM_SYS_TIMEOUT 16
#define IP_REASS_MAX_PBUFS 128
#define MEMP_NUM_REASSDATA 16

#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define LWIP_IPV4 1
#define LWIP_ICMP 1
#define LWIP_RAW 0
#define LWIP_DNS 0
#define LWIP_IGMP 0
#define LWIP_AUTOIP 0
#define LWIP_DHCP 0
#define IP_FORWARD 0

/* Two nodes at the ends of a tunnel: no neighbours to discover, no address that anybody else could have. */
#define LWIP_IPV6 1
#define LWIP_IPV6_NUM_ADDRESSES 4
#define LWIP_IPV6_MLD 0
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_ND6_ALLOW_RA_UPDATES 0 /* the MTU is ours to say, for both families */
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_FORWARD 0
#define LWIP_IPV6_DHCP6 0
#define LWIP_IPV6_SCOPES 0
#define LWIP_IPV6_REASS 1
#define LWIP_IPV6_FRAG 1
#define IPV6_FRAG_COPYHEADER 1 /* pointers of 64 bits have no room in a fragment header */

/* 4 MB are 20 ms at 1.6 Gbit/s. */
#define TCP_WND (4 * 1024 * 1024)
#define TCP_SND_BUF (4 * 1024 * 1024)
#define TCP_SND_QUEUELEN 32000
#define MEMP_NUM_TCP_SEG 32000
#define TCP_SNDLOWAT (16 * 1024)
#define TCP_SNDQUEUELOWAT 16000
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 7
#define TCP_MSS 8960 /* less where the MTU says so */
#define LWIP_TCP_TIMESTAMPS 1
#define LWIP_TCP_SACK_OUT 1
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_PBUFS 4096 /* a window's worth of segments; lwIP walks them for each that comes */
#define TCP_LISTEN_BACKLOG 1
#define LWIP_TCP_KEEPALIVE 1
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1 /* closing.c */
/* Its clock: by a tick of 500 ms a lost last segment would cost a second and a half. */
#define TCP_TMR_INTERVAL 50
#define TCP_MSL 30000UL
#define LWIP_TCP_RTO_TIME 1000 /* RFC 6298 §2 */

/* Checksums: ours of what we send; of what comes, unless the packet loop has seen that they are right. */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHECKSUM_ON_COPY 0

struct ip_addr;
uint32_t stack_isn(const struct ip_addr *local, uint16_t local_port, const struct ip_addr *remote, uint16_t remote_port);
#define LWIP_HOOK_TCP_ISN stack_isn

struct tcp_pcb;
uint32_t received_early_limit(const struct tcp_pcb *tcp);
#define TCP_OOSEQ_BYTES_LIMIT received_early_limit

#endif
