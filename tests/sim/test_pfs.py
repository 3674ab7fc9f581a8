"""PFS in a network that harms a quarter of the datagrams in each of four ways, and over rekeys."""

from __future__ import annotations

import pytest
from support.host import Tunnel, World, simulate, unmatched
from support.network import CALM, TERRIBLE, Weather

from esp.suite import SUITES
from kinkvpn.wire.ipsec_doi import Group

WEST, EAST, BOTH = frozenset({"west"}), frozenset({"east"}), frozenset({"west", "east"})
GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
X, E, M = (Group.CURVE25519,), (Group.ECP_256, Group.CURVE25519), (Group.MODP_2048,)
# Boot by one side, the other and both; the groups of each end, and by which the keys come about.
TUNNELS = {
    Tunnel(0, boot=WEST, pfs=(X, X)): {"x25519"},
    Tunnel(1, boot=EAST, pfs=(X, E)): {"ecp256", ""},  # east offers what west does not take: never by east
    Tunnel(2, boot=WEST, pfs=(X, E), lifetime=120): {"x25519"},
    Tunnel(3, boot=WEST, pfs=(X, ()), lifetime=120): {""},
    Tunnel(4, boot=EAST, pfs=(X, ()), lifetime=120): {""},
    Tunnel(5, boot=BOTH, pfs=(M, M)): {"modp2048"},
    Tunnel(6, boot=WEST, pfs=(X, X), suites=((GCM, CBC), (CBC,))): {"x25519"},
    Tunnel(7, boot=WEST): {""},
}
REFUSED = "tunnel1"


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 0), *((TERRIBLE, seed) for seed in range(4))])
def test_keys_come_about_as_both_ends_want_them(weather: Weather, seed: int) -> None:
    async def scenario(world: World) -> None:
        west, east = await world.pair(list(TUNNELS))
        wanted = {tunnel.name: groups for tunnel, groups in TUNNELS.items() if tunnel.name != REFUSED}
        peers = west.keying.peers["east"], east.keying.peers["west"]

        def all_stand() -> bool:
            return all(peer.pairs(name) for peer in peers for name in wanted)

        await world.wait_until(all_stand, within=300)
        # Over several rekeys of those that live for two minutes.
        await world.wait_until(lambda: len(world.tells("sa_deleted_by_peer")) > 6, within=900, step=0.5)
        world.network.weather = CALM
        await world.wait_until(lambda: all(len(peer.pairs(name)) == 1 for peer in peers for name in wanted), within=300)
        assert unmatched(west, east) == []
        for name, groups in wanted.items():
            (ours,), (theirs,) = peers[0].pairs(name), peers[1].pairs(name)
            assert {ours.pfs, theirs.pfs} == groups, name
            assert (ours.inbound_spi, ours.outbound_spi) == (theirs.outbound_spi, theirs.inbound_spi)
        assert not peers[0].pairs(REFUSED)
        assert "NO-PROPOSAL-CHOSEN" in peers[1].policies[REFUSED].last_error

    simulate(scenario, seed, weather)
