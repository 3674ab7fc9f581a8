"""Every datagram that was ever sent, sent once more by somebody on the path: counters change and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from support.host import Host, Tunnel, World, address_of, kink_of, simulate, unmatched
from support.network import CALM, TERRIBLE

from esp.errors import DropReason
from esp.suite import SUITES
from kinkvpn.wire.kink import MessageType

WEST, EAST, BOTH = frozenset({"west"}), frozenset({"east"}), frozenset({"west", "east"})
GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
TUNNELS = [
    Tunnel(number, boot=(WEST, EAST, BOTH)[number % 3], nonces=(EAST, frozenset(), BOTH, WEST)[number % 4])
    for number in range(10)
] + [Tunnel(10, suites=((GCM, CBC), (CBC,)), boot=WEST)]


def _state(*hosts: Host) -> object:
    return [
        (
            host.sas(inbound=True),
            host.sas(inbound=False),
            [pair for peer in host.keying.peers.values() for name in peer.policies for pair in peer.pairs(name)],
            [peer.epochs.present for peer in host.keying.peers.values()],
            [(sa.spi, sa.packets, sa.sequence, sa.remote) for sa in host.dataplane.statistics().sas],
        )
        for host in hosts
    ]


async def _live(world: World, *, restart: bool) -> tuple[Host, Host]:
    """CREATE, DELETE, STATUS and some traffic in a storm."""
    west, east = await world.pair(TUNNELS)
    for number in range(40):
        await trio.sleep(1)
        world.chance.choice((west, east)).emit(world.chance.choice(TUNNELS), b"traffic")
        if restart and number == 20:
            await east.crash()
            east = await world.start("east", TUNNELS)
    world.network.weather = CALM
    await trio.sleep(TERRIBLE.longest)
    await west.keying.probe("east")
    await east.keying.probe("west")
    await world.wait_until(
        lambda: (
            len(west.sas(inbound=False)) == len(east.sas(inbound=False)) == len(TUNNELS)
            and west.at_rest
            and east.at_rest
        ),
        within=200,
    )
    assert unmatched(west, east) == []
    return west, east


# At once, when the answers are still kept; when they are forgotten; when Kerberos calls them too old. KINK that never
# arrived is in it, as if somebody had kept it back; ESP that never arrived is not, for it may be late, and is then new.
# After a restart neither is: a CREATE that never arrived is as new to the next life of the responder as it was to the
# one before (RFC 4430 binds a command to its sender's epoch alone), until Kerberos calls it too old.
@pytest.mark.parametrize("restart", [False, True], ids=["one-life", "two-lives"])
@pytest.mark.parametrize("age", [0.0, 100.0, 200.0, 400.0])
def test_every_datagram_again(age: float, *, restart: bool) -> None:
    async def scenario(world: World) -> None:
        west, east = await _live(world, restart=restart)
        await trio.sleep(age)
        for host in (west, east):
            host.tun.delivered_nowait()
        before, told = _state(west, east), len(world.told)
        counted = [Counter(host.counters()) for host in (west, east)]
        network = world.network
        again = [
            flight
            for flight in network.captured
            if flight in network.arrived or (kink_of(flight) is not None and not restart)
        ]
        for _ in range(2):
            world.chance.shuffle(again)
            for flight in again:
                world.network.replay(flight)
                await trio.sleep(0.01)
        await trio.sleep(1)
        assert _state(west, east) == before
        assert west.tun.delivered_nowait() + east.tun.delivered_nowait() == []
        assert {event for _, _, event, _ in world.told[told:]} <= {"ap_request_refused", "command_refused"}
        for host, counters in zip((west, east), counted, strict=True):
            assert (Counter(host.counters()) - counters).total() > 20
            drops = host.dataplane.statistics().drops
            assert drops.get(DropReason.REPLAYED, 0) + drops.get(DropReason.UNKNOWN_SPI, 0) > 10

    simulate(scenario, age, TERRIBLE)


def test_a_create_that_was_kept_back_makes_no_pair_of_deleted_ones() -> None:
    """Its first transmission was kept back; the second made a pair, which was rekeyed and deleted since."""
    tunnel = Tunnel(0, boot=WEST, lifetime=60)

    async def scenario(world: World) -> None:
        there = (address_of("west"), address_of("east"))
        world.network.cut.add(there)
        _, east = await world.pair([tunnel])
        await world.wait_until(lambda: bool(world.network.sent_of(MessageType.CREATE)), within=1, step=0.01)
        world.network.cut.remove(there)
        kept_back = world.network.sent_of(MessageType.CREATE)[0]
        await world.wait_told("sa_deleted_by_peer", "east", within=60)
        await trio.sleep(180)  # Kerberos still takes the authenticator: the clock skew is 300 s
        await world.wait_at_rest(within=30)
        assert kept_back not in world.network.arrived
        before = east.sas(inbound=True), east.sas(inbound=False)
        world.network.replay(kept_back)
        await trio.sleep(0.1)
        assert kept_back in world.network.arrived
        assert (east.sas(inbound=True), east.sas(inbound=False)) == before
        (refused,) = world.tells("command_refused", "east")
        assert "is not free" in str(refused["reason"])

    simulate(scenario, 1)
