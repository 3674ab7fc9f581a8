"""Extended sequence numbers as both ends want them, over rekeys, in a network that harms a quarter of the datagrams."""

from __future__ import annotations

import pytest
import trio
from support.host import Host, Tunnel, World, simulate, unmatched
from support.network import CALM, TERRIBLE, Weather

from esp.suite import SUITES
from kinkvpn.proto.settings import Esn

WEST, EAST, BOTH = frozenset({"west"}), frozenset({"east"}), frozenset({"west", "east"})
GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
# Who begins; what each end wants; and what they agree on.
TUNNELS = {
    Tunnel(0, boot=WEST, lifetime=120): True,
    Tunnel(1, boot=EAST, esn=(Esn.AUTO, Esn.ALWAYS), nonces=WEST): True,
    Tunnel(2, boot=WEST, esn=(Esn.AUTO, Esn.NEVER), lifetime=120): False,
    Tunnel(3, boot=EAST, esn=(Esn.AUTO, Esn.NEVER)): False,
    Tunnel(4, boot=BOTH, suites=((CBC,), (CBC,))): True,
    Tunnel(5, boot=WEST, suites=((GCM, CBC), (CBC,))): False,  # offered with the first suite only
    Tunnel(6, boot=WEST, suites=((GCM, CBC), (CBC,)), esn=(Esn.ALWAYS, Esn.AUTO)): True,
    Tunnel(7, boot=WEST, esn=(Esn.ALWAYS, Esn.NEVER)): None,
}
REFUSED = "tunnel7"


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 0), (TERRIBLE, 1)])
def test_both_ends_count_alike(weather: Weather, seed: int) -> None:
    async def scenario(world: World) -> None:
        west, east = await world.pair(list(TUNNELS))
        wanted = {tunnel.name: esn for tunnel, esn in TUNNELS.items() if esn is not None}
        peers = west.keying.peers["east"], east.keying.peers["west"]
        await world.wait_until(lambda: all(peer.pairs(name) for peer in peers for name in wanted), within=300)
        # Over rekeys.
        await world.wait_until(lambda: len(world.tells("sa_deleted_by_peer")) > 4, within=900, step=0.5)
        world.network.weather = CALM
        await world.wait_until(lambda: all(len(peer.pairs(name)) == 1 for peer in peers for name in wanted), within=300)
        assert unmatched(west, east) == []
        for name, esn in wanted.items():
            (ours,), (theirs,) = peers[0].pairs(name), peers[1].pairs(name)
            assert (ours.esn, theirs.esn) == (esn, esn), name
            assert {host.dataplane.installed[name, spi, True].esn for host, spi in _inbound(world, name)} == {esn}
        west.tun.delivered_nowait(), east.tun.delivered_nowait()
        for tunnel in TUNNELS:
            if tunnel.name in wanted:
                west.emit(tunnel, b"there")
                east.emit(tunnel, b"back")
        await trio.sleep(1)
        assert len(east.tun.delivered_nowait()) == len(west.tun.delivered_nowait()) == len(wanted)
        assert not peers[0].pairs(REFUSED)
        assert "NO-PROPOSAL-CHOSEN" in peers[0].policies[REFUSED].last_error

    simulate(scenario, seed, weather)


def _inbound(world: World, policy: str) -> list[tuple[Host, int]]:
    return [(host, spi) for host in world.hosts.values() for name, spi in host.sas(inbound=True) if name == policy]
