"""Both ends CREATE at once: both pairs stand, one goes, and the two hosts agree which without another message."""

from __future__ import annotations

import pytest
import trio
from support.host import Tunnel, World, principal_of, simulate, unmatched
from support.network import CALM, TERRIBLE, Weather

from esp.suite import SUITES

WEST, EAST, BOTH = frozenset({"west"}), frozenset({"east"}), frozenset({"west", "east"})
GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
TUNNELS = [
    Tunnel(0, boot=BOTH),
    Tunnel(1, boot=BOTH, nonces=BOTH),
    Tunnel(2, boot=BOTH, nonces=WEST),
    Tunnel(3, boot=BOTH, nonces=EAST),
    Tunnel(4, boot=BOTH, suites=((GCM, CBC), (CBC, GCM))),
    Tunnel(5, boot=BOTH, suites=((GCM, CBC), (CBC,))),
]


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 1), *((TERRIBLE, seed) for seed in range(6))])
def test_one_pair_is_left(weather: Weather, seed: int) -> None:
    async def scenario(world: World) -> None:
        west, east = await world.pair(TUNNELS)
        await world.wait_told("sa_established", "west", within=200)
        await world.wait_until(
            lambda: (
                len(west.sas(inbound=False)) == len(east.sas(inbound=False)) == len(TUNNELS)
                and west.at_rest
                and east.at_rest
            ),
            within=200,
        )
        assert unmatched(west, east) + unmatched(east, west) == []
        ours, theirs = west.keying.peers["east"], east.keying.peers["west"]
        for tunnel in TUNNELS:
            (pair,), (twin,) = ours.pairs(tunnel.name), theirs.pairs(tunnel.name)
            assert (pair.inbound_spi, pair.outbound_spi) == (twin.outbound_spi, twin.inbound_spi)
            assert (pair.initiated, twin.initiated) in ((True, False), (False, True))

    simulate(scenario, seed, weather)


def test_the_lesser_principal_keeps_its_pair_and_the_other_deletes_at_once() -> None:
    assert principal_of("east") < principal_of("west")

    async def scenario(world: World) -> None:
        west, east = (
            await world.start("west", TUNNELS, kdc_latency=lambda: 0.1),
            await world.start("east", TUNNELS, kdc_latency=lambda: 0.1),
        )
        await trio.sleep(1)
        for tunnel in TUNNELS:
            assert [pair.initiated for pair in west.keying.peers["east"].pairs(tunnel.name)] == [False]
            assert [pair.initiated for pair in east.keying.peers["west"].pairs(tunnel.name)] == [True]
        assert len(world.tells("sa_established", "west")) == 2 * len(TUNNELS)
        assert len(west.sas(inbound=True)) == len(east.sas(inbound=True)) == 2 * len(TUNNELS)
        # The inbound SAs of the deleted pairs go when their grace time is over, by themselves.
        await trio.sleep(5)
        assert len(west.sas(inbound=True)) == len(east.sas(inbound=True)) == len(TUNNELS)
        assert west.at_rest
        assert east.at_rest

    simulate(scenario, 1)
