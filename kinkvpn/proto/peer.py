"""One peer: its exchanges, its pairs of SAs, its epoch, and what is to be done about each policy, and when.

Pairs: the initiator of a CREATE rekeys and deletes what it made (RFC 4430 §3.6). A responder does so only where nobody
else would: an operator asks for it, or a limit ends that the responder alone knows of. When both sides created a pair
for one policy at once, both stand, the newer carries traffic, and after the grace time the side with the greater
principal deletes the pair that it initiated: both sides come to the same end without another message.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from kinkvpn.proto.acquaintance import ALONE, Ourselves
from kinkvpn.proto.contact import Contact
from kinkvpn.proto.create import MAX_QUICK_MODES, CreateCommand, Grant, answer_create
from kinkvpn.proto.delete import DeleteCommand, Doomed
from kinkvpn.proto.deletions import Deletions
from kinkvpn.proto.epoch import Epochs
from kinkvpn.proto.events import (
    Count,
    DeadlineReached,
    Effect,
    Event,
    RemoveInbound,
    RemoveOutbound,
    ReplyReceived,
    Tally,
    Tell,
    TicketReady,
    TicketRefused,
    WakeAt,
)
from kinkvpn.proto.exchanges import Exchanges
from kinkvpn.proto.gettgt import TicketRoute
from kinkvpn.proto.initiator import Initiator, State
from kinkvpn.proto.liveness import Liveness, Verdict
from kinkvpn.proto.negotiation import Negotiation
from kinkvpn.proto.outcome import Cause, Completed, Failed, Outcome, Restart, count_ended, told_failure
from kinkvpn.proto.pairs import Pairs
from kinkvpn.proto.path_search import PathSearch
from kinkvpn.proto.policies import FIRST_RETRY, PolicyState, boot, change, companions, take_due, take_yielding
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.quick_mode import SaPair, Unanswered, moved, teardown
from kinkvpn.proto.retransmit import RoundTrip
from kinkvpn.proto.settings import Start
from kinkvpn.proto.status import StatusCommand, answer_status
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.kink import ApRep, Message, MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from esp.sa import Endpoint
    from kinkvpn.proto.events import Path
    from kinkvpn.proto.initiator import Command
    from kinkvpn.proto.ports import Kerberos, KeyExchange, SessionKey, Ticket, TicketRefusal
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.wire.isakmp import IsakmpPayload
    from kinkvpn.wire.kink import KinkPayload


class Peer:
    """One configured peer.

    Args:
        settings: who and where it is, and what it may do here.
        principal: ours.
        epoch: ours.
        kerberos: reads KRB-ERRORs.
        random: octets.
        allocate_spi: reserves an inbound SPI.
        next_xid: a number that no outstanding exchange of this host has.
        packet_at: when the newest authentic ESP packet of the peer came, on the machine's clock.
        key_exchange: makes private keys for PFS; None where this host does none.
        ourselves: what there is to tell the peer beyond RFC 4430.
        former: who had its principal not long ago, and was closed.
    """

    def __init__(
        self,
        settings: PeerSettings,
        *,
        principal: str,
        epoch: int,
        kerberos: Kerberos,
        random: Callable[[int], bytes],
        allocate_spi: Callable[[], int],
        next_xid: Callable[[], int],
        packet_at: Callable[[], float | None] = lambda: None,
        key_exchange: KeyExchange | None = None,
        ourselves: Ourselves = ALONE,
        former: Peer | None = None,
    ) -> None:
        self.settings = settings
        self.policies = {policy.name: PolicyState(policy) for policy in settings.policies}
        self.epochs: Epochs = Epochs() if former is None else deepcopy(former.epochs)
        self.last_heard: float | None = None
        self.ticket_ends = 0.0  # POSIX seconds; of the newest of its tickets that a command came with
        self.refusal: tuple[float, str] | None = None  # of a command of the peer's, since a pair was made: when, why
        self._principal = principal
        self._epoch = epoch
        self._kerberos = kerberos
        self._random = random
        self._allocate_spi = allocate_spi
        self._next_xid = next_xid
        self._packet_at = packet_at
        self._key_exchange = key_exchange
        self._exchanges: Exchanges = Exchanges()
        self._round_trip = RoundTrip()
        self._pairs: Pairs = Pairs(None if former is None else former._pairs)
        self._liveness = Liveness(settings)
        self.contact = Contact(settings, ourselves, lambda: (pair.policy for pair in self._pairs.all()))
        self.path = PathSearch(settings, self.contact, ourselves, lambda command: self._begin(command).start())
        self._tickets = TicketRoute(settings, kerberos, next_xid, self.contact.whereabouts.path)
        self._offset = 0.0
        self.closed = False  # for good, or by the operator until it is opened
        self._negotiation = Negotiation(
            settings,
            self.policies,
            random=random,
            allocate_spi=allocate_spi,
            taken=self._pairs.taken,
            key_exchange=key_exchange,
        )
        self._deletions = Deletions(
            settings,
            self._pairs,
            begin=lambda command: self._begin(command).start(),
            under_way=lambda: self._exchanges.deleting,
            most=lambda: self._negotiation.most,
        )

    # ------------------------------------------------------------ what others may see

    def pairs(self, policy: str) -> list[SaPair]:
        """Established pairs of ``policy``, the newest last."""
        return self._pairs.of(policy)

    def find(self, policy: str, spi: int) -> SaPair | None:
        """The established pair of ``policy`` that has ``spi`` in either direction."""
        return self._pairs.find(policy, spi)

    @property
    def user_to_user(self) -> bool:
        """Whether tickets for it are made with its ticket-granting ticket, as far as is known."""
        return self._tickets.user_to_user

    def waits_for(self, policy: str) -> str | None:
        """``kdc`` or ``peer`` while a CREATE is under way; None without one, and where a ticket may need both."""
        xid = self.policies[policy].negotiating
        exchange = None if xid is None else self._exchanges.get(xid)
        if exchange is None or (exchange.state is State.AWAIT_TICKET and self.user_to_user):
            return None
        return "kdc" if exchange.state is State.AWAIT_TICKET else "peer"

    @property
    def busy(self) -> bool:
        """Whether some exchange about SAs has not come to its end."""
        return self._exchanges.busy

    @property
    def half_open(self) -> list[SaPair]:
        """Pairs that still wait for an ACK."""
        return self._pairs.unacknowledged()

    # ------------------------------------------------------------ asked from this side

    def start(self, now: float) -> list[Effect]:
        """Negotiate what has to stand from the beginning."""
        return self._create([name for name in boot(self.policies) if not self._pairs.has(name)])

    def initiate(self, policy: str, now: float) -> list[Effect]:
        """Send a CREATE for ``policy`` alone unless one is under way."""
        if self.policies[policy].negotiating is not None or self.closed:
            return [Count(Tally.IGNORED_EVENT)]
        return self._create([policy])

    def acquired(self, policy: str, now: float) -> list[Effect]:
        """A packet waits for an SA of ``policy``."""
        if self._pairs.has(policy):
            # Answered while the event was on its way, or as soon as the ACK is in: it comes again if that is not so.
            return [Count(Tally.IGNORED_EVENT)]
        if now < self.policies[policy].not_before:
            return [Count(Tally.SUPPRESSED_RETRY)]
        if self.policies[policy].negotiating is not None or self.closed:
            return [Count(Tally.IGNORED_EVENT)]
        along = [name for name in companions(self.policies, policy, now) if not self._pairs.has(name)]
        return self._create([policy], along=along)

    def soft_expired(self, policy: str, spi: int, now: float) -> list[Effect]:
        """An SA has reached its soft lifetime: who set that one rekeys (RFC 4430 §3.6, ``proto.lifetime``)."""
        pair = self._pairs.find(policy, spi)
        if pair is None or self._pairs.newest(policy) is not pair:
            return [Count(Tally.IGNORED_EVENT)]
        return self.rekey([policy])

    def rekey(self, policies: Sequence[str]) -> list[Effect]:
        """Make a new pair in place of the one in use of each policy, which goes when the new one stands."""
        for policy in policies:
            if self.policies[policy].negotiating is None:
                self.policies[policy].replacing = self._pairs.newest(policy)
        return self._create(policies) or [Count(Tally.IGNORED_EVENT)]

    def hard_expired(self, policy: str, spi: int, now: float) -> list[Effect]:
        """The engine has removed an SA, for its age or for what it has carried: its twin goes, and the peer is told.

        The peer counts packets of its own, and starts its clock at another time, so it may not know.
        """
        pair = self._pairs.find(policy, spi)
        if pair is None:
            self._pairs.repaid(spi)
            return [Count(Tally.IGNORED_EVENT)]
        told = Tell("sa_expired", (("peer", self.settings.name), ("policy", policy)), warning=True)
        gone = RemoveOutbound(policy, spi)
        return [told, *(e for e in self._deletions.delete([pair], now) if e != gone), *self._lost(policy, now)]

    def unknown_spi_seen(self, spi: int, now: float) -> list[Effect]:
        """The peer seems to send on ``spi``, which has no SA here: this host has restarted, or the pair is half open.

        A DELETE cures both: it carries our epoch, which tells a restart (RFC 4430 §3.7), and ``spi`` as what is not
        here (§3.3).
        """
        return [Count(Tally.SUPPRESSED_RETRY)] if self.closed else self._deletions.deny(spi, now)

    def suspected(self, now: float, *, hint: bool = False) -> list[Effect]:
        """Packets go out to the peer, and for a while nothing authentic has come back; ask it (RFC 4430 §3.7).

        Args:
            hint: it is only ICMP that says so: a reason to ask, and none to believe it.
        """
        needed = not self.closed and bool(self._pairs.all())
        command = self._liveness.suspect(self.last_heard, now, hint=hint) if needed else None
        if command is None:
            return [Count(Tally.IGNORED_EVENT)]
        return [Count(Tally.PEERS_PROBED), *self._begin(command).start()]

    def probe(self, command: StatusCommand | None = None) -> tuple[StatusCommand, list[Effect]]:
        """Send a STATUS, or a ``command`` that is more; it, whose ``outcome`` tells the end, and the effects."""
        command = command or StatusCommand()
        return command, self._begin(command).start()

    def open(self) -> list[Effect]:
        """Make the pairs that there are not, now; also after :meth:`close`."""
        self.closed = self._deletions.closing = False
        return self._create([name for name in self.policies if not self._pairs.has(name)])

    def close(self, now: float, *, for_good: bool = True) -> list[Effect]:
        """Delete every pair and make no new one; ``for_good`` where the host goes, and has no time to tell it again."""
        self.closed, self._deletions.closing = True, for_good
        return self._deletions.end(self.policies, now)

    def change(self, settings: PeerSettings, ended: Container[str], now: float) -> list[Effect]:
        """Other settings of the same peer at the same place: they hold from the next exchange on, and SAs stay.

        Args:
            ended: names of policies whose SAs do not: those that are gone, and those that become others.
        """
        effects = self._deletions.end(ended, now)
        for exchange in self._exchanges.values():
            if isinstance(exchange.command, CreateCommand):
                exchange.command.disown(ended)
        self.settings = self._liveness.settings = self.path.settings = self._deletions.settings = settings
        self._tickets.change(settings)
        self._negotiation.change(settings)
        change(self.policies, settings.policies, ended)
        return [*effects, *self.contact.change(settings)]

    # ------------------------------------------------------------ what exchanges are told

    def ticket_ready(self, xid: int, ticket: Ticket, now: float) -> list[Effect]:
        """The ticket that exchange ``xid`` waits for, or may change to."""
        self._tickets.ready(xid, ticket)
        return self._without_tgt(self._advance(xid, TicketReady(ticket), now), now)

    def ticket_refused(self, xid: int, refusal: TicketRefusal, now: float) -> list[Effect]:
        """There is no such ticket for exchange ``xid``; user-to-user may help."""
        effects = self._tickets.refused(xid, refusal) or self._advance(xid, TicketRefused(refusal), now)
        return self._without_tgt(effects, now)

    def replied(self, message: Message, datagram: bytes, now: float, path: Path | None = None) -> list[Effect]:
        """A REPLY with the XID of one of our exchanges, which came by ``path``."""
        if self._tickets.owns(message.xid):
            return self._without_tgt(self._tickets.replied(message, datagram, now), now)
        if any(isinstance(payload, ApRep) and self.epochs.outlived(payload.epoch) for payload in message.payloads):
            return [Count(Tally.STALE_EPOCH)]
        return self._advance(message.xid, ReplyReceived(message, datagram, path), now)

    def owns(self, xid: int) -> bool:
        """Whether ``xid`` is an exchange of ours."""
        return xid in self._exchanges or self._tickets.owns(xid)

    def wake(self, now: float) -> list[Effect]:
        """Everything that is due."""
        effects = self._without_tgt(self._tickets.wake(now), now)
        for xid in self._exchanges.due(now):
            effects += self._advance(xid, DeadlineReached(), now)
        effects += self._deletions.wake(now)
        for name in take_yielding(self.policies, now):
            effects += self._deletions.delete(self._pairs.superseded(name, ours_yield=True), now)
        due = take_due(self.policies, now)
        return effects + self._create([name for name in due if not self.pairs(name) or self._rekeys(name)])

    # ------------------------------------------------------------ asked from the other side

    def respond(
        self,
        kind: MessageType,
        quick_modes: tuple[tuple[IsakmpPayload, ...], ...],
        *,
        key: SessionKey,
        path: Path,
        now: float,
    ) -> Grant:
        """Answer a verified command of this peer.

        Args:
            quick_modes: what is in each KINK_ISAKMP payload of it.

        Raises:
            Refused: with the notify to answer.
        """
        self.last_heard = now
        payloads = tuple(payload for one in quick_modes for payload in one)
        if kind is MessageType.DELETE:
            answers, gone, effects = self._deletions.answer(payloads, now)
            lost = [effect for pair in gone for effect in self._lost(pair.policy, now)]
            return Grant(answers, [*effects, *lost])
        if kind is MessageType.STATUS:
            return answer_status(payloads, self.settings.lease)
        if self.closed:
            why = "is shutting down" if self._deletions.closing else "has been told to have no SAs with this peer"
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"this host {why}")
        if self._pairs.crowded(min(len(quick_modes), MAX_QUICK_MODES), len(self.policies)):
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"{self.settings.name} has not acknowledged earlier REPLYs")
        if self._exchanges.crowded(len(self.policies)):
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"too many commands to {self.settings.name} are under way")
        answer = answer_create(
            quick_modes,
            peer=self.settings,
            remote=path.remote.address,
            key=key,
            taken=self._pairs.taken(now),
            allocate_spi=self._allocate_spi,
            random=self._random,
            now=now,
            key_exchange=self._key_exchange,
        )
        for half in answer.half_open:
            self._pairs.await_ack(half.pair)
        effects = self.contact.place(answer.effects)
        effects += [effect for pair in answer.pairs for effect in self._established(pair, now)]
        return Grant(answer.payloads, effects, answer.ackreq, answer.half_open, answer.refusals)

    def acknowledged(self, grant: Grant, now: float) -> list[Effect]:
        """The ACK of a 3-way CREATE is in: its outbound SAs may carry (RFC 4430 §3.2 step 6)."""
        effects: list[Effect] = []
        for pair, on_ack in grant.half_open:
            if self._pairs.settle(pair):
                effects += [*self.contact.place(on_ack), *self._established(moved(pair, now), now)]
            else:
                effects.append(Count(Tally.IGNORED_EVENT))
        return effects

    def unacknowledged(self, grant: Grant, now: float) -> list[Effect]:
        """Nobody acknowledged: the initiator may have both SAs of a pair, so it is told to delete them.

        What was made 2-way in the same CREATE stays, as after a 2-way CREATE: an initiator that had no answer deletes.
        """
        left = [half.pair for half in grant.half_open if self._pairs.settle(half.pair)]
        if grant.half_open and not left:
            return [Count(Tally.IGNORED_EVENT)]
        effects: list[Effect] = []
        for pair in left:
            self._pairs.bury(pair.outbound_spi, now)
            fields = (("peer", self.settings.name), ("policy", pair.policy))
            effects.append(Tell("create_unacknowledged", fields, warning=True))
        return effects + self._deletions.tell([Doomed.of(pair) for pair in left])

    def heard(self, epoch: int, now: float, path: Path, authenticator: tuple[int, int]) -> list[Effect]:
        """An authentic command of the peer: it lives, so it can be told what it did not answer.

        Args:
            epoch: the peer's.
            now: seconds.
            path: where it came from.
            authenticator: its time by the peer's clock, ctime and cusec.
        """
        effects = [*self.observe_epoch(epoch, now), *self.contact.heard(path, authenticator, now)]
        return [*effects, *self._deletions.send_owed(now)]

    def esp_moved(self, policy: str, endpoint: Endpoint, now: float) -> list[Effect]:
        """The newest packet that ``policy`` took came from ``endpoint``, and its SAs send there already."""
        return self.contact.esp_moved(policy, endpoint, now)

    def asked(self, payloads: Sequence[KinkPayload], path: Path) -> tuple[bool, list[Effect]]:
        """What a new command that came by ``path`` tells beyond RFC 4430: whether it does, and what follows."""
        told, effects = self.contact.asked(payloads, path)
        return told, [*effects, *self._introduce(path)]

    def observe_epoch(self, epoch: int, now: float) -> list[Effect]:
        """Record the peer's epoch; another one than before means that it has lost every SA (RFC 4430 §3.7)."""
        self.last_heard = now
        if not self.epochs.observe(epoch):
            return []
        self.contact.acquaintance.forget()
        self._negotiation.singly = False
        effects: list[Effect] = [
            Count(Tally.PEER_RESTARTED),
            Tell("peer_restarted", (("peer", self.settings.name), ("epoch", epoch)), warning=True),
        ]
        for pair in self._pairs.all():
            effects += teardown(pair)
        effects += [RemoveInbound(pair.inbound_spi) for pair in self._pairs.unacknowledged()]
        effects += [RemoveInbound(spi) for spi in self._pairs.undeleted()]
        lost = {pair.policy for pair in self._pairs.all()}
        self._pairs.clear(now)
        for policy in sorted(lost):
            effects += self._lost(policy, now)
        return effects

    # ------------------------------------------------------------ CREATE

    def _create(self, policies: Sequence[str], *, along: Sequence[str] = (), pfs: bool = True) -> list[Effect]:
        """Negotiate ``policies``, but those under way; ``Negotiation.commands`` has the arguments."""
        if self.closed:
            return []
        wanted = [name for name in policies if self.policies[name].negotiating is None]
        if wanted and not self.contact.whereabouts.known:
            return [Count(Tally.PEER_UNLOCATED)]
        commands, effects = self._negotiation.commands(wanted, along=along, pfs=pfs)
        for command in commands:
            exchange = self._begin(command)
            for asked in command.quick_modes:
                state = self.policies[asked.policy.name]
                state.retry_at, state.negotiating = None, exchange.xid
            effects += exchange.start()
        return effects

    def _create_concluded(self, command: CreateCommand, outcome: Completed | Failed, now: float) -> list[Effect]:
        command.forget()
        self._negotiation.singly = self._negotiation.singly or command.curtailed
        without_pfs = command.without_pfs()
        effects: list[Effect] = []
        for asked in command.wanted:
            state = self.policies[asked.policy.name]
            state.negotiating = None
            if asked.pair is not None:
                state.create_seconds = outcome.took if isinstance(outcome, Completed) else None
                effects += self._established(asked.pair, now)
            elif not isinstance(asked.failure, Unanswered) and asked.policy.name not in without_pfs:
                state.alone = state.alone or command.in_vain(outcome)
                effects += self._retry(state, state.failed(command.reason(asked, outcome), now))
            if asked.pair is None and isinstance(outcome, Completed):
                effects.append(told_failure(command.type, self.settings.name, asked.policy.name, str(asked.failure)))
        # A pair that only the peer knows of would be half open: delete it, and keep the inbound SA until then.
        effects += [*command.release(outcome), *self._deletions.tell(command.doomed(outcome, now))]
        if self.closed:
            effects += self._deletions.delete(command.pairs(), now)
        return [*effects, *self._create(without_pfs, pfs=False), *self._create(command.overlooked())]

    # ------------------------------------------------------------ inside

    def _begin(self, command: Command) -> Initiator:
        return self._exchanges.enter(
            Initiator(
                command,
                xid=self._next_xid(),
                server=self.settings.principal,
                route=self.contact.whereabouts.path,
                extend=self.contact.acquaintance.extend,
                epoch=self._epoch,
                kerberos=self._kerberos,
                offset=self._offset,
                fetch=self._tickets.fetch,
                skipped=self._round_trip.skipped,
            )
        )

    def _advance(self, xid: int, event: Event, now: float) -> list[Effect]:
        exchange = self._exchanges.get(xid)
        if exchange is None:
            return [Count(Tally.UNKNOWN_XID)]
        ended = exchange.outcome is not None
        effects = exchange.handle(event, now)
        if exchange.hint is not None:
            effects += self._tickets.hinted(xid, exchange.hint)
        if exchange.peer_epoch is not None and not ended:
            assert exchange.round_trip is not None
            self._round_trip.measured(exchange.round_trip)
            before = [*self.observe_epoch(exchange.peer_epoch, now), *self.contact.answered(exchange, now)]
            effects = before + self.contact.place(effects)
        if exchange.outcome is not None and not ended:
            effects += self._concluded(exchange, exchange.outcome, now)
        if exchange.state is State.CLOSED:
            del self._exchanges[xid]
        if exchange.peer_epoch is not None and not ended:
            effects += [*self._deletions.send_owed(now), *self._introduce(exchange.answered_by)]
        return effects

    def _introduce(self, path: Path | None) -> list[Effect]:
        """Let the peer hear from our ESP port, if it has only seen how a NAT shows the other."""
        if self.closed or not self.contact.introduces(path):
            return []
        return self._begin(StatusCommand()).start()

    def _concluded(self, exchange: Initiator, outcome: Outcome, now: float) -> list[Effect]:
        command = exchange.command
        effects: list[Effect] = []
        self._tickets.concluded(exchange)
        if isinstance(outcome, Failed | Restart) and outcome.offset is not None:
            self._offset = outcome.offset
        if isinstance(outcome, Restart):
            if not exchange.second_try or outcome.tgt is not None:
                return [count_ended(command.type, outcome), *self._restart(exchange, outcome)]
            # A cure that does not cure is a failure; the command was not withdrawn, for a second try that won't come.
            outcome, effects = Failed(f"{outcome.reason} (again)", cause=Cause.UNCURED), command.withdraw()
        effects.append(count_ended(command.type, outcome))
        if isinstance(command, StatusCommand) and self.path.owns(command):
            return effects + self.path.concluded(command, exchange, now)
        if isinstance(outcome, Failed):
            effects.append(told_failure(command.type, self.settings.name, command.subject, outcome.reason))
        if isinstance(command, CreateCommand):
            return effects + self._create_concluded(command, outcome, now)
        if isinstance(command, DeleteCommand):
            heard = exchange.peer_epoch is not None
            return effects + self._deletions.concluded(command, outcome, now, heard=heard)
        assert isinstance(command, StatusCommand)
        command.outcome = outcome
        if self._liveness.owns(command):
            effects += self._judged(self._liveness.concluded(exchange, self._packet_at()), outcome, now)
        return effects

    def _judged(self, verdict: Verdict, outcome: Completed | Failed, now: float) -> list[Effect]:
        """A probe is over. Only silence that lasted all of it is an end (RFC 4430 §3.7)."""
        if verdict is not Verdict.DEAD or not isinstance(outcome, Failed):
            return []
        fields = (("peer", self.settings.name), ("reason", outcome.reason))
        effects: list[Effect] = [Count(Tally.PEER_DEAD), Tell("peer_dead", fields, warning=True)]
        effects += self._deletions.abandon(gone := self._pairs.all(), now)
        for policy in dict.fromkeys(pair.policy for pair in gone):
            self.policies[policy].last_error = f"the peer is dead: {outcome.reason}"
            effects += self._lost(policy, now)
        return effects

    def _restart(self, exchange: Initiator, outcome: Restart) -> list[Effect]:
        again = self._exchanges.enter(exchange.again(outcome, self._next_xid()))
        if isinstance(exchange.command, CreateCommand):
            for quick_mode in exchange.command.wanted:
                self.policies[quick_mode.policy.name].negotiating = again.xid
        told = Tell("command_restarted", (("peer", self.settings.name), ("reason", outcome.reason)))
        return [told, *again.start()]

    def _without_tgt(self, effects: list[Effect], now: float) -> list[Effect]:
        """Tell the exchanges that wait for the peer's ticket-granting ticket if there will be none."""
        for xid, refusal in self._tickets.take_failed():
            effects += self._advance(xid, TicketRefused(refusal), now)
        return effects

    def _retry(self, state: PolicyState, time: float) -> list[Effect]:
        """Try again by ourselves what has to stand, and what stands and is ours to rekey before it ends."""
        wanted = state.settings.start is Start.BOOT or self._rekeys(state.settings.name)
        if not wanted or self.closed:
            state.retry_at = None
            return []
        state.retry_at = time
        return [WakeAt(time, self.settings.name)]

    def _rekeys(self, policy: str) -> bool:
        """Whether this host made the pair in use, or was about to replace it: its CREATE that failed was a rekey."""
        newest = self._pairs.newest(policy)
        return newest is not None and (newest.initiated or newest is self.policies[policy].replacing)

    def _lost(self, policy: str, now: float) -> list[Effect]:
        """A pair is gone that should stand."""
        if self.pairs(policy):
            return []
        return self._retry(self.policies[policy], now + FIRST_RETRY)

    def _established(self, pair: SaPair, now: float) -> list[Effect]:
        state = self.policies[pair.policy]
        state.established()
        self.refusal = None
        self._pairs.establish(pair)
        replaced, state.replacing = state.replacing, None
        old = self._pairs.until(replaced) if pair.initiated and replaced is not None else []
        effects = [pair.told(self.settings.name), *self._deletions.delete(old, now)]
        effects += self._deletions.delete(self._pairs.superseded(pair.policy, ours_yield=False), now)
        return effects + self._yield_later(state, now)

    def _yield_later(self, state: PolicyState, now: float) -> list[Effect]:
        """Where both hosts made a pair ours goes, but not before the peer must have learnt that its own stands.

        Its REPLY may be late or lost: to delete ours meanwhile would leave the peer with nothing.
        """
        greater = self._principal > self.settings.principal
        if not greater or not self._pairs.superseded(state.settings.name, ours_yield=True):
            return []
        state.yield_at = now + self.settings.delete_grace
        return [WakeAt(state.yield_at, self.settings.name)]
