"""Several lanes at once: no number and no IV twice, no packet opened twice, and whose packets an SA carries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from random import Random
from threading import Event
from typing import TYPE_CHECKING

import pytest
from support.tunnel import LEFT, RIGHT, SELECTOR4, SPI4, flip, ipv4, parameters

from esp.datagram import Incoming
from esp.errors import DropReason
from esp.events import CounterExhausted, HardExpired
from esp.native import _core
from esp.native.engine import NativeEngine
from esp.policy import Policy
from esp.sa import SEQUENCE_MAX, Lifetime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esp.sa import SaParameters

LANES = range(4)
HEAD = 16
PACKET = ipv4(bytes(44))
# One of each way to make an IV of eight octets or more, and both libraries where they are there.
SUITES = ("aes128-gcm16", "chacha20-poly1305", "aes256-ccm16", "aes256-ctr-sha256", "aes128-cbc-sha256")


def engine(lanes: int = len(LANES)) -> NativeEngine:
    """One with a policy that protects."""
    made = NativeEngine(random=Random(1).randbytes, lanes=lanes)
    made.add_policy(Policy("four", SELECTOR4))
    made.publish()
    return made


def receiver(*sas: SaParameters) -> NativeEngine:
    """The other end, with as many lanes."""
    made = NativeEngine(random=Random(2).randbytes, lanes=len(LANES))
    made.add_policy(Policy("four", flip(SELECTOR4)))
    for sa in sas:
        made.install_inbound(replace(sa, selector=flip(SELECTOR4), remote=LEFT), 0.0)
    return made


def in_threads(work: Callable[[int], object]) -> list[object]:
    """What ``work`` returns for each lane, all of them at once."""
    with ThreadPoolExecutor(len(LANES)) as threads:
        return list(threads.map(work, LANES))


def seal(made: NativeEngine, lane: int, packets: int) -> bytes:
    """The first octets of what the lane has sealed."""
    heads = bytearray(packets * HEAD)
    sealed = _core.seal_many(made.lanes, lane, PACKET, 0.0, heads)
    return bytes(heads[: sealed * HEAD])


def numbers(heads: bytes) -> list[tuple[int, int]]:
    """SPI and sequence number of each."""
    return [(int.from_bytes(heads[at : at + 4]), int.from_bytes(heads[at + 4 : at + 8])) for at in _starts(heads)]


def _starts(heads: bytes) -> Iterable[int]:
    return range(0, len(heads), HEAD)


@pytest.mark.parametrize(("suite", "each"), [("aes128-gcm16", 250_000), *((suite, 5_000) for suite in SUITES)])
def test_no_number_and_no_iv_repeats_on_one_sa(suite: str, each: int) -> None:
    made, total = engine(), len(LANES) * each
    made.install_outbound(parameters(suite), 0.0)
    heads = bytearray().join(in_threads(partial(seal, made, packets=each)))
    assert len(heads) == total * HEAD
    assert _core.repeats(heads) == (0, 0)
    statistics = made.statistics()
    assert statistics.packets_out == statistics.sas[0].packets == statistics.sas[0].sequence == total


def test_repeats_are_seen() -> None:
    heads = bytearray(once := seal(_installed(parameters("aes128-gcm16")), 0, 100))
    assert _core.repeats(heads) == (0, 0)
    assert _core.repeats(bytearray(once + once[:HEAD])) == (1, 1)
    other_iv = once[: HEAD - 1] + bytes([once[HEAD - 1] ^ 0x80])
    assert _core.repeats(bytearray(once + other_iv)) == (1, 0)
    other_number = bytearray(once[:HEAD])
    other_number[4] ^= 0x80
    assert _core.repeats(bytearray(once + other_number)) == (0, 1)
    assert _core.repeats(bytearray()) == (0, 0)


def _installed(*sas: SaParameters) -> NativeEngine:
    made = engine()
    for sa in sas:
        made.install_outbound(sa, 0.0)
    return made


def test_no_iv_repeats_while_python_seals_too() -> None:
    made, done = _installed(parameters("aes128-gcm16")), Event()
    heads = bytearray()
    with ThreadPoolExecutor(len(LANES)) as threads:
        lanes = [threads.submit(seal, made, lane, 50_000) for lane in LANES[1:]]  # Python has the first one's thread
        while not done.is_set():
            for out in made.protect([PACKET] * 50, 0.0):
                heads += out.datagram[:HEAD]
            if all(each.done() for each in lanes):
                done.set()
        for each in lanes:
            heads += each.result()
    assert _core.repeats(heads) == (0, 0)
    assert made.statistics().sas[0].packets == len(heads) // HEAD


def test_each_lane_has_its_own_sa() -> None:
    made = _installed(*(parameters("aes128-gcm16", spi=SPI4 + lane, queue=lane) for lane in LANES))
    parts = in_threads(partial(seal, made, packets=20_000))
    for lane, heads in zip(LANES, parts, strict=True):
        assert isinstance(heads, bytes)
        assert numbers(heads) == [(SPI4 + lane, sequence) for sequence in range(1, 20_001)]
        assert _core.repeats(bytearray(heads)) == (0, 0)


def test_a_lane_without_an_sa_of_its_own_shares() -> None:
    """RFC 9611 §4: one SA that all may use, for the time in which the others are negotiated."""
    made = _installed(parameters(spi=1000), parameters(spi=1001, queue=1))
    assert spis(made) == [1000, 1001, 1000, 1000]
    made.install_outbound(parameters(spi=2001, queue=1), 0.0)  # rekeyed: bound to the same queue (§3)
    made.install_outbound(parameters(spi=2000), 0.0)
    made.install_outbound(parameters(spi=1003, queue=3), 0.0)
    assert spis(made) == [2000, 2001, 2000, 1003]
    made.remove_outbound("four", 2001)
    assert spis(made) == [2000, 1001, 2000, 1003]
    made.remove_outbound("four", 1001)
    made.remove_outbound("four", 2000)
    assert spis(made) == [1000, 1000, 1000, 1003]


def spis(made: NativeEngine) -> list[int | None]:
    """The SPI that each lane seals with; None where it leaves that to Python."""
    return [next((spi for spi, _ in numbers(seal(made, lane, 1))), None) for lane in LANES]


def test_python_seals_for_a_lane_that_has_none() -> None:
    """RFC 9611 §4: what has no SA for it is relayed to one that has."""
    made = _installed(parameters(spi=1002, queue=2))
    assert spis(made) == [None, None, 1002, None]
    (out,) = made.protect([PACKET], 0.0)  # what lane 0 leaves
    assert numbers(out.datagram[:HEAD]) == [(1002, 2)]
    assert not made.take_events()


def test_a_queue_that_is_not_there_is_everybodys() -> None:
    assert spis(_installed(parameters(spi=1009, queue=9))) == [1009] * len(LANES)
    alone = NativeEngine(random=Random(1).randbytes)
    alone.add_policy(Policy("four", SELECTOR4))
    alone.install_outbound(parameters(spi=1003, queue=3), 0.0)
    assert [out.datagram[:4] for out in alone.protect([PACKET], 0.0)] == [(1003).to_bytes(4)]


def test_the_counter_ends_once_for_all_lanes() -> None:
    made = _installed(parameters("aes128-gcm16", sequence=SEQUENCE_MAX - 1000))
    heads = bytearray().join(in_threads(partial(seal, made, packets=500)))
    assert sorted(sequence for _, sequence in numbers(heads)) == list(range(SEQUENCE_MAX - 999, SEQUENCE_MAX + 1))
    assert not made.protect([PACKET], 0.0)
    made.look_at(made._sad.numbered.copy().popitem()[0], _core.EXHAUSTED, RIGHT, 0.0)
    assert CounterExhausted("four", SPI4) in made.take_events()
    assert made.statistics().drops == made.statistics().sas[0].drops
    assert DropReason.SEQUENCE_EXHAUSTED in made.statistics().drops


@pytest.mark.parametrize("queue", [None, 2])
def test_a_hard_limit_holds_for_all_lanes_together(queue: int | None) -> None:
    limit = 1000
    for lifetime in (Lifetime(hard_packets=limit), Lifetime(hard_octets=limit * 68)):  # 64, two of trailer, and padding
        made = _installed(parameters("aes128-gcm16", lifetime=lifetime, queue=queue))
        heads = bytearray().join(in_threads(partial(seal, made, packets=limit)))
        # Of octets, those that have asked whether it is over before another's packet was counted.
        beyond = len(heads) // HEAD - limit
        assert beyond == 0 or (lifetime.hard_packets is None and 0 < beyond < len(LANES))
        made.look_at(made._sad.numbered.copy().popitem()[0], _core.ALARM, RIGHT, 0.0)
        assert HardExpired("four", SPI4, False) in made.take_events()
        assert made.protect([PACKET], 0.0) == []


def sealed(sa: SaParameters, packets: int) -> tuple[bytes, int]:
    """Datagrams of it, one behind the other, and the octets of each."""
    made = _installed(sa)
    datagrams = [out.datagram for out in made.protect([PACKET] * packets, 0.0)]
    return b"".join(datagrams), len(datagrams[0])


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [False, True])
def test_every_packet_is_opened_once_by_whichever_lane(suite: str, esn: bool) -> None:
    """All lanes are given all packets: each passes one of them and is a replay for the others."""
    packets, sa = 5_000, parameters(suite, esn=esn)
    made, (datagrams, octets) = receiver(sa), sealed(sa, packets)
    found = in_threads(lambda lane: _core.open_many(made.lanes, lane, datagrams, octets, 0.0))
    opened, dropped, slow = map(sum, zip(*found, strict=True))
    assert (opened, dropped, slow) == (packets, packets * (len(LANES) - 1), 0)
    statistics = made.statistics()
    assert statistics.packets_in == statistics.sas[0].packets == packets
    # A lane that was held up for longer than the window is wide finds them too old.
    assert sum(statistics.drops.values()) == dropped
    assert statistics.drops.keys() <= {DropReason.REPLAYED, DropReason.TOO_OLD}
    assert statistics.sas[0].drops == statistics.drops


def test_what_an_sa_has_opened_its_successor_refuses_while_lanes_are_at_both() -> None:
    """The two share a window (RFC 4430 §3.2: the same keys are installed anew)."""
    packets, sa = 20_000, parameters("aes128-gcm16")
    made, (datagrams, octets) = receiver(sa), sealed(sa, packets)
    again = replace(sa, selector=flip(SELECTOR4), remote=LEFT)
    with ThreadPoolExecutor(len(LANES)) as threads:
        lanes = [threads.submit(_core.open_many, made.lanes, lane, datagrams, octets, 0.0) for lane in LANES]
        while not all(each.done() for each in lanes):
            made.install_inbound(again, 0.0)
    opened, _, left = map(sum, zip(*(each.result() for each in lanes), strict=True))
    # Between two SAs there is a moment without one: what came then is Python's to look at.
    assert opened <= packets
    rest = [datagrams[at : at + octets] for at in range(0, len(datagrams), octets)]
    last = made.unprotect([Incoming(each, LEFT) for each in rest], 0.0)
    assert opened + len(last) <= packets
    assert opened + len(last) == packets or left or DropReason.TOO_OLD in made.statistics().drops


def test_sas_come_and_go_while_lanes_seal() -> None:
    made, done = _installed(parameters("aes128-gcm16", spi=1000)), Event()

    def work(lane: int) -> bytes:
        heads = b""
        while not done.is_set():
            heads += seal(made, lane, 64)
        return heads

    with ThreadPoolExecutor(len(LANES)) as threads:
        lanes = [threads.submit(work, lane) for lane in LANES]
        for rekey in range(200):
            queue = rekey % (len(LANES) + 1)
            spi = 2000 + rekey
            made.install_outbound(parameters("aes128-gcm16", spi=spi, queue=queue if queue in LANES else None), 0.0)
            if rekey >= 2 * len(LANES):
                made.remove_outbound("four", spi - 2 * len(LANES))
            made.lanes.reclaim()
        done.set()
        heads = bytearray().join(each.result() for each in lanes)
    assert heads
    assert _core.repeats(heads) == (0, 0)
    assert made.statistics().packets_out == len(heads) // HEAD
    assert made.lanes.reclaim() == 0
