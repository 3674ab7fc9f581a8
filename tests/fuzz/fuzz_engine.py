"""Fuzz target of the ESP engines: any octets count once, or come out as packets that may pass. Nothing else happens.

    python tests/fuzz/fuzz_engine.py [atheris options]     coverage guided, until a finding or Ctrl-C, with atheris
    python tests/fuzz/fuzz_engine.py                       20,000 examples of hypothesis, without atheris

What is hostile in an authentic packet is sealed here with the right keys: an engine believes its peer no more than it
has to. Where the compiled engine is built it is given the same, and has to do the same; ESP_ENGINE=portable leaves it
out. native_unprotect.c is faster, and sees that engine alone. tests/fuzz/test_fuzz_engine.py runs a bounded number of
examples of the same check in the suite.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from math import inf
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(tests.parent), str(tests)]

from hypothesis import strategies as st
from support.fuzzing import fuzz
from support.tunnel import LEFT, ipv4, ipv6, ports

from esp.aggfrag import AGGFRAG
from esp.crypto import make_sealer
from esp.datagram import Incoming
from esp.engine import Engine
from esp.inner import parse_inner
from esp.native import why_missing
from esp.policy import Direction, Policy, Selector
from esp.sa import Aggregation, Mode, SaParameters
from esp.spd import Match, SelectorMatcher
from esp.suite import SUITES
from esp.wire import IPV4_IN_ESP, IPV6_IN_ESP, NO_NEXT_HEADER, build_trailers

if TYPE_CHECKING:
    from esp.errors import DropReason

SUITE = SUITES["aes128-gcm16"]
KEYMAT = bytes(range(SUITE.keymat_octets))
SUBNETS4 = Selector(ip_network("10.2.0.0/16"), ip_network("10.1.0.0/16"))
SUBNETS6 = Selector(ip_network("2001:db8:2::/48"), ip_network("2001:db8:1::/48"))
HOSTS4 = Selector(ip_network("10.2.0.1"), ip_network("10.1.0.1"))
HOSTS6 = Selector(ip_network("2001:db8:2::1"), ip_network("2001:db8:1::1"))
SAS = [
    SaParameters(spi, SUITE, KEYMAT, name, selector, LEFT, mode=mode, esn=esn, aggregation=aggregation)
    for spi, (name, selector, mode, esn, aggregation) in enumerate(
        (
            ("four", SUBNETS4, Mode.TUNNEL, False, None),
            ("six", SUBNETS6, Mode.TUNNEL, True, None),
            ("four", HOSTS4, Mode.TRANSPORT, False, None),
            ("six", HOSTS6, Mode.TRANSPORT, False, None),
            ("four", SUBNETS4, Mode.TUNNEL, False, Aggregation(500, 100)),
            ("four", SUBNETS4, Mode.TUNNEL, True, Aggregation(500, 100)),
        ),
        0x1000,
    )
]
MATCHERS = [SelectorMatcher(sa.selector, Direction.INBOUND) for sa in SAS]

# A step: which SA, and whether its authentic number is one that comes again | outer traffic class | octets of text.
STEP = struct.Struct("!BBH")
AGAIN = 0x80


def engines() -> list[type[Engine]]:
    """The reference engine, and its twin where that is built."""
    if why_missing() or os.environ.get("ESP_ENGINE") == "portable":
        return [Engine]
    from esp.native.engine import NativeEngine

    return [Engine, NativeEngine]


ENGINES = engines()


def check(octets: bytes) -> None:
    """What must hold of any octets, as steps. Raises AssertionError, or whatever the engine should not have raised."""
    reference, *twins = (let_in(octets, make) for make in ENGINES)
    assert all(twin == reference for twin in twins), (reference, twins)


def let_in(octets: bytes, make: type[Engine]) -> tuple[list[bytes], dict[DropReason, int]]:
    """The same, of one engine; the packets that came in, and why others did not."""
    came_in: list[bytes] = []
    here, sealers = (
        make(random=Random(2).randbytes),
        [make_sealer(SUITE, sa.spi, KEYMAT, bytes, esn=sa.esn) for sa in SAS],
    )
    for name, selector in (("four", SUBNETS4), ("six", SUBNETS6)):
        here.add_policy(Policy(name, selector))
    for sa in SAS:
        here.install_inbound(sa, 0.0)
    for sa in SAS[:2]:
        here.install_outbound(sa, 0.0)
    here.confirm_path(LEFT.address, 1280)
    numbers: Counter[int] = Counter()
    position = 0
    while position + STEP.size <= len(octets):
        which, traffic_class, length = STEP.unpack_from(octets, position)
        position += STEP.size
        text = octets[position : position + length]
        position += length
        at = (which & ~AGAIN) % len(SAS)
        numbers[at] += not which & AGAIN or not numbers[at]
        sealed = sealers[at].seal(numbers[at], text + bytes(-len(text) % 4))
        check_hostile(here, Incoming(text, LEFT, traffic_class))
        check_hostile(here, Incoming(sealed[:-1] + bytes([sealed[-1] ^ 1]), LEFT, traffic_class))
        came_in += check_authentic(here, at, Incoming(sealed, LEFT, traffic_class))
        check_out(here, text)
    check_end(here)
    return came_in, {reason: count for reason, count in here.statistics().drops.items() if count}


def sums(of: Engine) -> tuple[int, int, int]:
    statistics = of.statistics()
    return statistics.packets_in, statistics.packets_out, sum(statistics.drops.values())


def check_hostile(here: Engine, incoming: Incoming) -> None:
    """Nobody has sealed it: it counts once, and nothing else changes."""
    before = here.statistics()
    assert here.unprotect([incoming], 0.0) == []
    after = here.statistics()
    assert sum(after.drops.values()) == sum(before.drops.values()) + 1
    assert [replace(sa, drops={}) for sa in after.sas] == [replace(sa, drops={}) for sa in before.sas]


def check_authentic(here: Engine, at: int, incoming: Incoming) -> list[bytes]:
    """What comes out is whole, and the SA's traffic; without aggregation it is one packet, or one drop."""
    carried, _, dropped = sums(here)
    packets = here.unprotect([incoming], 0.0)
    for packet in packets:
        inner = parse_inner(packet)
        assert inner is not None
        assert inner[0] == len(packet)
        assert MATCHERS[at].match(inner[1]) is Match.YES
    now_carried, _, now_dropped = sums(here)
    assert now_carried - carried == len(packets)
    if SAS[at].aggregation is None:
        assert len(packets) + now_dropped - dropped == 1
    return packets


def check_out(here: Engine, packet: bytes) -> None:
    """It leaves, whole or in pieces, or counts once."""
    _, carried, dropped = sums(here)
    sealed = here.protect([packet], 0.0)
    _, now_carried, now_dropped = sums(here)
    assert now_carried - carried == len(sealed)
    assert now_dropped - dropped == (not sealed)
    here.take_replies()


def check_end(here: Engine) -> None:
    """Whatever waits for a payload that is lost goes with its SA, and nothing waits any more."""
    for sa in SAS:
        here.remove_inbound(sa.spi)
    assert here.release(1000.0) == []
    assert here.release_deadline() == inf


def text_of(payload: bytes, next_header: int) -> bytes:
    return payload + build_trailers(4, next_header)[len(payload) % 4]


UDP4 = ipv4(ports(1000, 53, 30), protocol=17)
UDP6 = ipv6(ports(1000, 53, 30), protocol=17)
SYN4 = ipv4(ports(1000, 80, 13) + b"\x02" + bytes(6) + b"\2\4\x05\xb4", protocol=6)
TEXTS = [
    (0, text_of(UDP4, IPV4_IN_ESP)),
    (0, text_of(SYN4 + bytes(9), IPV4_IN_ESP)),
    (0, text_of(UDP4, NO_NEXT_HEADER)),
    (1, text_of(UDP6, IPV6_IN_ESP)),
    (2, text_of(UDP4[20:], 17)),
    (3, text_of(UDP6[40:], 17)),
    (4, text_of(bytes(4) + UDP4 + SYN4 + bytes(20), AGGFRAG)),
    (4, text_of(bytes(4) + UDP4 + UDP4[:30], AGGFRAG)),
    (4, text_of(bytes(3) + bytes([len(UDP4) - 30]) + UDP4[30:] + UDP4, AGGFRAG)),
    (5, text_of(b"\1" + bytes(23) + UDP4 + UDP4, AGGFRAG)),
]


def steps(*of: tuple[int, int, bytes]) -> bytes:
    """As :func:`check` reads them: SA, traffic class and text."""
    return b"".join(STEP.pack(which, traffic_class, len(text)) + text for which, traffic_class, text in of)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Some steps with good texts, in which a few octets are overwritten, cut out, doubled or put in."""
    made = []
    for which, text in draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6)):
        octets = bytearray(text)
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, max(0, len(octets) - 1)))
            end = start + draw(st.sampled_from([0, 1, 1, 2, 4, 16]))
            octets[start:end] = draw(st.binary(max_size=4) | st.just(bytes(octets[start:end]) * 2))
        which = draw(st.sampled_from([which] * 6 + [which | AGAIN, (which + 1) % len(SAS)]))
        made.append((which, draw(st.integers(0, 255)), bytes(octets)))
    return steps(*made)


if __name__ == "__main__":
    fuzz(check, mutated(), 20_000)
