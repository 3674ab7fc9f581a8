"""Segments of a TCP flow put together again on their way into the TUN: one write for many, and one acknowledgement.

What is put together is what a host would have let its device cut (linux/virtio_net.h): one flow, nothing different in
the headers but what counts, data that follows. Its checksum is right if, and only if, those of all segments are.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from esp.checksum import complement, ones_sum
from esp.inner import TCP
from esp.segment import GSO_TCPV4, GSO_TCPV6, VNET

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

# --- specification ---

LARGEST = 65_535  # octets of an IPv4 packet (RFC 791 §3.1), and of what a TUN takes
_TCP_OCTETS = 20
_CHECKSUM = 16  # where it stands in a TCP header (RFC 9293 §3.1)
_PSH, _ACK = 0x08, 0x10
_IPV4 = 0x45  # without options
_FRAGMENT = 0x3FFF  # MF and offset (RFC 791 §3.1)

_WORD = struct.Struct("!H")
_AS_IT_IS = bytes(VNET.size)  # a packet that is whole, with its checksum


class Joined(NamedTuple):
    """What goes into the TUN with one write.

    Args:
        buffers: the vnet header and the packet, in pieces.
        packets: those it was made of.
    """

    buffers: Sequence[bytes]
    packets: Sequence[bytes]


class _Layout(NamedTuple):
    """The headers of a segment, of one IP version and one TCP header length, as one number.

    Args:
        octets: of both.
        mask: of them all but lengths, identification, checksums, and PSH.
        step: what one octet of data adds to the sequence number.
        psh: its bit.
    """

    octets: int
    mask: int
    step: int
    psh: int


@lru_cache(maxsize=32)
def _layout(network: int, transport: int) -> _Layout:
    octets = network + transport
    mask = bytearray(b"\xff" * octets)
    lengths = (2, 3, 4, 5, 10, 11) if network == 20 else (4, 5)
    for at in (*lengths, network + _CHECKSUM, network + _CHECKSUM + 1):
        mask[at] = 0
    mask[network + 13] = 0xFF & ~_PSH
    behind = 8 * transport  # bits from the end of the IP header on
    return _Layout(octets, int.from_bytes(mask), 1 << behind - 64, _PSH << behind - 112)


def _layout_of(packet: bytes, local: Container[bytes]) -> _Layout | None:
    """Of ``packet``, if others may follow it: TCP for this host that has data, of even length, and asks for no more."""
    if len(packet) <= 20 + _TCP_OCTETS:
        return None
    network = _network_octets(packet)
    if len(packet) <= network + _TCP_OCTETS or packet[9 if network == 20 else 6] != TCP:
        return None
    if network == 20 and (packet[0] != _IPV4 or _WORD.unpack_from(packet, 6)[0] & _FRAGMENT):
        return None
    transport = (packet[network + 12] >> 4) * 4
    if packet[network + 13] != _ACK or not _TCP_OCTETS <= transport < len(packet) - network:
        return None
    if (len(packet) - transport) % 2 or packet[16 if network == 20 else 24 : network] not in local:
        return None
    return _layout(network, transport)


def _network_octets(packet: bytes) -> int:
    return 20 if packet[0] >> 4 == 4 else 40


def coalesce(packets: Sequence[bytes], local: Container[bytes]) -> Iterator[Joined]:
    """``packets`` in order, those together that may be.

    Args:
        packets: well-formed, and each as long as it says.
        local: addresses of this host, packed. It verifies the checksum of what is for one of them, adding up once more
            what it copies anyway. What it forwards it would give a new checksum, right or wrong: of that each segment
            would have to be verified here, which costs Python more than is gained, and so it stays as it is.
    """
    run: list[bytes] = []
    length = room = octets = mask = step = psh = expected = total = 0
    from_bytes = int.from_bytes
    for packet in packets:
        if len(packet) <= length:
            if (
                not octets and (layout := _layout_of(run[0], local)) is not None
            ):  # looked at only once there is a second
                octets, mask, step, psh = layout
                step *= length - octets
                total = from_bytes(run[0][:octets])
                expected = total + step
                room = (LARGEST - length) // (length - octets)
            if room and len(packet) > octets:
                header = from_bytes(packet[:octets])
                if not (header ^ expected) & mask:
                    run.append(packet)
                    total += header
                    expected += step
                    room -= 1
                    if header & psh or len(packet) < length:
                        length = 0
                    continue
        if run:
            yield _join(run, octets, total)
        run, length, octets, room = [packet], len(packet), 0, 0
    if run:
        yield _join(run, octets, total)


def _join(run: Sequence[bytes], octets: int, total: int) -> Joined:
    """``run`` as one.

    Args:
        run: segments that follow each other.
        octets: of the headers of each.
        total: of all headers, as numbers. Sums of their words are the same, modulo 2^16 - 1 (RFC 1071).
    """
    first, count = run[0], len(run)
    if count == 1:
        return Joined((_AS_IT_IS, first), run)
    network = _network_octets(first)
    addresses = first[12:20] if network == 20 else first[8:40]
    pseudo = ones_sum(addresses) + TCP
    headers = count * octets
    data = sum(map(len, run)) - headers
    segment = octets - network + data
    transport = bytearray(first[network:octets])
    transport[13] |= run[-1][network + 13] & _PSH
    transport[_CHECKSUM : _CHECKSUM + 2] = b"\0\0"
    # What a segment's data adds up to, its header tells: all of a segment that is right, with the pseudo-header, is
    # nought. An IPv4 header by itself is too, and one that is not spoils the sum, as it should.
    if network == 40:
        total -= count * (ones_sum(first[:4] + first[6:40]) + octets - network) + data
    parts = total + count * (pseudo + octets - network) + data
    checksum = (parts - pseudo - segment - ones_sum(bytes(transport))) % 0xFFFF
    transport[_CHECKSUM : _CHECKSUM + 2] = _WORD.pack(checksum)
    gso = GSO_TCPV4 if network == 20 else GSO_TCPV6
    vnet = VNET.pack(0, gso, octets, len(first) - octets, 0, 0)
    header = _network_header(first, segment) + transport
    return Joined((vnet, header, *[each[octets:] for each in run]), run)


def _network_header(first: bytes, segment: int) -> bytes:
    """That of ``first``, for a segment of so many octets."""
    if first[0] >> 4 == 6:
        return first[:4] + _WORD.pack(segment) + first[6:40]
    length = _WORD.pack(20 + segment)
    checksum = complement(ones_sum(first[:2] + length + first[4:10] + first[12:20]))
    return first[:2] + length + first[4:10] + _WORD.pack(checksum) + first[12:20]
