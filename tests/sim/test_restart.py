"""A peer that comes back with another epoch, and what its earlier life still says (RFC 4430 §3.7)."""

from __future__ import annotations

import pytest
import trio
from support.host import Host, Tunnel, World, simulate, unmatched
from support.network import CALM, TERRIBLE, Weather

BOTH, WEST = frozenset({"west", "east"}), frozenset({"west"})
TUNNELS = [Tunnel(0, boot=WEST), Tunnel(1, boot=BOTH, nonces=BOTH), Tunnel(2)]


def _spis(host: Host) -> set[tuple[str, int]]:
    return {*host.sas(inbound=True), *host.sas(inbound=False)}


async def _meet(world: World) -> tuple[Host, Host]:
    west, east = await world.pair(TUNNELS)
    west.emit(TUNNELS[2], b"demand")
    await world.wait_until(lambda: len(west.sas(inbound=False)) == 3, within=200)
    await world.wait_at_rest(within=200)
    return west, east


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 1), (TERRIBLE, 1), (TERRIBLE, 2), (TERRIBLE, 3)])
def test_old_sas_vanish_at_the_first_message_and_new_ones_come(weather: Weather, seed: int) -> None:
    async def scenario(world: World) -> None:
        west, east = await _meet(world)
        old = _spis(west)
        await trio.sleep(5)
        await east.crash()
        await trio.sleep(10)
        assert _spis(west) == old  # silence means nothing
        east = await world.start("east", TUNNELS)
        await world.wait_told("peer_restarted", "west", within=60)
        assert not _spis(west) & old
        for host in (west, east):
            host.emit(TUNNELS[2], b"demand")
        await world.wait_until(lambda: len(east.sas(inbound=False)) == 3, within=200)
        await world.wait_at_rest(within=200)
        assert len(world.tells("peer_restarted", "west")) == 1
        assert unmatched(west, east) == []

    simulate(scenario, seed, weather)


def test_a_peer_that_only_answers_is_reached_again_after_its_restart() -> None:
    """It has nothing to send and nothing to negotiate; the other side goes on sending into SAs that are no more."""
    tunnel = Tunnel(0)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        west.emit(tunnel, b"before")
        await world.wait_until(lambda: bool(west.sas(inbound=False)), within=10)
        await east.crash()
        await trio.sleep(1)  # an epoch is a second
        east = await world.start("east", [tunnel])
        west.emit(tunnel, b"into the void")
        await world.wait_told("peer_restarted", "west", within=10)
        west.emit(tunnel, b"after")
        await world.wait_until(lambda: tunnel.packet("west", b"after") in east.tun.delivered_nowait(), within=10)

    simulate(scenario, 1)


@pytest.mark.parametrize("seed", range(4))
def test_both_restart_in_a_storm(seed: int) -> None:
    async def scenario(world: World) -> None:
        await _meet(world)
        for name in ("east", "west", "east"):
            await world.hosts[name].crash()
            await trio.sleep(world.chance.uniform(1, 3))
            await world.start(name, TUNNELS)
            await trio.sleep(world.chance.uniform(1, 20))
        west, east = world.hosts["west"], world.hosts["east"]
        world.network.weather = CALM
        await trio.sleep(TERRIBLE.longest)
        await west.keying.probe("east")
        await east.keying.probe("west")
        west.emit(TUNNELS[2], b"demand")
        await world.wait_until(lambda: len(west.sas(inbound=False)) == 3, within=200)
        await world.wait_at_rest(within=200)
        assert unmatched(west, east) == []
        assert len(east.sas(inbound=False)) == 3

    simulate(scenario, seed, TERRIBLE)


def test_a_command_of_an_earlier_life_changes_nothing() -> None:
    """Somebody on the path keeps datagrams back, lets the sender restart, and delivers them then: they are authentic,
    fresh enough for Kerberos, and have never been seen."""

    async def scenario(world: World) -> None:
        west, east = await _meet(world)
        kept = len(world.network.captured)
        world.network.cut.add(("192.0.2.2", "192.0.2.1"))
        with trio.move_on_after(5):
            await east.keying.probe("west")
        await east.crash()
        kept_back = [flight for flight in world.network.captured[kept:] if flight.source.address == "192.0.2.2"]
        world.network.cut.clear()
        east = await world.start("east", TUNNELS)
        await east.keying.probe("west")
        await world.wait_until(lambda: len(west.sas(inbound=False)) == 2, within=60)
        await world.wait_at_rest(within=60)
        sas = _spis(west)
        assert len(kept_back) >= 3
        for flight in kept_back:
            world.network.replay(flight)
        await trio.sleep(10)
        assert len(world.tells("peer_restarted", "west")) == 1
        assert _spis(west) == sas
        assert west.counters()["stale_epoch"] == len(kept_back)

    simulate(scenario, 1)


def test_a_reply_of_an_earlier_life_changes_nothing() -> None:
    async def scenario(world: World) -> None:
        west, east = await _meet(world)
        west.emit(TUNNELS[2], b"x")
        kept = len(world.network.captured)
        world.network.cut.add(("192.0.2.2", "192.0.2.1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(west.keying.probe, "east")
            await trio.sleep(0.1)
            kept_back = world.network.captured[kept:]
            await east.crash()
            world.network.cut = {("192.0.2.1", "192.0.2.2")}
            east = await world.start("east", TUNNELS)
            await world.wait_told("peer_restarted", "west", within=10)
            for flight in kept_back:
                if flight.source.address == "192.0.2.2":
                    world.network.replay(flight)
            await trio.sleep(0.1)
            assert west.counters()["stale_epoch"] == 1
            world.network.cut.clear()
        await world.wait_until(lambda: len(west.sas(inbound=False)) == 2, within=60)
        await world.wait_at_rest(within=60)
        assert len(world.tells("peer_restarted", "west")) == 1
        assert unmatched(west, east) == []

    simulate(scenario, 1)
