"""A terrible network on Trio's clock: every datagram's fate comes out of one seed, and every datagram is kept.

Two things make a run repeatable. The clock is a ``MockClock`` that jumps when nobody has anything to do. And the order
in which Trio runs the tasks of one batch is a function of the seed: Trio shuffles that order on purpose, and offers one
way to make the shuffle repeat, the one that its Hypothesis plugin uses (``trio._core._run._hypothesis_plugin_setup``):
``_ALLOW_DETERMINISTIC_SCHEDULING`` sorts each batch by task before the shuffle, and ``_r`` is where the shuffle draws
from. ``repeatable`` sets both for one run. They are private to Trio; test_network.py notices when they move.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
import trio._core._run as scheduler

from esp.sa import Endpoint
from esp.testing import MemoryLink
from esp.wire import NON_ESP_MARKER
from kinkvpn.proto.events import Path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esp.datagram import Outgoing
    from kinkvpn.wire.kink import MessageType

# More than any scenario has under way at once; a loop that feeds itself ends in an assertion and not in swap.
MOST_UNDER_WAY = 20_000
# As a real socket's buffer: what nobody reads in time is lost.
MOST_WAITING = 512


@contextmanager
def repeatable(seed: object) -> Iterator[None]:
    """Let Trio order the tasks of a batch by ``seed``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        patch.setattr(scheduler, "_r", Random(f"scheduler {seed}"))
        yield


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to datagrams: probabilities, each datagram and each misfortune for itself; times in seconds.

    Args:
        drop: it is lost.
        duplicate: it comes twice, each copy with delays of its own.
        delay: it is late by up to ``longest``; retransmissions overtake it.
        reorder: those up to four ``latency`` behind it overtake it.
        latency: what every datagram takes.
        longest: of the delays.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    latency: float = 0.01
    longest: float = 3.0


CALM = Weather()
TERRIBLE = Weather(drop=0.25, duplicate=0.25, delay=0.25, reorder=0.25)
REORDERING = Weather(delay=0.25, reorder=0.25, longest=0.5)


class Flight(NamedTuple):
    """A datagram that was sent."""

    datagram: bytes
    source: Endpoint
    destination: Endpoint


@dataclass(slots=True)
class Nat:
    """Translates for one inside address: a mapping for each inside port, the same towards everybody (RFC 4787 §4.1),
    which lets in only those that were sent to (§5, address and port dependent), and only outbound datagrams keep it
    alive (§4.3).

    Args:
        inside, outside: addresses.
        lifetime: seconds that a mapping lasts without an outbound datagram.
        next_port: of the next mapping.
    """

    inside: str
    outside: str
    lifetime: float = 30.0
    next_port: int = 20_000
    _mappings: dict[int, tuple[Endpoint, float, set[Endpoint]]] = field(default_factory=dict)  # by inside port

    def rebind(self, outside: str = "") -> None:
        """Forget every mapping, as after a restart; and have another address, if one is given."""
        self._mappings.clear()
        self.outside = outside or self.outside

    def outward(self, source: Endpoint, destination: Endpoint, now: float) -> Endpoint:
        """What ``source`` looks like from outside."""
        found, sent, others = self._mappings.get(source.port, (Endpoint("", 0), -self.lifetime, set()))
        if now >= sent + self.lifetime:
            found, others = Endpoint(self.outside, self.next_port), set()
            self.next_port += 1
        self._mappings[source.port] = (found, now, others | {destination})
        return found

    def inward(self, source: Endpoint, destination: Endpoint, now: float) -> Endpoint | None:
        """Whom ``destination`` stands for; None if nobody inside expects ``source``."""
        for port, (outside, sent, others) in self._mappings.items():
            if outside == destination and source in others and now < sent + self.lifetime:
                return Endpoint(self.inside, port)
        return None


def kind_is(flight: Flight, kind: MessageType) -> bool:
    """Whether ``flight`` is a KINK message of that type; Type is its first octet (RFC 4430 §4)."""
    return flight.datagram.removeprefix(NON_ESP_MARKER)[:1] == bytes([kind])


@dataclass(slots=True)
class Network:
    """Delivers datagrams between endpoints, or does not.

    Args:
        seed: of every fate.
        weather: may be changed while it runs.
        cut: addresses between which nothing passes, (from, to).
        filtered: ports to and from which nothing passes.
        unheard: types of KINK message that nobody receives.
        nats: on the way; what is captured is what passes outside of them.
        captured: everything that was ever sent, oldest first.
        arrived: what of it somebody received.
        trace: a line for everything that was sent and what became of it; others may add theirs.
    """

    seed: object
    weather: Weather = CALM
    cut: set[tuple[str, str]] = field(default_factory=set)
    filtered: set[int] = field(default_factory=set)
    unheard: set[MessageType] = field(default_factory=set)
    nats: list[Nat] = field(default_factory=list)
    captured: list[Flight] = field(default_factory=list)
    arrived: set[Flight] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)
    _chance: Random = field(init=False)
    _receivers: dict[Endpoint, Callable[[bytes, Endpoint], bool]] = field(default_factory=dict)
    _under_way: list[tuple[float, int, Flight]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)
    _sent: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self._chance = Random(f"network {self.seed}")

    def attach(self, endpoint: Endpoint, receiver: Callable[[bytes, Endpoint], bool]) -> None:
        """From now on ``receiver`` is given what arrives at ``endpoint``; it returns whether it could keep it."""
        self._receivers[endpoint] = receiver

    def detach(self, endpoint: Endpoint) -> None:
        """What arrives at ``endpoint`` from now on is lost."""
        del self._receivers[endpoint]

    def note(self, line: str) -> None:
        """Add to the trace, with the time."""
        self.trace.append(f"{trio.current_time():.6f} {line}")

    @property
    def digest(self) -> str:
        """Of the trace: two runs with the same one are the same."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def send(self, datagram: bytes, source: Endpoint, destination: Endpoint) -> None:
        """Decide what becomes of ``datagram``."""
        for nat in self.nats:
            if nat.inside == source.address:
                source = nat.outward(source, destination, trio.current_time())
        flight = Flight(datagram, source, destination)
        self.captured.append(flight)
        self._let_go(flight, "")

    def sent_of(self, kind: MessageType) -> list[Flight]:
        """What was ever sent of that KINK message type, oldest first."""
        return [flight for flight in self.captured if kind_is(flight, kind)]

    def replay(self, flight: Flight) -> None:
        """Somebody on the path sends a captured datagram once more."""
        self._let_go(flight, "replay ")

    def _let_go(self, flight: Flight, how: str) -> None:
        now = trio.current_time()
        arrivals = [] if self._stopped(flight) else self._fates(now)
        if arrivals and min(arrivals) < self._next:
            self._sent.set()
        for time in arrivals:
            heapq.heappush(self._under_way, (time, next(self._order), flight))
        assert len(self._under_way) <= MOST_UNDER_WAY, "somebody answers answers"
        name = hashlib.sha256(flight.datagram).hexdigest()[:16]
        fate = " ".join(f"{time:.6f}" for time in arrivals) or "lost"
        source, destination = (":".join(map(str, end)) for end in (flight.source, flight.destination))
        self.note(f"{how}{source} > {destination} {len(flight.datagram)} {name}: {fate}")

    def _stopped(self, flight: Flight) -> bool:
        if not self.filtered.isdisjoint((flight.source.port, flight.destination.port)):
            return True
        if any(kind_is(flight, kind) for kind in self.unheard):
            return True
        return (flight.source.address, flight.destination.address) in self.cut

    def _fates(self, now: float) -> list[float]:
        weather, chance = self.weather, self._chance
        if chance.random() < weather.drop:
            return []
        copies = 1 + (chance.random() < weather.duplicate)
        return [now + self._late(weather) for _ in range(copies)]

    def _late(self, weather: Weather) -> float:
        late = weather.latency
        if self._chance.random() < weather.delay:
            late += self._chance.uniform(0, weather.longest)
        if self._chance.random() < weather.reorder:
            late += self._chance.uniform(1, 4) * weather.latency
        return late

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            now = trio.current_time()
            while self._under_way and self._under_way[0][0] <= now:
                flight = heapq.heappop(self._under_way)[2]
                receiver = self._receivers.get(self._inside(flight, now))
                if receiver is not None and receiver(flight.datagram, flight.source):
                    self.arrived.add(flight)
                else:
                    self.note(f"nobody takes it at {flight.destination.address}:{flight.destination.port}")
            self._sent = trio.Event()
            with trio.move_on_at(self._next):
                await self._sent.wait()

    @property
    def _next(self) -> float:
        """When somebody receives something."""
        return self._under_way[0][0] if self._under_way else math.inf

    def _inside(self, flight: Flight, now: float) -> Endpoint:
        for nat in self.nats:
            if nat.outside == flight.destination.address:
                return nat.inward(flight.source, flight.destination, now) or flight.destination
        return flight.destination


class NetworkTransport:
    """A UDP socket on a ``Network``, as ``kinkvpn.service.transport.Transport`` wants it."""

    def __init__(self, network: Network, local: Endpoint) -> None:
        self.local = local
        self._network = network
        self._sender, self._receiver = trio.open_memory_channel[tuple[bytes, Path]](MOST_WAITING)
        network.attach(local, self._arrive)

    def _arrive(self, datagram: bytes, source: Endpoint) -> bool:
        try:
            self._sender.send_nowait((datagram, Path(source)))
        except trio.WouldBlock:
            return False
        return True

    async def receive(self) -> list[tuple[bytes, Path]]:
        """The next datagram and the path it came by."""
        return [await self._receiver.receive()]

    def send(self, datagram: bytes, path: Path) -> None:
        """Send now."""
        self._network.send(datagram, self.local, path.remote)

    def close(self) -> None:
        """Nobody listens here any more."""
        self._network.detach(self.local)


class NetworkLink(MemoryLink):
    """A link whose wire is a ``Network``."""

    def __init__(self, network: Network, local: Endpoint) -> None:
        super().__init__(local)
        self._network = network
        network.attach(local, self.arrive)

    def send(self, datagrams: Sequence[Outgoing]) -> int:
        """As ``esp.link.Link.send``; what the network loses is not refused."""
        for datagram, remote, *_ in datagrams:
            self._network.send(datagram, self.local[0], remote)
        return 0

    def close(self) -> None:
        """Nobody listens here any more."""
        self._network.detach(self.local[0])
        super().close()
