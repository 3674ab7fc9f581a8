"""What passes between an engine and its link: ESP packets, where they go to or come from, and their outer fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.sa import Endpoint

ESP_PROTOCOL = 50  # RFC 4303 §2
_LEAST_ESP = 8  # SPI and sequence number


class Outgoing(NamedTuple):
    """A datagram for the link.

    Args:
        datagram: what goes behind the UDP or the outer IP header.
        remote: where it goes.
        traffic_class: DSCP and ECN of the outer header (RFC 2474, RFC 3168).
        dont_fragment: DF of an outer IPv4 header; None leaves it to the kernel's path MTU discovery.
        flow_label: of an outer IPv6 header, 20 bits; 0 leaves it to the kernel.
        protocol: of the outer IP header, where there is no UDP. With AH (51) ``datagram`` is the whole packet, outer
            header included, for :func:`esp.ah.dressed`.
    """

    datagram: bytes
    remote: Endpoint
    traffic_class: int = 0
    dont_fragment: bool | None = None
    flow_label: int = 0
    protocol: int = ESP_PROTOCOL


class Incoming(NamedTuple):
    """A datagram from the link.

    Args:
        datagram: what was behind the UDP or the outer IP header; of AH what :func:`esp.ah.presented` makes of it.
        source: where it came from. Not authenticated, as everything of the outer header.
        traffic_class: DSCP and ECN of the outer header, 0 where the link was not told.
    """

    datagram: bytes
    source: Endpoint
    traffic_class: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """ESP packets that the kernel has given as one, for they came from one place one after the other (udp(7), UDP_GRO):
    of one SPI, of one length, and with numbers in a row.

    Args:
        datagrams: one behind the other.
        octets: of each.
        source, traffic_class: as of each.
    """

    datagrams: bytes
    octets: int
    source: Endpoint
    traffic_class: int

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.datagrams) // self.octets

    def split(self, first: int = 0) -> list[Incoming]:
        """One by one, from number ``first`` on."""
        return _split(self.datagrams[first * self.octets :], self.octets, self.source, self.traffic_class)


def _split(datagrams: bytes, octets: int, source: Endpoint, traffic_class: int) -> list[Incoming]:
    return [
        Incoming(datagrams[begin : begin + octets], source, traffic_class) for begin in range(0, len(datagrams), octets)
    ]


def gather(datagrams: bytes, octets: int, source: Endpoint, traffic_class: int) -> list[Incoming | Run]:
    """What came as one: in runs where it may be, else one by one.

    Args:
        datagrams: of any kind, one behind the other.
        octets: of each but the last, which may be shorter.
        source, traffic_class: of all.
    """
    count = len(datagrams) // octets
    if count < 2 or octets < _LEAST_ESP:
        return [*_split(datagrams, octets, source, traffic_class)]
    # SPI and number of each as one. A carry into the SPI is another SPI, and is not in a row.
    whole = memoryview(datagrams)[: count * octets]
    headers = [header for (header,) in _headers(octets).iter_unpack(whole)]
    gathered: list[Incoming | Run] = []
    begin = 0
    for end in [*_breaks(headers), count]:
        run = Run(datagrams[begin * octets : end * octets], octets, source, traffic_class)
        gathered += [run] if end - begin > 1 and headers[begin] >> 32 else run.split()
        begin = end
    return [*gathered, *_split(datagrams[count * octets :], octets, source, traffic_class)]


def _breaks(headers: Sequence[int]) -> list[int]:
    """Where one does not follow the one before; most often nowhere."""
    if headers[-1] >> 32 == headers[0] >> 32 and headers == list(range(headers[0], headers[0] + len(headers))):
        return []
    pairs = enumerate(pairwise(headers), 1)
    return [at for at, (before, after) in pairs if after != before + 1 or after & 0xFFFF_FFFF == 0]


@lru_cache(maxsize=256)
def _headers(octets: int) -> struct.Struct:
    return struct.Struct(f"!Q{octets - 8}x")
