"""Peers that die, that only listen, and that are cut off for seconds or minutes (RFC 4430 §3.7)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from support.host import PROBE_AFTER, Host, Tunnel, World, address_of, simulate, unmatched
from support.network import CALM, REORDERING, TERRIBLE, Weather

from kinkvpn.proto.policies import LONGEST_RETRY
from kinkvpn.proto.retransmit import FULL_CYCLE, LONGEST_INTERVAL
from kinkvpn.wire.kink import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator

WEST, NEITHER = frozenset({"west"}), frozenset[str]()
THITHER, BACK = (address_of("west"), address_of("east")), (address_of("east"), address_of("west"))
# The clock loop of the data plane looks once a second, and a ticket takes a moment.
FOUND_OUT = PROBE_AFTER + FULL_CYCLE + 3
# A CREATE that has just failed, the pause before the next, and a transmission of that one.
RECOVERED = FULL_CYCLE + LONGEST_RETRY + 2 * LONGEST_INTERVAL


async def _talk(tunnel: Tunnel, *hosts: Host) -> None:
    while True:
        for host in hosts:
            host.emit(tunnel, b"talk")
            host.tun.delivered_nowait()
        await trio.sleep(2)


async def _watch(west: Host, east: Host) -> None:
    """Nobody sends into a hole: each outbound SA has its inbound one at the other host."""
    while True:
        assert unmatched(west, east) == []
        await trio.sleep(1)


@contextmanager
def _cut(world: World, *directions: tuple[str, str]) -> Iterator[None]:
    world.network.cut.update(directions)
    yield
    world.network.cut.difference_update(directions)


async def _meet(world: World, tunnel: Tunnel) -> tuple[Host, Host]:
    west, east = await world.pair([tunnel])
    west.emit(tunnel, b"hello")
    await world.wait_until(lambda: bool(west.sas(inbound=False)), within=100)
    await world.wait_at_rest(within=200)
    return west, east


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 1), (REORDERING, 1)])
def test_traffic_one_way_for_twenty_minutes_harms_nobody(weather: Weather, seed: int) -> None:
    """A log that is shipped by UDP: nothing ever comes back but the answers to our probes, and those are enough."""
    tunnel = Tunnel(0)

    async def scenario(world: World) -> None:
        west, east = await _meet(world, tunnel)
        sas = west.sas(inbound=True).keys()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_talk, tunnel, west)
            await trio.sleep(1200)
            nursery.cancel_scope.cancel()
        assert west.sas(inbound=True).keys() == sas
        assert not world.tells("peer_dead")
        probes = west.counters()["peers_probed"]
        assert 1200 / (PROBE_AFTER + FULL_CYCLE) < probes <= 1200 / PROBE_AFTER
        assert "peers_probed" not in east.counters(), "who only listens suspects nobody"

    simulate(scenario, seed, weather)


def test_an_idle_peer_is_never_asked() -> None:
    """Dead peer detection "is not periodic keepalives"."""
    tunnel = Tunnel(0)

    async def scenario(world: World) -> None:
        west, east = await _meet(world, tunnel)
        await trio.sleep(60)
        before = len(world.network.sent_of(MessageType.STATUS))
        await trio.sleep(600)
        assert len(world.network.sent_of(MessageType.STATUS)) == before
        assert before <= 2, "the packet that nobody answered"
        assert west.sas(inbound=False)
        assert east.sas(inbound=False)

    simulate(scenario, 1)


@pytest.mark.parametrize("boot", [NEITHER, WEST], ids=["demand", "boot"])
@pytest.mark.parametrize(("weather", "seed"), [(CALM, 1), (TERRIBLE, 1)])
def test_a_crash_is_found_out_while_traffic_flows_and_recovered_from(
    weather: Weather, seed: int, boot: frozenset[str]
) -> None:
    tunnel = Tunnel(0, boot=boot)

    async def scenario(world: World) -> None:
        west, east = await _meet(world, tunnel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_talk, tunnel, west)
            await trio.sleep(5)
            await east.crash()
            await world.wait_told("peer_dead", "west", within=FOUND_OUT + 2 * PROBE_AFTER)
            assert not west.sas(inbound=False)
            await trio.sleep(world.chance.uniform(0, 600))
            east = await world.start("east", [tunnel])
            await world.wait_until(lambda: bool(west.sas(inbound=False)), within=2 * RECOVERED)
            nursery.cancel_scope.cancel()
        world.network.weather = CALM
        await world.wait_at_rest(within=300)
        assert unmatched(west, east) == []
        assert len(world.tells("peer_dead")) == 1

    simulate(scenario, seed, weather)


@pytest.mark.parametrize("directions", [(THITHER,), (BACK,), (THITHER, BACK)], ids=["thither", "back", "both"])
@pytest.mark.parametrize("seconds", [20.0, 600.0])
def test_a_partition_of_any_length_ends_in_one_pair(directions: tuple[tuple[str, str], ...], seconds: float) -> None:
    """Twenty seconds change nothing. After more than that both sides know, and nobody has to be woken at its end."""
    tunnel = Tunnel(0, boot=WEST)

    async def scenario(world: World) -> None:
        west, east = await _meet(world, tunnel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_talk, tunnel, west, east)
            nursery.start_soon(_watch, west, east)
            await trio.sleep(5)
            sas = west.sas(inbound=True).keys()
            with _cut(world, *directions):
                await trio.sleep(seconds)
            if seconds < FULL_CYCLE:
                assert west.sas(inbound=True).keys() == sas
                assert not world.tells("peer_dead")
            else:
                assert world.tells("peer_dead")
                assert all(fields["peer"] in ("west", "east") for fields in world.tells("peer_dead"))
            await trio.sleep(2 * RECOVERED)
            await world.wait_at_rest(within=200)
            (ours,), (theirs,) = (
                west.keying.peers["east"].pairs(tunnel.name),
                east.keying.peers["west"].pairs(tunnel.name),
            )
            assert (ours.inbound_spi, ours.outbound_spi) == (theirs.outbound_spi, theirs.inbound_spi)
            nursery.cancel_scope.cancel()

    simulate(scenario, 1)


def test_a_kdc_that_is_gone_ends_no_tunnel_whose_traffic_goes_one_way() -> None:
    """The probe needs a ticket and gets none: nobody has been asked, so nobody is dead."""
    tunnel = Tunnel(0, lifetime=200_000)

    async def scenario(world: World) -> None:
        world.realm.ticket_life = 300
        west, east = await _meet(world, tunnel)
        sas = west.sas(inbound=False).keys()
        west.kdc_latency = east.kdc_latency = lambda: float("inf")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_talk, tunnel, west)
            await trio.sleep(900)
            nursery.cancel_scope.cancel()
        assert west.sas(inbound=False).keys() == sas
        assert not world.tells("peer_dead")
        assert world.tells("status_failed", "west")

    simulate(scenario, 1)
