"""AH: an ICV over a packet and over what does not change of its IP header on the way (RFC 4302).

The two halves of a suite, as for ESP (:mod:`esp.crypto`), so that an SA knows them no apart: text goes in with the
trailer of an ESP packet, and comes out with one. Between them is a whole IP packet, for the outer header is covered.

It encrypts nothing, and its packets pass no NAT: the addresses are covered.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.constant_time import bytes_eq

from esp.checksum import complement, ones_sum
from esp.errors import AuthenticationFailed
from esp.inner import MAX_EXTENSIONS
from esp.integrity import make_icv
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from esp.datagram import Outgoing
    from esp.integrity import Icv
    from esp.suite import Suite

# --- specification ---

AH = 51  # RFC 4302 §2
# Next header 1 | payload length 1, in words of four octets less two | reserved 2 | SPI 4 | sequence number 4, and the
# ICV behind it (RFC 4302 §2).
_HEADER = struct.Struct("!BBHII")
_SPI = 4  # where it stands
# RFC 4302 §2.6, §3.3.3.2.1: the header is a multiple of four octets over IPv4, of eight over IPv6.
_ALIGNMENT = {4: 4, 6: 8}
_LONGEST_PADDING = 7

# RFC 791 §3.1: version and IHL, TOS, total length, ID, flags and fragment offset, TTL, protocol, checksum, addresses.
_IPV4 = struct.Struct("!BBHHHBBH")
_FRAGMENT = 0x3FFF
_DONT_FRAGMENT = 0x4000
# RFC 8200 §3: version, traffic class and flow label, payload length, next header, hop limit, addresses.
_IPV6 = struct.Struct("!IHBB")
_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS = 0, 43, 60

# RFC 4302 appendix A1; every other IPv4 option is zeroed, all of it.
_IMMUTABLE_OPTIONS = frozenset({130, 133, 134, 148, 149})
_END_OF_OPTIONS, _NO_OPERATION = 0, 1
# RFC 8200 §4.2: the option's data may change on the way. Appendix A2: then they count as zeros.
_MAY_CHANGE = 0x20
_PAD1 = 0

TTL = 64  # not covered; what hosts start with


class AhSealer:
    """The sending half of an integrity algorithm, keyed for one SA.

    Args:
        icv: keyed.
        icv_octets: how long it is.
        spi: in host order.
        local, remote: outer addresses, in text form and of one family.
        esn: sequence numbers are extended (RFC 4302 §2.5.1).
    """

    __slots__ = ("_addresses", "_esn", "_icv", "_octets", "_padding", "_spi", "_version")

    def __init__(self, icv: Icv, icv_octets: int, spi: int, local: str, remote: str, *, esn: bool) -> None:
        source, destination = ip_address(local.partition("%")[0]), ip_address(remote.partition("%")[0])
        self._version = source.version
        self._addresses = source.packed + destination.packed
        self._icv = icv
        self._octets = icv_octets
        self._padding = bytes(-(_HEADER.size + icv_octets) % _ALIGNMENT[self._version])
        self._spi = spi
        self._esn = esn

    def seal(self, sequence: int, text: bytes) -> bytes:
        """The whole IP packet, its mutable fields still open: :func:`dressed` fills them in.

        Args:
            sequence: all 64 bits.
            text: payload, no padding, pad length and next header.
        """
        payload = text[:-2]
        words = (_HEADER.size + self._octets + len(self._padding)) // 4
        header = _HEADER.pack(text[-1], words - 2, 0, self._spi, sequence & 0xFFFFFFFF)
        # An identification of zero the kernel would replace (raw(7)), and it is covered.
        outer = self._outer(4 * words + len(payload), sequence % 0xFFFF + 1)
        high = (sequence >> 32).to_bytes(4) if self._esn else b""
        icv = self._icv.of(b"".join((outer, header, bytes(self._octets), self._padding, payload, high)))
        return b"".join((outer, header, icv, self._padding, payload))

    def _outer(self, octets: int, identification: int) -> bytes:
        """The IP header with every mutable field zero (RFC 4302 §3.3.3.1)."""
        if self._version == 4:
            return _IPV4.pack(0x45, 0, 20 + octets, identification, 0, 0, AH, 0) + self._addresses
        return _IPV6.pack(6 << 28, octets, AH, 0) + self._addresses


def dressed(out: Outgoing, hop_limit: int = TTL) -> bytes:
    """The packet of a sealer, ready to be sent: with all that is not covered, and the checksum."""
    packet = out.datagram
    if packet[0] >> 4 == 6:
        first, octets, protocol, _ = _IPV6.unpack_from(packet)
        first |= out.traffic_class << 20 | out.flow_label
        return _IPV6.pack(first, octets, protocol, hop_limit) + packet[_IPV6.size :]
    first, _, total, identification, _, _, protocol, _ = _IPV4.unpack_from(packet)
    flags = 0 if out.dont_fragment is False else _DONT_FRAGMENT
    fields = (first, out.traffic_class, total, identification, flags, hop_limit, protocol)
    checksum = complement(ones_sum(_IPV4.pack(*fields, 0) + packet[12:20]))
    return _IPV4.pack(*fields, checksum) + packet[_IPV4.size :]


def rebuilt(source: str, destination: bytes, rest: bytes) -> bytes:
    """The IPv6 packet, without extension headers, that ``rest``, which is AH and what follows, came in."""
    address = ip_address(source.partition("%")[0])
    return _IPV6.pack(6 << 28, len(rest), AH, 0) + address.packed + destination + rest


class AhOpener:
    """The receiving half of an integrity algorithm, keyed for one SA; arguments as those of :class:`AhSealer`."""

    __slots__ = ("_esn", "_icv", "_octets")

    def __init__(self, icv: Icv, icv_octets: int, *, esn: bool) -> None:
        self._icv = icv
        self._octets = icv_octets
        self._esn = esn

    def open(self, packet: bytes, sequence: int) -> bytes:
        """Payload, pad length (none) and next header of ``packet``, as :func:`presented` gives it.

        Raises:
            AuthenticationFailed: the ICV is not that of the packet, or it is none of AH.
        """
        found = _locate(packet[ESP_HEADER.size :])
        # What is in front is nobody's word: it has to be what the ICV covers.
        if found is None or found.rest[_SPI : _HEADER.size] != packet[: ESP_HEADER.size]:
            raise AuthenticationFailed
        following, words, _, _, _ = _HEADER.unpack_from(found.rest)
        start, end = _HEADER.size + self._octets, 4 * (words + 2)
        if not start <= end <= min(start + _LONGEST_PADDING, len(found.rest)):
            raise AuthenticationFailed
        high = (sequence >> 32).to_bytes(4) if self._esn else b""
        zeroed = found.rest[: _HEADER.size] + bytes(self._octets) + found.rest[start:]
        if not bytes_eq(self._icv.of(found.covered + zeroed + high), found.rest[_HEADER.size : start]):
            raise AuthenticationFailed
        return found.rest[end:] + bytes((0, following))


def make_ah_sealer(suite: Suite, spi: int, keymat: bytes, local: str, remote: str, *, esn: bool = False) -> AhSealer:
    """The sealer of ``suite``, which encrypts nothing, under ``keymat``; other arguments as those of AhSealer."""
    return AhSealer(_keyed(suite, keymat), suite.icv_octets, spi, local, remote, esn=esn)


def make_ah_opener(suite: Suite, keymat: bytes, *, esn: bool = False) -> AhOpener:
    """The opener of ``suite``, likewise."""
    return AhOpener(_keyed(suite, keymat), suite.icv_octets, esn=esn)


def _keyed(suite: Suite, keymat: bytes) -> Icv:
    assert suite.integrity is not None  # check_parameters has seen to it
    return make_icv(suite.integrity, suite.split(keymat)[2])


def ah_octets(suite: Suite, version: int) -> int:
    """Length of AH with the ICV of ``suite`` behind an IP header of that version (RFC 4302 §3.3.3.2.1)."""
    octets = _HEADER.size + suite.icv_octets
    return octets + -octets % _ALIGNMENT[version]


def presented(packet: bytes) -> bytes | None:
    """An IP ``packet`` with AH as engines take it, SPI and sequence number in front; None if it is no such packet.

    So an SA is found by the same look as for ESP. Their SPIs are of one space here, as a receiver may have it (RFC 4301
    §4.1).
    """
    found = _locate(packet)
    return None if found is None else found.rest[_SPI : _SPI + ESP_HEADER.size] + packet


class _Located(NamedTuple):
    """``covered``: of what stands before AH, as the ICV has it; ``rest``: AH and the payload."""

    covered: bytes
    rest: bytes


def _locate(packet: bytes) -> _Located | None:
    if len(packet) < 40:
        return None
    found = _locate_ipv4(packet) if packet[0] >> 4 == 4 else _locate_ipv6(packet) if packet[0] >> 4 == 6 else None
    return None if found is None or len(found.rest) < _HEADER.size else found


def _locate_ipv4(packet: bytes) -> _Located | None:
    first, _, total, identification, fragment, _, protocol, _ = _IPV4.unpack_from(packet)
    octets = (first & 0x0F) * 4
    if not 20 <= octets <= total == len(packet) or protocol != AH or fragment & _FRAGMENT:
        return None
    options = _ipv4_options(packet[20:octets])
    if options is None:
        return None
    header = _IPV4.pack(first, 0, total, identification, 0, 0, protocol, 0) + packet[12:20]
    return _Located(header + options, packet[octets:])


def _ipv4_options(options: bytes) -> bytes | None:
    """``options`` as the ICV has them (RFC 4302 appendix A1); None where they contradict themselves."""
    covered, at = bytearray(options), 0
    while at < len(options) and options[at] != _END_OF_OPTIONS:
        if options[at] == _NO_OPERATION:
            at += 1
            continue
        octets = options[at + 1] if at + 1 < len(options) else 0
        if not 2 <= octets <= len(options) - at:
            return None
        if options[at] not in _IMMUTABLE_OPTIONS:
            covered[at : at + octets] = bytes(octets)
        at += octets
    return bytes(covered)


def _locate_ipv6(packet: bytes) -> _Located | None:
    _, payload, protocol, _ = _IPV6.unpack_from(packet)
    if payload + 40 != len(packet):
        return None
    covered, offset = [_IPV6.pack(6 << 28, payload, protocol, 0) + packet[8:40]], 40
    # A routing header at its end is as its sender has covered it: as it arrives (RFC 4302 §3.3.3.1.2.2).
    while protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
        if offset + 2 > len(packet) or len(covered) > MAX_EXTENSIONS:
            return None
        octets = 8 * (packet[offset + 1] + 1)
        extension = packet[offset : offset + octets]
        options = extension if protocol == _ROUTING else _ipv6_options(extension)
        if options is None:
            return None
        covered.append(options)
        protocol, offset = extension[0], offset + octets
    return _Located(b"".join(covered), packet[offset:]) if protocol == AH else None


def _ipv6_options(extension: bytes) -> bytes | None:
    """A header of options as the ICV has it (RFC 4302 appendix A2); None where it contradicts itself."""
    covered, at = bytearray(extension), 2
    while at < len(extension):
        if extension[at] == _PAD1:
            at += 1
            continue
        end = at + 2 + extension[at + 1] if at + 1 < len(extension) else at
        if not at < end <= len(extension):
            return None
        if extension[at] & _MAY_CHANGE:
            covered[at + 2 : end] = bytes(end - at - 2)
        at = end
    return bytes(covered)
