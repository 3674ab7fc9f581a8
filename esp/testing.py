"""In-memory TUN and links: honest fakes of :mod:`esp.tun` and :mod:`esp.link` for simulations and tests.

They keep the rules of the real ones: batches are bounded, nothing blocks, a full buffer refuses or loses, closing
wakes who waits. Time is Trio's, chance comes from a seed, so under ``trio.testing.MockClock`` a run is repeatable::

    here, there = memory_links(Endpoint("192.0.2.1", 4500), Endpoint("192.0.2.2", 4500))
    lossy = LossyLink(there, Weather(drop=0.25, delay=0.1), seed=7)
    tun = MemoryTun()
    ...
    tun.emit(packet)                      # what an application of the host sends
    packet = await tun.wait_delivered()   # what the host gets
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain, count
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from esp.datagram import Incoming, Outgoing, Run
from esp.offload import NO_OFFLOADS, Grant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.icmp import TooBig
    from esp.link import Link
    from esp.sa import Endpoint

# As many as the real ones take in a call (esp.tun.BATCH, esp.link.BATCH): code that forgets to ask again shows.
BATCH = 64

# A Linux TUN queues 500 packets by default (txqueuelen), a socket some thousands. Small enough to overflow in a test.
QUEUE = 512

# A wire of 100 ms at 400 Mbit/s holds that many full datagrams; a simulation that needs more is a benchmark.
UNDER_WAY = 4096

Item = TypeVar("Item")


class _Queue(Generic[Item]):
    """A bounded buffer that tasks wait on."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._changed = trio.Event()
        self.closed = False

    def put(self, item: Item) -> bool:
        """Append; False when it is full or closed and the item is lost."""
        if self.closed or len(self._items) >= QUEUE:
            return False
        self._items.append(item)
        self._changed.set()
        return True

    def take(self, most: int) -> list[Item]:
        return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._items and not self.closed:
            if self._changed.is_set():
                self._changed = trio.Event()
            await self._changed.wait()
        if self.closed:
            raise trio.ClosedResourceError

    def close(self) -> None:
        self.closed = True
        self._changed.set()


class MemoryTun:
    """A TUN whose host is the test: :meth:`emit` puts packets in, :meth:`wait_delivered` takes them out.

    Args:
        name: what :attr:`name` says.
        mtu: longest packet :meth:`emit` takes, in octets.
    """

    def __init__(self, name: str = "memory0", *, mtu: int = 1400) -> None:
        self.name = name
        self.mtu = mtu
        self.grant = Grant(NO_OFFLOADS)
        self._emitted: _Queue[bytes] = _Queue()
        self._delivered: _Queue[bytes] = _Queue()

    def emit(self, packet: bytes) -> bool:
        """The host sends ``packet``; False when the queue is full and it is lost, as in a real one.

        Raises:
            ValueError: longer than the MTU: a real host would have fragmented it.
        """
        if len(packet) > self.mtu:
            raise ValueError(f"{len(packet)} octets into an MTU of {self.mtu}")
        return self._emitted.put(packet)

    async def wait_delivered(self) -> bytes:
        """The next packet the host gets, when there is one."""
        while True:
            await self._delivered.wait()
            for packet in self._delivered.take(1):
                return packet

    def delivered_nowait(self) -> list[bytes]:
        """All packets the host got and nobody took yet."""
        return self._delivered.take(QUEUE)

    def receive(self) -> list[bytes]:
        """As :meth:`esp.tun.Tun.receive`."""
        return self._emitted.take(BATCH)

    def send(self, packets: Sequence[bytes]) -> int:
        """As :meth:`esp.tun.Tun.send`: refuses what is not IP, and what overflows the host's queue."""
        return sum(not (_is_ip(packet) and self._delivered.put(packet)) for packet in packets)

    def take_lost(self) -> int:
        """As :meth:`esp.tun.Tun.take_lost`: :meth:`emit` has told."""
        return 0

    async def wait_readable(self) -> None:
        """As :meth:`esp.tun.Tun.wait_readable`."""
        await self._emitted.wait()

    def close(self) -> None:
        """As :meth:`esp.tun.Tun.close`."""
        self._emitted.close()
        self._delivered.close()


def _is_ip(packet: bytes) -> bool:
    return bool(packet) and packet[0] >> 4 in (4, 6)


class MemoryLink:
    """One end of a wire: reaches the links it is connected to, each under its own endpoint.

    Args:
        local: its endpoint; the source of what it sends.
    """

    def __init__(self, local: Endpoint) -> None:
        self.local = (local,)
        self.grant = Grant(NO_OFFLOADS)
        self.refused = 0
        self.overflowed = 0  # datagrams lost because nobody read in time; a real socket keeps that to itself
        self._arrived: _Queue[Incoming] = _Queue()
        self._neighbours: dict[Endpoint, MemoryLink] = {}

    def connect(self, other: MemoryLink) -> None:
        """Lay a wire, both ways."""
        self._neighbours[other.local[0]] = other
        other._neighbours[self.local[0]] = self

    def move(self, local: Endpoint) -> None:
        """Change the endpoint, as a NAT does that forgot its mapping: neighbours see and reach the new one only."""
        for neighbour in self._neighbours.values():
            del neighbour._neighbours[self.local[0]]
            neighbour._neighbours[local] = self
        self.local = (local,)

    def arrive(self, datagram: bytes, source: Endpoint, traffic_class: int = 0) -> bool:
        """A datagram comes from anybody, forged source included; False when the buffer is full and it is lost."""
        kept = self._arrived.put(Incoming(datagram, source, traffic_class))
        self.overflowed += not kept
        return kept

    def receive(self) -> list[Incoming]:
        """As :meth:`esp.link.Link.receive`."""
        return self._arrived.take(BATCH)

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """As :meth:`esp.link.Link.send`: refuses what goes to nobody; what the receiver loses it does not see."""
        refused = 0
        for datagram, remote, traffic_class, *_ in datagrams:
            neighbour = self._neighbours.get(remote)
            if neighbour is None:
                refused += 1
            else:
                neighbour.arrive(datagram, self.local[0], traffic_class)
        self.refused += refused
        return refused

    def send_whole(self, datagram: bytes, remote: Endpoint) -> bool:
        """As :meth:`esp.link.Link.send_whole`: nothing is fragmented here."""
        return not self.send([Outgoing(datagram, remote)])

    def take_unreachable(self) -> set[Endpoint]:
        """As :meth:`esp.link.Link.take_unreachable`: nobody speaks ICMP here."""
        return set()

    def take_too_big(self) -> list[TooBig]:
        """As :meth:`esp.link.Link.take_too_big`: likewise."""
        return []

    async def wait_readable(self) -> None:
        """As :meth:`esp.link.Link.wait_readable`."""
        await self._arrived.wait()

    def close(self) -> None:
        """As :meth:`esp.link.Link.close`; what is sent here afterwards is lost."""
        self._arrived.close()


def memory_links(one: Endpoint, other: Endpoint) -> tuple[MemoryLink, MemoryLink]:
    """Two links with a wire between them."""
    first, second = MemoryLink(one), MemoryLink(other)
    first.connect(second)
    return first, second


@dataclass(frozen=True, slots=True)
class Weather:
    """What a network does to datagrams. Probabilities from 0 to 1, each datagram for itself; times in seconds.

    A datagram that is delayed is late by up to ``delay``, drawn evenly, and those behind it overtake it: that is the
    reordering.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay_probability: float = 0.0
    delay: float = 0.0


class LossyLink:
    """A link in bad weather: drops, duplicates and delays what arrives on another link. Sending passes unharmed.

    Wrap both ends for bad weather both ways. The same seed and the same arrivals give the same fate.

    Args:
        inner: the link below; this one owns it.
        weather: what to do to datagrams.
        seed: of the fate.
    """

    def __init__(self, inner: Link, weather: Weather, *, seed: int) -> None:
        self._inner = inner
        self._weather = weather
        self._random = Random(seed)  # noqa: S311 - must repeat, must not be secret
        self._order = count()
        self._due: list[tuple[float, int, Incoming]] = []
        self.dropped = self.duplicated = self.delayed = 0

    @property
    def local(self) -> tuple[Endpoint, ...]:
        """The inner link's."""
        return self._inner.local

    @property
    def grant(self) -> Grant:
        """The inner link's."""
        return self._inner.grant

    @property
    def refused(self) -> int:
        """The inner link's."""
        return self._inner.refused

    def receive(self) -> list[Incoming]:
        """What has come through by now, at most :data:`BATCH`."""
        self._weather_arrivals()
        arrived: list[Incoming] = []
        now = trio.current_time()
        while self._due and self._due[0][0] <= now and len(arrived) < BATCH:
            arrived.append(heappop(self._due)[2])
        return arrived

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """The inner link's."""
        return self._inner.send(datagrams)

    def send_whole(self, datagram: bytes, remote: Endpoint) -> bool:
        """The inner link's."""
        return self._inner.send_whole(datagram, remote)

    def take_unreachable(self) -> set[Endpoint]:
        """As :meth:`esp.link.Link.take_unreachable`."""
        return self._inner.take_unreachable()

    def take_too_big(self) -> list[TooBig]:
        """As :meth:`esp.link.Link.take_too_big`."""
        return self._inner.take_too_big()

    async def wait_readable(self) -> None:
        """Return when something has come through."""
        await trio.lowlevel.checkpoint()
        while True:
            self._weather_arrivals()
            due = self._due[0][0] if self._due else float("inf")
            if due <= trio.current_time():
                return
            with trio.move_on_at(due):
                await self._inner.wait_readable()

    def close(self) -> None:
        """Close the inner link; what is still under way is lost."""
        self._due.clear()
        self._inner.close()

    def _weather_arrivals(self) -> None:
        now, chance = trio.current_time(), self._random.random
        for incoming in chain.from_iterable(map(_one_by_one, self._inner.receive())):
            if chance() < self._weather.drop or len(self._due) >= UNDER_WAY:
                self.dropped += 1
                continue
            copies = 1 + (chance() < self._weather.duplicate)
            self.duplicated += copies - 1
            for _ in range(copies):
                late = chance() < self._weather.delay_probability
                self.delayed += late
                due = now + self._random.uniform(0, self._weather.delay) * late
                heappush(self._due, (due, next(self._order), incoming))


def _one_by_one(arrived: Incoming | Run) -> list[Incoming]:
    """Bad weather is nothing that happens to a whole run."""
    return arrived.split() if isinstance(arrived, Run) else [arrived]
