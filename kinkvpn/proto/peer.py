"""One peer: its exchanges, its pairs of SAs, its epoch, and what is to be done about each policy, and when.

Pairs: the initiator of a CREATE rekeys and deletes what it made (RFC 4430 §3.6). When both sides created a pair for one
policy at once, both stand, the newer carries traffic, and the side with the greater principal deletes the pair that it
initiated: both sides come to the same end without another message.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kinkvpn.proto.create import CreateCommand, SaPair, answer_create, moved, teardown
from kinkvpn.proto.delete import DeleteCommand, answer_delete
from kinkvpn.proto.events import (
    Count,
    DeadlineReached,
    Effect,
    Event,
    Path,
    RemoveInbound,
    RemoveOutbound,
    ReplyReceived,
    Tally,
    Tell,
    TicketReady,
    TicketRefused,
    WakeAt,
)
from kinkvpn.proto.initiator import Completed, Failed, Initiator, Outcome, Restart, State
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.settings import Start
from kinkvpn.proto.status import StatusCommand
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.isakmp import Delete, IsakmpPayload, Notify
from kinkvpn.wire.kink import ApRep, KinkPayload, Message, MessageType

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.initiator import Command
    from kinkvpn.proto.ports import Kerberos, SessionKey, Ticket, TicketRefusal
    from kinkvpn.proto.settings import PeerSettings, PolicySettings

# Ours. A policy that failed is tried again after one second, two, four and so on, and for ever once a minute: long
# enough not to burden a dead peer or KDC, short enough that nobody has to be woken when it comes back.
FIRST_RETRY = 1.0
LONGEST_RETRY = 60.0
# Ours. SPIs that were deleted are refused in a CREATE for as long as one that somebody kept back could still be
# believed: Kerberos grants five minutes of clock skew (RFC 4120 §1.6), to either side of our clock. 1,024 of them are
# more than a peer deletes in that time, and cost 100 kB.
TOMBSTONE_KEPT = 600.0
MAX_TOMBSTONES = 1024
# Ours. Pairs of which a silent peer has not been told that they are over. A policy that starts at boot adds one in a
# minute and a half while the peer is silent; 64 inbound SAs cost little, and what is older most likely never was.
MAX_UNTOLD = 64
# Ours. Earlier lives of a peer that are remembered: a datagram lives minutes at most (the clock skew that Kerberos
# grants), a host does not restart nine times in them.
MAX_PAST_EPOCHS = 8
# A uniform number in [0, 1) out of random octets.
_FRACTION = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a command was granted.

    Args:
        payloads: of the REPLY.
        effects: before the REPLY leaves.
        ackreq: an ACK is awaited; then ``on_ack``, ``on_silence`` and ``pair`` are for when it comes or does not.
    """

    payloads: tuple[KinkPayload, ...]
    effects: list[Effect] = field(default_factory=list)
    ackreq: bool = False
    on_ack: list[Effect] = field(default_factory=list)
    on_silence: list[Effect] = field(default_factory=list)
    pair: SaPair | None = None


@dataclass(slots=True)
class PolicyState:
    """What goes on for one policy.

    Args:
        settings: what the operator wants.
        negotiating: XID of the CREATE under way.
        failures: in a row.
        retry_at: when to try again by ourselves, or None.
        not_before: a packet may ask for an SA again from then on.
        last_error: of the newest failure, for the operator.
        create_seconds: how long the newest CREATE of ours took.
    """

    settings: PolicySettings
    negotiating: int | None = None
    failures: int = 0
    retry_at: float | None = None
    not_before: float = 0.0
    last_error: str = ""
    create_seconds: float | None = None


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
    ) -> None:
        self.settings = settings
        self.policies = {policy.name: PolicyState(policy) for policy in settings.policies}
        self.peer_epoch: int | None = None
        self.last_heard: float | None = None
        self._principal = principal
        self._epoch = epoch
        self._kerberos = kerberos
        self._random = random
        self._allocate_spi = allocate_spi
        self._next_xid = next_xid
        self._exchanges: dict[int, Initiator] = {}
        self._past_epochs: deque[int] = deque(maxlen=MAX_PAST_EPOCHS)
        self._pairs: dict[int, SaPair] = {}  # by outbound SPI, oldest first
        self._pending: dict[int, SaPair] = {}  # likewise, waiting for an ACK
        self._tombstones: OrderedDict[int, float] = OrderedDict()
        self._graces: list[tuple[float, int]] = []
        self._untold: OrderedDict[int, str] = OrderedDict()  # policies by inbound SPI, whose DELETE nobody answered
        self._offset = 0.0
        self._closing = False

    # ------------------------------------------------------------ what others may see

    def pairs(self, policy: str) -> list[SaPair]:
        """Established pairs of ``policy``, the newest last."""
        return [pair for pair in self._pairs.values() if pair.policy == policy]

    @property
    def busy(self) -> bool:
        """Whether some exchange has not come to its end."""
        return any(exchange.outcome is None for exchange in self._exchanges.values())

    @property
    def half_open(self) -> list[SaPair]:
        """Pairs that still wait for an ACK."""
        return list(self._pending.values())

    # ------------------------------------------------------------ asked from this side

    def start(self, now: float) -> list[Effect]:
        """Negotiate what has to stand from the beginning."""
        effects: list[Effect] = []
        for name, state in self.policies.items():
            if state.settings.start is Start.BOOT:
                effects += self.initiate(name, now)
        return effects

    def initiate(self, policy: str, now: float) -> list[Effect]:
        """Send a CREATE for ``policy`` unless one is under way."""
        state = self.policies[policy]
        if state.negotiating is not None or self._closing:
            return [Count(Tally.IGNORED_EVENT)]
        state.retry_at = None
        command = CreateCommand(
            self.settings,
            state.settings,
            spi=self._allocate_spi(),
            nonce=self._random(16),
            fraction=self._fraction(),
        )
        exchange = self._begin(command)
        state.negotiating = exchange.xid
        return exchange.start()

    def acquired(self, policy: str, now: float) -> list[Effect]:
        """A packet waits for an SA of ``policy``."""
        if self.pairs(policy):
            return [Count(Tally.IGNORED_EVENT)]  # answered while the event was on its way
        if now < self.policies[policy].not_before:
            return [Count(Tally.SUPPRESSED_RETRY)]
        return self.initiate(policy, now)

    def soft_expired(self, policy: str, spi: int, now: float) -> list[Effect]:
        """An SA of ours has reached its soft lifetime: its initiator rekeys (RFC 4430 §3.6)."""
        pair = self._pair_with(policy, spi)
        if pair is None or not pair.initiated or self._newest(policy) is not pair:
            return [Count(Tally.IGNORED_EVENT)]
        return self.initiate(policy, now)

    def hard_expired(self, policy: str, spi: int, now: float) -> list[Effect]:
        """The engine has removed an SA; its twin has no use any more."""
        pair = self._pair_with(policy, spi)
        if pair is None:
            self._untold.pop(spi, None)
            return [Count(Tally.IGNORED_EVENT)]
        del self._pairs[pair.outbound_spi]
        gone: Effect = RemoveInbound(spi) if spi == pair.inbound_spi else RemoveOutbound(policy, spi)
        effects = [effect for effect in teardown(pair) if effect != gone]
        told = Tell("sa_expired", (("peer", self.settings.name), ("policy", policy)), warning=True)
        return [*effects, told, *self._lost(policy, now)]

    def probe(self) -> tuple[StatusCommand, list[Effect]]:
        """Send a STATUS; the command, whose ``outcome`` tells the end, and the effects."""
        command = StatusCommand()
        return command, self._begin(command).start()

    def close(self, now: float) -> list[Effect]:
        """Delete every pair; start nothing new."""
        self._closing = True
        effects: list[Effect] = []
        for pair in list(self._pairs.values()):
            effects += self._delete(pair, now)
        return effects

    # ------------------------------------------------------------ what exchanges are told

    def ticket_ready(self, xid: int, ticket: Ticket, now: float) -> list[Effect]:
        """The ticket that exchange ``xid`` waits for."""
        return self._advance(xid, TicketReady(ticket), now)

    def ticket_refused(self, xid: int, refusal: TicketRefusal, now: float) -> list[Effect]:
        """There will be no ticket for exchange ``xid``."""
        return self._advance(xid, TicketRefused(refusal), now)

    def replied(self, message: Message, datagram: bytes, now: float) -> list[Effect]:
        """A REPLY with the XID of one of our exchanges."""
        if any(isinstance(payload, ApRep) and self.outlived(payload.epoch) for payload in message.payloads):
            return [Count(Tally.STALE_EPOCH)]
        return self._advance(message.xid, ReplyReceived(message, datagram), now)

    def owns(self, xid: int) -> bool:
        """Whether ``xid`` is an exchange of ours."""
        return xid in self._exchanges

    def wake(self, now: float) -> list[Effect]:
        """Everything that is due."""
        effects: list[Effect] = []
        for xid, exchange in list(self._exchanges.items()):
            if exchange.deadline is not None and exchange.deadline <= now:
                effects += self._advance(xid, DeadlineReached(), now)
        due = [spi for time, spi in self._graces if time <= now]
        self._graces = [(time, spi) for time, spi in self._graces if time > now]
        effects += [RemoveInbound(spi) for spi in due]
        for name, state in self.policies.items():
            if state.retry_at is not None and state.retry_at <= now:
                state.retry_at = None
                if not self.pairs(name) or self._rekeys(name):
                    effects += self.initiate(name, now)
        return effects

    # ------------------------------------------------------------ asked from the other side

    def respond(
        self,
        kind: MessageType,
        payloads: tuple[IsakmpPayload, ...],
        *,
        key: SessionKey,
        path: Path,
        now: float,
    ) -> Grant:
        """Answer a verified command of this peer.

        Raises:
            Refused: with the notify to answer.
        """
        self.last_heard = now
        if kind is MessageType.DELETE:
            return self._deleted_by_peer(payloads, now)
        if kind is MessageType.STATUS:
            return Grant((), effects=[Count(Tally.NOTIFY_IGNORED) for p in payloads if isinstance(p, Notify)])
        if self._closing:
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, "this host is shutting down")
        taken = {*self._pairs, *self._pending, *self._tombstoned(now)}
        answer = answer_create(
            payloads,
            peer=self.settings,
            remote=path.remote.address,
            key=key,
            taken=taken,
            allocate_spi=self._allocate_spi,
            random=self._random,
            now=now,
        )
        if answer.ackreq:
            self._pending[answer.pair.outbound_spi] = answer.pair
            effects = answer.now
        else:
            effects = [*answer.now, *self._established(answer.pair, now)]
        return Grant(answer.payloads, effects, answer.ackreq, answer.on_ack, answer.on_silence, answer.pair)

    def acknowledged(self, grant: Grant, now: float) -> list[Effect]:
        """The ACK of a 3-way CREATE is in: its outbound SA may carry (RFC 4430 §3.2 step 6)."""
        assert grant.pair is not None
        if self._pending.pop(grant.pair.outbound_spi, None) is None:
            return [Count(Tally.IGNORED_EVENT)]
        return [*grant.on_ack, *self._established(moved(grant.pair, now), now)]

    def unacknowledged(self, grant: Grant, now: float) -> list[Effect]:
        """Nobody acknowledged: the initiator may have both SAs, so it is told to delete them."""
        assert grant.pair is not None
        if self._pending.pop(grant.pair.outbound_spi, None) is None:
            return [Count(Tally.IGNORED_EVENT)]
        told = Tell(
            "create_unacknowledged", (("peer", self.settings.name), ("policy", grant.pair.policy)), warning=True
        )
        if self._closing:
            return [told, *grant.on_silence]
        return [told, *self._begin(DeleteCommand(grant.pair.policy, grant.pair.inbound_spi)).start()]

    def outlived(self, epoch: int) -> bool:
        """Whether ``epoch`` is of an earlier life of the peer: a message that was late, or kept back by somebody.

        It is authentic, and to believe it would tear down what the peer's present life has made.
        """
        return epoch in self._past_epochs

    def observe_epoch(self, epoch: int, now: float) -> list[Effect]:
        """Record the peer's epoch; another one than before means that it has lost every SA (RFC 4430 §3.7)."""
        self.last_heard = now
        before, self.peer_epoch = self.peer_epoch, epoch
        if before is None or before == epoch:
            return self._tell_untold()
        self._past_epochs.append(before)
        effects: list[Effect] = [
            Count(Tally.PEER_RESTARTED),
            Tell("peer_restarted", (("peer", self.settings.name), ("epoch", epoch)), warning=True),
        ]
        for pair in self._pairs.values():
            effects += teardown(pair)
        effects += [RemoveInbound(pair.inbound_spi) for pair in self._pending.values()]
        effects += [RemoveInbound(spi) for spi in self._untold]
        lost = {pair.policy for pair in self._pairs.values()}
        self._untold.clear()
        self._pairs.clear()
        self._pending.clear()
        for policy in sorted(lost):
            effects += self._lost(policy, now)
        return effects

    # ------------------------------------------------------------ inside

    def _fraction(self) -> float:
        return float(_FRACTION.unpack(self._random(4))[0]) / 2**32

    def _begin(self, command: Command, *, fresh_ticket: bool = False, second_try: bool = False) -> Initiator:
        exchange = Initiator(
            command,
            xid=self._next_xid(),
            server=self.settings.principal,
            path=Path(self.settings.kink),
            epoch=self._epoch,
            kerberos=self._kerberos,
            offset=self._offset,
            fresh_ticket=fresh_ticket,
            second_try=second_try,
        )
        self._exchanges[exchange.xid] = exchange
        return exchange

    def _advance(self, xid: int, event: Event, now: float) -> list[Effect]:
        exchange = self._exchanges.get(xid)
        if exchange is None:
            return [Count(Tally.UNKNOWN_XID)]
        ended = exchange.outcome is not None
        effects = exchange.handle(event, now)
        if exchange.peer_epoch is not None and not ended:
            effects = self.observe_epoch(exchange.peer_epoch, now) + effects
        if exchange.outcome is not None and not ended:
            effects += self._concluded(exchange, exchange.outcome, now)
        if exchange.state is State.CLOSED:
            del self._exchanges[xid]
        return effects

    def _concluded(self, exchange: Initiator, outcome: Outcome, now: float) -> list[Effect]:
        command = exchange.command
        effects: list[Effect] = []
        if isinstance(outcome, Restart):
            if not exchange.second_try:
                return self._restart(exchange, outcome)
            # A cure that does not cure is a failure; the command was not withdrawn, for a second try that won't come.
            outcome, effects = Failed(f"{outcome.reason} (again)"), command.withdraw()
        if isinstance(outcome, Failed):
            effects.append(self._told_failure(exchange, outcome))
        if isinstance(command, CreateCommand):
            return effects + self._create_concluded(command, outcome, now)
        if isinstance(command, DeleteCommand):
            heard = exchange.peer_epoch is not None
            return effects + self._delete_concluded(command, outcome, now, heard=heard)
        if isinstance(command, StatusCommand):
            command.outcome = outcome
        return effects

    def _restart(self, exchange: Initiator, outcome: Restart) -> list[Effect]:
        self._offset = outcome.offset
        again = self._begin(exchange.command, fresh_ticket=outcome.fresh_ticket, second_try=True)
        if isinstance(exchange.command, CreateCommand):
            self.policies[exchange.command.policy.name].negotiating = again.xid
        told = Tell("command_restarted", (("peer", self.settings.name), ("reason", outcome.reason)))
        return [told, *again.start()]

    def _create_concluded(self, command: CreateCommand, outcome: Completed | Failed, now: float) -> list[Effect]:
        state = self.policies[command.policy.name]
        state.negotiating = None
        if isinstance(outcome, Completed):
            assert command.pair is not None
            state.create_seconds = outcome.took
            effects = self._established(command.pair, now)
            return effects + self._delete(command.pair, now) if self._closing else effects
        effects = self._failed(state, outcome.reason, now)
        if outcome.peer_may_hold_state:
            # A pair that only the peer knows of would be half open: delete it, and keep the inbound SA until then.
            effects += self._begin(DeleteCommand(command.policy.name, command.spi)).start()
        return effects

    def _delete_concluded(
        self, command: DeleteCommand, outcome: Completed | Failed, now: float, *, heard: bool
    ) -> list[Effect]:
        if isinstance(outcome, Completed):
            return self._remove_after_grace(command.spi, now)
        if heard or self._closing:
            return [RemoveInbound(command.spi)]
        # The peer may go on sending: its SA is half open without our inbound one, which stays until the peer is heard
        # again and told, or the hard lifetime ends it.
        self._untold[command.spi] = command.policy
        if len(self._untold) <= MAX_UNTOLD:
            return []
        return [RemoveInbound(self._untold.popitem(last=False)[0])]

    def _tell_untold(self) -> list[Effect]:
        """The peer lives: DELETE what it was not told of."""
        if self._closing:
            return []
        untold, self._untold = self._untold, OrderedDict()
        return [effect for spi, policy in untold.items() for effect in self._begin(DeleteCommand(policy, spi)).start()]

    def _told_failure(self, exchange: Initiator, outcome: Failed) -> Tell:
        return Tell(
            f"{exchange.command.type.name.lower()}_failed",
            (
                ("peer", self.settings.name),
                ("subject", exchange.command.subject),
                ("reason", outcome.reason),
            ),
            warning=True,
        )

    def _failed(self, state: PolicyState, reason: str, now: float) -> list[Effect]:
        state.failures += 1
        state.last_error = reason
        wait = min(FIRST_RETRY * 2.0 ** (state.failures - 1), LONGEST_RETRY)
        state.not_before = now + wait
        return self._retry(state, now + wait)

    def _retry(self, state: PolicyState, time: float) -> list[Effect]:
        """Try again by ourselves what has to stand, and what stands and is ours to rekey before it ends."""
        wanted = state.settings.start is Start.BOOT or self._rekeys(state.settings.name)
        if not wanted or self._closing:
            state.retry_at = None
            return []
        state.retry_at = time
        return [WakeAt(time, self.settings.name)]

    def _rekeys(self, policy: str) -> bool:
        """Whether this host made the pair in use: its CREATE that failed was a rekey (RFC 4430 §3.6)."""
        newest = self._newest(policy)
        return newest is not None and newest.initiated

    def _lost(self, policy: str, now: float) -> list[Effect]:
        """A pair is gone that should stand."""
        if self.pairs(policy):
            return []
        return self._retry(self.policies[policy], now + FIRST_RETRY)

    def _established(self, pair: SaPair, now: float) -> list[Effect]:
        state = self.policies[pair.policy]
        state.failures, state.last_error, state.retry_at, state.not_before = 0, "", None, 0.0
        self._pairs[pair.outbound_spi] = pair
        told = Tell(
            "sa_established",
            (
                ("peer", self.settings.name),
                ("policy", pair.policy),
                ("role", "initiator" if pair.initiated else "responder"),
                ("suite", pair.suite),
                ("spi_in", f"{pair.inbound_spi:#010x}"),
                ("spi_out", f"{pair.outbound_spi:#010x}"),
                ("seconds", round(pair.took, 4)),
            ),
        )
        effects: list[Effect] = [told]
        for old in self._superseded(pair.policy):
            effects += self._delete(old, now)
        return effects

    def _superseded(self, policy: str) -> list[SaPair]:
        """Pairs of ours that are to go: all but our newest, and that too where the peer's has precedence."""
        ours = [pair for pair in self.pairs(policy) if pair.initiated]
        theirs = [pair for pair in self.pairs(policy) if not pair.initiated]
        if ours and theirs and self._principal > self.settings.principal:
            return ours
        return ours[:-1]

    def _delete(self, pair: SaPair, now: float) -> list[Effect]:
        """Drop the outbound SA and tell the peer; the inbound one follows (RFC 4430 §3.3)."""
        del self._pairs[pair.outbound_spi]
        self._bury(pair.outbound_spi, now)
        effects: list[Effect] = [RemoveOutbound(pair.policy, pair.outbound_spi)]
        return effects + self._begin(DeleteCommand(pair.policy, pair.inbound_spi)).start()

    def _deleted_by_peer(self, payloads: tuple[IsakmpPayload, ...], now: float) -> Grant:
        answers, gone = answer_delete(payloads, {**self._pairs, **self._pending})
        for payload in payloads:
            if isinstance(payload, Delete):
                for spi in payload.spis:
                    self._bury(int.from_bytes(spi, "big"), now)
        effects: list[Effect] = []
        for pair in gone:
            if self._pairs.pop(pair.outbound_spi, None) is not None:
                effects.append(RemoveOutbound(pair.policy, pair.outbound_spi))
            self._pending.pop(pair.outbound_spi, None)
            effects += self._remove_after_grace(pair.inbound_spi, now)
            effects.append(Tell("sa_deleted_by_peer", (("peer", self.settings.name), ("policy", pair.policy))))
            effects += self._lost(pair.policy, now)
        return Grant(answers, effects)

    def _remove_after_grace(self, spi: int, now: float) -> list[Effect]:
        time = now + self.settings.delete_grace
        self._graces.append((time, spi))
        return [WakeAt(time, self.settings.name)]

    def _bury(self, spi: int, now: float) -> None:
        self._tombstones[spi] = now + TOMBSTONE_KEPT
        self._tombstones.move_to_end(spi)
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _tombstoned(self, now: float) -> list[int]:
        return [spi for spi, until in self._tombstones.items() if until > now]

    def _pair_with(self, policy: str, spi: int) -> SaPair | None:
        return next((pair for pair in self.pairs(policy) if spi in (pair.inbound_spi, pair.outbound_spi)), None)

    def _newest(self, policy: str) -> SaPair | None:
        return next(reversed(self.pairs(policy)), None)
