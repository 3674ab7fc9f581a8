"""The checksums of IP and of what it carries (RFC 1071), as far as the engine writes headers itself."""

from __future__ import annotations

import struct

from esp.inner import TCP, UDP

ICMPV6 = 58

# Where it stands in headers whose checksum takes in the addresses (RFC 9293 §3.1, RFC 768, RFC 4443 §2.3).
_FIELDS = {TCP: 16, UDP: 6, ICMPV6: 2}
_HEADER_OCTETS = {TCP: 20, UDP: 8, ICMPV6: 4}
_FIELD = struct.Struct("!H")
_UDP_LENGTH = 4


def ones_sum(octets: bytes) -> int:
    """Sum of ``octets`` in 16-bit words, in ones' complement: 0 to 0xFFFE, where 0 stands for 0xFFFF too.

    A sum with end-around carry is a remainder modulo 2^16 - 1, and so is the number that all the words make (RFC 1071
    §2): one division, however many words.
    """
    return int.from_bytes(octets if len(octets) % 2 == 0 else octets + b"\0") % 0xFFFF


def complement(total: int) -> int:
    """The checksum field for a sum; never 0, which in UDP says that there is none (RFC 768)."""
    return 0xFFFF - total % 0xFFFF


def corrected(segment: bytes, protocol: int, addresses: int) -> bytes:
    """``segment`` with the checksum that goes with its addresses; the very same octets where it was right.

    This is choice 2 of RFC 3948 §3.1.2. A UDP datagram without checksum stays without (RFC 768); what is too short for
    its header, and protocols whose checksum has nothing to do with addresses, are left to the host.

    Args:
        segment: header and data of a TCP segment, UDP datagram or ICMPv6 message, all of it.
        protocol: IP protocol number.
        addresses: :func:`ones_sum` of source and destination address.
    """
    field = _FIELDS.get(protocol)
    if field is None or len(segment) < _HEADER_OCTETS[protocol]:
        return segment
    octets = len(segment)
    if protocol == UDP:
        octets = _FIELD.unpack_from(segment, _UDP_LENGTH)[0]
        if segment[field : field + 2] == b"\0\0" or not _HEADER_OCTETS[UDP] <= octets <= len(segment):
            return segment
    # The pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1): addresses, protocol and length, in whatever order.
    total = addresses + protocol + octets + ones_sum(segment[:octets])
    if total % 0xFFFF == 0:
        return segment
    wrong = _FIELD.unpack_from(segment, field)[0]
    return segment[:field] + _FIELD.pack(complement(total - wrong)) + segment[field + 2 :]
