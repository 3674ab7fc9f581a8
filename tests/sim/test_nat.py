"""A host behind a NAT, a NAT that forgets, a port that is filtered, and what somebody on the path makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.host import ESP_PORT, KINK_PORT, Host, Tunnel, World, address_of, simulate, unmatched
from support.network import CALM, TERRIBLE, Flight, Nat, Weather

from esp.sa import Endpoint
from esp.wire import NON_ESP_MARKER
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.service.keying import ProbeFailed
from kinkvpn.service.report import peers_status
from kinkvpn.wire.kink import MessageType

# West is the road warrior, east the gateway that does not know where west is.
WEST = frozenset({"west"})
OUTSIDE, ELSEWHERE = "203.0.113.1", "203.0.113.2"


async def _behind_nat(world: World, tunnels: list[Tunnel], **changes: Any) -> tuple[Nat, Host, Host]:
    nat = Nat(address_of("west"), OUTSIDE)
    world.network.nats.append(nat)
    world.addresses["west"] = ""
    east = await world.start("east", tunnels)
    return nat, await world.start("west", tunnels, **changes), east


async def _exchanged(
    world: World, tunnel: Tunnel, sender: Host, receiver: Host, word: bytes, within: float = 5
) -> None:
    """One packet, sent again until it arrives: a datagram that was lost is not what is tested."""
    packet = tunnel.packet(sender.name, word)
    for _ in range(int(within * 10)):
        sender.emit(tunnel, word)
        await trio.sleep(0.1)
        if packet in receiver.tun.delivered_nowait():
            return
    raise AssertionError(f"{word!r} did not arrive within {within} s")


def _whereabouts(host: Host) -> tuple[Endpoint, Endpoint, bool]:
    """ESP endpoint, and where the next command goes."""
    (peer,) = host.keying.peers.values()
    path = peer.contact.whereabouts.path(1, trio.current_time())
    return peer.contact.whereabouts.esp, path.remote, path.marked


@pytest.mark.parametrize(("weather", "seed"), [(CALM, 1), (TERRIBLE, 1), (TERRIBLE, 2)])
def test_the_tunnel_outlives_silence_and_a_rebind(weather: Weather, seed: int) -> None:
    tunnel = Tunnel(0, boot=WEST)

    async def scenario(world: World) -> None:
        nat, west, east = await _behind_nat(world, [tunnel])
        await world.wait_until(lambda: bool(east.sas(inbound=False)), within=300)
        await _exchanged(world, tunnel, west, east, b"up")
        world.network.weather = CALM
        await trio.sleep(600)  # keepalives are all that keeps the mapping (RFC 3948 §4)
        await _exchanged(world, tunnel, east, west, b"down after ten minutes", within=0.1)
        before = {*west.sas(inbound=True), *west.sas(inbound=False)}
        nat.rebind(ELSEWHERE)
        await _exchanged(world, tunnel, west, east, b"from elsewhere", within=0.1)
        await _exchanged(world, tunnel, east, west, b"to elsewhere", within=0.1)
        assert {*west.sas(inbound=True), *west.sas(inbound=False)} == before
        assert _whereabouts(east)[0].address == ELSEWHERE

    simulate(scenario, seed, weather)


@pytest.mark.parametrize("over", [KinkOver.AUTO, KinkOver.ESP_PORT])
def test_rekeys_follow_the_peer_whoever_makes_them(over: KinkOver) -> None:
    """Tunnel 0 is rekeyed by the host behind the NAT, tunnel 1 by the gateway, which starts at no address at all."""
    tunnels = [Tunnel(0, boot=WEST, lifetime=120), Tunnel(1, lifetime=120)]

    async def scenario(world: World) -> None:
        nat, west, east = await _behind_nat(world, tunnels, kink_over=over)
        await world.wait_until(lambda: bool(east.sas(inbound=False)), within=10)
        await _exchanged(world, tunnels[1], east, west, b"the gateway asks")
        for round_ in range(3):
            nat.rebind((ELSEWHERE, OUTSIDE)[round_ % 2])
            await _exchanged(world, tunnels[0], west, east, b"heard %d" % round_, within=0.1)
            known = _whereabouts(east)[0]
            before = {*east.sas(inbound=False)}
            await world.wait_until(lambda before=before: not {*east.sas(inbound=False)} & before, within=120, step=0.5)
            await world.wait_at_rest(within=60)
            placed = {sa.remote for sa in east.dataplane.statistics().sas}
            assert placed == {known}
            for tunnel in tunnels:
                await _exchanged(world, tunnel, west, east, b"up %d" % round_, within=0.1)
                await _exchanged(world, tunnel, east, west, b"down %d" % round_, within=0.1)
            assert unmatched(west, east) == []
        roles = {(fields["policy"], fields["role"]) for fields in world.tells("sa_established", "east")}
        assert roles == {("tunnel0", "responder"), ("tunnel1", "initiator")}
        assert world.tells("sa_expired") == []

    simulate(scenario, 1)


@pytest.mark.parametrize("over", [KinkOver.AUTO, KinkOver.ESP_PORT])
def test_a_rekey_of_the_gateway_finds_a_peer_that_was_silent_since_it_moved(over: KinkOver) -> None:
    """Nothing but keepalives since the rebind, and nobody may believe those; the host's own STATUS tells."""
    tunnel = Tunnel(0, lifetime=300)

    async def scenario(world: World) -> None:
        nat, west, east = await _behind_nat(world, [tunnel], kink_over=over)
        await west.keying.probe("east")
        await _exchanged(world, tunnel, east, west, b"the gateway asks")
        nat.rebind(ELSEWHERE)
        await trio.sleep(60)
        assert _whereabouts(east)[0].address == OUTSIDE
        await west.keying.probe("east")
        assert _whereabouts(east)[0].address == ELSEWHERE
        before = {*east.sas(inbound=False)}
        await world.wait_until(lambda: not {*east.sas(inbound=False)} & before, within=300, step=0.5)
        await _exchanged(world, tunnel, east, west, b"after", within=0.1)

    simulate(scenario, 1)


@pytest.mark.parametrize("over", [KinkOver.AUTO, KinkOver.ESP_PORT])
def test_a_gateway_that_knows_no_address_only_answers(over: KinkOver) -> None:
    tunnel = Tunnel(0)

    async def scenario(world: World) -> None:
        _, west, east = await _behind_nat(world, [tunnel], kink_over=over)
        east.emit(tunnel, b"whither?")
        await trio.sleep(5)
        assert world.network.captured == []
        assert east.counters()["peer_unlocated"] >= 1
        with pytest.raises(ProbeFailed, match="has not been heard yet"):
            await east.keying.probe("west")
        (peer,) = await peers_status(tuple(east.keying.peers.values()), east.dataplane)
        assert (peer["address"], peer["kink"], peer["esp"]) == ("", None, None)
        await west.keying.probe("east")
        await _exchanged(world, tunnel, east, west, b"thither")
        (peer,) = await peers_status(tuple(east.keying.peers.values()), east.dataplane)
        assert peer["address"] == OUTSIDE
        assert peer["moved"] is True

    simulate(scenario, 1)


def test_where_910_is_filtered_4500_will_do() -> None:
    tunnel = Tunnel(0, boot=WEST)

    async def scenario(world: World) -> None:
        world.network.filtered.add(KINK_PORT)
        west, east = await world.pair([tunnel])
        await world.wait_until(lambda: bool(west.sas(inbound=False)), within=3)
        sent = [flight.destination.port for flight in world.network.sent_of(MessageType.CREATE)]
        assert sent == [KINK_PORT, KINK_PORT, ESP_PORT]
        esp = Endpoint(address_of("east"), ESP_PORT)
        assert _whereabouts(west) == (esp, esp, True)
        before = trio.current_time()
        await west.keying.probe("east")
        await east.keying.probe("west")
        assert trio.current_time() - before < 1, "both know by now"

    simulate(scenario, 1)


@pytest.mark.parametrize("over", KinkOver)
def test_a_peer_is_asked_over_the_port_that_was_chosen(over: KinkOver) -> None:
    tunnel = Tunnel(0)

    async def scenario(world: World) -> None:
        await world.start("east", [tunnel])
        west = await world.start("west", [tunnel], kink_over=over)
        world.network.cut.add((address_of("east"), address_of("west")))
        with pytest.raises(ProbeFailed, match="no answer"):
            await west.keying.probe("east")
        ports = [flight.destination.port for flight in world.network.sent_of(MessageType.STATUS)]
        assert (
            ports
            == {
                KinkOver.AUTO: [KINK_PORT, KINK_PORT, ESP_PORT, KINK_PORT, ESP_PORT, KINK_PORT, ESP_PORT],
                KinkOver.KINK_PORT: [KINK_PORT] * 7,
                KinkOver.ESP_PORT: [ESP_PORT] * 7,
            }[over]
        )

    simulate(scenario, 1)


def test_what_was_kept_back_or_is_sent_twice_moves_nothing() -> None:
    """Somebody on the path holds a command back and delivers it from a place of his own once a newer one is in; and
    sends that one again from there too."""
    tunnel = Tunnel(0, boot=WEST)

    async def scenario(world: World) -> None:
        west, east = await world.pair([tunnel])
        await world.wait_until(lambda: bool(east.sas(inbound=False)), within=10)
        known = _whereabouts(east)
        world.network.cut.add((address_of("west"), address_of("east")))
        with trio.move_on_after(0.3):
            await west.keying.probe("east")
        held = world.network.sent_of(MessageType.STATUS)
        assert len(held) == 1
        world.network.cut.clear()
        await west.keying.probe("east")
        for flight in world.network.sent_of(MessageType.STATUS):
            datagram = flight.datagram.removeprefix(NON_ESP_MARKER)
            world.network.replay(Flight(datagram, Endpoint(ELSEWHERE, 666), Endpoint(address_of("east"), KINK_PORT)))
            marked = Flight(NON_ESP_MARKER + datagram, Endpoint(ELSEWHERE, 666), Endpoint(address_of("east"), ESP_PORT))
            world.network.replay(marked)
        await trio.sleep(1)
        esp, kink, _ = _whereabouts(east)
        assert (esp, kink.address) == (known[0], known[1].address)
        assert {sa.remote for sa in east.dataplane.statistics().sas} == {known[0]}

    simulate(scenario, 1)


def test_a_late_reply_moves_nothing_back() -> None:
    tunnel = Tunnel(0, boot=WEST)

    async def scenario(world: World) -> None:
        nat, west, east = await _behind_nat(world, [tunnel])
        await world.wait_until(lambda: bool(east.sas(inbound=False)), within=10)
        await _exchanged(world, tunnel, west, east, b"first")

        def answers() -> list[Flight]:
            return [each for each in world.network.sent_of(MessageType.REPLY) if each.source.address == OUTSIDE]

        known = len(answers())
        world.network.cut.add((OUTSIDE, address_of("east")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(east.keying.probe, "west")
            await world.wait_until(lambda: len(answers()) > known, within=1)
            kept_back = answers()[-1]
            nat.rebind(ELSEWHERE)
            await _exchanged(world, tunnel, west, east, b"from elsewhere", within=0.1)
            moved = _whereabouts(east)
            world.network.cut.clear()
            world.network.replay(kept_back)
            await trio.sleep(0.1)
        assert _whereabouts(east) == moved
        assert moved[0].address == ELSEWHERE

    simulate(scenario, 1)
