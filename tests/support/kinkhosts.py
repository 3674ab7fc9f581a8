"""Hosts with everything of ``kinkvpn.proto`` in them, on one wire and one clock, without Trio and without sockets.

What ``service.keying`` does with effects is done here in the plainest way, so that what is tested is the machines.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from esp.policy import Selector
from esp.sa import Endpoint, SaParameters
from kinkvpn.errors import MalformedMessage
from kinkvpn.kerberos.fake import FakeKerberos, FakeRealm, FakeTicket
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.key_exchange import KeyExchanges
from kinkvpn.proto.acquaintance import ALONE, Ourselves
from kinkvpn.proto.events import (
    ConfirmPath,
    Count,
    Effect,
    FetchTicket,
    FollowPeer,
    InstallInbound,
    InstallOutbound,
    LimitMtu,
    Path,
    RemoveInbound,
    RemoveOutbound,
    SendMessage,
    Tally,
    Tell,
    WakeAt,
)
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.responder import Responder
from kinkvpn.proto.settings import PeerSettings, PolicySettings
from kinkvpn.wire.kink import MessageType, parse_message

if TYPE_CHECKING:
    from collections.abc import Callable

# POSIX seconds at which every wire's clock starts.
POSIX = 1_700_000_000.0
LATENCY = 0.01


def policy(near: str = "a", name: str = "net", **changes: Any) -> PolicySettings:
    """10.1/16 is behind host a, 10.2/16 behind host b."""
    nets = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
    local, remote = nets if near == "a" else nets[::-1]
    return PolicySettings(name, **{"selector": Selector(local, remote), **changes})


def policies(near: str, count: int, **changes: Any) -> tuple[PolicySettings, ...]:
    """Of one entry: 10.1.n/24 is behind host a, 10.2.n/24 behind host b."""
    made = []
    for number in range(count):
        nets = ip_network(f"10.1.{number}.0/24"), ip_network(f"10.2.{number}.0/24")
        selector = Selector(*(nets if near == "a" else nets[::-1]))
        made.append(PolicySettings(f"net{number}", **{"selector": selector, "entry": "net", **changes}))
    return tuple(made)


def principal(name: str) -> str:
    return f"kink/{name}@TEST"


def settings(name: str, *policies: PolicySettings, **changes: Any) -> PeerSettings:
    """Host ``name`` as its peer has configured it."""
    address = f"192.0.2.{ord(name) - 96}"
    return PeerSettings(name, principal(name), Endpoint(address, 910), Endpoint(address, 4500), policies, **changes)


class Host:
    """One host and its one peer.

    Args:
        wire: what it hangs on.
        name: its letter.
        peer: the other end as configured here.
        skew: how far its clock is from the wire's, in seconds.
        epoch: of its SA state.
        keytab: whether it has a key of its own; without it there is user-to-user alone.
        tgt: whether it offers user-to-user.
    """

    def __init__(
        self,
        wire: Wire,
        name: str,
        peer: PeerSettings,
        *,
        skew: float = 0.0,
        epoch: int = 1,
        keytab: bool = True,
        tgt: bool = False,
        ourselves: Ourselves = ALONE,
    ) -> None:
        self.wire = wire
        self.name = name
        self.packet_at: float | None = None  # when ESP last heard from the peer
        self.endpoint = settings(name).kink
        self.random = random.Random(f"{name}{epoch}{wire.seed}")
        self.realm = FakeRealm(wire.realm.names, clock=lambda: wire.posix() + skew, random=self.random.randbytes)
        self.kerberos = FakeKerberos(wire.realm, principal(name), keytab=keytab)
        if tgt:
            self.kerberos.renew_tgt()
        self.xids = itertools.count(self.random.getrandbits(16))
        self.peer = Peer(
            peer,
            principal=principal(name),
            epoch=epoch,
            kerberos=self.kerberos,
            random=self.random.randbytes,
            allocate_spi=self.allocate_spi,
            next_xid=lambda: next(self.xids),
            packet_at=lambda: self.packet_at,
            key_exchange=KeyExchanges(),
            ourselves=ourselves,
        )
        self.responder = Responder(kerberos=self.kerberos, peers={peer.principal: self.peer}, epoch=epoch)
        self.cached: dict[bytes | None, FakeTicket] = {}
        self.reserved: set[int] = set()
        self.inbound: dict[int, SaParameters] = {}
        self.outbound: dict[int, SaParameters] = {}  # the newest last
        self.counts: Counter[Tally] = Counter()
        self.told: list[Tell] = []
        self.limits: list[LimitMtu] = []
        self.paths: list[ConfirmPath] = []
        wire.hosts[self.endpoint.address] = self

    def allocate_spi(self) -> int:
        spi = self.random.randrange(256, 2**32)
        self.reserved.add(spi)
        return spi

    def ticket(self, server: str, *, fresh: bool = False, tgt: bytes | None = None) -> FakeTicket:
        if tgt not in self.cached or fresh:
            self.cached[tgt] = replace(self.wire.realm.issue(principal(self.name), server, tgt), realm=self.realm)
        return self.cached[tgt]

    def receive(self, datagram: bytes, source: Endpoint) -> list[Effect]:
        """Let the machines see ``datagram``, without performing anything."""
        now = self.wire.now
        try:
            message = parse_message(datagram)
        except MalformedMessage as malformed:
            return self.responder.refuse(malformed, datagram, Path(source), now)
        if message.type is MessageType.REPLY:
            return self.peer.replied(message, datagram, now, Path(source))
        return self.responder.receive(message, datagram, Path(source), now)

    def wake(self) -> list[Effect]:
        return self.peer.wake(self.wire.now) + self.responder.wake(self.wire.now)

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage(datagram, path):
                    self.wire.send(self, datagram, path.remote)
                case WakeAt(time):
                    self.wire.later(time, lambda: self.perform(self.wake()))
                case FetchTicket():
                    self.wire.later(self.wire.now + LATENCY, lambda wanted=effect: self.fetch(wanted))
                case InstallInbound(sa):
                    assert sa.spi in self.reserved or sa.spi in self.inbound
                    self.reserved.discard(sa.spi)
                    self.inbound[sa.spi] = sa
                case InstallOutbound(sa):
                    assert sa.spi not in self.outbound
                    assert sa.spi >= 256
                    self.outbound[sa.spi] = sa
                case RemoveInbound(spi):
                    self.reserved.discard(spi)
                    self.inbound.pop(spi, None)
                case RemoveOutbound(_, spi):
                    del self.outbound[spi]
                case LimitMtu():
                    self.limits.append(effect)
                case ConfirmPath():
                    self.paths.append(effect)
                case FollowPeer(name, remote):
                    for sas in (self.inbound, self.outbound):
                        for sa in [sa for sa in sas.values() if sa.policy == name]:
                            sas[sa.spi] = replace(sa, remote=remote)
                case Count(tally):
                    self.counts[tally] += 1
                case Tell():
                    self.told.append(effect)

    def fetch(self, wanted: FetchTicket) -> None:
        try:
            ticket = self.ticket(wanted.server, fresh=wanted.fresh, tgt=wanted.tgt)
        except TicketUnavailable as unavailable:
            self.perform(self.peer.ticket_refused(wanted.xid, unavailable.refusal, self.wire.now))
        else:
            self.perform(self.peer.ticket_ready(wanted.xid, ticket, self.wire.now))

    def events(self, name: str) -> list[Tell]:
        return [tell for tell in self.told if tell.event == name]


class Realm(FakeRealm):
    """A fake realm that knows its names."""

    def __init__(self, names: set[str], **rest: Any) -> None:
        super().__init__(names, **rest)
        self.names = names


class Wire:
    """A network with a latency; ``meddle`` decides what becomes of each datagram: a list of what arrives instead."""

    def __init__(self, seed: int = 0, names: str = "abx") -> None:
        self.seed = seed
        self.now = 0.0
        self.latency = LATENCY
        self.hosts: dict[str, Host] = {}
        self.realm = Realm({principal(name) for name in names}, clock=self.posix, random=random.Random(seed).randbytes)
        self.log: list[tuple[str, str, bytes]] = []  # sender, type, datagram
        self.meddle: Callable[[Host, bytes], list[bytes]] = lambda sender, datagram: [datagram]
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def posix(self) -> float:
        return POSIX + self.now

    def later(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(time, self.now), next(self._order), what))

    def send(self, sender: Host, datagram: bytes, to: Endpoint) -> None:
        self.log.append((sender.name, parse_message(datagram).type.name, datagram))
        for arriving in self.meddle(sender, datagram):
            self.later(self.now + self.latency, lambda octets=arriving: self.deliver(octets, sender.endpoint, to))

    def deliver(self, datagram: bytes, source: Endpoint, to: Endpoint) -> None:
        host = self.hosts.get(to.address)
        if host is not None:
            host.perform(host.receive(datagram, source))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self._queue)
            what()
        self.now = until

    def kinds(self) -> list[tuple[str, str]]:
        """Who sent what."""
        return [(sender, kind) for sender, kind, _ in self.log]


def two_hosts(
    wire: Wire, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None, **peers: Any
) -> tuple[Host, Host]:
    """Hosts a and b with one policy each, changed as said; ``peers`` changes both PeerSettings."""
    return (
        Host(wire, "a", settings("b", policy("a", **(a or {})), **peers)),
        Host(wire, "b", settings("a", policy("b", **(b or {})), **peers)),
    )


def assert_twins(a: Host, b: Host, pairs: int) -> None:
    """Both ends have exactly ``pairs`` pairs of SAs, the same ones, with the same keys and suites."""
    assert len(a.outbound) == len(b.outbound) == len(a.inbound) == len(b.inbound) == pairs
    assert a.reserved == b.reserved == set()
    for sender, receiver in ((a, b), (b, a)):
        assert set(sender.outbound) == set(receiver.inbound)
        for spi, sa in sender.outbound.items():
            twin = receiver.inbound[spi]
            assert (sa.keymat, sa.suite, sa.mode, sa.encapsulation) == (
                twin.keymat,
                twin.suite,
                twin.mode,
                twin.encapsulation,
            )
            assert (sa.selector.local, sa.selector.remote) == (twin.selector.remote, twin.selector.local)
    for name in a.peer.policies:
        assert {pair.inbound_spi for pair in a.peer.pairs(name)} == {pair.outbound_spi for pair in b.peer.pairs(name)}
