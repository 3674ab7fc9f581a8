"""User-to-user: how a peer's ticket-granting ticket is got, and given, and when it is wanted (RFC 4430 §3.1, §3.7.1).

      AWAIT_TGT --KINK_TGT_REP--> LISTENING --DeadlineReached, conclude--> CLOSED
        |   ^                      |   ^
        |   |                      +---+ KINK_TGT_REP: remembered
        |   +--+ DeadlineReached: the first transmission, and the same datagram again
        |   +--+ KINK_ERROR, KRB-ERROR: remembered
        +-- last deadline, or the first one after an error --> CLOSED

Nothing of this exchange is authenticated, in either direction: the KDC is who judges what came of it. It makes a ticket
only with a ticket-granting ticket that it issued to the very principal that the ticket is for (RFC 4120 §3.3.3). So
what is heard here, and a KINK_TGT_REP or KRB_AP_ERR_USER_TO_USER_REQUIRED in answer to a command, makes us try and ends
nothing: what the KDC refuses may have been forged, and the next answer is tried. Who sends as many forgeries as are
tried, all of them before the true answer, or keeps that away, has one attempt fail; the next one is as good as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

from kinkvpn.proto.events import (
    Count,
    DeadlineReached,
    Effect,
    Event,
    Family,
    FetchTicket,
    Label,
    ReplyReceived,
    SendMessage,
    Tally,
    WakeAt,
)
from kinkvpn.proto.initiator import describe
from kinkvpn.proto.labels import received
from kinkvpn.proto.outcome import Cause, Restart
from kinkvpn.proto.ports import TgtDenied, TicketRefusal
from kinkvpn.proto.retransmit import Retransmission
from kinkvpn.proto.settings import UserToUser
from kinkvpn.wire.kink import (
    ErrorCode,
    KinkError,
    KinkPayload,
    KrbError,
    Message,
    MessageType,
    TgtRep,
    TgtReq,
    build_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from kinkvpn.proto.events import Path
    from kinkvpn.proto.initiator import Initiator
    from kinkvpn.proto.ports import Kerberos, Ticket
    from kinkvpn.proto.settings import PeerSettings

    Route: TypeAlias = Callable[[int, float], Path]

# RFC 4120 §7.5.9: the KDC's word for a principal without a key. MIT's for one that never had any (addprinc -nokey, as
# for PKINIT) is the generic error.
KDC_ERR_MUST_USE_USER2USER: Final = 27
KRB_AP_ERR_NOT_US: Final = 35
KRB_ERR_GENERIC: Final = 60
KDC_HAS_NO_KEY: Final = frozenset({KDC_ERR_MUST_USE_USER2USER, KRB_ERR_GENERIC})

# Ours. Hints that one exchange follows to the peer or the KDC. Anybody on the path can send them ("SHOULD take
# precautions against make-work kinds of attacks", RFC 4430 §4.2.3); an honest peer needs one.
MAX_DETOURS: Final = 3
# Ours. How long another answer to a GETTGT is listened for after the first, which may be a forger's, who need not be as
# far away as the peer: a round trip over a satellite fits. A KDC that refuses the true one is told of that much later.
LISTEN_SECONDS: Final = 1.0


class State(Enum):
    """Where the exchange is."""

    AWAIT_TGT = "await tgt"
    LISTENING = "listening"
    CLOSED = "closed"


Step = tuple[State, list[Effect]]


class GetTgt:
    """One GETTGT exchange.

    Args:
        xid: unique among this host's outstanding exchanges.
        peer: whom to wake for it.
        principal: whose ticket-granting ticket is asked for.
        route: where the transmission of that number goes, at that time.
        kerberos: reads KRB-ERRORs.

    Attributes:
        tgts: what came, the first that may be tried.
        failure: why nothing did, when it is over.
        silent: nothing did because nothing came at all.
    """

    def __init__(self, *, xid: int, peer: str, principal: str, route: Route, kerberos: Kerberos) -> None:
        self.xid = xid
        self.state = State.AWAIT_TGT
        self.deadline = -inf
        self.tgts: list[bytes] = []
        self.failure = ""
        self.silent = False
        self._peer = peer
        self._route = route
        self._kerberos = kerberos
        # A principal as text is what RFC 1964 §2.1.3 exports: both have the escapes of krb5_unparse_name.
        request = Message(MessageType.GETTGT, xid, (TgtReq(principal.encode()),))
        self._request = build_message(request)
        self._retransmission: Retransmission | None = None
        self._first_sent = 0.0
        self._denial = ""

    def wait(self) -> list[Effect]:
        """Have it woken when it is due; to begin with, at once."""
        return [WakeAt(self.deadline, self._peer)]

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event. An event that the state has no use for is counted and changes nothing."""
        transition = self.TRANSITIONS.get((self.state, type(event)))
        if transition is None:
            return [Count(Tally.IGNORED_EVENT)]
        self.state, effects = transition(self, event, now)
        return effects

    def _transmit(self, _event: Event, now: float) -> Step:
        if now < self.deadline:
            return self.state, self.wait()
        if self._denial:
            return self._close(f"the peer answers {self._denial}", Cause.REFUSED)
        if self._retransmission is None:
            self._first_sent, self._retransmission, tally = now, Retransmission(), Tally.COMMANDS_SENT
        elif self._retransmission.exhausted:
            return self._close(f"no answer in {now - self._first_sent:.1f} s", Cause.SILENCE)
        else:
            self._retransmission, tally = self._retransmission.next(), Tally.COMMANDS_RETRANSMITTED
        self.deadline = now + self._retransmission.interval
        path = self._route(self._retransmission.sent, now)
        return self.state, [Count(tally), SendMessage(self._request, path), *self.wait()]

    def _read(self, event: Event, now: float) -> Step:
        assert isinstance(event, ReplyReceived)
        for payload in event.message.payloads:
            if isinstance(payload, TgtRep):
                self.tgts.append(payload.ticket)
                self.deadline = now + LISTEN_SECONDS
                return State.LISTENING, [Count(Tally.TGT_RECEIVED), _concluded("completed"), *self.wait()]
        # Forged perhaps: until the next deadline a better answer counts.
        self._denial = describe(event.message.payloads, self._kerberos) or self._denial
        return self.state, [self._doubtful(event)]

    def _read_another(self, event: Event, _now: float) -> Step:
        """Perhaps the true one: the first was whoever's came first."""
        assert isinstance(event, ReplyReceived)
        for payload in event.message.payloads:
            if isinstance(payload, TgtRep):
                if payload.ticket in self.tgts:
                    return self.state, [Count(Tally.DUPLICATE)]
                if len(self.tgts) > MAX_DETOURS:
                    return self.state, [Count(Tally.IGNORED_EVENT)]
                self.tgts.append(payload.ticket)
                return self.state, [Count(Tally.TGT_RECEIVED)]
        return self.state, [self._doubtful(event)]

    def _doubtful(self, event: ReplyReceived) -> Count:
        return Count(Tally.UNAUTHENTICATED_ERROR, received(event.message.payloads, self._kerberos))

    def _stop_listening(self, _event: Event, now: float) -> Step:
        if now < self.deadline:
            return self.state, self.wait()
        return State.CLOSED, []

    def conclude(self) -> None:
        """The KDC has vouched for one of what came, or refused as many as are tried: what comes later has no use."""
        self.state = State.CLOSED

    def _close(self, failure: str, cause: Cause) -> Step:
        self.failure, self.silent = failure, cause is Cause.SILENCE
        return State.CLOSED, [_concluded(f"failed.{cause}")]

    TRANSITIONS: ClassVar[dict[tuple[State, type], Callable[[GetTgt, Event, float], Step]]] = {
        (State.AWAIT_TGT, DeadlineReached): _transmit,
        (State.AWAIT_TGT, ReplyReceived): _read,
        (State.LISTENING, DeadlineReached): _stop_listening,
        (State.LISTENING, ReplyReceived): _read_another,
    }


@dataclass(slots=True)
class _Errand:
    """What goes on for the ticket of one exchange.

    Args:
        fresh: not the one that was kept.
        tgt: what the ticket that was asked for is made with; None for a service ticket.
        known: a ticket was made with that before.
        fetching: the KDC has not answered yet.
        sought: the GETTGT that was sent for it, or that it joined.
        tried: how many of what came of that the KDC was asked with.
        refusal: of the newest of those.
        detours: hints that were followed, and answers to the GETTGT beyond the first.
    """

    fresh: bool = False
    tgt: bytes | None = None
    known: bool = False
    fetching: bool = False
    sought: GetTgt | None = None
    tried: int = 0
    refusal: TicketRefusal | None = None
    detours: int = 0


class TicketRoute:
    """How this host comes to tickets for one peer: from the KDC alone, or by way of the peer (user-to-user).

    Args:
        settings: of the peer.
        kerberos: reads KRB-ERRORs.
        next_xid: a number that no outstanding exchange of this host has.
        route: where the transmission of that number goes, at that time.

    Attributes:
        user_to_user: which way the next exchange begins.
    """

    def __init__(self, settings: PeerSettings, kerberos: Kerberos, next_xid: Callable[[], int], route: Route) -> None:
        self.settings = settings
        self._route = route
        self._kerberos = kerberos
        self._next_xid = next_xid
        self.user_to_user = settings.user_to_user is UserToUser.ALWAYS
        # The newest one that the KDC made a ticket with. It stays until another one did: "the initiator SHOULD NOT
        # forget the previous service ticket until the new one is successfully obtained" (RFC 4430 §3.7.1).
        self._tgt: bytes | None = None
        self._exchange: GetTgt | None = None
        self._waiting: list[int] = []
        self._errands: dict[int, _Errand] = {}

    def change(self, settings: PeerSettings) -> None:
        """Other ones of the same peer: what was found out stands, unless it is no more to be found out."""
        if settings.user_to_user is not self.settings.user_to_user:
            self.user_to_user = settings.user_to_user is UserToUser.ALWAYS
        self.settings = settings

    def owns(self, xid: int) -> bool:
        """Whether ``xid`` is the GETTGT under way."""
        return self._exchange is not None and self._exchange.xid == xid

    # ------------------------------------------------------------ for an exchange

    def fetch(self, xid: int, *, fresh: bool = False, tgt: bytes | None = None) -> list[Effect]:
        """Get a ticket for exchange ``xid``, and the peer's ticket-granting ticket before if that is wanted.

        Args:
            xid: of the exchange.
            fresh: not the ticket that was kept.
            tgt: the ticket-granting ticket to use; None for what the peer is known to want.
        """
        errand = self._errands[xid] = _Errand(fresh=fresh)
        if tgt is None and self.user_to_user:
            # An expired ticket, for which a fresh one is wanted, may have ended with the peer's own.
            tgt = None if fresh else self._tgt
            if tgt is None:
                return self._seek(xid, errand)
        return self._ask(xid, errand, tgt)

    def ready(self, xid: int, ticket: Ticket) -> None:
        """The KDC has made a ticket for exchange ``xid``."""
        if xid in self._errands:
            self._errands[xid].fetching = False
            self._tgt = ticket.tgt or self._tgt
        if self._exchange is not None and ticket.tgt in self._exchange.tgts:
            self._exchange.conclude()

    def refused(self, xid: int, refusal: TicketRefusal) -> list[Effect]:
        """The KDC has none for exchange ``xid``: what to try instead; empty for nothing."""
        errand = self._errands.get(xid)
        if errand is None:
            return []
        errand.fetching = False
        if errand.tgt is None:
            wanted = self.settings.user_to_user is UserToUser.AUTO and refusal.code in KDC_HAS_NO_KEY
            return [Count(Tally.USER_TO_USER_REQUIRED), *self._turn(xid, errand)] if wanted else []
        # The one that was kept is no good any more: it has ended, and the peer has come to another since. Or the KDC is
        # silent, and the next try asks the peer in vain: of some KDC's refusals libkrb5 makes errors without a code.
        if self._tgt == errand.tgt:
            self._tgt = None
        if errand.sought is not None:
            errand.refusal = refusal
            return self._next_tgt(xid, errand, errand.sought)
        return self._seek(xid, errand) if errand.known and refusal.code is not None else []

    def hinted(self, xid: int, tgt: bytes) -> list[Effect]:
        """The peer seems to say that exchange ``xid`` needs a user-to-user ticket, made with ``tgt`` if that is known.

        The exchange goes on with the ticket that it has; a new one comes as ``TicketReady`` if the KDC makes it.
        """
        errand = self._errands.get(xid)
        if errand is None or errand.fetching or xid in self._waiting or errand.detours >= MAX_DETOURS:
            return []
        if self.settings.user_to_user is UserToUser.NEVER:
            return []
        errand.detours += 1
        return self._ask(xid, errand, tgt) if tgt else self._turn(xid, errand)

    def concluded(self, exchange: Initiator) -> None:
        """``exchange`` has its outcome."""
        errand = self._errands.pop(exchange.xid, None)
        tried = exchange.tgt is not None or (errand is not None and (errand.sought is not None or errand.detours > 0))
        changes = isinstance(exchange.outcome, Restart) and exchange.outcome.tgt is not None
        if tried and not changes and self.settings.user_to_user is UserToUser.AUTO:
            # What made us try was not authenticated; what came of it is. A failure has the next try made without
            # ("may retry without", RFC 4430 §4.2.8), which the peer or the KDC corrects if it was wrong.
            self.user_to_user = exchange.peer_epoch is not None and exchange.tgt is not None

    # ------------------------------------------------------------ the GETTGT exchange

    def replied(self, message: Message, datagram: bytes, now: float) -> list[Effect]:
        """A REPLY to the GETTGT under way."""
        assert self._exchange is not None
        return self._settled(self._exchange.handle(ReplyReceived(message, datagram), now))

    def wake(self, now: float) -> list[Effect]:
        """Send the GETTGT, or send it again, if that is due."""
        if self._exchange is None or self._exchange.deadline > now:
            return []
        return self._settled(self._exchange.handle(DeadlineReached(), now))

    def take_failed(self) -> list[tuple[int, TicketRefusal]]:
        """The exchanges that a GETTGT which is over has brought nothing for, and why."""
        if self._exchange is None or self._exchange.state is not State.CLOSED:
            return []
        reason = f"no ticket-granting ticket of {self.settings.principal}: {self._exchange.failure}"
        nothing = TicketRefusal(reason, peer_silent=self._exchange.silent)
        failed, self._waiting, self._exchange = self._waiting, [], None
        return [(xid, self._errands[xid].refusal or nothing) for xid in failed if xid in self._errands]

    def _settled(self, effects: list[Effect]) -> list[Effect]:
        assert self._exchange is not None
        if self._exchange.state is State.LISTENING:
            waiting, self._waiting = self._waiting, []
            for xid in waiting:
                if xid in self._errands:
                    effects += self._next_tgt(xid, self._errands[xid], self._exchange)
        return effects

    def _turn(self, xid: int, errand: _Errand) -> list[Effect]:
        """To a user-to-user ticket, after a service ticket: with the peer's own as it is known, or being tried."""
        tried = (other.tgt for other in self._errands.values() if other.fetching and other.tgt)
        tgt = self._tgt or next(tried, None)
        return self._ask(xid, errand, tgt) if tgt else self._seek(xid, errand)

    def _seek(self, xid: int, errand: _Errand) -> list[Effect]:
        """One GETTGT serves all exchanges that wait for it."""
        if self._exchange is None:
            self._exchange = GetTgt(
                xid=self._next_xid(),
                peer=self.settings.name,
                principal=self.settings.principal,
                route=self._route,
                kerberos=self._kerberos,
            )
        errand.sought = self._exchange
        return self._next_tgt(xid, errand, self._exchange)

    def _next_tgt(self, xid: int, errand: _Errand, sought: GetTgt) -> list[Effect]:
        """The next of what ``sought`` has brought, or wait for that; nothing when it is over."""
        if errand.tried and errand.detours >= MAX_DETOURS:
            sought.conclude()
            return []
        if errand.tried < len(sought.tgts):
            errand.detours += errand.tried > 0
            errand.tried += 1
            return self._ask(xid, errand, sought.tgts[errand.tried - 1])
        if sought.state is State.CLOSED:
            return []
        self._waiting.append(xid)
        return sought.wait()

    def _ask(self, xid: int, errand: _Errand, tgt: bytes | None) -> list[Effect]:
        errand.tgt, errand.fetching, errand.known = tgt, True, tgt is not None and tgt == self._tgt
        return [FetchTicket(xid, self.settings.principal, errand.fresh, tgt)]


def _concluded(how: str) -> Count:
    return Count(Tally.COMMANDS_CONCLUDED, (Label(Family.EXCHANGES, f"gettgt.{how}"),))


def answer_gettgt(payloads: tuple[KinkPayload, ...], kerberos: Kerberos) -> tuple[KinkPayload, Tally]:
    """What a GETTGT is answered (RFC 4430 §4.2.4, §6.6), and what that counts under."""
    match payloads:
        case (TgtReq(name),):
            try:
                return TgtRep(kerberos.offer_tgt(name)), Tally.GETTGT_ANSWERED
            except TgtDenied as denied:
                if denied.krb_error:
                    return KrbError(denied.krb_error), Tally.GETTGT_NOT_US
                return KinkError(ErrorCode.U2UDENIED), Tally.GETTGT_REFUSED
        case _:
            return KinkError(ErrorCode.PROTOERR), Tally.UNEXPECTED_PAYLOAD
