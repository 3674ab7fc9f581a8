"""Large packets of the TUN cut into those that travel: TSO and USO, both versions of IP (linux/virtio_net.h).

A host that leaves segmentation to its device writes the headers once: total length, identification, sequence number and
flags are those of the whole, and where the checksum belongs there is the sum of the pseudo-header.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from esp.checksum import complement, ones_sum
from esp.inner import EXTENSIONS, TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Sequence

# --- specification ---

# struct virtio_net_hdr: flags | GSO type | header length 2 | GSO size 2 | checksum start 2 | checksum offset 2. In host
# order, for nobody asks for another (TUNSETVNETLE, TUNSETVNETBE).
VNET = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 4, 5
GSO_ECN = 0x80  # beside a TCP type: CWR is set

# TCP (RFC 9293 §3.1): source port 2 | destination port 2 | sequence number 4 | acknowledgement number 4 | offset:4
# reserved:4 flags:8 | window 2 | checksum 2 | urgent pointer 2. UDP (RFC 768): ports 4 | length 2 | checksum 2.
_TCP_OCTETS, _UDP_OCTETS = 20, 8
_FIN_PSH, _CWR = 0x09, 0x80

_WORD = struct.Struct("!H")
_TWO_WORDS = struct.Struct("!HH")
_LONG = struct.Struct("!I")

# What makes no sense is handed on as a packet that no engine takes for IP, and so counts as one.
NONSENSE = (b"",)


def segments(vnet: bytes, packet: bytes) -> Sequence[bytes]:
    """The packets that ``packet``, as it was read behind the header ``vnet``, stands for: complete, with checksums.

    Of what ``vnet`` says of lengths nothing is believed that the packet does not say too. :data:`NONSENSE` where they
    contradict each other.
    """
    flags, gso, _headers, size, start, offset = VNET.unpack(vnet)
    kind = gso & ~GSO_ECN
    if kind == GSO_NONE:
        return (_completed(packet, start, start + offset),) if flags & NEEDS_CSUM else (packet,)
    network = _network_octets(packet, start)
    if not network or not size or not flags & NEEDS_CSUM:
        return NONSENSE
    six = packet[0] >> 4 == 6
    if kind == (GSO_TCPV6 if six else GSO_TCPV4):
        return _cut_tcp(packet, network, size)
    return _cut_udp(packet, network, size) if kind == GSO_UDP_L4 else NONSENSE


def _completed(packet: bytes, start: int, field: int) -> bytes:
    """``packet`` with the checksum from ``start`` on, into whose ``field`` the host has put the pseudo-header's."""
    if not 20 <= start < field <= len(packet) - 2:
        return NONSENSE[0]
    return packet[:field] + _WORD.pack(complement(ones_sum(packet[start:]))) + packet[field + 2 :]


def _network_octets(packet: bytes, start: int) -> int:
    """Octets ahead of the transport header, which ``start`` says too; 0 where the packet says otherwise."""
    if len(packet) < start + _UDP_OCTETS or start < 20:
        return 0
    if packet[0] >> 4 == 4:
        fits = (packet[0] & 0x0F) * 4 == start and _WORD.unpack_from(packet, 2)[0] == len(packet)
    else:
        fits = packet[0] >> 4 == 6 and start >= 40 and _WORD.unpack_from(packet, 4)[0] == len(packet) - 40
        fits = fits and (start > 40) == (packet[6] in EXTENSIONS)
    return start if fits else 0


def _protocol(packet: bytes, network: int) -> int:
    """Of the packet, where no extension header keeps it to itself: those are taken for what the host says."""
    return packet[9] if packet[0] >> 4 == 4 else packet[6] if network == 40 else -1


def _cut_tcp(packet: bytes, network: int, size: int) -> Sequence[bytes]:
    headers = network + (packet[network + 12] >> 4) * 4 if len(packet) >= network + _TCP_OCTETS else 0
    if _protocol(packet, network) not in (TCP, -1) or not network + _TCP_OCTETS <= headers < len(packet):
        return NONSENSE
    heads = _NetworkHeaders(packet, network, TCP)
    sequence, flags = _LONG.unpack_from(packet, network + 4)[0], packet[network + 13]
    ports, acknowledged = packet[network : network + 4], packet[network + 8 : network + 13]
    window, urgent_and_options = packet[network + 14 : network + 16], packet[network + 18 : headers]
    # What is the same in all of them, of the sum.
    constant = heads.pseudo + ones_sum(ports + acknowledged + b"\0" + window + urgent_and_options)
    cut: list[bytes] = []
    for begin in range(headers, len(packet), size):
        data = packet[begin : begin + size]
        shown = flags & (0xFF if begin == headers else ~_CWR)
        shown &= 0xFF if begin + size >= len(packet) else ~_FIN_PSH
        number = _LONG.pack((sequence + begin - headers) & 0xFFFF_FFFF)
        octets = headers - network + len(data)
        total = constant + ones_sum(number) + shown + octets + ones_sum(data)
        transport = (ports, number, acknowledged, bytes((shown,)), window, _WORD.pack(complement(total)))
        cut.append(b"".join((heads.next(octets), *transport, urgent_and_options, data)))
    return cut


def _cut_udp(packet: bytes, network: int, size: int) -> Sequence[bytes]:
    headers = network + _UDP_OCTETS
    if _protocol(packet, network) not in (UDP, -1) or headers >= len(packet):
        return NONSENSE
    heads = _NetworkHeaders(packet, network, UDP)
    ports = packet[network : network + 4]
    constant = heads.pseudo + ones_sum(ports)
    cut: list[bytes] = []
    for begin in range(headers, len(packet), size):
        data = packet[begin : begin + size]
        octets = _UDP_OCTETS + len(data)
        total = constant + 2 * octets + ones_sum(data)
        cut.append(b"".join((heads.next(octets), ports, _WORD.pack(octets), _WORD.pack(complement(total)), data)))
    return cut


class _NetworkHeaders:
    """The IP headers of the segments, one after the other.

    Attributes:
        pseudo: sum of what the pseudo-header has besides the length (RFC 9293 §3.1, RFC 8200 §8.1). The destination of
            a routing header stands there and not the next hop (RFC 8200 §8.1): hosts do not segment with those.
    """

    __slots__ = ("_after", "_before", "_constant", "_extensions", "_identification", "_middle", "pseudo")

    def __init__(self, packet: bytes, network: int, protocol: int) -> None:
        if packet[0] >> 4 == 4:
            self._before, self._middle, self._after = packet[:2], packet[6:10], packet[12:network]
            self._identification: int | None = _WORD.unpack_from(packet, 4)[0]
            self._constant = ones_sum(self._before + self._middle + self._after)
            self._extensions = network
            addresses = packet[12:20]
        else:
            self._before, self._middle, self._after = packet[:4], b"", packet[6:network]
            self._identification = None
            self._extensions = network - 40
            addresses = packet[8:40]
        self.pseudo = ones_sum(addresses) + protocol

    def next(self, octets: int) -> bytes:
        """That of the segment that comes next, ``octets`` long without it."""
        length = self._extensions + octets
        if self._identification is None:
            return self._before + _WORD.pack(length) + self._after
        number, self._identification = self._identification, (self._identification + 1) & 0xFFFF
        checksum = _WORD.pack(complement(self._constant + length + number))
        return b"".join((self._before, _TWO_WORDS.pack(length, number), self._middle, checksum, self._after))
