"""Keying against strangers: what they can make it remember, send and do, which is nothing, little, and count."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from support.host import ESP_PORT, KINK_PORT, Host, Tunnel, World, address_of, simulate, unmatched
from support.tunnel import parameters

from esp.events import CounterExhausted, PayloadsLost, UnknownSpiSeen
from esp.sa import Confidentiality, Endpoint
from esp.wire import NON_ESP_MARKER
from kinkvpn.proto.allowance import BURST_OCTETS, OCTETS_PER_SECOND
from kinkvpn.proto.events import LimitMtu, Path, Tally
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.service.keying import TIMER_RETRY, RekeyFailed
from kinkvpn.wire.isakmp import KeyExchange, Nonce
from kinkvpn.wire.kink import (
    ApRep,
    ApReq,
    Encrypt,
    ErrorCode,
    Isakmp,
    KinkError,
    KrbError,
    Message,
    MessageType,
    TgtRep,
    TgtReq,
    build_message,
    parse_message,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kinkvpn.proto.events import Effect

DATAGRAMS = 30_000
# Of them to fill what is bounded and to have Python make what it makes once.
WARMING_UP = 10_000
SECONDS = 6.0
# Blocks of memory, over the 20,000 that follow: an object kept of each one would be 20,000 at the least.
MORE_BLOCKS = 2_000

# What may change: counters, the allowances, and what an exchange heard last without authentication.
CHANGES = {"_counters", "_labelled", "_strangers", "_neighbours", "_members", "_lines", "_hint", "_repeats"}


def census(thing: object, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, object]]:
    """Every number, string and size of a container that can be reached from ``thing``, with the way to it."""
    seen = set() if seen is None else seen
    if thing is None or isinstance(thing, str | bytes | int | float | bool):
        yield path, thing
        return
    if id(thing) in seen or type(thing).__module__.split(".")[0] not in ("kinkvpn", "esp", "builtins", "collections"):
        return
    seen.add(id(thing))
    if isinstance(thing, dict | OrderedDict):
        yield f"{path}#", len(thing)
        for key, value in thing.items():
            yield from census(value, f"{path}[{key!r}]", seen)
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        yield f"{path}#", len(thing)
        for number, value in enumerate(thing):
            yield from census(value, f"{path}[{number}]", seen)
    else:
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in sorted({*getattr(thing, "__dict__", ()), *slots} - CHANGES):
            if hasattr(thing, name):
                yield from census(getattr(thing, name), f"{path}.{name}", seen)


class Stranger:
    """Makes up datagrams, and spoils those that were on the wire."""

    def __init__(self, overheard: list[bytes], seed: int) -> None:
        self.random = Random(seed)
        self.overheard = overheard
        self.xids = sorted({parse_message(each).xid for each in overheard})

    def source(self) -> Endpoint:
        random = self.random
        kind = random.random()
        if kind < 0.1:
            return Endpoint(address_of(random.choice(("west", "south"))), KINK_PORT)
        if kind < 0.5:
            return Endpoint(f"2001:db8:{random.getrandbits(16):x}:{random.getrandbits(16):x}::1", 910)
        return Endpoint(f"198.18.{random.getrandbits(8)}.{random.getrandbits(8)}", random.getrandbits(16) or 1)

    def datagram(self) -> bytes:
        made: bytes = self.random.choice(
            (self._noise, self._noise, self._flipped, self._cut, self._again, self._forged, self._forged, self._version)
        )()
        return made

    def _noise(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 3, 15, 16, 24, self.random.randrange(600))))

    def _again(self) -> bytes:
        return self.random.choice(self.overheard)

    def _flipped(self) -> bytes:
        octets = bytearray(self._again())
        for _ in range(self.random.randrange(1, 4)):
            octets[self.random.randrange(len(octets))] ^= 1 << self.random.randrange(8)
        return bytes(octets)

    def _cut(self) -> bytes:
        octets = self._again()[: self.random.randrange(400)]
        return octets[:2] + len(octets).to_bytes(2, "big") + octets[4:]

    def _version(self) -> bytes:
        return self.random.choice(b"\1\2\4\6").to_bytes() + bytes([self.random.getrandbits(8)]) + self._again()[2:]

    def _forged(self) -> bytes:
        random = self.random
        payloads = random.sample(
            [
                ApReq(random.getrandbits(32), random.randbytes(random.randrange(300))),
                ApRep(random.getrandbits(32), random.randbytes(random.randrange(100))),
                KrbError(random.randbytes(80)),
                KinkError(random.choice((*ErrorCode, random.getrandbits(32)))),
                TgtReq(random.randbytes(random.randrange(40))),
                TgtRep(random.randbytes(200)),
                Isakmp(()),
                Isakmp((KeyExchange(random.randbytes(32)), Nonce(random.randbytes(16)))),
            ],
            random.randrange(4),
        )
        if random.random() < 0.3:
            payloads.append(Encrypt(random.randbytes(random.randrange(200))))
        kind = random.choice((*MessageType, MessageType.REPLY, MessageType.REPLY))
        xid = random.choice((*self.xids, random.getrandbits(32)))
        checksum = random.randbytes(random.choice((0, 0, 16)))
        return build_message(Message(kind, xid, tuple(payloads), random.random() < 0.5, checksum))


def state(host: Host) -> dict[str, object]:
    """All that keying, its machines, its engine and its Kerberos know."""
    found = dict(census(host.keying, "keying"))
    found |= dict(census(host.dataplane.statistics().sas, "sas"))
    return found | dict(census(host.kerberos, "kerberos"))


def test_tens_of_thousands_of_hostile_datagrams_leave_nothing_behind() -> None:
    """RFC 4430 §2: no state before the AP-REQ has verified. East has two pairs with west, and all that it took.

    Everything that can be reached from keying stays as it is but for counters, and memory stays; no answer is longer
    than what it answers, all together they are bounded, and none of them is a KINK_OK.
    """

    async def scenario(world: World) -> None:
        tunnels = [
            Tunnel(0, boot=frozenset({"west"}), nonces=frozenset({"east"})),
            Tunnel(1, ("east", "west"), boot=frozenset({"east"})),
        ]
        west, east = await world.pair(tunnels)
        await world.wait_at_rest(within=5)
        await east.keying.probe("west")
        await west.keying.probe("east")
        network = world.network
        overheard = [flight.datagram for flight in network.captured if flight.destination.port != ESP_PORT]
        await trio.sleep(5)  # what was over has been put away
        # West would acknowledge a REPLY again that it gets again, which is no stranger's doing.
        network.cut.add((address_of("east"), address_of("west")))
        stranger = Stranger(overheard, 910)
        sent = 0

        async def attack(count: int) -> None:
            nonlocal sent
            for number in range(count):
                datagram, source = stranger.datagram(), stranger.source()
                before = len(network.captured)
                east.keying.receive(datagram, Path(source, marked=number % 5 == 0))
                for answer in network.captured[before:]:
                    octets = answer.datagram.removeprefix(NON_ESP_MARKER)
                    # A name is shorter than what GETTGT is answered; how much of that leaves is counted below.
                    assert len(octets) <= len(datagram) or datagram[0] == MessageType.GETTGT
                    assert parse_message(octets).payloads != (KinkError(ErrorCode.OK),)
                    # What west asked for is repeated to it a bounded number of times; that is no error.
                    sent += len(octets) if answer.destination.address != address_of("west") else 0
                del network.captured[before:]
                # What the witnesses write down is not what the host remembers.
                del network.trace[:], world.told[:]
                network.arrived.clear()
                if number % 100 == 0:
                    await trio.sleep(SECONDS / DATAGRAMS * 100)

        before, counted = state(east), sum(east.counters().values())
        began = trio.current_time()
        await attack(WARMING_UP)
        gc.collect()
        blocks = sys.getallocatedblocks()
        await attack(DATAGRAMS - WARMING_UP)
        gc.collect()
        assert sys.getallocatedblocks() - blocks < MORE_BLOCKS
        after = state(east)
        assert {
            path: (before.get(path), after.get(path))
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        } == {}
        assert len(before) > 300, "there was something to compare"
        took = trio.current_time() - began
        assert sent <= BURST_OCTETS + took * OCTETS_PER_SECOND
        counters = east.counters()
        assert Tally.KEY_EXCHANGES not in counters
        assert sum(counters.values()) - counted >= DATAGRAMS
        for fate in (
            *(Tally.MALFORMED, Tally.WRONG_VERSION, Tally.WRONG_DOI, Tally.UNEXPECTED_PAYLOAD),
            *(Tally.AP_REQUEST_REFUSED, Tally.DUPLICATE, Tally.UNKNOWN_XID, Tally.UNAUTHENTICATED_ERROR),
            *(Tally.UNAUTHENTICATED_REPLY, Tally.ERROR_SUPPRESSED, Tally.REPEAT_SUPPRESSED),
        ):
            assert counters[fate] > 100, fate
        assert "ok" not in east.keying.counted()["labelled"].get("kink_errors_sent", {})

    simulate(scenario, 910)


def test_a_defect_costs_the_datagram_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a message runs into, the tunnels stay, and the log says where."""

    def defective(*_: object) -> list[Effect]:
        raise KeyError("what nobody thought of")

    async def scenario(world: World) -> None:
        world.defects.append("east")
        west, east = await world.pair([Tunnel(0, boot=frozenset({"west"}))])
        await world.wait_at_rest(within=5)
        with monkeypatch.context() as patched:
            patched.setattr(east.keying._responder, "receive", defective)
            for number in range(1000):
                message = Message(MessageType.GETTGT, number, (TgtReq(b"x"),))
                east.keying.receive(build_message(message), Path(Endpoint("198.51.100.1", 910)))
        assert east.counters()["defect"] == 1000
        assert [fields["source"] for fields in world.tells("defect")] == ["198.51.100.1"] * 1000
        await west.keying.probe("east")
        west.emit(west.tunnels["tunnel0"], b"still")
        await world.wait_until(lambda: bool(east.tun.delivered_nowait()), within=1)

    simulate(scenario, 1)


@pytest.mark.parametrize(
    ("where", "method"),
    [
        ("event", "acquired"),
        ("timer", "wake"),
        ("ticket", "ticket_ready"),
        ("start", "start"),
        ("mtu", ""),
        ("close", "close"),
    ],
)
def test_a_defect_costs_its_turn_and_nothing_else(where: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever brings one about, what stands stays and goes on with the other peer; the first goes on after it."""
    tunnels = [Tunnel(0, ends=("west", "east")), Tunnel(1, ends=("east", "south"))]

    def defective(self: Peer, *_: object) -> list[Effect]:
        if self.settings.name == "west":
            raise KeyError("what nobody thought of")
        return original(self, *_)

    async def limit(subnets: Sequence[object], _octets: int) -> None:
        raise KeyError("what nobody thought of")

    original = getattr(Peer, method or "acquired")

    async def scenario(world: World) -> None:
        world.defects.append("east")
        with monkeypatch.context() as patched:
            if method:
                patched.setattr(Peer, method, defective)
            east = await world.start("east", tunnels)
            for name in ("west", "south"):
                await world.start(name, [tunnel for tunnel in tunnels if name in tunnel.ends])
            east.keying._mtus.limit = limit
            east.keying._perform(east.keying.peers["west"], [LimitMtu("west", 1300)])
            for tunnel in tunnels:
                east.emit(tunnel, b"wanted")
            await world.wait_until(lambda: len(east.sas(inbound=False)) >= 1, within=60)
            await east.keying.probe("south")
            await trio.sleep(2 * FULL_CYCLE)
            if where == "close":
                await east.keying.close(1.0)
        assert east.counters()["defect"] >= 1
        told = [(fields["where"], fields["peer"]) for fields in world.tells("defect")]
        assert (where, "west") in told
        assert set(told) <= {(where, "west"), ("mtu", "west")}
        if where != "close":
            east.emit(tunnels[0], b"wanted")
            await world.wait_until(lambda: len(east.sas(inbound=False)) == 2, within=120)
            await world.wait_at_rest(within=60)

    simulate(scenario, 1)


def test_a_timer_that_went_wrong_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nothing of that peer would be sent again until something else woke it."""

    async def scenario(world: World) -> None:
        world.defects.append("west")
        west, _ = await world.pair([Tunnel(0, boot=frozenset({"west"}))])
        await world.wait_at_rest(within=5)
        world.network.cut.add((address_of("west"), address_of("east")))
        with trio.fail_after(2 * TIMER_RETRY):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(west.keying.probe, "east")
                await trio.sleep(0.1)
                with monkeypatch.context() as patched:
                    patched.setattr(west.keying.peers["east"], "wake", lambda _: 1 / 0)
                    await trio.sleep(1)
                world.network.cut.clear()
        assert west.counters()["defect"] >= 1

    simulate(scenario, 1)


def test_an_mtu_that_changes_all_the_time_is_one_change_at_a_time_and_the_last_one_stays() -> None:
    """Each costs a thread and a netlink socket, and a peer can tell another one with every STATUS."""

    async def scenario(world: World) -> None:
        _, east = await world.pair([Tunnel(0, boot=frozenset({"west"}))])
        await world.wait_at_rest(within=5)
        under_way, limited = 0, list[int]()

        async def limit(_subnets: object, octets: int) -> None:
            nonlocal under_way
            under_way += 1
            assert under_way == 1
            await trio.sleep(0.01 * (1400 - octets))  # those that were told later are done sooner
            limited.append(octets)
            under_way -= 1

        east.keying._mtus.limit = limit
        for octets in range(1300, 1390):
            east.keying._perform(east.keying.peers["west"], [LimitMtu("west", octets)])
            await trio.sleep(0.03)
        await trio.sleep(5)
        assert limited[-1] == 1389
        assert len(limited) < 10

    simulate(scenario, 1)


def test_a_peer_that_claims_the_place_of_another_deafens_us_to_nobody() -> None:
    """West has itself heard with the address of south, which then sends on an SPI that is gone: south is told."""
    tunnels = [Tunnel(0, ends=("west", "east")), Tunnel(1, ends=("south", "east"))]

    async def scenario(world: World) -> None:
        east = await world.start("east", tunnels)
        west = await world.start("west", tunnels)
        await world.start("south", tunnels)
        place = Endpoint(address_of("south"), ESP_PORT)
        world.network.cut.add((address_of("west"), address_of("east")))
        with trio.move_on_after(0.4):
            await west.keying.probe("east")
        claims = [flight for flight in world.network.captured if flight.source.address == address_of("west")]
        east.keying.receive(claims[-1].datagram, Path(place, marked=True))
        assert east.keying.peers["west"].contact.whereabouts.esp == place
        east.keying._take(UnknownSpiSeen(0x4711, place))
        await world.wait_until(lambda: east.keying.peers["south"].epochs.present is not None, within=5)

    simulate(scenario, 1)


def test_lost_payloads_are_told_of() -> None:
    """RFC 9347 §2.4.1: "packet loss should be reported to the administrator"."""
    tunnel = Tunnel(0, boot=frozenset({"west"}))

    async def scenario(world: World) -> None:
        west, _ = await world.pair([tunnel])
        west.keying._take(PayloadsLost(tunnel.name, 0x4711, 3, 200))
        assert world.tells("payloads_lost") == [{"peer": "east", "policy": tunnel.name, "lost": 3, "sent": 200}]

    simulate(scenario, 1)


def test_a_peer_that_has_not_said_that_it_takes_padding_gets_none() -> None:
    """RFC 4303 §2.7: "MUST negotiate this service prior to a transmitter employing it"."""
    tunnel = Tunnel(0, boot=frozenset({"west"}))

    async def scenario(world: World) -> None:
        west, _ = await world.pair([tunnel])
        await world.wait_at_rest(within=30)
        padded = parameters(policy=tunnel.name, confidentiality=Confidentiality(1400, 0.5))
        assert west.keying._as_agreed(padded) is padded
        west.keying.peers["east"].contact.acquaintance.forget()
        assert west.keying._as_agreed(padded) == replace(padded, confidentiality=None)
        assert west.keying._as_agreed(parameters(policy=tunnel.name)) == parameters(policy=tunnel.name)
        assert world.tells("padding_not_agreed") == [{"peer": "east", "policy": tunnel.name}]

    simulate(scenario, 1)


def test_an_sa_without_sequence_numbers_is_told_of_and_replaced() -> None:
    """RFC 4303 §3.3.3, §4: an auditable event. When it was time to rekey, the peer was perhaps away."""
    tunnel = Tunnel(0, boot=frozenset({"west"}))

    async def scenario(world: World) -> None:
        west, _ = await world.pair([tunnel])
        await world.wait_at_rest(within=30)
        (spent,) = west.keying.peers["east"].pairs(tunnel.name)
        west.keying._take(CounterExhausted(tunnel.name, spent.outbound_spi))
        said = {"peer": "east", "policy": tunnel.name, "spi": f"{spent.outbound_spi:#010x}"}
        assert world.tells("sequence_exhausted") == [said]
        await world.wait_at_rest(within=30)
        (newer,) = west.keying.peers["east"].pairs(tunnel.name)
        assert newer.outbound_spi != spent.outbound_spi

    simulate(scenario, 2)


def test_a_peer_is_down_until_it_is_brought_up() -> None:
    """Neither its own packets and commands nor ours bring it back; the operator does, and hears what came of it."""
    tunnels = [Tunnel(0, boot=frozenset({"west", "east"})), Tunnel(1)]

    async def scenario(world: World) -> None:
        west, east = await world.pair(tunnels)
        await world.wait_at_rest(within=30)
        west.keying.down("east")
        await trio.sleep(120)
        west.emit(tunnels[1], b"out")
        east.emit(tunnels[1], b"in")
        await trio.sleep(120)
        assert (west.keys(), east.keys()) == (({}, {}), ({}, {}))
        (peer,) = west.keying.peers.values()
        assert (peer.closed, peer.pairs("tunnel0"), peer.pairs("tunnel1")) == (True, [], [])
        found = await west.keying.up("east")
        assert [policy["state"] for policy in found] == ["established"] * 2
        await world.wait_at_rest(within=120)
        assert unmatched(west, east) == []
        east.keying.down("west")
        await world.wait_at_rest(within=120)
        with pytest.raises(RekeyFailed, match=r"^tunnel0: .*NO-PROPOSAL-CHOSEN"):
            await west.keying.up("east")
        with pytest.raises(RekeyFailed, match="no peer 'north'; there are east"):
            west.keying.down("north")

    simulate(scenario, 6)


def test_xids_are_random_and_those_outstanding_are_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 4430 §4; nobody who is asked something can tell what others are asked."""

    async def scenario(world: World) -> None:
        west, _ = await world.pair([Tunnel(0)])
        await west.keying.probe("east")
        await west.keying.probe("east")
        first, second = (parse_message(flight.datagram).xid for flight in world.network.sent_of(MessageType.STATUS))
        assert abs(first - second) > 1000
        drawn = [first.to_bytes(4, "big"), second.to_bytes(4, "big"), b"\0\0\0\7"]
        with monkeypatch.context() as patched:
            patched.setattr(west.keying._xids, "_random", lambda _: drawn.pop(0))
            await west.keying.probe("east")
        assert parse_message(world.network.sent_of(MessageType.STATUS)[2].datagram).xid == 7

    simulate(scenario, 5)


# --- peers that come and go ---

SOUTH = Tunnel(1, ends=("west", "south"))


def spis(*hosts: Host) -> set[int]:
    """Of SAs between west and south."""
    found = [sa for host in hosts for inbound in (True, False) for sa in host.sas(inbound=inbound)]
    return {spi for policy, spi in found if policy == SOUTH.name}


def test_a_peer_comes_and_goes_and_comes_again_and_the_others_keep_their_sas() -> None:
    async def scenario(world: World) -> None:
        west, _ = await world.pair([Tunnel(0, boot=frozenset({"west"}))])
        south = await world.start("south", [SOUTH])
        await world.wait_at_rest(within=5)
        before = west.keys()
        for _ in range(2):
            west.add(SOUTH)
            west.emit(SOUTH, b"out")
            await world.wait_until(lambda: bool(south.tun.delivered_nowait()), within=5)
            south.emit(SOUTH, b"back")
            await world.wait_until(lambda: bool(west.tun.delivered_nowait()), within=5)
            assert await south.keying.probe("west") > 0
            west.remove("south")
            assert not spis(west)
            await world.wait_until(lambda: not spis(south), within=20)
            refused = west.counters().get("unknown_peer", 0)
            south.emit(SOUTH, b"nobody takes it")
            await world.wait_until(lambda: west.counters().get("unknown_peer", 0) > refused, within=30)  # noqa: B023
        assert west.keys() == before
        assert list(west.keying.peers) == ["east"]

    simulate(scenario, 1)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
@pytest.mark.parametrize("nonces", [frozenset(), frozenset({"west", "south"})], ids=["two-way", "three-way"])
@pytest.mark.parametrize("first", ["west", "south"])
def test_a_peer_that_leaves_at_any_moment_leaves_nothing(after: float, nonces: frozenset[str], first: str) -> None:
    """Whatever was under way: a ticket, a CREATE of either side, an ACK."""
    tunnel = replace(SOUTH, nonces=nonces)

    async def scenario(world: World) -> None:
        west = await world.start("west", [tunnel])
        south = await world.start("south", [tunnel])
        world.hosts[first].emit(tunnel, b"wanted")
        await trio.sleep(after)
        west.remove("south")
        await trio.sleep(3 * FULL_CYCLE)
        assert not spis(west, south)
        assert not any(peer.busy for peer in west.keying._roster.leaving())
        assert south.at_rest

    simulate(scenario, 1)


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 0.5, 2.0])
def test_a_peer_that_is_replaced_goes_on_under_new_sas(after: float) -> None:
    async def scenario(world: World) -> None:
        west, _ = await world.pair([Tunnel(0, boot=frozenset({"west"}))])
        south = await world.start("south", [SOUTH])
        west.add(SOUTH)
        south.emit(SOUTH, b"before")
        await trio.sleep(after)
        before = spis(west)
        west.remove("south")
        west.add(replace(SOUTH, lifetime=600), probe_after=1.0)
        west.emit(SOUTH, b"after")
        await world.wait_until(lambda: any(b"after" in each for each in south.tun.delivered_nowait()), within=10)
        await world.wait_at_rest(within=60)
        assert unmatched(west, south) == []
        assert not before & spis(west)

    simulate(scenario, 1)


def test_what_a_peer_deleted_before_it_left_cannot_be_made_again_when_it_is_back() -> None:
    """Its CREATE, held back on the way and brought after all, would have the same keys: same key, same SPI, same Ni."""

    async def scenario(world: World) -> None:
        west = await world.start("west", [SOUTH])
        south = await world.start("south", [SOUTH])
        south.emit(SOUTH, b"wanted")
        await world.wait_until(lambda: len(west.sas(inbound=False)) == 1, within=5)
        ((_, spi),) = west.sas(inbound=False)
        west.remove("south")
        west.add(SOUTH)
        assert spi in west.keying.peers["south"]._pairs.taken(trio.current_time())

    simulate(scenario, 1)


def test_a_rekey_goes_on_without_the_policy_that_a_reload_takes_away() -> None:
    async def scenario(world: World) -> None:
        west, east = await world.pair([Tunnel(number, boot=frozenset({"west"})) for number in range(2)])
        await world.wait_at_rest(within=5)
        before = west.keying.peers["east"].pairs("tunnel1")
        world.network.cut.add((address_of("west"), address_of("east")))
        answered: list[str] = []

        async def rekey() -> None:
            answered.extend(policy["name"] for policy in await west.keying.rekey("east"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rekey)
            await trio.sleep(0.5)
            settings = west.keying.peers["east"].settings
            west.keying.change_peer(replace(settings, policies=settings.policies[1:]), {"tunnel0"})
            west.dataplane.change_policies(["tunnel0"], ())
            west.keying.start_peer("east")
            world.network.cut.clear()
        assert answered == ["tunnel1"]
        assert west.keying.peers["east"].pairs("tunnel1") != before
        await world.wait_at_rest(within=60)
        assert west.counters().get("defect", 0) == 0
        assert not east.keying.peers["west"].pairs("tunnel0")
        del west.tunnels["tunnel0"], east.tunnels["tunnel0"]
        assert unmatched(west, east) == []

    simulate(scenario, 1)
