"""Packets that come before any SA: held while keying works, and delivered (RFC 4301 §5.1)."""

from __future__ import annotations

import pytest
import trio
from support.host import ESP_PORT, Tunnel, World, simulate
from support.network import CALM, TERRIBLE

from esp.errors import DropReason
from esp.hold import MAX_HELD_PACKETS
from esp.wire import NON_ESP_MARKER

EAST = frozenset({"east"})


@pytest.mark.parametrize("nonces", [frozenset[str](), EAST], ids=["2-way", "3-way"])
@pytest.mark.parametrize("latency", [0.0, 0.5, 4.0])
def test_as_many_as_the_queue_holds_arrive_in_order(latency: float, nonces: frozenset[str]) -> None:
    tunnels = [Tunnel(number, nonces=nonces) for number in range(3)]

    async def scenario(world: World) -> None:
        west, east = await world.pair(tunnels)
        for host in (west, east):
            host.kdc_latency = lambda: latency
        for number in range(MAX_HELD_PACKETS):
            for tunnel in tunnels:
                west.emit(tunnel, b"%d" % number)
        east.emit(tunnels[2], b"the other way, at once")
        await trio.sleep(latency + 1)
        delivered = east.tun.delivered_nowait()
        for tunnel in tunnels:
            ours = [packet[20:] for packet in delivered if packet == tunnel.packet("west", packet[20:])]
            assert ours == [b"%d" % number for number in range(MAX_HELD_PACKETS)]
        assert [packet[20:] for packet in west.tun.delivered_nowait()] == [b"the other way, at once"]
        assert west.dataplane.statistics().drops == {} or set(west.dataplane.statistics().drops.values()) == {0}

    simulate(scenario, 1)


def test_beyond_the_bound_the_oldest_leave_and_are_counted() -> None:
    tunnel = Tunnel(0)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        for number in range(MAX_HELD_PACKETS + 8):
            west.emit(tunnel, b"%d" % number)
        await trio.sleep(1)
        delivered = [int(packet[20:]) for packet in east.tun.delivered_nowait()]
        assert delivered == list(range(8, MAX_HELD_PACKETS + 8))
        assert west.dataplane.statistics().drops[DropReason.HOLD_QUEUE_FULL] == 8

    simulate(scenario, 1)


@pytest.mark.parametrize("seed", range(5))
def test_in_a_storm_every_one_of_them_leaves(seed: int) -> None:
    """What the network does to ESP then is the network's; that CREATE was lost and sent again costs no packet."""
    tunnel = Tunnel(0, nonces=EAST)

    async def scenario(world: World) -> None:
        west, _ = await world.pair([tunnel])
        for number in range(MAX_HELD_PACKETS):
            west.emit(tunnel, b"%d" % number)
        await world.wait_told("sa_established", "west", within=9)  # less than the hold time
        world.network.weather = CALM
        await world.wait_at_rest(within=60)
        sent = [
            flight
            for flight in world.network.captured
            if flight.destination.port == ESP_PORT and not flight.datagram.startswith(NON_ESP_MARKER)
        ]
        assert len(sent) == MAX_HELD_PACKETS

    simulate(scenario, seed, TERRIBLE)
