/* The maximum segment size in a SYN, lowered to what a tunnel carries (RFC 9293 §3.7.1, RFC 6691); esp.mss's twin. */
#ifndef ESP_NATIVE_MSS_H
#define ESP_NATIVE_MSS_H

#include <stddef.h>
#include <stdint.h>

/* Whether it is a TCP segment with SYN, right behind an IP header and its options. Fragments are what they look like: mss_clamp
 * leaves those alone. */
int is_syn(const uint8_t *packet, size_t octets);
/* Lowers its MSS option, if it has one, to `mtu` octets less both headers. */
void mss_clamp(uint8_t *packet, size_t octets, size_t mtu);

#endif
