"""What is measured of every contestant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from bench.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.load import Figures


@dataclass(frozen=True, slots=True)
class Case:
    """One load.

    Args:
        name: in rows.
        kind: cases of one kind run pinned or not, whichever the first of them was better at.
        figure: the one that counts most, and whether ``more`` of it is better.
        measure: of a tunnel, for so many seconds.
    """

    name: str
    kind: str
    figure: str
    more: bool
    measure: Callable[[Load, float], Figures]


def _tcp(streams: int, version: int, *, backwards: bool) -> Case:
    name = f"tcp{streams}{'-back' if backwards else ''}{'' if version == 4 else '-ipv6'}"
    measure = partial(Load.tcp, streams=streams, version=version, backwards=backwards)
    return Case(name, "tcp", "gbit", True, measure)


CASES: Final = (
    *(_tcp(streams, version, backwards=back) for version in (4, 6) for streams in (1, 4) for back in (False, True)),
    Case("tcp1-split", "tcp", "gbit", True, Load.tcp_split),
    Case("rtt-idle", "rtt", "p50_us", False, Load.round_trip),
    Case("rtt-loaded", "rtt loaded", "p50_us", False, Load.round_trip_loaded),
    Case("pps64", "flood", "received_per_s", True, partial(Load.flood, octets=64)),
    Case("udp-1500", "udp", "received_gbit", True, partial(Load.datagrams, octets=1300, gbit=1.5)),
    Case("udp-500", "udp", "received_gbit", True, partial(Load.datagrams, octets=1300, gbit=0.5)),
)
# What the ratios are made of, and no more.
QUICK: Final = tuple(case for case in CASES if case.name in {"tcp1", "tcp1-split", "rtt-idle", "pps64", "udp-1500"})
# Of other settings than the usual one.
ASIDE: Final = tuple(case for case in CASES if case.name in {"tcp1", "tcp1-back", "pps64"})
