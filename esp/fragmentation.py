"""IPv4 fragmentation before ESP, for packets that allow it (RFC 791 §3.2, RFC 4301 §7, RFC 4303 §3.3.4)."""

from __future__ import annotations

import struct

from esp.checksum import complement, ones_sum

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000
_OFFSET = 0x1FFF  # in units of eight octets
_UNIT = 8

# IPv4 header (RFC 791 §3.1): version:4 IHL:4 TOS 1 | total length 2 | ID 2 | flags:3 offset:13 | TTL 1 protocol 1 |
# checksum 2 | addresses 8.
_HEADER = struct.Struct("!2sH2sH2sH8s")

# Options (RFC 791 §3.1): end of list and no operation are one octet, the others say how long they are. The highest bit
# says that the option goes into every fragment.
_END, _NO_OPERATION, _COPIED = 0, 1, 0x80


def may_fragment(packet: bytes) -> bool:
    """Whether ``packet``, an IP packet, may be fragmented on its way: IPv4 without DF. IPv6 never (RFC 8200 §4.5)."""
    return packet[0] >> 4 == 4 and not _DONT_FRAGMENT & int.from_bytes(packet[6:8])


def fragment(packet: bytes, mtu: int) -> list[bytes]:
    """``packet``, an IPv4 packet that :func:`may_fragment`, in pieces of at most ``mtu`` octets, in order.

    A fragment is fragmented further. Each piece has a checksum of its own.

    Args:
        packet: well-formed, its total length its length.
        mtu: at least 68, so that every piece carries something (RFC 791 §3.2).
    """
    first, _, identification, flags, life, _, addresses = _HEADER.unpack_from(packet)
    header_octets = (first[0] & 0x0F) * 4
    payload = packet[header_octets:]
    options = packet[_HEADER.size : header_octets]
    offset, more = flags & _OFFSET, flags & _MORE_FRAGMENTS
    fragments: list[bytes] = []
    while payload or not fragments:
        room = mtu - _HEADER.size - len(options)
        piece = payload if len(payload) <= room else payload[: room - room % _UNIT]
        payload = payload[len(piece) :]
        word = offset | (_MORE_FRAGMENTS if payload or more else 0)
        fragments.append(_build(first[1:2], options, identification, word, life, addresses, piece))
        offset += len(piece) // _UNIT
        if len(fragments) == 1:
            options = _copied(options)
    return fragments


def _build(
    tos: bytes, options: bytes, identification: bytes, word: int, life: bytes, addresses: bytes, piece: bytes
) -> bytes:
    octets = _HEADER.size + len(options)
    first = bytes([0x40 | octets // 4]) + tos
    total = octets + len(piece)
    header = _HEADER.pack(first, total, identification, word, life, 0, addresses) + options
    checksum = complement(ones_sum(header))
    return _HEADER.pack(first, total, identification, word, life, checksum, addresses) + options + piece


def _copied(options: bytes) -> bytes:
    """The options that go into the fragments after the first, padded to whole words."""
    kept = b""
    position = 0
    while position < len(options) and options[position] != _END:
        if options[position] == _NO_OPERATION:
            position += 1
            continue
        octets = options[position + 1] if position + 1 < len(options) else 0
        if not 2 <= octets <= len(options) - position:
            break  # nobody can say where it ends
        if options[position] & _COPIED:
            kept += options[position : position + octets]
        position += octets
    return kept + bytes(-len(kept) % 4)
