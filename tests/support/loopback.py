"""Two native data planes on this host's loopback, without root: real sockets, and socket pairs for TUNs."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio
from support.sites import dataplane_of, sa

from esp.link import UdpLink
from esp.offload import NO_OFFLOADS, OF_TUN, Grant
from esp.sa import Endpoint, Lifetime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from esp.native.dataplane import NativeDataplane

FOREVER = Lifetime()


class PairTun:
    """What a native data plane takes for a TUN without offloads; ``inside`` is the host's end."""

    name = "pair"
    vnet = False
    hardware = b""

    def __init__(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setblocking(False)
        for each in (here, there):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._here, self._there = here, there
        self.inside = trio.socket.from_stdlib_socket(there)
        self.grant = Grant(NO_OFFLOADS, OF_TUN)
        self.offloads = self.grant.offloads

    def of_queue(self, queue: int) -> int:
        return self._here.fileno()

    def send(self, packets: Sequence[bytes]) -> int:
        refused = 0
        for packet in packets:
            try:
                self._here.send(packet)
            except OSError:
                refused += 1
        return refused

    def take_lost(self) -> int:
        return 0

    def flood(self, packets: Iterable[bytes]) -> None:
        """Have the host send ``packets`` without a pause in which Python could look at anything else."""
        self._there.setblocking(True)
        for packet in packets:
            self._there.send(packet)
        self._there.setblocking(False)

    def close(self) -> None:
        self._here.close()
        self.inside.close()


@dataclass
class End:
    """One of the two."""

    mine: int
    tun: PairTun = field(default_factory=PairTun)
    link: UdpLink = field(default_factory=lambda: UdpLink.bind(0, ("127.0.0.1",)))
    control: list[tuple[bytes, Endpoint]] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = dataplane_of(self.tun, self.link, self.mine, lambda *come: self.control.append(come), engine="native")
        self.dataplane: NativeDataplane = made

    @property
    def at(self) -> Endpoint:
        """Where it is."""
        return self.link.local[0]

    def counters(self) -> dict[str, int]:
        """Of its loop."""
        return self.dataplane._loops[0].counters()

    async def received(self, datagrams: int) -> None:
        """Wait until so many have come."""
        await until(lambda: self.counters()["datagrams_received"] == datagrams)

    async def controlled(self, datagrams: int) -> None:
        """Wait until so many of them were control."""
        await until(lambda: len(self.control) >= datagrams)

    def close(self) -> None:
        self.tun.close()
        self.link.close()


def key(sender: End, receiver: End, family: str = "ipv4", lifetime: Lifetime = FOREVER, **changes: object) -> int:
    """An SA from the one to the other; its SPI."""
    spi = receiver.dataplane.allocate_spi()
    receiver.dataplane.install_inbound(replace(sa(spi, family, receiver.mine, sender.at), **changes))
    there = replace(sa(spi, family, sender.mine, receiver.at, lifetime), **changes)
    sender.dataplane.install_outbound(there)
    return spi


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End]]:
    """Both at work while the block runs."""
    made = End(0), End(1)
    try:
        async with trio.open_nursery() as nursery:
            for each in made:
                await nursery.start(each.dataplane.run)
            with suppress(trio.Cancelled):
                yield made
            nursery.cancel_scope.cancel()
    finally:
        for each in made:
            each.close()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for it, on a machine that is busy."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (a thread without Python brings it about)
            await trio.sleep(0.002)
