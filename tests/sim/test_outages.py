"""Partitions, silent KDCs and storms in any order: at no time does a host send into a hole, and it ends in one pair."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
from support.host import Host, Tunnel, World, address_of, simulate, unmatched
from support.network import CALM, TERRIBLE

from esp.suite import SUITES

if TYPE_CHECKING:
    from random import Random

WEST, EAST, BOTH, NEITHER = (frozenset(ends) for ends in (("west",), ("east",), ("west", "east"), ()))
GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
TUNNELS = [
    Tunnel(
        number,
        boot=(WEST, EAST, BOTH, NEITHER)[number % 4],
        nonces=(NEITHER, BOTH, WEST, EAST, NEITHER)[number % 5],
        suites=((GCM,), (GCM,)) if number % 3 else ((GCM, CBC), (CBC,)),
        lifetime=(120, 300, 900)[number % 3],
    )
    for number in range(10)
]
ROUNDS = 10


async def _harm(world: World, chance: Random) -> None:
    """One misfortune and its end."""
    thither, back = (address_of("west"), address_of("east")), (address_of("east"), address_of("west"))
    match chance.randrange(3):
        case 0:
            world.network.cut |= chance.choice(({thither}, {back}, {thither, back}))
            await trio.sleep(chance.uniform(1, 90))
            world.network.cut.clear()
        case 1:
            host = world.hosts[chance.choice(("west", "east"))]
            host.kdc_latency = lambda: inf
            await trio.sleep(chance.uniform(1, 60))
            host.kdc_latency = lambda: 0.1


async def _traffic(chance: Random, *hosts: Host) -> None:
    for _ in range(chance.randrange(30)):
        chance.choice(hosts).emit(chance.choice(TUNNELS), b"traffic")
        await trio.sleep(1)


@pytest.mark.parametrize("seed", [1, 15, 40])
def test_no_hole_at_any_time_and_one_pair_in_the_end(seed: int) -> None:
    async def scenario(world: World) -> None:
        world.realm.ticket_life = 200
        west, east = await world.pair(TUNNELS)

        async def watch() -> None:
            while True:
                assert unmatched(west, east) == []
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for _ in range(ROUNDS):
                await _harm(world, world.chance)
                await _traffic(world.chance, west, east)
            world.network.weather = CALM
            await trio.sleep(TERRIBLE.longest)
            await west.keying.probe("east")
            await east.keying.probe("west")
            for tunnel in TUNNELS:
                west.emit(tunnel, b"demand")
            ours, theirs = west.keying.peers["east"], east.keying.peers["west"]
            await world.wait_until(
                lambda: (
                    west.at_rest
                    and east.at_rest
                    and all(len(ours.pairs(t.name)) == len(theirs.pairs(t.name)) == 1 for t in TUNNELS)
                ),
                within=300,
            )
            nursery.cancel_scope.cancel()

    simulate(scenario, seed, TERRIBLE)
