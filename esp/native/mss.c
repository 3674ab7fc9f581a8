#include "mss.h"

#include "bytes.h"

enum { TCP = 6, SYN = 0x02, FLAGS = 13, CHECKSUM = 16, TCP_HEADER = 20, END = 0, NO_OPERATION = 1, MSS = 2, MSS_OCTETS = 4 };

static size_t header_of(const uint8_t *packet) {
    return packet[0] >> 4 == 4 ? (packet[0] & 0x0fu) * 4 : 40;
}

int is_syn(const uint8_t *packet, size_t octets) {
    size_t header = header_of(packet);
    int protocol = packet[0] >> 4 == 4 ? packet[9] : packet[6];
    return protocol == TCP && header + FLAGS < octets && (packet[header + FLAGS] & SYN);
}

/* Where the value of the MSS option stands; 0 where there is none. */
static size_t find(const uint8_t *packet, size_t octets, size_t header) {
    size_t position = header + TCP_HEADER, end = header + (packet[header + 12] >> 4) * 4u;
    end = end < octets ? end : octets;
    while (position < end && packet[position] != END) {
        if (packet[position] == NO_OPERATION) {
            position++;
            continue;
        }
        size_t length = position + 1 < end ? packet[position + 1] : 0;
        if (length < 2 || position + length > end)
            return 0;
        if (packet[position] == MSS)
            return length == MSS_OCTETS ? position + 2 : 0;
        position += length;
    }
    return 0;
}

void mss_clamp(uint8_t *packet, size_t octets, size_t mtu) {
    int version = packet[0] >> 4;
    size_t header = header_of(packet), around = (version == 4 ? 20 : 40) + TCP_HEADER;
    if (octets < header + TCP_HEADER || mtu <= around || (version == 4 && (get16(packet + 6) & 0x1fff)))
        return;
    size_t position = find(packet, octets, header), limit = mtu - around;
    if (position == 0 || get16(packet + position) <= limit)
        return;
    /* RFC 1624 §3. Where the option begins at an odd octet, its value stands across two words: take them both. The second may
     * lie behind the packet, and then is no part of the sum. */
    size_t begin = position - (position - header) % 2;
    uint8_t words[4] = {0};
    size_t there = octets - begin < sizeof words ? octets - begin : sizeof words;
    memcpy(words, packet + begin, there);
    uint32_t before = get16(words) + get16(words + 2);
    put16(packet + position, (uint16_t)limit);
    memcpy(words, packet + begin, there);
    uint32_t after = get16(words) + get16(words + 2);
    uint8_t *field = packet + header + CHECKSUM;
    uint32_t total = (get16(field) ^ 0xffffu) + (0x1fffeu - before) + after;
    total = (total & 0xffff) + (total >> 16);
    total = (total & 0xffff) + (total >> 16);
    total = ~total & 0xffff;
    put16(field, (uint16_t)(total ? total : 0xffff)); /* either is right; the twin writes this */
}
