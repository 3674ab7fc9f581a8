"""The fakes keep the rules of the real ones."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from esp.datagram import Incoming, Outgoing
from esp.sa import Endpoint
from esp.testing import BATCH, QUEUE, LossyLink, MemoryLink, MemoryTun, Weather, memory_links

HERE, THERE = Endpoint("192.0.2.1", 4500), Endpoint("192.0.2.2", 4500)
PACKET = b"\x45" + bytes(19)


def numbered(how_many: int) -> list[Outgoing]:
    return [Outgoing(number.to_bytes(2, "big"), THERE) for number in range(how_many)]


async def test_tun_carries_both_ways_in_bounded_batches() -> None:
    tun = MemoryTun("kink0", mtu=1300)
    packets = [PACKET + bytes([number]) for number in range(BATCH + 1)]
    assert all(tun.emit(packet) for packet in packets)
    await tun.wait_readable()
    assert tun.receive() == packets[:BATCH]
    assert tun.receive() == packets[BATCH:]
    assert tun.receive() == []
    assert tun.send(packets) == 0
    assert await tun.wait_delivered() == packets[0]
    assert tun.delivered_nowait() == packets[1:]
    assert (tun.name, tun.mtu) == ("kink0", 1300)


def test_tun_loses_what_overflows_and_refuses_what_is_not_ip() -> None:
    tun = MemoryTun()
    assert [tun.emit(PACKET) for _ in range(QUEUE + 1)] == [True] * QUEUE + [False]
    assert tun.send([b"", b"\x70junk", *[PACKET] * (QUEUE + 1)]) == 3
    with pytest.raises(ValueError, match="1401 octets into an MTU of 1400"):
        tun.emit(bytes(1401))


async def test_waiting_ends_when_a_packet_comes_and_when_closed(autojump_clock: trio.testing.MockClock) -> None:
    tun, ends = MemoryTun(), []

    async def wait() -> None:
        await tun.wait_readable()
        ends.append(trio.current_time())
        tun.receive()
        with pytest.raises(trio.ClosedResourceError):
            await tun.wait_readable()
        ends.append(trio.current_time())

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(3)
        tun.emit(PACKET)
        await trio.sleep(4)
        tun.close()
    assert [end - start for end in ends] == [3, 7]
    assert not tun.emit(PACKET)


async def test_two_tasks_can_wait_for_what_the_host_gets() -> None:
    tun, got = MemoryTun(), []

    async def take() -> None:
        got.append(await tun.wait_delivered())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        tun.send([PACKET])
        await trio.testing.wait_all_tasks_blocked()
        assert got == [PACKET]
        tun.send([PACKET])
    assert got == [PACKET, PACKET]


async def test_links_carry_to_the_endpoint_they_are_told() -> None:
    here, there = memory_links(HERE, THERE)
    elsewhere = Outgoing(b"lost", Endpoint("192.0.2.9", 4500))
    assert here.send([*numbered(BATCH + 1), elsewhere]) == 1
    assert here.refused == 1
    await there.wait_readable()
    assert there.receive() == [Incoming(datagram, HERE) for datagram, *_ in numbered(BATCH)]
    assert len(there.receive()) == 1
    assert there.receive() == here.receive() == []


def test_link_loses_what_overflows_without_telling_the_sender() -> None:
    here, there = memory_links(HERE, THERE)
    assert here.send(numbered(QUEUE + 2)) == 0
    assert there.overflowed == 2
    there.close()
    assert here.send(numbered(1)) == 0


def test_link_takes_forgeries_and_moves() -> None:
    here, there = memory_links(HERE, THERE)
    third = MemoryLink(Endpoint("192.0.2.3", 4500))
    third.connect(there)
    assert there.arrive(b"forged", HERE)
    moved = Endpoint("198.51.100.7", 1024)
    here.move(moved)
    here.send([Outgoing(b"new", THERE)])
    assert there.receive() == [Incoming(b"forged", HERE), Incoming(b"new", moved)]
    assert there.send([Outgoing(b"old way", HERE), Outgoing(b"new way", moved)]) == 1
    assert here.receive() == [Incoming(b"new way", THERE)]
    assert third.receive() == []


async def arrivals(weather: Weather, seed: int, datagrams: list[Outgoing]) -> list[tuple[float, bytes]]:
    """When and what comes out of a lossy link, seconds from the sending."""
    here, inner = memory_links(HERE, THERE)
    there = LossyLink(inner, weather, seed=seed)
    seen: list[tuple[float, bytes]] = []
    start = trio.current_time()
    with trio.move_on_after(100):
        for first in range(0, len(datagrams), QUEUE):
            here.send(datagrams[first : first + QUEUE])
            while True:
                with trio.move_on_after(10) as patience:
                    await there.wait_readable()
                    batch = there.receive()
                    assert 0 < len(batch) <= BATCH
                    seen += [(trio.current_time() - start, each.datagram) for each in batch]
                if patience.cancelled_caught:
                    break
    assert len(seen) == len(datagrams) - there.dropped + there.duplicated
    return seen


def simulate(weather: Weather, seed: int, datagrams: list[Outgoing]) -> list[tuple[float, bytes]]:
    return trio.run(arrivals, weather, seed, datagrams, clock=trio.testing.MockClock(autojump_threshold=0))


def test_fair_weather_changes_nothing() -> None:
    assert simulate(Weather(), 1, numbered(200)) == [(0, datagram) for datagram, *_ in numbered(200)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_weather(seed: int) -> None:
    weather = Weather(drop=0.25, duplicate=0.25, delay_probability=0.25, delay=2)
    assert simulate(weather, seed, numbered(50)) == simulate(weather, seed, numbered(50))


def test_bad_weather_is_as_bad_as_asked() -> None:
    weather = Weather(drop=0.25, duplicate=0.2, delay_probability=0.5, delay=2)
    seen = simulate(weather, 7, numbered(QUEUE))
    datagrams = [datagram for _, datagram in seen]
    distinct = set(datagrams)
    # Five standard deviations of the binomial, either side.
    assert 335 < len(distinct) < 433
    assert 32 < len(datagrams) - len(distinct) < 122
    assert 130 < sum(when > 0 for when, _ in seen) < 330
    assert all(0 <= when <= 2 for when, _ in seen)
    assert datagrams != sorted(datagrams)


@pytest.mark.parametrize(
    ("weather", "copies"), [(Weather(drop=1), 0), (Weather(duplicate=1), 2), (Weather(delay_probability=1, delay=1), 1)]
)
def test_certainties(weather: Weather, copies: int) -> None:
    assert len(simulate(weather, 3, numbered(100))) == 100 * copies


async def test_lossy_link_is_its_inner_link_otherwise() -> None:
    here, there = memory_links(HERE, THERE)
    lossy = LossyLink(here, Weather(drop=1), seed=1)
    assert lossy.local == (HERE,)
    assert lossy.send([Outgoing(b"out", THERE), Outgoing(b"out", HERE)]) == 1
    assert lossy.refused == 1
    assert there.receive() == [Incoming(b"out", HERE)]
    lossy.close()
    with pytest.raises(trio.ClosedResourceError):
        await lossy.wait_readable()


async def test_the_wire_carries_the_traffic_class() -> None:
    here, there = memory_links(HERE, THERE)
    here.send([Outgoing(b"x", THERE, 0xB9, True), Outgoing(b"x", THERE)])
    assert [each.traffic_class for each in there.receive()] == [0xB9, 0]
