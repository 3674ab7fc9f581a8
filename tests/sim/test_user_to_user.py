"""Hosts without keytabs in a terrible network: user-to-user all the way, ticket-granting tickets that come and go."""

from __future__ import annotations

import pytest
import trio
from support.host import Host, Tunnel, World, principal_of, simulate, unmatched
from support.network import CALM, TERRIBLE, Weather

from kinkvpn.kerberos.fake import FakeKerberos
from kinkvpn.wire.kink import MessageType, parse_message

BOTH = frozenset({"west", "east"})
TUNNELS = [Tunnel(0, boot=BOTH, lifetime=120), Tunnel(1, nonces=BOTH, lifetime=120)]
KINDS = [(weather, seed, keyless) for weather, seed in ((CALM, 1), (TERRIBLE, 1), (TERRIBLE, 2)) for keyless in (0, 1)]


async def meet(world: World, *, keyless: bool) -> tuple[Host, Host]:
    """West and east with a ticket-granting ticket each and no key; ``keyless``: and the KDC knows it."""
    hosts = []
    for name in ("west", "east"):
        kerberos = FakeKerberos(world.realm, principal_of(name), keytab=False)
        kerberos.renew_tgt()
        if keyless:
            world.realm.keyless.add(principal_of(name))
        hosts.append(await world.start(name, TUNNELS, kerberos=kerberos))
    west, east = hosts
    west.emit(TUNNELS[1], b"demand")
    await world.wait_until(lambda: all(len(host.sas(inbound=False)) == 2 for host in hosts), within=300)
    await world.wait_at_rest(within=300)
    return west, east


def asked(world: World) -> int:
    """GETTGT exchanges, whatever became of their datagrams."""
    messages = [parse_message(f.datagram) for f in world.network.captured if f.destination.port == 910]
    return len({message.xid for message in messages if message.type is MessageType.GETTGT})


@pytest.mark.parametrize(("weather", "seed", "keyless"), KINDS)
def test_every_host_is_initiator_and_responder(weather: Weather, seed: int, keyless: int) -> None:
    async def scenario(world: World) -> None:
        west, east = await meet(world, keyless=bool(keyless))
        assert unmatched(west, east) == []
        for _ in range(5):  # some rekeys
            west.emit(TUNNELS[1], b"demand")
            await trio.sleep(100)
        world.network.weather = CALM
        await world.wait_until(lambda: all(len(host.sas(inbound=False)) >= 1 for host in (west, east)), within=300)
        await world.wait_at_rest(within=300)
        assert unmatched(west, east) == []
        if weather is CALM:
            assert asked(world) == 2  # one for each direction serves for as long as the tickets live

    simulate(scenario, seed, weather)


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 1), (TERRIBLE, 1), (TERRIBLE, 2), (TERRIBLE, 3)])
def test_a_lost_ticket_loses_no_sa(weather: Weather, seed: int) -> None:
    """RFC 4430 §3.7.1: the peer is not dead, and everything that stands goes on."""

    async def scenario(world: World) -> None:
        west, east = await meet(world, keyless=False)
        for _ in range(3):
            east.kerberos.lose_tgts()
            east.kerberos.renew_tgt()
            await trio.sleep(130)  # longer than SAs live: everything is rekeyed with another ticket
            west.emit(TUNNELS[1], b"demand")
        world.network.weather = CALM
        await world.wait_at_rest(within=300)
        assert world.tells("peer_restarted") == []
        assert unmatched(west, east) == []
        assert east.counters()["stale_tgt"] >= 1
        assert west.counters()["tgt_offered"] >= 1
        if weather is CALM:
            assert world.tells("create_failed") == []

    simulate(scenario, seed, weather)


def test_a_host_that_has_no_ticket_of_its_own_for_a_while() -> None:
    """Nobody has done kinit yet: it is told so to who asks, who tries again."""
    tunnel = Tunnel(0, boot=frozenset({"west"}))

    async def scenario(world: World) -> None:
        west = await world.start("west", [tunnel])
        kerberos = FakeKerberos(world.realm, principal_of("east"), keytab=False)
        world.realm.keyless.add(principal_of("east"))
        east = await world.start("east", [tunnel], kerberos=kerberos)
        await trio.sleep(20)
        assert all("KINK_U2UDENIED" in str(fields["reason"]) for fields in world.tells("create_failed", "west"))
        assert east.counters()["gettgt_refused"] >= 3
        kerberos.renew_tgt()
        await world.wait_until(lambda: bool(west.sas(inbound=False)), within=60)
        await world.wait_at_rest(within=60)
        assert unmatched(west, east) == []

    simulate(scenario, 1)
