"""Two data planes back to back: on fakes and Trio's clock, and as root on real TUNs, sockets and a real wire."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from random import Random
from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
import trio.testing
from support.namespaces import run
from support.sites import FAMILIES, FOREVER, LEFT, RIGHT, dataplane_of, key_sites, sa, selector, sites
from support.tunnel import TWINS

from esp.aggfrag import LONGEST_GAP
from esp.dataplane import EVENTS, Dataplane, LinkStatistics
from esp.engine import Engine
from esp.errors import DropReason, InvalidSa
from esp.events import Acquired, HardExpired, SoftExpired, UnreachableReported
from esp.policy import Policy, Selector
from esp.sa import Aggregation, Endpoint, Lifetime, SaParameters
from esp.testing import BATCH, QUEUE, LossyLink, MemoryLink, MemoryTun, Weather, memory_links
from esp.tun import TunUnavailable
from esp.wire import KEEPALIVE, NON_ESP_MARKER, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from esp.link import Link

ONE = ("10.0.1.1", "10.0.2.1")
NOBODY = Endpoint("192.0.2.99", 4500)
# What comes to a link besides, what it is, and what it counts as.
STRAY = (
    (Kind.ESP, DropReason.UNKNOWN_SPI, b"\xde\xad\xbe\xef" + bytes(60)),
    (Kind.ESP, DropReason.MALFORMED, b"\xde\xad\xbe\xef" + bytes(3)),
    (Kind.JUNK, DropReason.MALFORMED, b"\0\1"),
    (Kind.CONTROL, None, NON_ESP_MARKER + b"KINK"),
    (Kind.KEEPALIVE, None, KEEPALIVE),
)


def packet(addresses: tuple[str, str], number: int = 0) -> bytes:
    """An inner IPv4 or IPv6 UDP packet (RFC 791 §3.1, RFC 8200 §3) that carries ``number``."""
    source, destination = (ip_address(text).packed for text in addresses)
    udp = bytes.fromhex("04000009000c0000") + number.to_bytes(4, "big")
    if len(source) == 4:
        total = (20 + len(udp)).to_bytes(2, "big")
        return b"\x45\x00" + total + bytes(4) + b"\x40\x11\x00\x00" + source + destination + udp
    return b"\x60\x00\x00\x00" + len(udp).to_bytes(2, "big") + b"\x11\x40" + source + destination + udp


def numbers(packets: list[bytes]) -> list[int]:
    return [int.from_bytes(each[-4:], "big") for each in packets]


@dataclass
class Host:
    """One end. ``control`` is what came up, with where from."""

    tun: MemoryTun
    link: Link
    mine: int  # which of a family's two subnets is inside
    clock_offset: float = 0.0
    control: list[tuple[bytes, Endpoint]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dataplane = dataplane_of(self.tun, self.link, self.mine, self.take_control, self.clock_offset)

    def take_control(self, datagram: bytes, source: Endpoint) -> None:
        self.control.append((datagram, source))

    def drops(self) -> dict[DropReason, int]:
        return {reason: number for reason, number in self.dataplane.statistics().drops.items() if number}


def key(sender: Host, receiver: Host, *, lifetime: Lifetime = FOREVER) -> list[int]:
    """SAs of both families from ``sender`` to ``receiver``; their SPIs."""
    spis = []
    for family in FAMILIES:
        spi = receiver.dataplane.allocate_spi()
        receiver.dataplane.install_inbound(sa(spi, family, receiver.mine, sender.link.local[0], lifetime))
        sender.dataplane.install_outbound(sa(spi, family, sender.mine, receiver.link.local[0], lifetime))
        spis.append(spi)
    return spis


@pytest.fixture
def hosts() -> tuple[Host, Host]:
    left, right = memory_links(LEFT, RIGHT)
    return Host(MemoryTun(), left, 0), Host(MemoryTun(), right, 1)


@asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for host in hosts:
            await nursery.start(host.dataplane.run)
        yield
        nursery.cancel_scope.cancel()


async def test_packets_travel_both_ways_in_order(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    async with running(*hosts):
        for sender, receiver in (hosts, hosts[::-1]):
            key(sender, receiver)
            for subnets in FAMILIES.values():
                addresses = [str(ip_network(subnets[host.mine])[1]) for host in (sender, receiver)]
                packets = [packet((addresses[0], addresses[1]), number) for number in range(2 * BATCH + 3)]
                for each in packets:
                    assert sender.tun.emit(each)
                assert [await receiver.tun.wait_delivered() for _ in packets] == packets
    assert left.drops() == right.drops() == {}
    assert left.dataplane.engine_name == "portable"


async def test_a_constant_rate_goes_by_the_clock_and_starts_when_it_is_installed(
    hosts: tuple[Host, Host], autojump_clock: trio.testing.MockClock
) -> None:
    left, right = hosts
    async with running(*hosts):
        await trio.sleep(5)
        key(right, left)
        spi = right.dataplane.allocate_spi()
        paced = replace(sa(spi, "ipv4", 0, RIGHT), aggregation=Aggregation(200, 20))
        right.dataplane.install_inbound(replace(paced, selector=selector("ipv4", 1), remote=LEFT))
        left.dataplane.install_outbound(paced)
        left.tun.emit(packet(ONE, 7))
        assert await right.tun.wait_delivered() == packet(ONE, 7)
        assert trio.current_time() == pytest.approx(5.05)
        await trio.sleep(10.01)
    assert left.dataplane.statistics().sas[-1].packets == 201
    assert right.dataplane.link_statistics().esp_received == 201
    assert right.drops() == {}


async def test_what_waits_for_a_lost_payload_comes_out_though_nothing_more_arrives(
    hosts: tuple[Host, Host], autojump_clock: trio.testing.MockClock
) -> None:
    left, right = hosts
    sender = Engine(random=os.urandom)
    sender.add_policy(Policy("ipv4", selector("ipv4", 0)))
    async with running(right):
        spi = right.dataplane.allocate_spi()
        paced = replace(sa(spi, "ipv4", 0, RIGHT), aggregation=Aggregation(200, 20))
        right.dataplane.install_inbound(replace(paced, selector=selector("ipv4", 1), remote=LEFT))
        sender.install_outbound(paced, 0.0)
        sender.protect([packet(ONE, number) for number in range(20)], 0.0)
        first, _, third = sender.pace(0.17)
        assert left.link.send([first, third]) == 0
        arrived = [await right.tun.wait_delivered() for _ in range(6)]
        assert trio.current_time() == 0.0
        arrived += [await right.tun.wait_delivered() for _ in range(6)]
        assert trio.current_time() == pytest.approx(LONGEST_GAP)
    assert numbers(arrived) == [*range(6), *range(12, 18)]


async def test_who_shares_the_loop_with_packets_sees_it_turn(hosts: tuple[Host, Host]) -> None:
    with trio.fail_after(1):
        await hosts[0].dataplane.wait_turn()


async def test_a_witness_is_told_of_each_sa_that_is_installed() -> None:
    told: list[tuple[SaParameters, bool]] = []
    link, _ = memory_links(LEFT, RIGHT)
    dataplane = Dataplane(
        Engine(random=os.urandom),
        MemoryTun("west"),
        link,
        receive_control=lambda *_: None,
        witness=lambda sa, inbound: told.append((sa, inbound)),
    )
    dataplane.add_policy(Policy("ipv4", selector("ipv4", 0)))
    one = sa(1000, "ipv4", 0, RIGHT, FOREVER)
    dataplane.install_inbound(one)
    dataplane.install_outbound(one)
    assert told == [(one, True), (one, False)]
    with pytest.raises(InvalidSa):
        dataplane.install_outbound(one)  # there is one with this SPI
    assert len(told) == 2


async def test_nothing_on_the_link_is_readable(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    async with running(left):
        key(left, right)
        secret = packet(ONE, 0xDECAFBAD)
        left.tun.emit(secret)
        await right.link.wait_readable()
    for incoming in right.link.receive():
        assert secret[-4:] not in incoming.datagram


async def test_first_packets_are_held_and_delivered_when_the_sa_comes(
    hosts: tuple[Host, Host], autojump_clock: trio.testing.MockClock
) -> None:
    left, right = hosts
    async with running(*hosts):
        for number in range(3):
            left.tun.emit(packet(ONE, number))
        assert await left.dataplane.events.receive() == Acquired("ipv4")
        await trio.sleep(0.3)  # a CREATE
        assert right.tun.delivered_nowait() == []
        key(left, right)
        left.tun.emit(packet(ONE, 3))
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(right.tun.delivered_nowait()) == [0, 1, 2, 3]
    assert left.drops() == {}


async def test_held_packets_leave_without_another_packet_to_push_them(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    left.tun.emit(packet(ONE, 9))
    async with running(*hosts):
        await left.dataplane.events.receive()
        key(left, right)
        assert numbers([await right.tun.wait_delivered()]) == [9]


async def test_held_packets_expire(hosts: tuple[Host, Host], autojump_clock: trio.testing.MockClock) -> None:
    left, _ = hosts
    async with running(left):
        await trio.sleep(1000)  # nothing was due when the packet came
        left.tun.emit(packet(ONE))
        await trio.sleep(120)
        assert left.drops() == {DropReason.HOLD_EXPIRED: 1}


async def test_what_shares_the_port_is_told_apart(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    assert isinstance(right.link, MemoryLink)
    async with running(*hosts):
        key(left, right)
        left.dataplane.send_control(b"KINK", RIGHT)
        left.dataplane.send_control(b"", RIGHT, whole=True)
        left.tun.emit(packet(ONE))
        for junk in (b"", b"\x00", b"\xff\xff", b"\x00\x00\x00"):
            right.link.arrive(junk, LEFT)
        right.link.arrive(b"\xff", LEFT)
        await right.tun.wait_delivered()
    assert right.control == [(b"KINK", LEFT), (b"", LEFT)]
    received = LinkStatistics(esp_received=1, control_received=2, keepalives_received=1, junk_received=4)
    assert right.dataplane.link_statistics() == received
    assert left.dataplane.link_statistics() == LinkStatistics(control_sent=2)
    assert right.drops() == {DropReason.MALFORMED: 4}


async def test_without_udp_everything_is_esp(hosts: tuple[Host, Host]) -> None:
    """A KINK message, a keepalive or junk from a raw socket is a packet of an SA that is not here, or none at all."""
    left, right = hosts
    assert isinstance(right.link, MemoryLink)
    raw = Endpoint(LEFT.address, 0)
    async with running(*hosts):
        for datagram in (bytes(4) + b"KINK", b"\xff", b"", bytes(4)):
            right.link.arrive(datagram, raw)
        key(left, right)
        left.tun.emit(packet(ONE))
        await right.tun.wait_delivered()
    assert right.control == []
    assert right.dataplane.link_statistics() == LinkStatistics(esp_received=5)
    assert right.drops() == {DropReason.UNKNOWN_SPI: 1, DropReason.MALFORMED: 3}


async def test_control_does_not_wait_for_the_esp_around_it(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    delivered_before: list[int] = []

    def take_control(_datagram: bytes, _source: Endpoint) -> None:
        delivered_before.append(len(right.tun.delivered_nowait()))

    right.dataplane = dataplane_of(right.tun, right.link, 1, take_control)
    async with running(left):
        key(left, right)
        for number in range(BATCH - 1):
            left.tun.emit(packet(ONE, number))
        await trio.testing.wait_all_tasks_blocked()
        left.dataplane.send_control(b"KINK", RIGHT)
    async with running(right):
        await trio.testing.wait_all_tasks_blocked()
    assert delivered_before == [0]
    assert len(right.tun.delivered_nowait()) == BATCH - 1


async def test_other_tasks_get_their_turn_after_each_batch(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    key(left, right)
    for number in range(4 * BATCH):
        left.tun.emit(packet(ONE, number))
    sent: list[int] = []
    async with running(left):
        while sum(sent) < 4 * BATCH:
            await trio.lowlevel.checkpoint()
            sent.append(sum(len(right.link.receive()) for _ in range(QUEUE // BATCH)))
    assert max(sent) <= 2 * BATCH  # Trio shuffles the tasks of a pass: another may have two turns between two of ours


async def test_malformed_input_changes_nothing_but_counters(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    assert isinstance(right.link, MemoryLink)
    chance = Random(4303)
    async with running(*hosts):
        spis = key(left, right)
        starts = [spi.to_bytes(4, "big") + number.to_bytes(4, "big") for spi in spis for number in range(3)]
        starts += [b"", b"\x00\x00\x00\x00", b"\xff"]
        outgoing = incoming = 0
        for _ in range(40):
            for _ in range(50):
                octets = chance.randbytes(chance.randrange(200))
                outgoing += left.tun.emit(chance.choice([b"", b"\x45", b"\x60", packet(ONE)[:20]]) + octets)
                incoming += right.link.arrive(chance.choice(starts) + octets, LEFT)
            await trio.testing.wait_all_tasks_blocked()
            right.tun.delivered_nowait()
        left.tun.emit(packet(ONE, 77))
        assert numbers([await right.tun.wait_delivered()]) == [77]
    assert outgoing == incoming == 2000
    assert left.drops()
    assert right.drops()[DropReason.AUTHENTICATION_FAILED] > 0


async def test_events_wait_when_nobody_reads_and_none_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    host = Host(MemoryTun(), MemoryLink(LEFT), 0)
    wanted = {f"p{number}" for number in range(EVENTS + 100)}
    for number, name in enumerate(sorted(wanted)):
        remote = ip_network(("10.9.0.0", 32)) if number == 0 else ip_network((0x0A090000 + number, 32))
        host.dataplane.add_policy(Policy(name, Selector(ip_network("10.0.1.0/24"), remote)))
    async with running(host):
        for number in range(len(wanted)):
            host.tun.emit(packet(("10.0.1.1", str(ip_address(0x0A090000 + number)))))
            if number % BATCH == 0:
                await trio.testing.wait_all_tasks_blocked()
        seen = set()
        with trio.move_on_after(10):
            async for event in host.dataplane.events:
                assert isinstance(event, Acquired)
                seen.add(event.policy)
    assert seen == wanted


async def test_events_end_with_the_run(hosts: tuple[Host, Host]) -> None:
    left, _ = hosts
    async with running(left):
        pass
    assert [event async for event in left.dataplane.events] == []


async def test_packets_go_on_when_the_reader_of_events_has_gone(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    async with running(*hosts):
        left.dataplane.events.close()
        left.tun.emit(packet(ONE, 1))
        await trio.testing.wait_all_tasks_blocked()
        key(left, right)
        assert numbers([await right.tun.wait_delivered()]) == [1]


@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["trio's clock", "a clock of its own"])
async def test_lifetimes_are_reported_when_they_end(autojump_clock: trio.testing.MockClock, offset: float) -> None:
    links = memory_links(LEFT, RIGHT)
    left, right = (Host(MemoryTun(), link, mine, offset) for mine, link in enumerate(links))
    async with running(left):
        await trio.sleep(333)
        began = trio.current_time()
        spi, _ = key(left, right, lifetime=Lifetime(soft_seconds=10.25, hard_seconds=20.5))
        for when, event in ((10.25, SoftExpired("ipv4", spi, False)), (20.5, HardExpired("ipv4", spi, False))):
            seen = [await left.dataplane.events.receive() for _ in FAMILIES]
            assert event in seen
            assert trio.current_time() - began == pytest.approx(when, abs=0.03)


async def test_idle_mappings_are_kept_alive(hosts: tuple[Host, Host], autojump_clock: trio.testing.MockClock) -> None:
    left, right = hosts
    async with running(*hosts):
        key(left, right)
        await trio.sleep(101)
    # RFC 3948 §4: every 20 s of silence, once for the endpoint and not once for each SA.
    assert left.dataplane.link_statistics().keepalives_sent == 5
    assert right.dataplane.link_statistics().keepalives_received == 5
    assert right.dataplane.link_statistics().keepalives_sent == 0
    assert right.control == []


async def test_refusals_are_drops(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    async with running(*hosts):
        key(left, right)
        for number in range(QUEUE + 5):
            left.tun.emit(packet(ONE, number))
            if number % BATCH == 0:
                await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        assert right.drops() == {DropReason.TUN_REFUSED: 5}
        left.dataplane.install_outbound(sa(300, "ipv4", 0, NOBODY))
        left.tun.emit(packet(ONE))
        left.dataplane.send_control(b"KINK", NOBODY)
        left.dataplane.send_control(b"KINK", NOBODY, whole=True)
        await trio.testing.wait_all_tasks_blocked()
        assert left.drops() == {DropReason.LINK_REFUSED: 1}
        # KINK that could not leave is no packet of anybody's, and was not sent.
        assert left.dataplane.link_statistics() == LinkStatistics(refused=3)


async def test_every_packet_and_every_datagram_is_accounted_for(hosts: tuple[Host, Host]) -> None:
    """What comes from the TUN is sent or dropped, what comes from the link is delivered, passed up or dropped: once.

    Of every reason that the engine itself gives, test_accounting.py knows the number.
    """
    left, right = hosts
    assert isinstance(right.link, MemoryLink)
    random, delivered, dropped = Random(20261129), 0, Counter[DropReason]()
    kinds: Counter[Kind] = Counter()
    emitted: Counter[DropReason | None] = Counter()
    offers = {
        None: packet(ONE),
        DropReason.NOT_IP: b"\x45 not IP",
        DropReason.NO_POLICY: packet(("10.0.1.1", "10.0.9.1")),
        DropReason.LINK_REFUSED: packet(("fd00:1::1", "fd00:2::1")),
    }
    async with running(*hosts):
        _, spi6 = key(left, right)
        left.dataplane.install_outbound(sa(spi6 + 1, "ipv6", 0, NOBODY))
        for turn in range(100):
            for reason in random.choices(tuple(offers), (6, 1, 1, 1), k=BATCH):
                assert left.tun.emit(offers[reason])
                emitted[reason] += 1
            for kind, reason, datagram in random.choices(STRAY, k=BATCH):
                assert right.link.arrive(datagram, random.choice((LEFT, NOBODY)))
                kinds[kind] += 1
                dropped.update(() if reason is None else (reason,))
            await trio.testing.wait_all_tasks_blocked()
            if turn > 20:  # before, the host reads nothing: its queue is full soon
                delivered += len(right.tun.delivered_nowait())
        delivered += len(right.tun.delivered_nowait())
    sent = emitted.pop(None)
    dropped[DropReason.TUN_REFUSED] = sent - delivered
    assert QUEUE < delivered < sent
    assert left.drops() == emitted
    assert right.drops() == dropped
    out, into = left.dataplane.statistics(), right.dataplane.statistics()
    assert (out.packets_out, into.packets_in) == (sent + emitted[DropReason.LINK_REFUSED], sent)
    assert len(right.control) == kinds[Kind.CONTROL]
    assert right.dataplane.link_statistics() == LinkStatistics(
        esp_received=sent + kinds[Kind.ESP],
        control_received=kinds[Kind.CONTROL],
        keepalives_received=kinds[Kind.KEEPALIVE],
        junk_received=kinds[Kind.JUNK],
    )


async def test_a_keepalive_that_cannot_leave_is_neither_sent_nor_a_drop(
    hosts: tuple[Host, Host], autojump_clock: trio.testing.MockClock
) -> None:
    left, _ = hosts
    async with running(*hosts):
        left.dataplane.install_outbound(sa(300, "ipv4", 0, Endpoint("192.0.2.99", 4500)))
        await trio.sleep(21)
        assert left.dataplane.link_statistics() == LinkStatistics(refused=1)
        assert left.drops() == {}


async def test_removal_reaches_the_engine(hosts: tuple[Host, Host]) -> None:
    left, right = hosts
    async with running(*hosts):
        spi, other = key(left, right)
        spare = right.dataplane.allocate_spi()
        right.dataplane.release_spi(spare)
        right.dataplane.remove_inbound(spi)
        left.tun.emit(packet(ONE))
        await trio.testing.wait_all_tasks_blocked()
        assert right.drops() == {DropReason.UNKNOWN_SPI: 1}
        left.dataplane.remove_outbound("ipv4", spi)
        left.tun.emit(packet(ONE))
        await trio.testing.wait_all_tasks_blocked()
        assert left.dataplane.events.receive_nowait() == Acquired("ipv4")
        left.dataplane.remove_outbound("ipv6", other)
        left.dataplane.remove_policy("ipv6")
        left.tun.emit(packet(("fd00:1::1", "fd00:2::1")))
        await trio.testing.wait_all_tasks_blocked()
        assert left.drops()[DropReason.NO_POLICY] == 1


async def test_bad_weather_delivers_each_packet_once_at_most(autojump_clock: trio.testing.MockClock) -> None:
    near, far = memory_links(LEFT, RIGHT)
    weather = Weather(drop=0.25, duplicate=0.25, delay_probability=0.25, delay=0.5)
    lossy = LossyLink(far, weather, seed=3)
    left, right = Host(MemoryTun(), near, 0), Host(MemoryTun(), lossy, 1)
    delivered: list[bytes] = []
    async with running(left, right):
        key(left, right)
        for number in range(400):
            left.tun.emit(packet(ONE, number))
            await trio.sleep(0.01)
            delivered += right.tun.delivered_nowait()
        await trio.sleep(1)
        delivered += right.tun.delivered_nowait()
    assert len(set(delivered)) == len(delivered)
    assert numbers(delivered) != sorted(numbers(delivered))
    assert right.drops() == {DropReason.REPLAYED: 400 - lossy.dropped + lossy.duplicated - len(delivered)}


@pytest.mark.root
@pytest.mark.parametrize("engine", TWINS)
@pytest.mark.parametrize("address", ["10.0.2.1", "fd00:2::1"])
async def test_real_hosts_reach_each_other(address: str, engine: str) -> None:
    with sites(engine) as (left, right):
        async with trio.open_nursery() as nursery:
            for site in (left, right):
                await nursery.start(site.dataplane.run)
            command = ["ip", "netns", "exec", left.net, "ping", "-n", "-c", "3", "-i", "0.1", "-s", "1200", address]
            with trio.fail_after(20):
                pinging = await nursery.start(trio.run_process, [*command, "-w", "10"])
                event = await left.dataplane.events.receive()
                while event == Acquired("ipv6") and "." in address:  # the host's own router solicitations
                    event = await left.dataplane.events.receive()
                assert isinstance(event, Acquired)
                key_sites(left, right, 0)
                key_sites(right, left, 1)
                assert await pinging.wait() == 0
            nursery.cancel_scope.cancel()
        carried = right.dataplane.link_statistics()
        assert carried.esp_received >= 3
        assert carried.junk_received == carried.control_received == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", TWINS)
async def test_run_ends_when_the_interface_is_deleted(engine: str) -> None:
    with sites(engine) as (left, _), pytest.RaisesGroup(TunUnavailable, flatten_subgroups=True), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(left.dataplane.run)
            run("ip", "-n", left.net, "link", "del", "kink0")


async def test_what_icmp_calls_unreachable_is_told(autojump_clock: trio.testing.MockClock) -> None:
    class Complaining(MemoryLink):
        told: ClassVar[set[Endpoint]] = {RIGHT}

        def take_unreachable(self) -> set[Endpoint]:
            told = self.told.copy()
            self.told.clear()
            return told

    dataplane = Dataplane(
        Engine(random=Random(1).randbytes), MemoryTun(), Complaining(LEFT), receive_control=lambda *_: None
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dataplane.run)
        assert await dataplane.events.receive() == UnreachableReported(RIGHT)
        nursery.cancel_scope.cancel()
