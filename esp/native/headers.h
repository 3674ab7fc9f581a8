/* What cutting and putting together know of the headers of IP, TCP and UDP: numbers, sizes, places (RFC 791 §3.1, RFC
 * 8200 §3, RFC 9293 §3.1, RFC 768). */
#ifndef ESP_NATIVE_HEADERS_H
#define ESP_NATIVE_HEADERS_H

enum { TCP = 6, UDP = 17 };

/* Of the headers without options. */
enum { IPV4_OCTETS = 20, IPV6_OCTETS = 40, TCP_OCTETS = 20, UDP_OCTETS = 8 };

enum { IPV4_TOS = 1, IPV4_LENGTH = 2, IPV4_IDENTIFICATION = 4, IPV4_FRAGMENT = 6, IPV4_TTL = 8, IPV4_PROTOCOL = 9,
       IPV4_CHECKSUM = 10, IPV4_ADDRESSES = 12 };
/* Of the flags and the offset of a fragment. */
enum { DONT_FRAGMENT = 0x4000, IS_FRAGMENT = 0x3FFF };

enum { IPV6_LENGTH = 4, IPV6_NEXT_HEADER = 6, IPV6_HOP_LIMIT = 7, IPV6_ADDRESSES = 8 };
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION = 60 };

/* TCP_OFFSET: the data offset, of which the low half is reserved; the flags follow it. */
enum { TCP_SEQUENCE = 4, TCP_ACKNOWLEDGMENT = 8, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_WINDOW = 14, TCP_CHECKSUM = 16,
       TCP_URGENT = 18 };
enum { FIN = 0x01, PSH = 0x08, ACK = 0x10, ECE = 0x40, CWR = 0x80 };

enum { UDP_LENGTH = 4, UDP_CHECKSUM = 6 };

#endif
