"""The simulated network itself: what it does to datagrams, and that a seed says all of it."""

from __future__ import annotations

from collections import Counter

import trio
import trio._core._run as scheduler
from support.host import World, simulate
from support.network import CALM, TERRIBLE, NetworkTransport, Weather

from esp.sa import Endpoint
from kinkvpn.proto.events import Path

HERE, THERE = Endpoint("192.0.2.101", 1), Endpoint("192.0.2.102", 1)
SENT = 2000


async def _crossing(world: World) -> list[tuple[float, int]]:
    """Numbered datagrams, one each 10 ms; when each arrived."""
    here, there = NetworkTransport(world.network, HERE), NetworkTransport(world.network, THERE)
    arrived: list[tuple[float, int]] = []

    async def read() -> None:
        while True:
            ((datagram, path),) = await there.receive()
            assert path.remote == HERE
            arrived.append((trio.current_time(), int(datagram)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in range(SENT):
            here.send(b"%d" % number, Path(THERE))
            await trio.sleep(0.01)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    return arrived


def test_calm_weather_delivers_everything_in_order_after_the_latency() -> None:
    arrived = simulate(_crossing, 1)
    assert [number for _, number in arrived] == list(range(SENT))
    assert all(abs(time - number * 0.01 - CALM.latency) < 1e-6 for time, number in arrived)


def test_terrible_weather_does_each_harm_to_a_quarter() -> None:
    arrived = simulate(_crossing, 1, TERRIBLE)
    copies = Counter(number for _, number in arrived)
    assert 0.2 < 1 - len(copies) / SENT < 0.3
    assert 0.2 < sum(count == 2 for count in copies.values()) / len(copies) < 0.3
    late = [time - number * 0.01 for time, number in arrived]
    assert 0.2 < sum(delay > 5 * TERRIBLE.latency for delay in late) / len(late) < 0.3
    assert max(late) < TERRIBLE.longest + 6 * TERRIBLE.latency


def test_reordering_alone_loses_nothing_and_lets_neighbours_overtake() -> None:
    arrived = [number for _, number in simulate(_crossing, 1, Weather(reorder=0.25))]
    assert sorted(arrived) == list(range(SENT))
    assert arrived != sorted(arrived)
    assert all(abs(number - place) <= 5 for place, number in enumerate(arrived))


def test_a_cut_lets_nothing_through_one_way() -> None:
    async def scenario(world: World) -> list[tuple[float, int]]:
        world.network.cut.add((HERE.address, THERE.address))
        return await _crossing(world)

    assert simulate(scenario, 1) == []


def test_trio_runs_the_tasks_of_a_batch_in_the_seeds_order() -> None:
    """Fails if Trio moves what ``repeatable`` relies on."""

    async def scenario(world: World) -> list[int]:
        order: list[int] = []

        async def append(number: int) -> None:
            await trio.sleep(1)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(append, number)
        return order

    before = scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    first, again, other = (simulate(scenario, seed) for seed in (1, 1, 2))
    assert first == again
    assert first not in (other, sorted(first), sorted(first, reverse=True))
    assert (scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before
