"""What consecutive packets of a flow have in common: one look at the first decides for those that follow it.

A bulk transfer is packets that differ in nothing but identification, numbers, checksums and data. Whether the next one
is like that is one comparison, a third of what reading it costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esp.inner import TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IPV4, _IPV6 = 0x45, 6  # the former without options
_FRAGMENT = 0x3FFF  # offset and MF of an IPv4 header (RFC 791 §3.1)
_SYN = 0x02  # of the fourteenth octet of a TCP header (RFC 9293 §3.1)


class Shape(NamedTuple):
    """The first octets of a packet, as far as they decide what becomes of it.

    Another packet has it if it is as long, and ``from_bytes(packet[:octets]) & mask == value``. It then has the same
    total length, traffic class, flow and fragment bits, and is no SYN. Not a method: a call would cost as much.

    Args:
        octets: how many there are to look at.
        mask: which of their bits.
        value: those bits.
    """

    octets: int
    mask: int
    value: int


def _mask(*spans: tuple[int, int, int]) -> tuple[int, int]:
    """Octets and mask; each of ``spans`` is a first octet, one behind the last, and the bits of each that count."""
    octets = spans[-1][1]
    mask = bytearray(octets)
    for first, end, bits in spans:
        mask[first:end] = bytes((bits,)) * (end - first)
    return octets, int.from_bytes(mask)


# By IP version and protocol. Of IPv4 all but identification and header checksum, of TCP the ports and SYN.
_IPV4_HEADER, _IPV6_HEADER = ((0, 4, 0xFF), (6, 10, 0xFF), (12, 24, 0xFF)), ((0, 44, 0xFF),)
_MASKS = {
    (4, TCP): _mask(*_IPV4_HEADER, (33, 34, _SYN)),
    (4, UDP): _mask(*_IPV4_HEADER),
    (6, TCP): _mask(*_IPV6_HEADER, (53, 54, _SYN)),
    (6, UDP): _mask(*_IPV6_HEADER),
}


_LEAST = 24

# No packet is like this: nothing masked is one.
NO_SHAPE = Shape(0, 0, 1)


def shape_of(packet: bytes) -> Shape | None:
    """Of ``packet``, which is as long as it says, or nothing at all becomes of it.

    None where those like it have to be looked at one by one: fragments, SYNs, IP options and extension headers,
    headers that are cut, and protocols that are not TCP or UDP.
    """
    if len(packet) < _LEAST:
        return None
    version = packet[0] >> 4
    found = _MASKS.get((version, packet[9 if version == 4 else 6]))
    if found is None or len(packet) < found[0]:
        return None
    octets, mask = found
    if version == 4 and (packet[0] != _IPV4 or int.from_bytes(packet[6:8]) & _FRAGMENT):
        return None
    value = int.from_bytes(packet[:octets]) & mask
    # SYN is the mask's last bit but one of the last octet, where it is TCP.
    return None if mask & 0xFF == _SYN and value & _SYN else Shape(octets, mask, value)


def runs(packets: Sequence[bytes]) -> Iterator[list[bytes]]:
    """``packets`` in order, those that follow each other and have one shape together."""
    run: list[bytes] = []
    length = -1
    octets, mask, value = NO_SHAPE
    from_bytes = int.from_bytes
    for packet in packets:
        if len(packet) == length:
            if not octets:  # looked at only once there are two of a length
                octets, mask, value = shape_of(run[0]) or NO_SHAPE
            if from_bytes(packet[:octets]) & mask == value:
                run.append(packet)
                continue
        if run:
            yield run
        run, length, octets = [packet], len(packet), 0
    if run:
        yield run
