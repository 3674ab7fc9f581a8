"""The initiator's machine: one command from its ticket to its verified REPLY (RFC 4430 §3, §9).

      AWAIT_TICKET --TicketReady--> AWAIT_REPLY --authentic REPLY--> LINGERING --DeadlineReached--> CLOSED
            |                        |   ^  |
            |                        |   +--+ DeadlineReached: once more, new authenticator, same XID, same ticket
       TicketRefused                 +-- last deadline, or an authentic refusal --> CLOSED
            v
          CLOSED

An unauthenticated error about the ticket's key ends nothing (RFC 4430 §3.5, §10). It makes AWAIT_REPLY ask for a fresh
ticket once; if nothing authentic has come by the next deadline, the command goes on with that one under another XID.
So it does when a hint of user-to-user (§3.1, §3.7.1) has brought a ticket of that kind, and at once.

LINGERING keeps the ability to ACK again for a full retransmission cycle (RFC 4430 §9).
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.proto import labels
from kinkvpn.proto.envelope import Opened, open_reply, seal_command
from kinkvpn.proto.events import (
    Count,
    DeadlineReached,
    Effect,
    Event,
    FetchTicket,
    Label,
    Path,
    ReplyReceived,
    SendMessage,
    Tally,
    Tell,
    TicketReady,
    TicketRefused,
    WakeAt,
)
from kinkvpn.proto.extensions import filled
from kinkvpn.proto.outcome import Cause, Completed, Failed, Outcome, Restart
from kinkvpn.proto.quick_mode import AnswerUnusable, RequestFailed
from kinkvpn.proto.retransmit import FULL_CYCLE, Retransmission
from kinkvpn.proto.status import StatusCommand
from kinkvpn.wire.isakmp import IsakmpPayload, KeyExchange, Nonce
from kinkvpn.wire.kink import (
    ApRep,
    ErrorCode,
    Isakmp,
    KinkError,
    KinkPayload,
    KrbError,
    MessageType,
    TgtRep,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.ports import Kerberos, KrbErrorDetails, OutstandingRequest, SessionKey, Ticket

# RFC 4120 §7.5.9: the two errors that a new transaction can cure (RFC 4430 §3.5, §9).
KRB_AP_ERR_TKT_EXPIRED = 32
KRB_AP_ERR_SKEW = 37
# One that only time can, or whoever sets the peer's clock: it is behind, and our ticket younger than that.
KRB_AP_ERR_TKT_NYV = 33
# Those of a peer without the key that our ticket is made with, BAD_INTEGRITY, BADKEYVER and NOKEY, so never
# authenticated: its keys were changed, and a ticket that is made now is made with the new one.
FRESH_TICKET_CURES = frozenset({31, 44, 45})
# Ours. Clocks that differ by less agree: a datagram takes time, and Kerberos allows minutes.
CLOCKS_AGREE_SECONDS = 5.0
KRB_AP_ERR_USER_TO_USER_REQUIRED = 69
# Ours. Tickets that one command changes to after a hint: to a user-to-user one, and once more if the peer's
# ticket-granting ticket was replaced meanwhile.
MAX_SWITCHES = 2
# Ours. ACKs of one exchange beyond the first. An honest responder repeats its REPLY six times, and a network may double
# each; whoever sends one more often that he overheard wants ACKs, twice as long, to go to somebody.
MAX_ACKS_AGAIN = 16
# What the peer means by an error about our AP-REQ (RFC 4120 §7.5.9), for whoever has to put it right.
KERBEROS_MEANINGS = {
    31: "its keytab cannot decrypt our ticket",
    32: "our ticket has expired by its clock",
    33: "our ticket is not valid yet by its clock, which is behind",
    34: "it has seen this request before",
    35: "our ticket is for another principal than it has keys of",
    37: "its clock and ours differ too much",
    41: "the request was altered on its way",
    44: "its keytab has another version of the key that our ticket is made with",
    45: "its keytab lacks the key that our ticket is made with",
    69: "it has no keytab and takes user-to-user tickets only",
}


class Fetch(Protocol):
    """How exchange ``xid`` comes to its ticket: ``kinkvpn.proto.gettgt.TicketRoute`` has it."""

    def __call__(self, xid: int, *, fresh: bool, tgt: bytes | None) -> list[Effect]:
        """The effects; ``TicketReady`` or ``TicketRefused`` follow."""
        ...


class Command(Protocol):
    """What differs between CREATE, DELETE and STATUS."""

    @property
    def type(self) -> MessageType:
        """Goes into the header."""
        ...

    @property
    def subject(self) -> str:
        """What it is about, for the operator."""
        ...

    def payloads(self) -> tuple[KinkPayload, ...]:
        """What goes into KINK_ENCRYPT; the same at every retransmission."""
        ...

    def begin(self, key: SessionKey, now: float, /) -> list[Effect]:
        """Effects before the first transmission."""
        ...

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        """Effects of an authentic answer, a tuple for each KINK_ISAKMP payload in it.

        Raises:
            RequestFailed, AnswerUnusable: nothing of what was asked for came about.
        """
        ...

    def withdraw(self) -> list[Effect]:
        """Undo ``begin``."""
        ...


class State(Enum):
    """Where the exchange is."""

    AWAIT_TICKET = "await ticket"
    AWAIT_REPLY = "await reply"
    LINGERING = "lingering"
    CLOSED = "closed"


Step = tuple[State, list[Effect]]


def as_they_are(_kind: MessageType, payloads: tuple[KinkPayload, ...], _transmission: int) -> tuple[KinkPayload, ...]:
    """What a command carries that has nothing besides."""
    return payloads


class Initiator:
    """One command exchange.

    Args:
        command: what is asked.
        xid: unique among this host's outstanding exchanges.
        server: the peer's principal.
        route: where the transmission of that number goes, at that time.
        extend: the payloads of the transmission of that number with what its type of command may carry besides.
        epoch: ours.
        kerberos: reads KRB-ERRORs.
        offset: added to our clock in authenticators, learned from an earlier KRB_AP_ERR_SKEW.
        fresh_ticket: do not take the ticket from the cache.
        second_try: a Restart that cures an authentic error has been tried already.
        fetch: ``(xid, fresh, tgt)`` to the effects that get the ticket; None for a service ticket from the KDC.
        tgt: the peer's ticket-granting ticket to use a user-to-user ticket of; None for what ``fetch`` thinks best.
        switches: how often this command has changed to another ticket after a hint.
        skipped: how many of the first steps of the back-off are left out.

    Attributes:
        hint: what an unauthenticated answer has just said of user-to-user: the peer's ticket-granting ticket, empty
            where it has to be asked for; None for nothing.
    """

    def __init__(
        self,
        command: Command,
        *,
        xid: int,
        server: str,
        route: Callable[[int, float], Path],
        epoch: int,
        kerberos: Kerberos,
        extend: Callable[[MessageType, tuple[KinkPayload, ...], int], tuple[KinkPayload, ...]] = as_they_are,
        offset: float = 0.0,
        fresh_ticket: bool = False,
        second_try: bool = False,
        fetch: Fetch | None = None,
        tgt: bytes | None = None,
        switches: int = 0,
        skipped: int = 0,
    ) -> None:
        self.command = command
        self.second_try = second_try
        self.switches = switches
        self.hint: bytes | None = None
        self.xid = xid
        self.state = State.AWAIT_TICKET
        self.outcome: Outcome | None = None
        self.peer_epoch: int | None = None
        self.answered_by: Path | None = None
        self.answer: tuple[KinkPayload, ...] = ()
        self.deadline: float | None = None
        self._server = server
        self._route = route
        self._extend = extend
        self._epoch = epoch
        self._kerberos = kerberos
        self._offset = offset
        self._fresh_ticket = fresh_ticket
        self._fetch = fetch
        self._tgt = tgt
        self._ticket: Ticket | None = None
        self._outstanding: list[OutstandingRequest] = []
        self._sent_at: list[float] = []  # when each of them left
        self.round_trip: float | None = None
        self._retransmission = Retransmission(skipped=skipped)
        self.first_sent = 0.0
        self._patience: float | None = None  # seconds from the first transmission to giving up; None: the full cycle
        self._status = command if isinstance(command, StatusCommand) else None
        if self._status is not None and self._status.patience is not None:
            self._patience = self._status.patience * (1 if self._status.trial is None else 2**skipped)
        self._hint = ""
        self._unreadable = ""
        self._doubted = False
        self._fresher = False
        self._offered = False
        self._acknowledges = False
        self._acks_again = 0

    @property
    def sent(self) -> int:
        """Transmissions so far."""
        return self._retransmission.sent

    @property
    def offset(self) -> float:
        """Clock offset towards this peer, in seconds."""
        return self._offset

    @property
    def tgt(self) -> bytes | None:
        """What the ticket in use was made with; None for a service ticket, or none yet."""
        return self._ticket.tgt if self._ticket else None

    def start(self) -> list[Effect]:
        """Ask for the ticket."""
        if self._fetch is None:
            return [FetchTicket(self.xid, self._server, self._fresh_ticket, self._tgt)]
        return self._fetch(self.xid, fresh=self._fresh_ticket, tgt=self._tgt)

    def again(self, restart: Restart, xid: int) -> Initiator:
        """The same command as another transaction, as ``restart`` has it."""
        return Initiator(
            self.command,
            xid=xid,
            server=self._server,
            route=self._route,
            epoch=self._epoch,
            kerberos=self._kerberos,
            extend=self._extend,
            offset=restart.offset,
            fresh_ticket=restart.fresh_ticket,
            second_try=self.second_try or restart.tgt is None,
            fetch=self._fetch,
            tgt=restart.tgt,
            switches=self.switches + (restart.tgt is not None),
            skipped=self._retransmission.skipped,
        )

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event. An event that the state has no use for is counted and changes nothing."""
        self.hint = None
        transition = self.TRANSITIONS.get((self.state, type(event)))
        if transition is None:
            return [Count(Tally.IGNORED_EVENT)]
        self.state, effects = transition(self, event, now)
        return effects

    # ------------------------------------------------------------ transitions

    def _send_first(self, event: Event, now: float) -> Step:
        assert isinstance(event, TicketReady)
        self._ticket = event.ticket
        self.first_sent = now
        effects = self.command.begin(event.ticket.key, now)
        return State.AWAIT_REPLY, [*effects, Count(Tally.COMMANDS_SENT), *self._transmit(event.ticket, now)]

    def _no_ticket(self, event: Event, _now: float) -> Step:
        assert isinstance(event, TicketRefused)
        # ``begin`` has not run, but the SPI is reserved: withdraw releases it.
        cause = Cause.SILENCE if event.refusal.peer_silent else Cause.NO_TICKET
        return self._close(Failed(event.refusal.reason, cause=cause), self.command.withdraw())

    def _transmit(self, ticket: Ticket, now: float) -> list[Effect]:
        request = ticket.make_request(self._offset)
        self._outstanding.append(request)
        self._sent_at.append(now)
        payloads = self._extend(self.command.type, self.command.payloads(), self.sent)
        seal = partial(seal_command, self.command.type, self.xid, self._epoch, request, ticket.key)
        trial = None if self._status is None else self._status.trial
        if self._status is not None and trial is not None:
            payloads = filled(seal, payloads, trial.octets)
        datagram = seal(payloads)
        self.deadline = now + self._retransmission.interval
        if self._patience is not None:
            self.deadline = min(self.deadline, self.first_sent + self._patience)
        if self._status is not None and trial is not None:
            self._status.transmitted(len(datagram))
            send = SendMessage(datagram, trial.path, labels.sent(payloads), trial.whole)
        else:
            send = SendMessage(datagram, self._route(self.sent, now), labels.sent(payloads))
        return [send, WakeAt(self.deadline)]

    def _retransmit(self, _event: Event, now: float) -> Step:
        assert self._ticket is not None
        assert self.deadline is not None
        if now < self.deadline:
            return self.state, [WakeAt(self.deadline)]
        if self._given_up(now):
            hint = f"; it did say, unauthenticated: {self._hint}" if self._hint else ""
            reason = f"no answer in {now - self.first_sent:.1f} s to {self._retransmission.sent} transmissions{hint}"
            # A peer that offers its ticket-granting ticket lives, for all that anybody can know: it cannot open the
            # ticket that we have, and another one was not to be had ("MUST NOT think", RFC 4430 §3.7.1).
            cause = Cause.NO_TICKET if self._offered else Cause.SILENCE
            return self._close(Failed(reason, peer_may_hold_state=True, cause=cause), [])
        if self._fresher:
            # Should the peer have taken the old ticket after all, it answers the new XID that the SPI is in use, and is
            # told to delete it.
            return self._close(Restart(f"the peer says, unauthenticated: {self._hint}", offset=self._offset), [])
        self._retransmission = self._retransmission.next()
        return State.AWAIT_REPLY, [Count(Tally.COMMANDS_RETRANSMITTED), *self._transmit(self._ticket, now)]

    def _given_up(self, now: float) -> bool:
        if self._patience is None:
            return self._retransmission.exhausted
        return now >= self.first_sent + self._patience

    def _read_reply(self, event: Event, now: float) -> Step:
        assert isinstance(event, ReplyReceived)
        opened, counted = self._open(event)
        if opened is None:
            return self.state, [counted, *self._doubt(event)]
        self.peer_epoch = opened.epoch
        self.answered_by, self.answer = event.path, opened.payloads
        self.round_trip = now - self._sent_at[opened.answered]
        effects: list[Effect] = [counted]
        if unknown := labels.unknown_notifies(opened.payloads):
            # Ignored, or the end of it all where it is an error (RFC 4430 §5.5): told in either case.
            effects.append(Tell("notify_ignored", (("peer", self._server), ("types", unknown))))
        try:
            effects += self._believe(opened, now)
        except RequestFailed as refusal:
            return self._end(opened, Failed(str(refusal)), effects + self.command.withdraw(), now)
        except AnswerUnusable as mismatch:
            failed = Failed(str(mismatch), peer_may_hold_state=True, cause=Cause.UNUSABLE)
            return self._end(opened, failed, effects, now)
        except _KerberosRefused as refused:
            # Where it can be cured the command is not withdrawn: it goes on under another XID.
            undone = self.command.withdraw() if isinstance(refused.outcome, Failed) else []
            return self._end(opened, refused.outcome, effects + undone, now)
        return self._end(opened, Completed(now - self.first_sent), effects, now)

    def _doubt(self, event: ReplyReceived) -> list[Effect]:
        """Who knows who says that the peer has no key for our ticket: a trip to the KDC is all that it moves us to."""
        codes = {self._code(payload) for payload in event.message.payloads if isinstance(payload, KrbError)}
        authentic = any(isinstance(payload, ApRep) for payload in event.message.payloads)
        if self._doubted or self.second_try or authentic or not codes & FRESH_TICKET_CURES:
            return []
        if self.tgt is not None:
            return []  # the key is the peer's ticket-granting ticket's: of a lost one it says so (RFC 4430 §3.7.1)
        self._doubted = True
        return [FetchTicket(self.xid, self._server, fresh=True)]

    def _code(self, payload: KrbError) -> int | None:
        try:
            return self._kerberos.read_error(payload.krb_error).code
        except MalformedMessage:
            return None

    def _have_better(self, event: Event, _now: float) -> Step:
        """What an unauthenticated word made us get: a fresh ticket serves later, a user-to-user one at once.

        For that the KDC has vouched: it makes one for nobody but the holder of the ticket-granting ticket.
        """
        assert isinstance(event, TicketReady)
        if event.ticket.tgt is None and self.tgt is None:
            self._fresher = True  # whoever keeps tickets has it for the next exchange
            return self.state, []
        if event.ticket.tgt in (None, self.tgt):
            return self.state, [Count(Tally.IGNORED_EVENT)]
        first = "takes user-to-user tickets only" if self.tgt is None else "has a new ticket-granting ticket"
        return self._close(Restart(f"the peer {first}", offset=self._offset, tgt=event.ticket.tgt), [])

    def _none_fresher(self, event: Event, _now: float) -> Step:
        assert isinstance(event, TicketRefused)
        self._hint = f"{self._hint}, and {event.refusal.reason}"
        return self.state, []

    def _acknowledge_again(self, event: Event, now: float) -> Step:
        assert isinstance(event, ReplyReceived)
        if self._acks_again >= MAX_ACKS_AGAIN:
            return self.state, [Count(Tally.REPEAT_SUPPRESSED)]
        opened, counted = self._open(event)
        if opened is None or not self._acknowledges:
            return self.state, [Count(Tally.DUPLICATE) if opened else counted]
        self._acks_again += 1
        return self.state, [Count(Tally.RETRANSMITTED), self._ack(now)]

    def _linger(self, _event: Event, now: float) -> Step:
        assert self.deadline is not None
        if now < self.deadline:
            return self.state, [WakeAt(self.deadline)]
        self._outstanding.clear()
        self.deadline = None
        return State.CLOSED, []

    TRANSITIONS: ClassVar[dict[tuple[State, type], Callable[[Initiator, Event, float], Step]]] = {
        (State.AWAIT_TICKET, TicketReady): _send_first,
        (State.AWAIT_TICKET, TicketRefused): _no_ticket,
        (State.AWAIT_REPLY, DeadlineReached): _retransmit,
        (State.AWAIT_REPLY, ReplyReceived): _read_reply,
        (State.AWAIT_REPLY, TicketReady): _have_better,
        (State.AWAIT_REPLY, TicketRefused): _none_fresher,
        (State.LINGERING, ReplyReceived): _acknowledge_again,
        (State.LINGERING, DeadlineReached): _linger,
    }

    # ------------------------------------------------------------ reading a REPLY

    def _open(self, event: ReplyReceived) -> tuple[Opened | None, Count]:
        assert self._ticket is not None
        ap = next((payload for payload in event.message.payloads if isinstance(payload, ApRep)), None)
        if ap is None:
            # Unauthenticated: never ends an exchange (RFC 4430 §3.5, §10), but worth remembering for the log.
            self._hint = describe(event.message.payloads, self._kerberos) or self._hint
            return None, Count(self._take_hint(event.message.payloads), self._labels(event.message.payloads))
        try:
            opened = open_reply(event.message, event.datagram, ap, self._outstanding, self._ticket.key)
        except AuthenticationFailed:
            return None, Count(Tally.UNAUTHENTICATED_REPLY)
        except MalformedMessage as malformed:
            # Verified, and still not to be read: there is no telling the peer (RFC 4430 §3.5), but the operator.
            self._unreadable = str(malformed)
            return Opened(ap.epoch, (), event.message.ackreq), Count(Tally.REPLIES_RECEIVED)
        return opened, Count(Tally.REPLIES_RECEIVED, self._labels(opened.payloads))

    def _labels(self, payloads: tuple[KinkPayload, ...]) -> tuple[Label, ...]:
        return labels.received(payloads, self._kerberos)

    def _take_hint(self, payloads: tuple[KinkPayload, ...]) -> Tally:
        """What an answer in the clear says of user-to-user, where it could be so; it ends nothing (RFC 4430 §3.1)."""
        if self.state is State.AWAIT_REPLY and self.switches < MAX_SWITCHES:
            for payload in payloads:
                if isinstance(payload, TgtRep) and self.tgt not in (None, payload.ticket):
                    self.hint = payload.ticket
                    self._offered = True
                    return Tally.TGT_OFFERED
                if isinstance(payload, KrbError) and self.tgt is None and self._wants_user_to_user(payload):
                    self.hint = b""
                    return Tally.USER_TO_USER_REQUIRED
        return Tally.UNAUTHENTICATED_ERROR

    def _wants_user_to_user(self, payload: KrbError) -> bool:
        try:
            return self._kerberos.read_error(payload.krb_error).code == KRB_AP_ERR_USER_TO_USER_REQUIRED
        except MalformedMessage:
            return False

    def _believe(self, opened: Opened, now: float) -> list[Effect]:
        assert self._ticket is not None
        if self._unreadable:
            raise AnswerUnusable(f"the peer's answer cannot be read: {self._unreadable}")
        quick_mode: list[Isakmp] = []
        for payload in opened.payloads:
            if isinstance(payload, KrbError):
                raise self._kerberos_refusal(payload)
            if isinstance(payload, KinkError) and payload.code != ErrorCode.OK:
                raise RequestFailed(f"the peer answers {error_name(payload.code)}")
            if isinstance(payload, Isakmp):
                quick_mode.append(payload)
        if any(payload.unread for payload in quick_mode):
            raise AnswerUnusable("the peer answers in another version of Quick Mode than ours")
        answers = tuple(payload.payloads for payload in quick_mode)
        effects = self.command.complete(answers, ackreq=opened.ackreq, key=self._ticket.key, now=now)
        # §6.3 wants ACKREQ wherever Nr or KE is; a peer that forgets the bit still waits (spec: the other
        # implementation).
        self._acknowledges = any(isinstance(payload, Nonce | KeyExchange) for answer in answers for payload in answer)
        return effects

    def _kerberos_refusal(self, payload: KrbError) -> Exception:
        try:
            details = self._kerberos.read_error(payload.krb_error)
        except MalformedMessage as malformed:
            return RequestFailed(f"the peer answers an unreadable KRB-ERROR: {malformed}")
        reason = f"the peer answers {kerberos_error(details)}"
        apart = 0.0 if details.client_time is None else details.server_time - details.client_time
        if abs(apart) < CLOCKS_AGREE_SECONDS and details.code != KRB_AP_ERR_SKEW:
            apart = 0.0
        offset = self._offset + apart
        if apart:
            reason += f": its clock is {offset:+.0f} s from ours"
        if details.code == KRB_AP_ERR_SKEW and apart:
            return _KerberosRefused(Restart(reason, offset=offset))
        if details.code == KRB_AP_ERR_TKT_EXPIRED:
            return _KerberosRefused(Restart(reason, offset=offset, fresh_ticket=True))
        if details.code == KRB_AP_ERR_TKT_NYV:
            reason += "; it takes the ticket when that is older, or sooner if its clock is set right"
            return _KerberosRefused(Failed(reason, offset=offset))
        return RequestFailed(reason)

    # ------------------------------------------------------------ ending

    def _end(self, opened: Opened, outcome: Outcome, effects: list[Effect], now: float) -> Step:
        self._acknowledges = self._acknowledges or opened.ackreq
        self.outcome = outcome
        # "MUST always generate an ACK if the ACKREQ bit is set, even if it believes that the responder was in
        # error" (RFC 4430 §3.2).
        if self._acknowledges:
            effects.append(self._ack(now))
        self.deadline = now + FULL_CYCLE
        return State.LINGERING, [*effects, WakeAt(self.deadline)]

    def _close(self, outcome: Outcome, effects: list[Effect]) -> Step:
        self.outcome = outcome
        self.deadline = None
        self._outstanding.clear()
        return State.CLOSED, effects

    def _ack(self, now: float) -> SendMessage:
        assert self._ticket is not None
        request = self._ticket.make_request(self._offset)
        path = self.answered_by or self._route(self.sent, now)
        return SendMessage(seal_command(MessageType.ACK, self.xid, self._epoch, request, self._ticket.key), path)


class _KerberosRefused(Exception):
    """Carries what an authentic KRB-ERROR comes to out of the reading."""

    def __init__(self, outcome: Failed | Restart) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def describe(payloads: tuple[KinkPayload, ...], kerberos: Kerberos) -> str:
    """The first error of an answer in the clear, for the operator; empty where there is none."""
    for payload in payloads:
        if isinstance(payload, KinkError):
            return error_name(payload.code)
        if isinstance(payload, KrbError):
            try:
                return kerberos_error(kerberos.read_error(payload.krb_error))
            except MalformedMessage:
                return "an unreadable KRB-ERROR"
    return ""


def kerberos_error(details: KrbErrorDetails) -> str:
    """The code, what it means where we know, and the peer's own words where it has some."""
    meaning = KERBEROS_MEANINGS.get(details.code)
    return f"Kerberos error {details.code}{f' ({meaning})' if meaning else ''} {details.text}".rstrip()


def error_name(code: int) -> str:
    """KINK_ and the registry's name of an error code, or its number (RFC 4430 §4.2.8)."""
    try:
        return f"KINK_{ErrorCode(code).name}"
    except ValueError:
        return f"KINK error {code}"
