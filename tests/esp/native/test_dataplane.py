"""Threads that carry packets while Python installs, removes and is slow: on real sockets and, as root, real TUNs."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from support.loopback import End, ends, key, until
from support.packets import udp
from support.sites import KEYMAT, SUITE, sa

from esp.errors import DropReason
from esp.events import Acquired, EndpointMoved, HardExpired, SoftExpired, UnknownSpiSeen
from esp.policy import Policy, Selector
from esp.sa import Aggregation, Endpoint, Lifetime, SaParameters

if TYPE_CHECKING:
    from esp.events import EspEvent

HOSTS = (("10.0.1.1", "10.0.2.1"), ("fd00:1::1", "fd00:2::1"))
# On their way at once: less than any queue on it holds.
WINDOW = 64


def packet(number: int, mine: int = 0, version: int = 4, octets: int = 100) -> bytes:
    """With what it carries told by its number."""
    near, far = HOSTS[version == 6][mine], HOSTS[version == 6][1 - mine]
    return udp(near, far, (1000, 2000), number.to_bytes(4) + Random(number).randbytes(octets))


def drops(end: End) -> dict[DropReason, int]:
    return {reason: count for reason, count in end.dataplane.statistics().drops.items() if count}


async def carry(sender: End, receiver: End, packets: list[bytes]) -> None:
    """Through, each as it was and in order."""
    with trio.fail_after(90):
        for at in range(0, len(packets), WINDOW):
            batch = packets[at : at + WINDOW]
            for each in batch:
                await sender.tun.inside.send(each)
            for each in batch:
                assert await receiver.tun.inside.recv(65_536) == each


def events(end: End) -> list[EspEvent]:
    found = []
    while True:
        try:
            found.append(end.dataplane.events.receive_nowait())
        except trio.WouldBlock:
            return found


async def test_packets_of_both_families_go_both_ways_as_they_were() -> None:
    async with ends() as (left, right):
        for sender, receiver in ((left, right), (right, left)):
            for version, family in ((4, "ipv4"), (6, "ipv6")):
                key(sender, receiver, family)
                await carry(sender, receiver, [packet(n, sender.mine, version, 20 * (n % 60)) for n in range(300)])
        assert drops(left) == drops(right) == {}
        assert left.counters()["polls"] > 0


@pytest.mark.parametrize("most", [1, 2, 63, 64, 65, 100])
async def test_no_more_packets_than_a_lifetime_has_ever_leave(most: int) -> None:
    """Its last packet and those behind it come in one batch: what Python is told of it and what it is given cross."""
    async with ends() as (left, right):
        for _ in range(4):
            spi = key(left, right, lifetime=Lifetime(hard_packets=most))
            for number in range(most + 30):
                await left.tun.inside.send(packet(number))
            for number in range(most):
                assert await right.tun.inside.recv(65_536) == packet(number)
            await until(lambda: left.dataplane.statistics().held["ipv4"] == 30)
            assert left.dataplane.statistics().sas == ()
            assert HardExpired("ipv4", spi, inbound=False) in events(left)
            key(left, right)  # takes what was held
            for number in range(most, most + 30):
                assert await right.tun.inside.recv(65_536) == packet(number)
            for sa in left.dataplane.statistics().sas:
                left.dataplane.remove_outbound("ipv4", sa.spi)
        assert [sa.packets for sa in right.dataplane.statistics().sas] == [most, 30] * 4
        assert drops(left) == drops(right) == {}


async def test_floods_are_counted_and_the_rest_goes_on() -> None:
    async with ends() as (left, right):
        spi = key(left, right)
        key(right, left)
        with socket.socket(type=socket.SOCK_DGRAM) as hostile:
            hostile.connect(tuple(right.at))

            async def flood(datagrams: list[bytes]) -> None:
                came = right.counters()["datagrams_received"]
                for number, each in enumerate(datagrams, came + 1):
                    hostile.send(each)
                    if number % WINDOW == 0:
                        await right.received(number)
                await right.received(came + len(datagrams))

            await flood([(0xDEAD0000 + n).to_bytes(4) + bytes(60) for n in range(1_000)])
            await flood([spi.to_bytes(4) + (n + 1).to_bytes(4) + bytes(64) for n in range(1_000)])
            await flood([spi.to_bytes(4) + bytes(n % 30) for n in range(500)])
            await flood([b"\xff"] * 100 + [b"\0\0"] * 50 + [bytes(3)] * 50)
            await carry(left, right, [packet(n) for n in range(200)])
        await until(lambda: sum(drops(right).values()) == 2_600)
        found = Counter(drops(right))
        assert found[DropReason.UNKNOWN_SPI] == 1_000
        assert found[DropReason.AUTHENTICATION_FAILED] == 1_000
        assert found[DropReason.MALFORMED] == 600
        told = [event for event in events(right) if isinstance(event, UnknownSpiSeen)]
        assert 1 <= len(told) < 100
        assert right.dataplane.link_statistics().keepalives_received == 100


async def test_the_past_is_not_opened_again() -> None:
    async with ends() as (left, right):
        key(left, right)
        with socket.socket(type=socket.SOCK_DGRAM) as between:
            between.bind(("127.0.0.1", 0))
            between.settimeout(10)
            left.dataplane.follow("ipv4", Endpoint(*between.getsockname()))
            for number in range(WINDOW):
                await left.tun.inside.send(packet(number))
            kept = [between.recv(2_000) for _ in range(WINDOW)]
            for _ in range(5):
                for each in kept:
                    between.sendto(each, tuple(right.at))
        for number in range(WINDOW):
            assert await right.tun.inside.recv(65_536) == packet(number)
        await until(lambda: drops(right) == {DropReason.REPLAYED: 4 * WINDOW})


async def test_control_passes_while_esp_floods_in() -> None:
    async with ends() as (left, right):
        key(left, right)
        ended = False

        async def flood() -> None:
            number = 0
            while not ended:
                for _ in range(WINDOW):
                    await left.tun.inside.send(packet(number, octets=1_200))
                    number += 1
                await trio.lowlevel.checkpoint()

        async def drain() -> None:
            while True:
                await right.tun.inside.recv(65_536)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            nursery.start_soon(flood)
            for number in range(50):
                left.dataplane.send_control(b"KINK %d" % number, right.at)
                await right.controlled(number + 1)
            ended = True
            nursery.cancel_scope.cancel()
        assert [datagram for datagram, _ in right.control] == [b"KINK %d" % number for number in range(50)]
        assert {source for _, source in right.control} == {left.at}


async def test_sas_and_policies_come_and_go_and_cost_others_no_packet() -> None:
    async with ends() as (left, right):
        key(left, right, "ipv6")
        key(left, right)
        ended = False

        async def churn() -> None:
            standing: list[int] = []
            while not ended:
                standing.append(key(left, right))
                if len(standing) > 1:
                    left.dataplane.remove_outbound("ipv4", standing[-2])
                if len(standing) > 200:  # long after its last packet has come
                    right.dataplane.remove_inbound(standing.pop(0))
                for end in (left, right):
                    end.dataplane.add_policy(Policy("besides", _besides()))
                    end.dataplane.change_policies(["besides"], [Policy("instead", _besides(), rank=-1)])
                    end.dataplane.remove_policy("instead")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(churn)
            await carry(left, right, [packet(n, version=4 if n % 2 else 6) for n in range(700)])
            ended = True
        assert drops(left) == drops(right) == {}
        assert left.dataplane._native.lanes.reclaim() <= 2


def _besides() -> Selector:
    return Selector(ip_network("10.0.1.0/24"), ip_network("10.99.0.0/16"))


async def test_an_sa_with_the_spi_of_another_takes_over_without_a_gap() -> None:
    """A packet that found neither would be counted as of an unknown SA, and keying would be told so."""
    async with ends() as (left, right):
        spi = key(left, right)
        ended = False

        async def churn() -> None:
            while not ended:
                right.dataplane.install_inbound(sa(spi, "ipv4", 1, left.at))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(churn)
            await carry(left, right, [packet(n) for n in range(700)])
            ended = True
        assert drops(right) == {}


async def test_sas_of_the_reference_engine_beside_those_of_lanes() -> None:
    async with ends() as (left, right):
        key(left, right)
        for changes in ({}, {"aggregation": Aggregation(1_200, 500)}, {}, {"esn": True}):
            key(left, right, **changes)
            await carry(left, right, [packet(n) for n in range(100)])
        engines = {sa.engine for sa in right.dataplane.statistics().sas}
        assert engines == {"native", "portable"}
        assert drops(left) == drops(right) == {}


async def test_a_peer_that_moves_is_followed() -> None:
    async with ends() as (left, right):
        key(right, left)
        spi = key(left, right)
        with socket.socket(type=socket.SOCK_DGRAM) as nat:
            nat.bind(("127.0.0.1", 0))
            nat.settimeout(10)
            left.dataplane.follow("ipv4", Endpoint(*nat.getsockname()))
            await left.tun.inside.send(packet(1))
            nat.sendto(nat.recv(2_000), tuple(right.at))
            assert await right.tun.inside.recv(65_536) == packet(1)
            there = Endpoint(*nat.getsockname())
            await until(lambda: all(sa.remote == there for sa in right.dataplane.statistics().sas))
            assert EndpointMoved("ipv4", spi, there) in events(right)
            await right.tun.inside.send(packet(2, 1))
            assert nat.recv(2_000)


async def test_what_comes_from_elsewhere_comes_in_once_answers_go_there() -> None:
    """Behind a NAT the first answer would else leave for where the peer had been."""
    async with ends() as (left, right):
        key(right, left)
        key(left, right)
        for number in range(5):
            with socket.socket(type=socket.SOCK_DGRAM) as nat:
                nat.bind(("127.0.0.1", 0))
                nat.settimeout(10)
                left.dataplane.follow("ipv4", Endpoint(*nat.getsockname()))
                await left.tun.inside.send(packet(number))
                nat.sendto(nat.recv(2_000), tuple(right.at))
                assert await right.tun.inside.recv(65_536) == packet(number)
                assert {sa.remote for sa in right.dataplane.statistics().sas} == {Endpoint(*nat.getsockname())}


async def test_control_that_python_is_too_slow_for_is_counted() -> None:
    async with ends() as (_left, right):
        sent = 3_000
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            for number in range(sent):  # Python does nothing else meanwhile
                peer.sendto(bytes(4) + number.to_bytes(200), tuple(right.at))
        await right.received(sent)
        await until(lambda: len(right.control) + sum(drops(right).values()) == sent)
        assert drops(right).keys() == {DropReason.ENGINE_BUSY}
        numbers = [int.from_bytes(datagram) for datagram, _ in right.control]
        assert numbers == sorted(set(numbers))


async def test_a_link_that_is_closed_under_it_ends_it() -> None:
    left, right = End(0), End(1)
    try:
        with pytest.RaisesGroup(trio.ClosedResourceError, flatten_subgroups=True), trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                await nursery.start(left.dataplane.run)
                key(left, right)
                left.link.close()
                while True:
                    await left.tun.inside.send(packet(1))
                    await trio.sleep(0.01)
    finally:
        left.close()
        right.close()


async def test_icmp_errors_make_no_loop_spin() -> None:
    """The queue of errors stays readable while Python is slow: it is looked at a thousand times a second, no more."""
    async with ends() as (left, _right):
        with socket.socket(type=socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            gone = Endpoint(*nobody.getsockname())
        key(left, Absent(gone))
        for number in range(500):
            await left.tun.inside.send(packet(number))
        await until(lambda: left.counters()["packets_read"] == 500)
        await until(lambda: left.dataplane.link_statistics().refused > 0)
        began, before = trio.current_time(), left.counters()["polls"]
        time.sleep(0.2)  # noqa: ASYNC251 (Python does nothing: that is what is tried here)
        polls = left.counters()["polls"] - before
        assert polls <= (trio.current_time() - began) * 1_000 + 50


async def test_a_lane_that_has_carried_much_sleeps_again() -> None:
    """It looks for more for a millisecond, and not for ever."""
    async with ends() as (left, right):
        key(left, right)
        await carry(left, right, [packet(number, octets=1_300) for number in range(1_000)])
        time.sleep(0.1)  # noqa: ASYNC251 (nothing comes: that is what is tried here)
        before = [end.counters()["polls"] for end in (left, right)]
        time.sleep(0.2)  # noqa: ASYNC251
        assert all(end.counters()["polls"] - polls < 10 for end, polls in zip((left, right), before, strict=True))


class Absent:
    """A peer that is not there."""

    mine = 1

    def __init__(self, at: Endpoint) -> None:
        self.at = at
        self.dataplane = self

    def allocate_spi(self) -> int:
        return 0x1234

    def install_inbound(self, _sa: object) -> None:
        pass


async def test_what_python_is_too_slow_for_is_counted_and_nothing_gets_stuck() -> None:
    async with ends() as (left, right):
        sent = 6_000
        left.tun.flood(packet(number, octets=800) for number in range(sent))
        await until(lambda: left.counters()["packets_read"] == sent)
        await until(lambda: sum(drops(left).values()) + left.dataplane.statistics().held["ipv4"] == sent)
        assert drops(left)[DropReason.ENGINE_BUSY] > 0
        assert Acquired("ipv4") in events(left)
        key(left, right)
        held = left.dataplane.statistics().sas[0].packets
        for _ in range(held):
            await right.tun.inside.recv(65_536)
        await carry(left, right, [packet(n) for n in range(100)])


async def test_it_stops_under_full_load() -> None:
    async with ends() as (left, right):
        key(left, right)

        async def flood(end: End) -> None:
            while True:
                await end.tun.inside.send(packet(1, octets=1_000))

        async def drain() -> None:
            while True:
                await right.tun.inside.recv(65_536)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, left)
                nursery.start_soon(drain)
                await until(lambda: right.counters()["packets_written"] > 1_000)
                nursery.cancel_scope.cancel()


async def test_news_that_find_no_room_are_not_lost() -> None:
    """More SAs have something to tell at once than there is room for: each is looked at."""
    async with ends() as (left, right):
        far = [ip_address(0x0A640000 + number) for number in range(1_100)]
        for number, address in enumerate(far):
            one = Selector(ip_network("10.0.1.0/24"), ip_network(address))
            left.dataplane.add_policy(Policy(str(number), one))
            left.dataplane.install_outbound(
                SaParameters(256 + number, SUITE, KEYMAT, str(number), one, right.at, Lifetime(soft_packets=1))
            )
        left.tun.flood(udp("10.0.1.1", str(address), (1, 2), b"") for address in far)
        told = set()
        with trio.fail_after(30):
            while len(told) < len(far):
                event = await left.dataplane.events.receive()
                if isinstance(event, SoftExpired):
                    told.add(event.policy)
        assert told == {str(number) for number in range(len(far))}


async def test_a_thread_that_sleeps_can_have_a_turn_and_one_that_is_stuck_cannot() -> None:
    """It hangs in a read of a device that has become one that makes its readers wait."""
    async with ends() as (left, right):
        for each in (left, right):
            polls = each.counters()["polls"]
            with trio.fail_after(30):
                await each.dataplane.wait_turn()
            assert each.counters()["polls"] > polls
        key(left, right)
        device, had = left.tun.of_queue(0), trio.Event()

        async def wait_turn() -> None:
            await left.dataplane.wait_turn()
            had.set()

        os.set_blocking(device, True)
        try:
            await left.tun.inside.send(packet(0))
            await until(lambda: left.counters()["packets_read"] == 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_turn)
                for _ in range(20):
                    await trio.sleep(0.001)
                    assert not had.is_set()
                os.set_blocking(device, False)
                await left.tun.inside.send(packet(1))
                with trio.fail_after(30):
                    await had.wait()
        finally:
            os.set_blocking(device, False)
            await left.tun.inside.send(packet(2))
