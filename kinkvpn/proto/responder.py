"""The responder's machine: what a command is answered, once, and how often that answer may be asked for again.

    command --verified--> answered 2-way ------------------------------> ANSWERED
                      \\-> answered 3-way --> AWAIT_ACK --AckReceived----> ACKNOWLEDGED
                                              |   ^ DeadlineReached: the REPLY again (RFC 4430 §9)
                                              +---+
                                              +-- last deadline --------> ABANDONED

Nothing is stored before an AP-REQ and its Cksum have verified (RFC 4430 §2). A repeated command is answered from the
cache: byte for byte the same datagram before Kerberos sees it (whose replay cache would refuse it), under a fresh
authenticator after.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.proto.allowance import Allowance
from kinkvpn.proto.create import notify_name
from kinkvpn.proto.envelope import Opened, bare_reply, open_command, seal_reply
from kinkvpn.proto.events import (
    AckReceived,
    CommandRepeated,
    Count,
    DeadlineReached,
    Effect,
    Event,
    Path,
    SendMessage,
    Tally,
    Tell,
    WakeAt,
)
from kinkvpn.proto.peer import Grant, Peer
from kinkvpn.proto.ports import AcceptedRequest, ApRequestRefused, Kerberos
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.retransmit import FULL_CYCLE, Retransmission
from kinkvpn.wire.ipsec_doi import NotifyType, Protocol
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import ApReq, ErrorCode, Isakmp, KinkError, KinkPayload, KrbError, Message, MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Ours. An answer is kept for two of the initiator's full cycles: one in which it may repeat the command, and one for
# datagrams that the network kept back. An older one is stopped by Kerberos' replay cache.
ANSWER_KEPT = 2 * FULL_CYCLE
# Ours. 8,192 answers of about 400 octets are 3 MB; only configured peers can fill them, and 60 s of a thousand
# peers rekeying at once fit.
MAX_ANSWERS = 8192


class State(Enum):
    """Where a transaction is."""

    ANSWERED = "answered"
    AWAIT_ACK = "await ack"
    ACKNOWLEDGED = "acknowledged"
    ABANDONED = "abandoned"


class Key(NamedTuple):
    """What makes a command the same command: an XID means nothing without its owner and the owner's lifetime."""

    client: str
    epoch: int
    xid: int


Step = tuple[State, list[Effect]]


class Transaction:
    """One answered command.

    Args:
        reply: the REPLY datagram.
        path: where the command came from.
        grant: what was granted, for a 3-way CREATE; None where no ACK is awaited.
        peer: who asked; told when the ACK comes or does not.
        now: time of the answer.
    """

    def __init__(self, reply: bytes, path: Path, grant: Grant | None, peer: Peer | None, now: float) -> None:
        self.state = State.ANSWERED if grant is None else State.AWAIT_ACK
        self.expires = now + ANSWER_KEPT
        self._reply = SendMessage(reply, path)
        self._grant = grant
        self._peer = peer
        self._retransmission = Retransmission()
        self.deadline = self.expires if grant is None else now + self._retransmission.interval

    def start(self) -> list[Effect]:
        """Send the REPLY."""
        return [self._reply, WakeAt(self.deadline)]

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event; one that means nothing here is counted."""
        transition = self.TRANSITIONS.get((self.state, type(event)))
        if transition is None:
            return [Count(Tally.IGNORED_EVENT)]
        self.state, effects = transition(self, now)
        return effects

    def _again(self, _now: float) -> Step:
        return self.state, [self._reply]

    def _acknowledged(self, now: float) -> Step:
        assert self._grant is not None
        assert self._peer is not None
        self.deadline = self.expires
        return State.ACKNOWLEDGED, [*self._peer.acknowledged(self._grant, now), WakeAt(self.expires)]

    def _unacknowledged(self, now: float) -> Step:
        assert self._grant is not None
        assert self._peer is not None
        if self._retransmission.exhausted:
            return self._abandoned(now)
        self._retransmission = self._retransmission.next()
        self.deadline = now + self._retransmission.interval
        return State.AWAIT_ACK, [Count(Tally.COMMANDS_RETRANSMITTED), self._reply, WakeAt(self.deadline)]

    def _abandoned(self, now: float) -> Step:
        assert self._grant is not None
        assert self._peer is not None
        return State.ABANDONED, [Count(Tally.ACK_ABANDONED), *self._peer.unacknowledged(self._grant, now)]

    def evict(self, now: float) -> list[Effect]:
        """Make room: an ACK that is still awaited will not be waited for."""
        if self.state is not State.AWAIT_ACK:
            return []
        self.state, effects = self._abandoned(now)
        return effects

    TRANSITIONS: ClassVar[dict[tuple[State, type], Callable[[Transaction, float], Step]]] = {
        (State.ANSWERED, CommandRepeated): _again,
        (State.AWAIT_ACK, CommandRepeated): _again,
        (State.AWAIT_ACK, AckReceived): _acknowledged,
        (State.AWAIT_ACK, DeadlineReached): _unacknowledged,
        (State.ACKNOWLEDGED, CommandRepeated): _again,
    }


class Responder:
    """Answers commands for this host.

    Args:
        kerberos: verifies AP-REQs.
        peers: by principal.
        epoch: ours (RFC 4430 §4.2.1).
    """

    def __init__(self, *, kerberos: Kerberos, peers: Mapping[str, Peer], epoch: int) -> None:
        self._kerberos = kerberos
        self._peers = peers
        self._epoch = epoch
        self._transactions: OrderedDict[Key, Transaction] = OrderedDict()
        self._awaiting: dict[Key, Transaction] = {}
        self._seen: OrderedDict[bytes, Key] = OrderedDict()
        self._allowance = Allowance()

    def receive(self, message: Message, datagram: bytes, path: Path, now: float) -> list[Effect]:
        """A command or an ACK, parsed and nothing more."""
        digest = hashlib.sha256(datagram).digest()
        known = self._transactions.get(self._seen[digest]) if digest in self._seen else None
        if known is not None:
            return [Count(Tally.DUPLICATE), *known.handle(CommandRepeated(), now)]
        if message.type is MessageType.GETTGT:
            return [Count(Tally.GETTGT_REFUSED), *self._bare(message, KinkError(ErrorCode.U2UDENIED), path, now)]
        ap = [payload for payload in message.payloads if isinstance(payload, ApReq)]
        if len(ap) != 1:
            effects = self._bare(message, KinkError(ErrorCode.PROTOERR), path, now)
            return [Count(Tally.UNEXPECTED_PAYLOAD), *effects]
        try:
            accepted = self._kerberos.accept(ap[0].ap_req)
        except ApRequestRefused as refused:
            return self._refuse_ap_request(refused, message, datagram, ap[0], path, now)
        try:
            opened = open_command(message, datagram, ap[0], accepted.key)
        except AuthenticationFailed:
            return [Count(Tally.BAD_CHECKSUM)]
        except MalformedMessage as malformed:
            return self._malformed_inside(message, accepted, malformed, path, now)
        return self._authenticated(message, opened, accepted, digest, path, now)

    def refuse(self, malformed: MalformedMessage, path: Path, now: float) -> list[Effect]:
        """A datagram that the parser refused: KINK_ERROR where its header tells a command (RFC 4430 §4.2.8)."""
        tally = {ErrorCode.INVMAJ: Tally.WRONG_VERSION, ErrorCode.INVDOI: Tally.WRONG_DOI}.get(
            ErrorCode(malformed.code), Tally.MALFORMED
        )
        # Never an error about a REPLY or an ACK: two hosts would go on complaining to each other for ever.
        if malformed.xid is None or not malformed.answerable:
            return [Count(tally)]
        datagram = bare_reply(malformed.xid, KinkError(malformed.code))
        return [Count(tally), *self._limited(path.remote.address, datagram, path, now)]

    def wake(self, now: float) -> list[Effect]:
        """Retransmit unacknowledged REPLYs that are due, and forget old answers."""
        effects: list[Effect] = []
        for key, transaction in list(self._awaiting.items()):
            if transaction.state is not State.AWAIT_ACK:
                del self._awaiting[key]
            elif transaction.deadline <= now:
                effects += transaction.handle(DeadlineReached(), now)
        # Every answer is kept equally long, so the oldest one is always the first to go.
        while self._transactions and next(iter(self._transactions.values())).expires <= now:
            self._transactions.popitem(last=False)
        while self._seen and next(iter(self._seen.values())) not in self._transactions:
            self._seen.popitem(last=False)
        return effects

    # ------------------------------------------------------------ authenticated

    def _authenticated(
        self, message: Message, opened: Opened, accepted: AcceptedRequest, digest: bytes, path: Path, now: float
    ) -> list[Effect]:
        peer = self._peers.get(accepted.client)
        if peer is None:
            return self._unknown_peer(message, accepted, path, now)
        if peer.outlived(opened.epoch):
            return [Count(Tally.STALE_EPOCH)]
        key = Key(accepted.client, opened.epoch, message.xid)
        effects = peer.heard(opened.epoch, now)
        known = self._transactions.get(key)
        if message.type is MessageType.ACK:
            unknown: list[Effect] = [Count(Tally.UNKNOWN_XID)]
            return effects + (unknown if known is None else known.handle(AckReceived(), now))
        if known is not None:
            self._remember(digest, key)
            return [*effects, Count(Tally.RETRANSMITTED), *known.handle(CommandRepeated(), now)]
        effects.append(Count(Tally.COMMANDS_RECEIVED))
        try:
            grant = _grant(message, opened, accepted, peer, path, now)
        except Refused as refused:
            effects += [Count(Tally.COMMANDS_REFUSED), _refusal(accepted.client, message, refused)]
            grant = Grant((_notify(refused),))
        reply = self._sealed(message, accepted, *grant.payloads, ackreq=grant.ackreq)
        transaction = Transaction(reply, path, grant if grant.ackreq else None, peer, now)
        effects += grant.effects
        effects += self._store(key, digest, transaction, now)
        return effects + transaction.start()

    def _sealed(
        self, message: Message, accepted: AcceptedRequest, *payloads: KinkPayload, ackreq: bool = False
    ) -> bytes:
        return seal_reply(message.xid, self._epoch, accepted.make_reply(), accepted.key, payloads, ackreq=ackreq)

    def _store(self, key: Key, digest: bytes, transaction: Transaction, now: float) -> list[Effect]:
        effects: list[Effect] = []
        self._transactions[key] = transaction
        if transaction.state is State.AWAIT_ACK:
            self._awaiting[key] = transaction
        self._remember(digest, key)
        if len(self._transactions) > MAX_ANSWERS:
            _, oldest = self._transactions.popitem(last=False)
            effects += oldest.evict(now)
        return effects

    def _remember(self, digest: bytes, key: Key) -> None:
        self._seen[digest] = key
        if len(self._seen) > 2 * MAX_ANSWERS:
            self._seen.popitem(last=False)

    # ------------------------------------------------------------ refused

    def _refuse_ap_request(
        self, refused: ApRequestRefused, message: Message, datagram: bytes, ap: ApReq, path: Path, now: float
    ) -> list[Effect]:
        counted: list[Effect] = [Count(Tally.AP_REQUEST_REFUSED)]
        if message.type is MessageType.ACK:
            return counted
        tell = Tell(
            "ap_request_refused",
            (("source", path.remote.address), ("code", refused.code), ("reason", str(refused))),
            warning=True,
        )
        error = KrbError(refused.krb_error)
        accepted = refused.accepted
        if accepted is None:
            return [*counted, *self._limited(path.remote.address, bare_reply(message.xid, error), path, now, tell)]
        try:
            opened = open_command(message, datagram, ap, accepted.key)
        except (AuthenticationFailed, MalformedMessage):
            return [Count(Tally.BAD_CHECKSUM)]
        known = self._transactions.get(Key(accepted.client, opened.epoch, message.xid))
        if known is not None:
            # Granted while the ticket lived, and the REPLY was lost: an error now would have the initiator believe
            # that nothing was made. The REPLY fits an authenticator of then.
            return [*counted, *known.handle(CommandRepeated(), now)]
        # The key is at hand, so the error goes out under it and may be acted upon (RFC 4430 §3.5). Limited all the
        # same: every command that was ever overheard comes here once it is old enough.
        return [*counted, *self._limited(accepted.client, self._sealed(message, accepted, error), path, now, tell)]

    def _unknown_peer(self, message: Message, accepted: AcceptedRequest, path: Path, now: float) -> list[Effect]:
        """Whoever is in the realm can come this far: nothing is remembered of it (RFC 4430 §10)."""
        counted: list[Effect] = [Count(Tally.UNKNOWN_PEER)]
        if message.type is MessageType.ACK:
            return counted
        refused = Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"no peer is configured with principal {accepted.client}")
        reply = self._sealed(message, accepted, _notify(refused))
        tell = _refusal(accepted.client, message, refused)
        return [*counted, *self._limited(accepted.client, reply, path, now, tell)]

    def _malformed_inside(
        self, message: Message, accepted: AcceptedRequest, malformed: MalformedMessage, path: Path, now: float
    ) -> list[Effect]:
        counted: list[Effect] = [Count(Tally.MALFORMED)]
        if message.type is MessageType.ACK:
            return counted
        # PAYLOAD-MALFORMED for Quick Mode payloads, KINK_ERROR for KINK's own (RFC 4430 §4.2.8, §5.5).
        refused = Refused(NotifyType(malformed.notify or NotifyType.PAYLOAD_MALFORMED), str(malformed))
        answer = KinkError(malformed.code) if malformed.notify is None else _notify(refused)
        reply = self._sealed(message, accepted, answer)
        tell = _refusal(accepted.client, message, refused)
        return [*counted, *self._limited(accepted.client, reply, path, now, tell)]

    def _bare(self, message: Message, payload: KinkPayload, path: Path, now: float) -> list[Effect]:
        if message.type is MessageType.ACK:
            return []
        return self._limited(path.remote.address, bare_reply(message.xid, payload), path, now)

    def _limited(self, whom: str, datagram: bytes, path: Path, now: float, *told: Tell) -> list[Effect]:
        """Send, and tell, unless ``whom`` has had too much of it already."""
        if self._allowance.take(whom, now):
            return [*told, SendMessage(datagram, path)]
        return [Count(Tally.ERROR_SUPPRESSED)]


def _grant(message: Message, opened: Opened, accepted: AcceptedRequest, peer: Peer, path: Path, now: float) -> Grant:
    quick_mode = [payload for payload in opened.payloads if isinstance(payload, Isakmp)]
    if any(payload.unread for payload in quick_mode):
        return Grant((KinkError(ErrorCode.BADQMVERS),))
    if len(quick_mode) > 1 or len(quick_mode) != len(opened.payloads):
        raise Refused(NotifyType.PAYLOAD_MALFORMED, "other than one KINK_ISAKMP payload in the command")
    payloads = quick_mode[0].payloads if quick_mode else ()
    return peer.respond(message.type, payloads, key=accepted.key, path=path, now=now)


def _notify(refused: Refused) -> Isakmp:
    return Isakmp((Notify(Protocol.ESP, refused.spi, refused.notify, refused.value),))


def _refusal(client: str, message: Message, refused: Refused) -> Tell:
    return Tell(
        "command_refused",
        (
            ("peer", client),
            ("command", message.type.name),
            ("answer", notify_name(refused.notify)),
            ("reason", str(refused)),
        ),
        warning=True,
    )
