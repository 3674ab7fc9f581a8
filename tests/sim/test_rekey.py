"""Rekeying under traffic: on a network that reorders and delays, and loses nothing, no packet is lost."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from support.host import Tunnel, World, simulate, unmatched
from support.network import CALM, REORDERING

from esp.suite import SUITES

WEST, EAST, BOTH = frozenset({"west"}), frozenset({"east"}), frozenset({"west", "east"})
GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
TUNNELS = [
    Tunnel(0, boot=WEST, lifetime=60),
    Tunnel(1, boot=EAST, nonces=BOTH, lifetime=60),
    Tunnel(2, suites=((GCM, CBC), (CBC,)), lifetime=60),
    Tunnel(3, boot=BOTH, nonces=EAST, lifetime=60),
]
PACKETS = 1200
INTERVAL = 0.1


@pytest.mark.parametrize("seed", range(2))
def test_no_packet_is_lost(seed: int) -> None:
    async def scenario(world: World) -> None:
        west, east = await world.pair(TUNNELS)
        sent: dict[str, Counter[bytes]] = {"west": Counter(), "east": Counter()}
        delivered: dict[str, Counter[bytes]] = {"west": Counter(), "east": Counter()}
        for number in range(PACKETS):
            for host in (west, east):
                tunnel = TUNNELS[number % len(TUNNELS)]
                host.emit(tunnel, b"%d" % number)
                sent[host.name][tunnel.packet(host.name, b"%d" % number)] += 1
            await trio.sleep(INTERVAL)
            for host in (west, east):
                delivered[host.name].update(host.tun.delivered_nowait())
        world.network.weather = CALM
        await trio.sleep(REORDERING.longest)  # the last packets are still on their way
        await world.wait_at_rest(within=120)
        for host in (west, east):
            delivered[host.name].update(host.tun.delivered_nowait())
            assert host.dataplane.statistics().events_lost == 0
        assert delivered == {"west": sent["east"], "east": sent["west"]}
        created = [fields["policy"] for fields in world.tells("sa_established") if fields["role"] == "initiator"]
        assert min(Counter(created)[tunnel.name] for tunnel in TUNNELS) >= PACKETS * INTERVAL // 60
        assert world.tells("sa_expired") == []
        assert unmatched(west, east) == []

    simulate(scenario, seed, REORDERING)
