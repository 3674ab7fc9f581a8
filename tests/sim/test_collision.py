"""Both ends CREATE at once: both pairs stand, one goes, and the two hosts agree which without another message."""

from __future__ import annotations

import pytest
import trio
from support.host import Host, Tunnel, World, principal_of, simulate, unmatched
from support.network import CALM, REORDERING, TERRIBLE, Weather

from esp.suite import SUITES
from kinkvpn.service.keying import RekeyFailed

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
        assert unmatched(west, east) == []
        ours, theirs = west.keying.peers["east"], east.keying.peers["west"]
        for tunnel in TUNNELS:
            (pair,), (twin,) = ours.pairs(tunnel.name), theirs.pairs(tunnel.name)
            assert (pair.inbound_spi, pair.outbound_spi) == (twin.outbound_spi, twin.inbound_spi)
            assert (pair.initiated, twin.initiated) in ((True, False), (False, True))

    simulate(scenario, seed, weather)


def test_the_lesser_principal_keeps_its_pair_and_the_other_deletes_after_the_grace_time() -> None:
    assert principal_of("east") < principal_of("west")

    async def scenario(world: World) -> None:
        west, east = (
            await world.start("west", TUNNELS, kdc_latency=lambda: 0.1),
            await world.start("east", TUNNELS, kdc_latency=lambda: 0.1),
        )
        await trio.sleep(1)
        for tunnel in TUNNELS:
            assert sorted(pair.initiated for pair in west.keying.peers["east"].pairs(tunnel.name)) == [False, True]
            assert sorted(pair.initiated for pair in east.keying.peers["west"].pairs(tunnel.name)) == [False, True]
        await trio.sleep(5)
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


@pytest.mark.parametrize("nonces", [frozenset[str](), BOTH], ids=["2-way", "3-way"])
@pytest.mark.parametrize("seed", range(2))
def test_rekeys_from_both_ends_at_any_time_lose_nothing(seed: int, nonces: frozenset[str]) -> None:
    """A pair may have been made, replaced and deleted at one end before the other end knows of the first of it."""
    tunnel = Tunnel(0, boot=WEST, nonces=nonces)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        await world.wait_told("sa_established", "east", within=10)
        await world.wait_at_rest(within=60)
        sent: list[bytes] = []
        delivered: list[bytes] = []

        async def rekey(host: Host, other: str) -> None:
            for _ in range(60):
                await trio.sleep(world.chance.expovariate(5))
                try:
                    await host.keying.rekey(other)
                except RekeyFailed:
                    assert nonces, "the only pair waits for its ACK"

        async def talk() -> None:
            while True:
                for host in (west, east):
                    sent.append(tunnel.packet(host.name, f"{host.name} {len(sent)}".encode()))
                    assert host.tun.emit(sent[-1])
                await trio.sleep(0.05)
                for host in (west, east):
                    delivered.extend(host.tun.delivered_nowait())
                    if not nonces:  # else a DELETE may overtake the ACK before it, and packets wait for that one
                        assert host.keying.peers["east" if host is west else "west"].pairs(tunnel.name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            async with trio.open_nursery() as both:
                both.start_soon(rekey, west, "east")
                both.start_soon(rekey, east, "west")
            await trio.sleep(REORDERING.longest)
            nursery.cancel_scope.cancel()
        world.network.weather = CALM
        await world.wait_at_rest(within=300)
        for host in (west, east):
            delivered.extend(host.tun.delivered_nowait())
        assert sorted(delivered) == sorted(sent)
        assert unmatched(west, east) == []
        assert len(west.sas(inbound=False)) == len(east.sas(inbound=False)) == 1

    simulate(scenario, seed, REORDERING)
