"""Routes datagrams and engine events to the machines, and performs the effects they return. Decides nothing.

Every machine runs inside one task's turn: an event goes in, its effects are performed to the last one, and only then
is the next event looked at. The single thing that takes time, a trip to the KDC, is a task of its own that comes back
as an event. Whatever goes in passes one door (``_turn``), so that a defect of this program costs that turn alone.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

import trio

from esp.errors import UnknownSa
from esp.events import (
    Acquired,
    CounterExhausted,
    EndpointMoved,
    EspEvent,
    HardExpired,
    LargeSent,
    OffloadRefused,
    PathNarrowed,
    PayloadsLost,
    SoftExpired,
    Unanswered,
    UnknownSpiSeen,
    UnreachableReported,
)
from kinkvpn.errors import KinkvpnError, MalformedMessage
from kinkvpn.proto import labels
from kinkvpn.proto.acquaintance import ALONE, Ourselves
from kinkvpn.proto.contact import UNLOCATED
from kinkvpn.proto.events import (
    ConfirmPath,
    Count,
    Effect,
    Family,
    FetchTicket,
    FollowPeer,
    InstallInbound,
    InstallOutbound,
    Label,
    LimitMtu,
    RemoveInbound,
    RemoveOutbound,
    SendMessage,
    Tally,
    Tell,
    WakeAt,
)
from kinkvpn.proto.outcome import Failed
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.ports import TicketRefusal
from kinkvpn.proto.responder import Responder, nobody
from kinkvpn.wire.kink import MessageType, parse_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from esp.policy import Network
    from esp.sa import Endpoint, SaParameters
    from kinkvpn.api import answers
    from kinkvpn.proto.events import Path
    from kinkvpn.proto.lease import Address
    from kinkvpn.proto.ports import AcceptedRequest, Kerberos, KeyExchange, Ticket
    from kinkvpn.proto.quick_mode import SaPair
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.service.ports import DataPlane, Tickets
    from kinkvpn.service.transport import Transport

from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.service.counts import Counts
from kinkvpn.service.inner_mtus import InnerMtus, left_alone
from kinkvpn.service.presence import Presence
from kinkvpn.service.report import policy_status
from kinkvpn.service.roster import Roster
from kinkvpn.service.xids import Xids

log = logging.getLogger(__name__)

# Made once: a label for each message that comes or goes.
_RECEIVED = {kind: Label(Family.MESSAGES_RECEIVED, kind.name.lower()) for kind in MessageType}
_SENT = {int(kind): Label(Family.MESSAGES_SENT, kind.name.lower()) for kind in MessageType}
_TICKET_READY = Label(Family.TICKETS, "ready")

# Ours. How long a KDC may take before an exchange gives up on its ticket; the configuration can change it.
TICKET_DEADLINE = 5.0
# Ours. What a timer was to do and went wrong on is tried again: the same will go wrong perhaps, and whatever else of
# that peer is due then goes right.
TIMER_RETRY = 10.0


@dataclass(slots=True)
class Turn:
    """Whether what went in has met a defect of this program."""

    failed: bool = False


class ProbeFailed(KinkvpnError):
    """A STATUS got no good answer."""


class RekeyFailed(KinkvpnError):
    """Pairs that an operator asked for did not come about."""


class Keying:
    """The KINK side of a running host.

    Args:
        principal: ours.
        peers: whom to talk to.
        kerberos: accepts AP-REQs.
        tickets: service tickets for our commands.
        transport: UDP port 910, or what stands for it.
        dataplane: where SAs go, and events come from.
        epoch: low 32 bits of the POSIX time at which our SA state began (RFC 4430 §4.2.1).
        random: octets.
        key_exchange: makes private keys for PFS; None where this host does none.
        ticket_deadline: seconds that the KDC may take.
        ourselves: what there is to tell peers beyond RFC 4430.
        door: who some machine of somebody's is to be that is no peer, or says that it has other addresses than it was
            lent; may remove it, and others. Raises NotAdmitted.
        limit_mtu: has packets to the given subnets be no larger than that many octets.
        presence: told of the SAs there are; None where nobody wants to know.
    """

    def __init__(
        self,
        *,
        principal: str,
        peers: Sequence[PeerSettings],
        kerberos: Kerberos,
        tickets: Tickets,
        transport: Transport,
        dataplane: DataPlane,
        epoch: int,
        random: Callable[[int], bytes],
        ticket_deadline: float = TICKET_DEADLINE,
        key_exchange: KeyExchange | None = None,
        ourselves: Ourselves = ALONE,
        limit_mtu: Callable[[Sequence[Network], int], Awaitable[None]] = left_alone,
        presence: Presence[Peer] | None = None,
        door: Callable[[Keying, AcceptedRequest, bytes, Sequence[Address]], PeerSettings] | None = None,
    ) -> None:
        self._tickets = tickets
        self._transport = transport
        self._dataplane = dataplane
        self.ticket_deadline = ticket_deadline
        self._key_exchange = key_exchange
        self._ourselves = ourselves
        self._presence = presence or Presence(lambda _peer, _come: None)
        self._mtus = InnerMtus(limit_mtu)
        self._counts = Counts()
        self._xids = Xids(random)
        self._wakes: list[tuple[float, int, Peer | Responder]] = []
        self._order = itertools.count()
        self._rescheduled = trio.Event()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._make = partial(
            Peer,
            principal=principal,
            epoch=epoch,
            kerberos=kerberos,
            random=random,
            allocate_spi=dataplane.allocate_spi,
            key_exchange=key_exchange,
            ourselves=ourselves,
        )
        self._roster = Roster()
        self.peers: Mapping[str, Peer] = self._roster.peers
        welcome = nobody if door is None else lambda *asking: self._come(door(self, *asking))
        self._responder = Responder(kerberos=kerberos, peers={}, epoch=epoch, welcome=welcome)
        for settings in peers:
            self._admit(settings)

    def _admit(self, settings: PeerSettings, former: Peer | None = None) -> Peer:
        def next_xid() -> int:
            return self._xids.assign(peer)

        def packet_at() -> float | None:
            return self._dataplane.last_heard(settings.name)

        peer = self._make(settings, next_xid=next_xid, packet_at=packet_at, former=former)
        self._roster.enter(peer)
        self._responder.admit(peer)
        return peer

    def add_peer(self, settings: PeerSettings) -> None:
        """Have one more peer, for whose policies the data plane is ready.

        Raises:
            PeerRefused: its name, its principal or a policy is somebody's already.
        """
        self._roster.check(settings)
        self._come(settings)
        self.start_peer(settings.name)

    def _come(self, settings: PeerSettings) -> Peer:
        return self._admit(settings, self._roster.former(settings, trio.current_time()))

    def remove_peer(self, name: str) -> None:
        """Have one less: its pairs are deleted, and it is told. Its policies are for the caller to remove, after this.

        Raises:
            PeerRefused: there is none of that name.
        """
        now = trio.current_time()
        peer = self._roster.leave(name, now)
        self._responder.dismiss(peer.settings)
        self._mtus.forget(name)
        with self._turn("remove", peer):
            self._perform(peer, peer.close(now))

    def change_peer(self, settings: PeerSettings, ended: Collection[str]) -> None:
        """Have other settings for a peer that is here, with the same principal and place.

        Its pairs of ``ended`` policies are deleted, and the others do not notice. What policies come and go is for the
        caller to tell the data plane, after this, and then to :meth:`start_peer`.
        """
        peer = self.peers[settings.name]
        with self._turn("change", peer):
            self._perform(peer, peer.change(settings, ended, trio.current_time()))
        self._roster.change(peer, ended)

    def start_peer(self, name: str) -> None:
        """Negotiate what has to stand with that peer, and does not."""
        peer = self.peers[name]
        with self._turn("start", peer):
            self._perform(peer, peer.start(trio.current_time()))

    # ------------------------------------------------------------ running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Negotiate, answer, rekey, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._read_datagrams)
            nursery.start_soon(self._read_events)
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self._mtus.run, self.peers, self._turn)
            for name in self.peers:
                self.start_peer(name)
            task_status.started()

    @contextmanager
    def _turn(self, where: str, owner: Peer | Responder | None = None, **about: object) -> Iterator[Turn]:
        """The door: what goes wrong inside is counted and told, and ends nothing else.

        Nobody's octets may take the tunnels down, not even those that find a defect, nor may a timer, a packet or a
        ticket. What a datagram had changed by then concerns whoever sent it, and KINK_INTERR (RFC 4430 §4.2.8) would
        tell who looks for more of them.
        """
        turn = Turn()
        try:
            yield turn
        except Exception:
            turn.failed = True
            self._counts.add(Tally.DEFECT)
            peer = {"peer": owner.settings.name} if isinstance(owner, Peer) else {}
            log.exception("defect", extra={"fields": {"where": where, **peer, **about}})

    async def _read_datagrams(self) -> None:
        while True:
            for datagram, path in await self._transport.receive():
                self.receive(datagram, path)

    async def _read_events(self) -> None:
        async for event in self._dataplane.events:
            self._take(event)

    async def _keep_time(self) -> None:
        while True:
            now = trio.current_time()
            while self._wakes and self._wakes[0][0] <= now:
                _, _, owner = heapq.heappop(self._wakes)
                with self._turn("timer", owner) as turn:
                    self._perform(owner, owner.wake(now))
                if turn.failed:
                    heapq.heappush(self._wakes, (now + TIMER_RETRY, next(self._order), owner))
            self._rescheduled = trio.Event()
            with trio.move_on_at(self._wakes[0][0] if self._wakes else float("inf")):
                await self._rescheduled.wait()

    def receive(self, datagram: bytes, path: Path) -> None:
        """One KINK datagram, from whichever socket."""
        with self._turn("datagram", source=path.remote.address, octets=len(datagram)):
            self._receive(datagram, path)

    def _receive(self, datagram: bytes, path: Path) -> None:
        now = trio.current_time()
        try:
            message = parse_message(datagram)
        except MalformedMessage as malformed:
            self._counts.label([Label(Family.MESSAGES_RECEIVED, "unreadable")])
            self._perform(self._responder, self._responder.refuse(malformed, datagram, path, now))
            return
        self._counts.label([_RECEIVED[message.type]])
        if message.type is not MessageType.REPLY:
            self._perform(self._responder, self._responder.receive(message, datagram, path, now))
            return
        owner = self._xids.owner(message.xid)
        if owner is None:
            self._counts.add(Tally.UNKNOWN_XID)
        else:
            self._perform(owner, owner.replied(message, datagram, now, path))

    def unreachable(self, remote: Endpoint) -> None:
        """ICMP says that a KINK datagram did not get to ``remote``."""
        self._take(UnreachableReported(remote))

    def _whose(self, event: EspEvent) -> list[Peer]:
        match event:
            case UnknownSpiSeen():
                return self._roster.at(event.source)
            case UnreachableReported():
                return self._roster.at(event.remote)
            case PathNarrowed():
                log.info("path_narrowed", extra={"fields": {"address": event.address, "octets": event.octets}})
                return list(self._roster.at_address(event.address))
            case OffloadRefused():
                log.info("offload_refused", extra={"fields": {"offload": event.offload.value, "reason": event.reason}})
                return []
            case Unanswered():
                found = self.peers.get(event.peer)
            case _:
                found = self._roster.of_policy(event.policy)
        return [] if found is None else [found]

    def _take(self, event: EspEvent) -> None:
        now = trio.current_time()
        for peer in self._whose(event):
            with self._turn("event", peer, kind=type(event).__name__):
                self._tell(peer, event, now)

    def _tell(self, peer: Peer, event: EspEvent, now: float) -> None:
        match event:
            case UnknownSpiSeen():
                self._perform(peer, peer.unknown_spi_seen(event.spi, now))
            case Unanswered():
                self._perform(peer, peer.suspected(now))
            case UnreachableReported():
                self._perform(peer, peer.suspected(now, hint=True))
            case Acquired():
                self._perform(peer, peer.acquired(event.policy, now))
            case SoftExpired():
                self._perform(peer, peer.soft_expired(event.policy, event.spi, now))
            case HardExpired():
                self._perform(peer, peer.hard_expired(event.policy, event.spi, now))
            case CounterExhausted():
                fields = (("peer", peer.settings.name), ("policy", event.policy), ("spi", f"{event.spi:#010x}"))
                told = Tell("sequence_exhausted", fields, warning=True)
                self._perform(peer, [told, *peer.soft_expired(event.policy, event.spi, now)])
            case PayloadsLost():
                whose = (("peer", peer.settings.name), ("policy", event.policy))
                loss = (("lost", event.lost), ("sent", event.sent))
                self._perform(peer, [Tell("payloads_lost", whose + loss, warning=True)])
            case LargeSent():
                self._perform(peer, peer.path.used(now))
            case OffloadRefused():
                pass  # no peer's affair
            case PathNarrowed():
                self._perform(peer, peer.path.narrowed(event.address, event.octets, now))
            case EndpointMoved():
                self._perform(peer, peer.esp_moved(event.policy, event.remote, now))
            case _:
                assert_never(event)

    # ------------------------------------------------------------ effects

    def _as_agreed(self, sa: SaParameters) -> SaParameters:
        """``sa``, without padding and dummies where the peer has not said that it takes them (RFC 4303 §2.7)."""
        peer = self._roster.of_policy(sa.policy)
        if sa.confidentiality is None or peer is None or peer.contact.acquaintance.takes_padding:
            return sa
        log.warning("padding_not_agreed", extra={"fields": {"peer": peer.settings.name, "policy": sa.policy}})
        return replace(sa, confidentiality=None)

    def _perform(self, owner: Peer | Responder, effects: list[Effect]) -> None:
        wanted: list[FetchTicket] = []
        for effect in effects:
            match effect:
                case Count():
                    self._counts.take(effect)
                case SendMessage():
                    self._send(effect)
                case WakeAt(time, name):
                    wake = (time, next(self._order), self._roster.awaited(owner, name))
                    heapq.heappush(self._wakes, wake)
                    if self._wakes[0] is wake:
                        self._rescheduled.set()
                case InstallInbound() | InstallOutbound() if not self._roster.expects(owner):
                    pass  # granted by a peer that has left: what it made it is told to delete
                case InstallInbound(sa):
                    self._dataplane.install_inbound(sa)
                case InstallOutbound(sa):
                    self._install_outbound(sa)
                case Tell():
                    level = logging.WARNING if effect.warning else logging.INFO
                    log.log(level, effect.event, extra={"fields": dict(effect.fields)})
                case RemoveInbound(spi):
                    self._remove_inbound(spi)
                case RemoveOutbound(policy, spi):
                    self._remove_outbound(policy, spi)
                case LimitMtu(name, octets):
                    self._mtus.want(name, octets)
                case ConfirmPath(address, octets):
                    self._dataplane.confirm_path(address, octets)
                case FollowPeer(policy, remote):
                    self._dataplane.follow(policy, remote)
                case FetchTicket():
                    wanted.append(effect)
                case _:
                    assert_never(effect)
        for each in wanted:  # what follows from a ticket follows what else is to be done
            self._fetch(each)
        if self._changed.statistics().tasks_waiting:
            self._changed.set()
            self._changed = trio.Event()

    def _send(self, message: SendMessage) -> None:
        datagram, path = message.datagram, message.path
        try:
            if path.marked:
                self._dataplane.send_control(datagram, path.remote, whole=message.whole)
            else:
                self._transport.send(datagram, path)
        except OSError as error:
            # Nothing is lost that a retransmission does not bring back; what persists is told by the exchange's end.
            self._counts.add(Tally.SEND_FAILED)
            fields = {"address": path.remote.address, "port": path.remote.port, "reason": str(error)}
            log.debug("send_failed", extra={"fields": fields})
        else:
            self._counts.label([_SENT[datagram[0]], *message.labels])

    def _install_outbound(self, sa: SaParameters) -> None:
        self._dataplane.install_outbound(self._as_agreed(sa))
        peer = self._roster.of_policy(sa.policy)
        if peer is not None:
            self._presence.installed(peer, sa.policy, sa.spi)

    def _remove_inbound(self, spi: int) -> None:
        try:
            self._dataplane.remove_inbound(spi)
        except UnknownSa:
            self._dataplane.release_spi(spi)

    def _remove_outbound(self, policy: str, spi: int) -> None:
        self._presence.removed(policy, spi)
        try:
            self._dataplane.remove_outbound(policy, spi)
        except UnknownSa:
            self._counts.add(Tally.IGNORED_EVENT)

    def _fetch(self, wanted: FetchTicket) -> None:
        """Not for who had it performed: answering a peer can make this host start an exchange of its own."""
        peer = self._xids.owner(wanted.xid)
        assert peer is not None
        ticket = None if wanted.fresh else self._tickets.at_hand(wanted.server, tgt=wanted.tgt)
        if ticket is None:
            assert self._nursery is not None
            self._nursery.start_soon(self._ask_kdc, peer, wanted)
            return
        with self._turn("ticket", peer) as turn:
            self._ticket_ready(peer, wanted, ticket)
        if turn.failed:
            self._ticket_lost(peer, wanted)

    def _ticket_lost(self, peer: Peer, wanted: FetchTicket) -> None:
        """The exchange is not to wait for ever for what met a defect."""
        nothing = TicketRefusal("a defect of this program was in the way: the log has it")
        with self._turn("ticket", peer):
            self._perform(peer, peer.ticket_refused(wanted.xid, nothing, trio.current_time()))

    async def _ask_kdc(self, peer: Peer, wanted: FetchTicket) -> None:
        with self._turn("ticket", peer) as turn:
            await self._ticket_arrives(peer, wanted)
        if turn.failed:
            self._ticket_lost(peer, wanted)

    async def _ticket_arrives(self, peer: Peer, wanted: FetchTicket) -> None:
        try:
            ticket = await self._tickets.get(
                wanted.server, deadline=self.ticket_deadline, fresh=wanted.fresh, tgt=wanted.tgt
            )
        except TicketUnavailable as unavailable:
            code = unavailable.refusal.code
            self._counts.label([Label(Family.TICKETS, "unavailable" if code is None else labels.krb_error(code))])
            self._perform(peer, peer.ticket_refused(wanted.xid, unavailable.refusal, trio.current_time()))
        else:
            self._ticket_ready(peer, wanted, ticket)

    def _ticket_ready(self, peer: Peer, wanted: FetchTicket, ticket: Ticket) -> None:
        self._counts.label([_TICKET_READY])
        self._perform(peer, peer.ticket_ready(wanted.xid, ticket, trio.current_time()))

    # ------------------------------------------------------------ asked by the operator

    async def close(self, patience: float) -> None:
        """DELETE every pair and wait for the answers, at most ``patience`` seconds."""
        now = trio.current_time()
        for peer in self.peers.values():
            with self._turn("close", peer):
                self._perform(peer, peer.close(now))
        with trio.move_on_after(patience):
            while any(peer.busy for peer in (*self.peers.values(), *self._roster.leaving())):
                await self._changed.wait()

    async def probe(self, name: str) -> float:
        """Ask ``name`` for its STATUS; the round trip in seconds.

        Raises:
            ProbeFailed: no such peer, no ticket, no answer.
        """
        peer = self._located(name, ProbeFailed)
        command, effects = peer.probe()
        self._perform(peer, effects)
        while command.outcome is None:
            await self._changed.wait()
        if isinstance(command.outcome, Failed):
            raise ProbeFailed(command.outcome.reason)
        return command.outcome.took

    async def rekey(self, name: str | None) -> list[answers.NegotiatedPolicy]:
        """Replace the pairs of peer ``name``, or of all; what came of each policy that had one.

        Raises:
            RekeyFailed: no such peer, nothing established, or a CREATE that failed: the pair that was there stays.
        """
        peers = self.peers.values() if name is None else [self._named(name, RekeyFailed)]
        before = {
            (peer, policy): peer.pairs(policy)[-1] for peer in peers for policy in peer.policies if peer.pairs(policy)
        }
        if not before:
            raise RekeyFailed(f"{f'{name}: ' if name else ''}nothing is established, so there is nothing to rekey")
        for peer in dict.fromkeys(peer for peer, _ in before):
            self._perform(peer, peer.rekey([policy for owner, policy in before if owner is peer]))
        while any(policy in peer.policies and peer.policies[policy].negotiating is not None for peer, policy in before):
            await self._changed.wait()
        unchanged = [(peer, policy) for (peer, policy), pair in before.items() if pair in peer.pairs(policy)[-1:]]
        if unchanged:
            raise RekeyFailed("\n".join(f"{policy}: {peer.policies[policy].last_error}" for peer, policy in unchanged))
        left = ((peer, policy) for peer, policy in before if policy in peer.policies)  # a reload may have come between
        return [policy_status(peer, policy, trio.current_time()) for peer, policy in left]

    async def up(self, name: str) -> list[answers.NegotiatedPolicy]:
        """Make the pairs with peer ``name`` that there are not; how its policies stand then.

        Raises:
            RekeyFailed: no such peer, nobody knows where it is, or a CREATE that failed.
        """
        peer = self._located(name, RekeyFailed)
        self._perform(peer, peer.open())
        while any(state.negotiating is not None for state in peer.policies.values()):
            await self._changed.wait()
        missing = {policy: state.last_error for policy, state in peer.policies.items() if not peer.pairs(policy)}
        if missing:
            raise RekeyFailed("\n".join(f"{policy}: {reason}" for policy, reason in missing.items()))
        return [policy_status(peer, policy, trio.current_time()) for policy in peer.policies]

    def down(self, name: str) -> None:
        """Delete the pairs with peer ``name``; neither packets nor the peer bring one back before :meth:`up`.

        Raises:
            RekeyFailed: no such peer.
        """
        peer = self._named(name, RekeyFailed)
        log.info("peer_taken_down", extra={"fields": {"peer": name}})
        self._perform(peer, peer.close(trio.current_time(), for_good=False))

    def _named(self, name: str, failed: type[KinkvpnError]) -> Peer:
        if name not in self.peers:
            raise failed(f"no peer {name!r}; there are {', '.join(self.peers) or 'none'}")
        return self.peers[name]

    def _located(self, name: str, failed: type[KinkvpnError]) -> Peer:
        peer = self._named(name, failed)
        if not peer.contact.whereabouts.known:
            raise failed(UNLOCATED)
        return peer

    def whose(self, policy: str, spi: int) -> tuple[str, SaPair | None]:
        """The peer of ``policy``, and the standing pair that has ``spi`` in either direction."""
        peer = self._roster.of_policy(policy)
        return ("", None) if peer is None else (peer.settings.name, peer.find(policy, spi))

    def counted(self) -> answers.Counted:
        """What was counted; JSON-able."""
        return self._counts.status()
