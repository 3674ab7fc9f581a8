"""Four queues between real hosts: whose packets go where, and that nothing is lost by it or mixed up."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from support.namespaces import within
from support.sites import FAMILIES, LEFT, RIGHT, Site, sa, sites

from esp.errors import DropReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.root

QUEUES = 4
PORT = 7
OCTETS = 300_000
# Those that a packet in flight meets while its SA is replaced, and what a host says of its own accord.
EXPECTED = {DropReason.UNKNOWN_SPI, DropReason.NO_POLICY, DropReason.HOLD_EXPIRED, DropReason.HOLD_QUEUE_FULL}


class Keys:
    """SAs between two sites, both ways: one for each queue, or one that all share.

    Args:
        left, right: the sites.
        per_queue: which.
    """

    def __init__(self, left: Site, right: Site, *, per_queue: bool) -> None:
        self._sites = (left, right)
        self._queues: list[int | None] = [*range(QUEUES)] if per_queue else [None]
        self._standing: dict[tuple[int, str, int | None], list[int]] = {}

    def install(self) -> None:
        """A new SA in place of each; the one before it may have packets on their way, and the one before that goes."""
        for mine, (sender, receiver) in enumerate((self._sites, self._sites[::-1])):
            for family in FAMILIES:
                for queue in self._queues:
                    self._install(mine, sender, receiver, family, queue)

    def _install(self, mine: int, sender: Site, receiver: Site, family: str, queue: int | None) -> None:
        spi = self._spi(receiver, queue)
        receiver.dataplane.install_inbound(sa(spi, family, 1 - mine, (LEFT, RIGHT)[mine]))
        sender.dataplane.install_outbound(replace(sa(spi, family, mine, (LEFT, RIGHT)[1 - mine]), queue=queue))
        standing = self._standing.setdefault((mine, family, queue), [])
        standing.append(spi)
        if len(standing) > 1:
            sender.dataplane.remove_outbound(family, standing[-2])
        if len(standing) > 2:
            receiver.dataplane.remove_inbound(standing.pop(0))

    def _spi(self, receiver: Site, queue: int | None) -> int:
        """One that comes to the queue of the same number at the other end."""
        while True:
            spi = receiver.dataplane.allocate_spi()
            if queue is None or spi % QUEUES == queue:
                return spi
            receiver.dataplane.release_spi(spi)


def passed(site: Site) -> list[tuple[int, int]]:
    """Packets that each lane has sealed, and opened."""
    return site.dataplane._native.lanes.passed()


def everywhere(*hosts: Site) -> bool:
    """Whether every lane has carried something, both ways."""
    return all(packets > 0 for host in hosts for lane in passed(host) for packets in lane)


def inside(family: str, mine: int) -> str:
    return str(ip_network(FAMILIES[family][mine])[1])


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(address: str) -> socket.socket:
    return socket.socket(family_of(address), socket.SOCK_STREAM)


def listening(site: Site, address: str) -> trio.SocketListener:
    """A server inside ``site``."""
    made = within(site.net, lambda: tcp(address))
    made.bind((address, PORT))
    made.listen(64)
    return trio.SocketListener(trio.socket.from_stdlib_socket(made))


async def echo(stream: trio.SocketStream) -> None:
    """Every octet back."""
    async for octets in stream:
        await stream.send_all(octets)
    await stream.send_eof()


async def stream_through(site: Site, address: str, seed: int) -> None:
    """``OCTETS`` to the echo at ``address`` and back, and the same ones."""
    octets = Random(seed).randbytes(OCTETS)
    connection = trio.socket.from_stdlib_socket(within(site.net, lambda: tcp(address)))
    await connection.connect((address, PORT))
    back = sha256()
    async with trio.SocketStream(connection) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(octets)
            await stream.send_eof()

        nursery.start_soon(send)
        async for part in stream:
            back.update(part)
    assert back.digest() == sha256(octets).digest()


@asynccontextmanager
async def running(left: Site, right: Site) -> AsyncIterator[trio.Nursery]:
    """Both at work, and an echo inside the right one."""
    async with trio.open_nursery() as nursery:
        for site in (left, right):
            await nursery.start(site.dataplane.run)
        for family in FAMILIES:
            nursery.start_soon(trio.serve_listeners, echo, [listening(right, inside(family, 1))])
        yield nursery
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("per_queue", [True, False], ids=["an SA for each queue", "one for all"])
async def test_streams_arrive_whole_by_all_queues_while_keys_change(per_queue: bool) -> None:
    with sites("native", QUEUES) as (left, right), trio.fail_after(60):
        keys = Keys(left, right, per_queue=per_queue)
        keys.install()
        async with running(left, right) as nursery:

            async def rekey() -> None:
                while True:
                    await trio.sleep(0.05)
                    keys.install()

            nursery.start_soon(rekey)
            seeds = count()
            for wave in count():
                async with trio.open_nursery() as streams:
                    for address in (inside("ipv4", 1), inside("ipv6", 1)):
                        for _ in range(4):
                            streams.start_soon(stream_through, left, address, next(seeds))
                # What has one SA comes in by one queue, and the kernel sends the answers of a flow by the queue that it
                # came in by. With one for each queue there is traffic everywhere, sooner or later.
                if wave >= 1 and (not per_queue or everywhere(left, right)):
                    break
        for site in (left, right):
            statistics = site.dataplane.statistics()
            assert statistics.drops.keys() <= EXPECTED
            lanes = passed(site)
            assert statistics.packets_out >= sum(out for out, _ in lanes) > 0
            assert statistics.packets_in >= sum(come for _, come in lanes) > 0
            # Each packet is counted once for its SA and once for its lane, SAs that have gone aside.
            assert sum(each.packets for each in statistics.sas) <= statistics.packets_out + statistics.packets_in
        assert everywhere(left, right) == per_queue or not per_queue


async def test_a_queue_without_an_sa_of_its_own_uses_that_of_all() -> None:
    with sites("native", QUEUES) as (left, right), trio.fail_after(60):
        shared = Keys(left, right, per_queue=False)
        shared.install()
        async with running(left, right):
            own = Keys(left, right, per_queue=True)
            own._queues = [1, 2]
            own.install()
            carried: set[str | int] = set()
            for seed in count():
                await stream_through(left, inside("ipv4", 1), seed)
                sas = [each for each in left.dataplane.statistics().sas if not each.inbound and each.policy == "ipv4"]
                carried = {each.spi for each in sas if each.packets}
                if len(carried) == 3:  # those of two queues, and that of the two others
                    break
        assert left.dataplane.statistics().drops.keys() <= EXPECTED


async def test_control_comes_up_by_any_queue() -> None:
    with sites("native", QUEUES) as (left, right), trio.fail_after(30):
        Keys(left, right, per_queue=True).install()
        async with running(left, right):
            for number in range(8):
                left.dataplane.send_control(b"%d" % number, RIGHT)
            while len(right.control) < 8:  # noqa: ASYNC110 - there is nothing that tells of it
                await trio.sleep(0.01)
        assert right.control == [(b"%d" % number, LEFT) for number in range(8)]
        assert right.dataplane.link_statistics().control_received == 8
