"""The path breaks at the worst moments: what was left unsaid is said when the peer is heard again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from support.host import Host, Tunnel, World, address_of, simulate, unmatched

from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.wire.kink import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator

WEST, EAST = frozenset({"west"}), frozenset({"east"})
THITHER, BACK = (address_of("west"), address_of("east")), (address_of("east"), address_of("west"))
# Longer than any exchange: what was sent into it has been given up when it ends.
OUTAGE = 3 * FULL_CYCLE


@contextmanager
def _cut(world: World, *directions: tuple[str, str]) -> Iterator[None]:
    world.network.cut.update(directions)
    yield
    world.network.cut.difference_update(directions)


async def _pass_time(seconds: float, west: Host, east: Host) -> None:
    """Nobody sends into a hole in the meantime: each outbound SA has its inbound one at the other host."""
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        assert unmatched(west, east) == []
        await trio.sleep(0.5)


async def _one_pair(world: World, tunnel: Tunnel, west: Host, east: Host) -> None:
    await world.wait_at_rest(within=60)
    (ours,), (theirs,) = west.keying.peers["east"].pairs(tunnel.name), east.keying.peers["west"].pairs(tunnel.name)
    assert (ours.inbound_spi, ours.outbound_spi) == (theirs.outbound_spi, theirs.inbound_spi)
    await trio.sleep(0.1)
    for host in (west, east):
        host.tun.delivered_nowait()
        host.emit(tunnel, host.name.encode())
    await trio.sleep(0.1)
    assert [packet[20:] for packet in west.tun.delivered_nowait()] == [b"east"]
    assert [packet[20:] for packet in east.tun.delivered_nowait()] == [b"west"]


@pytest.mark.parametrize("directions", [(THITHER,), (BACK,), (THITHER, BACK)], ids=["thither", "back", "both"])
@pytest.mark.parametrize("nonces", [frozenset[str](), EAST], ids=["2-way", "3-way"])
def test_a_delete_that_nobody_hears(directions: tuple[tuple[str, str], ...], nonces: frozenset[str]) -> None:
    tunnel = Tunnel(0, boot=WEST, nonces=nonces, lifetime=600)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        # Rekeyed; the DELETE of the old pair leaves at once: it is the first to be lost.
        world.network.unheard |= {MessageType.DELETE} if THITHER in directions else set()
        await world.wait_told("sa_established", "west", times=2, within=600)
        with _cut(world, *directions):
            world.network.unheard.clear()
            await _pass_time(OUTAGE, west, east)
            assert len(world.tells("delete_failed", "west")) == 1
            east.emit(tunnel, b"while it lasts")
            await trio.sleep(0.1)
            delivered = [packet[20:] for packet in west.tun.delivered_nowait()]
            assert delivered == ([] if BACK in directions else [b"while it lasts"])
        await east.keying.probe("west")
        await _one_pair(world, tunnel, west, east)

    simulate(scenario, 1)


@pytest.mark.parametrize("directions", [(THITHER,), (BACK,), (THITHER, BACK)], ids=["thither", "back", "both"])
def test_a_create_that_breaks_off(directions: tuple[tuple[str, str], ...]) -> None:
    """2-way: the responder has the pair and the REPLY is lost, or all that the initiator says afterwards is."""
    tunnel = Tunnel(0, boot=WEST, lifetime=600)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        await world.wait_until(lambda: bool(world.network.sent_of(MessageType.CREATE)), within=10, step=0.001)
        with _cut(world, *directions):
            await _pass_time(OUTAGE, west, east)
            assert bool(world.tells("create_failed", "west")) is (BACK in directions)
        await _one_pair(world, tunnel, west, east)

    simulate(scenario, 1)


@pytest.mark.parametrize("directions", [(THITHER,), (BACK,), (THITHER, BACK)], ids=["thither", "back", "both"])
def test_an_ack_that_nobody_hears(directions: tuple[tuple[str, str], ...]) -> None:
    tunnel = Tunnel(0, boot=WEST, nonces=EAST, lifetime=600)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        peer = east.keying.peers["west"]
        await world.wait_until(lambda: bool(peer.half_open), within=10, step=0.001)
        with _cut(world, *directions):
            await _pass_time(OUTAGE, west, east)
            assert peer.half_open == []
        # A packet from the side that gave up: it asks for a pair, and the other side hears of it.
        east.emit(tunnel, b"again")
        await world.wait_until(lambda: bool(peer.pairs(tunnel.name)), within=60)
        await _one_pair(world, tunnel, west, east)

    simulate(scenario, 1)


def test_a_packet_after_the_outage_ends_what_the_outage_left() -> None:
    """On demand only, and no probe: traffic alone leads back to one pair."""
    tunnel = Tunnel(0, lifetime=600)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        west.emit(tunnel, b"first")
        await world.wait_until(lambda: bool(world.network.captured), within=10, step=0.001)
        with _cut(world, BACK):
            await _pass_time(OUTAGE, west, east)
        west.emit(tunnel, b"second")
        await world.wait_until(lambda: bool(west.keying.peers["east"].pairs(tunnel.name)), within=60)
        await _one_pair(world, tunnel, west, east)

    simulate(scenario, 1)


@pytest.mark.parametrize(("nonces", "late"), [(frozenset[str](), BACK), (EAST, THITHER)], ids=["2-way", "3-way"])
def test_an_sa_that_cannot_be_rekeyed_ends_no_later_than_the_one_it_sends_to(
    nonces: frozenset[str], late: tuple[str, str]
) -> None:
    """The REPLY, or the ACK, is twelve seconds late, so the two hosts begin to count at different times."""
    tunnel = Tunnel(0, boot=WEST, nonces=nonces, lifetime=120)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        if nonces:
            await world.wait_until(lambda: bool(east.sas(inbound=True)), within=10, step=0.001)
        with _cut(world, late):
            await trio.sleep(12)
        await world.wait_at_rest(within=30)
        with _cut(world, THITHER, BACK):
            await _pass_time(OUTAGE + 120, west, east)
        assert len(world.tells("sa_expired")) == 2
        assert len(world.tells("create_failed")) >= 2
        await world.wait_until(lambda: bool(west.keying.peers["east"].pairs(tunnel.name)), within=120)
        await _one_pair(world, tunnel, west, east)

    simulate(scenario, 1)
