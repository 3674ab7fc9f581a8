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
from collections import Counter, OrderedDict, deque
from dataclasses import replace
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.proto import labels, lease
from kinkvpn.proto.allowance import Allowance, source_of
from kinkvpn.proto.create import Grant, notify_of
from kinkvpn.proto.envelope import Opened, bare_reply, open_command, seal_reply
from kinkvpn.proto.events import (
    AckReceived,
    CommandRepeated,
    Count,
    DeadlineReached,
    Effect,
    Event,
    Family,
    Label,
    Path,
    SendMessage,
    Tally,
    Tell,
    WakeAt,
)
from kinkvpn.proto.extensions import machine_of
from kinkvpn.proto.gettgt import KRB_AP_ERR_NOT_US, answer_gettgt
from kinkvpn.proto.ports import AcceptedRequest, ApRequestRefused, Kerberos, NotAdmitted
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.quick_mode import notify_name
from kinkvpn.proto.retransmit import FULL_CYCLE, Retransmission
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.kink import ApReq, ErrorCode, Isakmp, KinkError, KinkPayload, KrbError, Message, MessageType, TgtRep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kinkvpn.proto.lease import Address
    from kinkvpn.proto.peer import Peer
    from kinkvpn.proto.settings import PeerSettings

# Ours. An answer is kept for two of the initiator's full cycles: one in which it may repeat the command, and one for
# datagrams that the network kept back. An older one is stopped by Kerberos' replay cache.
ANSWER_KEPT = 2 * FULL_CYCLE
# Ours. 8,192 answers of about 400 octets are 3 MB, and 60 s of a thousand peers rekeying at once fit. Only configured
# peers can fill them, each no more than its share: else one of them could push out what another waits for, and have
# the SAs of that one deleted. Sixty-four, a rekey of thirty policies at once, a peer has however many peers there are.
MAX_ANSWERS = 8192
LEAST_SHARE = 64
# Ours. An honest initiator sends a command seven times, and a network may double each: whoever sends it more often
# wants the answers for somebody else.
MAX_REPEATS = 32
# Ours. What an error under the key counts for in the allowance, about: it is not made before it may leave.
SEALED_ERROR = 320


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
        said: what is counted of the REPLY each time that it leaves.
    """

    def __init__(
        self,
        reply: bytes,
        path: Path,
        grant: Grant | None,
        peer: Peer | None,
        now: float,
        said: tuple[Label, ...] = (),
    ) -> None:
        self.state = State.ANSWERED if grant is None else State.AWAIT_ACK
        self.expires = now + ANSWER_KEPT
        self._reply = SendMessage(reply, path, said)
        self._repeats = 0
        self._grant = grant
        self._peer = peer
        self._retransmission = Retransmission()
        self.deadline = self.expires if grant is None else now + self._retransmission.interval

    @property
    def machine(self) -> bytes:
        """That asked, of its principal's."""
        return b"" if self._peer is None else self._peer.settings.machine

    def start(self) -> list[Effect]:
        """Send the REPLY, and again unless it is acknowledged."""
        return [self._reply] if self._grant is None else [self._reply, WakeAt(self.deadline)]

    def answer_to(self, path: Path) -> None:
        """The command came again by ``path``, under a fresh authenticator: where it came from first may be a mapping
        that a NAT has forgotten, or a port that is filtered on the way back.
        """
        self._reply = replace(self._reply, path=path)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event; one that means nothing here is counted."""
        transition = self.TRANSITIONS.get((self.state, type(event)))
        if transition is None:
            return [Count(Tally.IGNORED_EVENT)]
        self.state, effects = transition(self, now)
        return effects

    def _again(self, _now: float) -> Step:
        self._repeats += 1
        if self._repeats > MAX_REPEATS:
            return self.state, [Count(Tally.REPEAT_SUPPRESSED)]
        return self.state, [self._reply]

    def _acknowledged(self, now: float) -> Step:
        assert self._grant is not None
        assert self._peer is not None
        self.deadline = self.expires
        return State.ACKNOWLEDGED, self._peer.acknowledged(self._grant, now)

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


def nobody(accepted: AcceptedRequest, _machine: bytes, _wished: Sequence[Address]) -> Peer:
    """Who is no peer stays none (RFC 4430 §10)."""
    raise NotAdmitted(f"no peer is configured with principal {accepted.client}")


class Responder:
    """Answers commands for this host.

    Args:
        kerberos: verifies AP-REQs.
        peers: who may ask, by principal.
        epoch: ours (RFC 4430 §4.2.1).
        welcome: makes a peer of some machine of somebody's that is none, or has other addresses than it was lent; it is
            admitted then, and is lent those addresses that it says it has, if they are free. Raises NotAdmitted.
    """

    def __init__(
        self,
        *,
        kerberos: Kerberos,
        peers: Mapping[str, Peer],
        epoch: int,
        welcome: Callable[[AcceptedRequest, bytes, Sequence[Address]], Peer] = nobody,
    ) -> None:
        self._kerberos = kerberos
        self._welcome = welcome
        self._peers: dict[tuple[str, bytes], Peer] = {}  # by principal and machine
        self._epoch = epoch
        self._transactions: OrderedDict[Key, Transaction] = OrderedDict()
        self._awaiting: dict[Key, Transaction] = {}
        self._seen: OrderedDict[bytes, Key] = OrderedDict()
        self._held: dict[str, deque[Key]] = {}  # by client, oldest first
        self._sweep_at: float | None = None
        # Whoever proved to be somebody does not share with those who did not, and what claims to come from where a
        # peer is does not share with what comes from anywhere: a forger of sources silences nothing but himself.
        self._strangers = Allowance()
        self._neighbours = Allowance()
        # When a host's clock goes wrong each of two thousand peers has to be told once, within its retransmissions.
        self._members = Allowance(times=16)
        self._places: Counter[str] = Counter()
        for peer in peers.values():
            self.admit(peer)

    def admit(self, peer: Peer) -> None:
        """Answer ``peer`` from now on, in place of whoever was that machine of its principal."""
        self.dismiss(peer.settings)
        self._peers[peer.settings.principal, peer.settings.machine] = peer
        self._places[source_of(peer.settings.kink.address)] += 1

    def dismiss(self, settings: PeerSettings) -> None:
        """Answer that machine of that principal no more, but for commands that were answered already."""
        gone = self._peers.pop((settings.principal, settings.machine), None)
        if gone is not None:
            place = source_of(gone.settings.kink.address)
            self._places[place] -= 1
            self._places += Counter()  # only what there is one of

    def receive(self, message: Message, datagram: bytes, path: Path, now: float) -> list[Effect]:
        """A command or an ACK, parsed and nothing more."""
        digest = hashlib.sha256(datagram).digest()
        known = self._transactions.get(self._seen[digest]) if digest in self._seen else None
        if known is not None:
            return [Count(Tally.DUPLICATE), *known.handle(CommandRepeated(), now)]
        if message.type is MessageType.GETTGT:
            payload, tally = answer_gettgt(message.payloads, self._kerberos)
            reply = SendMessage(bare_reply(message.xid, payload), path, labels.sent([payload], KRB_AP_ERR_NOT_US))
            # A ticket is longer than a name, and so is a KRB-ERROR: these alone may be longer than what they answer.
            # How many of them leave, and how many octets, the allowance says.
            longer = tally in (Tally.GETTGT_ANSWERED, Tally.GETTGT_NOT_US)
            return [Count(tally), *self._to_stranger(reply, len(reply.datagram if longer else datagram), now)]
        ap = [payload for payload in message.payloads if isinstance(payload, ApReq)]
        if len(ap) != 1:
            effects = self._bare(message, datagram, KinkError(ErrorCode.PROTOERR), path, now)
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

    def refuse(self, malformed: MalformedMessage, datagram: bytes, path: Path, now: float) -> list[Effect]:
        """A datagram that the parser refused: KINK_ERROR where its header tells a command (RFC 4430 §4.2.8)."""
        tally = {ErrorCode.INVMAJ: Tally.WRONG_VERSION, ErrorCode.INVDOI: Tally.WRONG_DOI}.get(
            ErrorCode(malformed.code), Tally.MALFORMED
        )
        # Never an error about a REPLY or an ACK: two hosts would go on complaining to each other for ever.
        if malformed.xid is None or not malformed.answerable:
            return [Count(tally)]
        error = KinkError(malformed.code)
        reply = SendMessage(bare_reply(malformed.xid, error), path, labels.sent([error]))
        return [Count(tally), *self._to_stranger(reply, len(datagram), now)]

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
            self._forget(next(iter(self._transactions)))
        while self._seen and next(iter(self._seen.values())) not in self._transactions:
            self._seen.popitem(last=False)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep_at = None
        return effects + self._sweep()

    def _sweep(self) -> list[Effect]:
        """One wake for all answers, however many there are: when the oldest is to be forgotten."""
        if self._sweep_at is not None or not self._transactions:
            return []
        self._sweep_at = next(iter(self._transactions.values())).expires
        return [WakeAt(self._sweep_at)]

    def _forget(self, key: Key) -> Transaction:
        held = self._held[key.client]
        held.popleft()  # which is ``key``: of each client, as of all, the oldest one goes
        if not held:
            del self._held[key.client]
        return self._transactions.pop(key)

    # ------------------------------------------------------------ authenticated

    def _authenticated(
        self, message: Message, opened: Opened, accepted: AcceptedRequest, digest: bytes, path: Path, now: float
    ) -> list[Effect]:
        key = Key(accepted.client, opened.epoch, message.xid)
        known = self._transactions.get(key)
        # An ACK says which command it is about, and needs not say whose.
        acknowledged = known.machine if known is not None and message.type is MessageType.ACK else None
        machine = machine_of(opened.payloads) if acknowledged is None else acknowledged
        try:
            peer = self._peer(accepted, machine, opened.payloads if known is None else ())
        except NotAdmitted as unwanted:
            return self._unknown_peer(message, accepted, str(unwanted), path, now)
        if known is not None and known.machine != peer.settings.machine:
            # Both numbers can be heard on the wire: a person's stolen machine would have the other's answers.
            return [Count(Tally.XID_TAKEN)]
        peer.ticket_ends = max(peer.ticket_ends, accepted.endtime)
        if peer.epochs.outlived(opened.epoch):
            return [Count(Tally.STALE_EPOCH)]
        effects = peer.heard(opened.epoch, now, path, accepted.client_time)
        if message.type is MessageType.ACK:
            unknown: list[Effect] = [Count(Tally.UNKNOWN_XID)]
            return effects + (unknown if known is None else known.handle(AckReceived(), now))
        if known is not None:
            self._remember(digest, key)
            known.answer_to(path)
            return [*effects, Count(Tally.RETRANSMITTED), *known.handle(CommandRepeated(), now)]
        extended, learnt = peer.asked(opened.payloads, path)
        try:
            grant = _grant(message, opened, accepted, peer, path, now)
        except Refused as refused:
            # In place of each Quick Mode, so that the initiator can tell a refusal from one that was overlooked.
            asked = sum(isinstance(payload, Isakmp) for payload in opened.payloads)
            grant = Grant((notify_of(refused),) * max(1, asked), refusals=(refused,))
        refusal: list[Effect] = []
        for one in grant.refusals:
            peer.refusal = now, str(one)
            refusal += [Count(Tally.COMMANDS_REFUSED), _refusal(accepted.client, message, one)]
        said = (*labels.received(opened.payloads, self._kerberos), _answered(message, grant))
        effects += [Count(Tally.COMMANDS_RECEIVED, said), *refusal]
        effects += _unknown(accepted.client, opened.payloads)
        payloads = peer.contact.acquaintance.answer(extended and not grant.refusals, grant.payloads)
        reply = self._sealed(message, accepted, *payloads, ackreq=grant.ackreq)
        awaited = grant if grant.ackreq else None
        transaction = Transaction(reply, path, awaited, peer, now, labels.sent(payloads))
        effects += [*grant.effects, *learnt]
        effects += self._store(key, digest, transaction, now)
        return effects + transaction.start()

    def _peer(self, accepted: AcceptedRequest, machine: bytes, payloads: Sequence[KinkPayload]) -> Peer:
        """Who sent a command of ``payloads``. Raises NotAdmitted."""
        peer = self._of(accepted.client, machine)
        asked = (payload.payloads for payload in payloads if isinstance(payload, Isakmp))
        wished = tuple(dict.fromkeys(address for each in asked for address in lease.wished(each)))
        return self._welcome(accepted, machine, wished) if peer is None or _lent_others(peer, wished) else peer

    def _of(self, principal: str, machine: bytes) -> Peer | None:
        """Who that is. A peer of the configuration is one, from whichever machine; of people each machine is."""
        one = self._peers.get((principal, b""))
        return one if one is not None and one.settings.lease is None else self._peers.get((principal, machine))

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
        held = self._held.setdefault(key.client, deque())
        held.append(key)
        if len(held) > max(LEAST_SHARE, MAX_ANSWERS // len(self._peers)):
            effects += self._forget(held[0]).evict(now)
        return effects + self._sweep()

    def _remember(self, digest: bytes, key: Key) -> None:
        self._seen[digest] = key
        if len(self._seen) > 2 * MAX_ANSWERS:
            self._seen.popitem(last=False)

    # ------------------------------------------------------------ refused

    def _refuse_ap_request(
        self, refused: ApRequestRefused, message: Message, datagram: bytes, ap: ApReq, path: Path, now: float
    ) -> list[Effect]:
        counted: list[Effect] = [Count(Tally.STALE_TGT if refused.tgt else Tally.AP_REQUEST_REFUSED)]
        if message.type is MessageType.ACK:
            return counted
        if refused.tgt:
            # Nothing is wrong: this host has come to another ticket-granting ticket since, by a restart perhaps.
            return [*counted, *self._bare(message, datagram, TgtRep(refused.tgt), path, now)]
        tell = Tell(
            "ap_request_refused",
            (("source", path.remote.address), ("code", refused.code), ("reason", str(refused))),
            warning=True,
        )
        error = KrbError(refused.krb_error)
        said = labels.sent([error], refused.code)
        accepted = refused.accepted
        if accepted is None:
            bare = SendMessage(bare_reply(message.xid, error), path, said)
            return [*counted, *self._to_stranger(bare, len(datagram), now, tell)]
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
        if not self._members.take(accepted.client, now, SEALED_ERROR):
            return [*counted, Count(Tally.ERROR_SUPPRESSED)]
        return [*counted, tell, SendMessage(self._sealed(message, accepted, error), path, said)]

    def _unknown_peer(
        self, message: Message, accepted: AcceptedRequest, reason: str, path: Path, now: float
    ) -> list[Effect]:
        """Whoever is in the realm can come this far: nothing is remembered of it (RFC 4430 §10)."""
        counted: list[Effect] = [Count(Tally.UNKNOWN_PEER)]
        if message.type is MessageType.ACK:
            return counted
        refused = Refused(NotifyType.NO_PROPOSAL_CHOSEN, reason)
        return [*counted, *self._refused_member(message, accepted, refused, notify_of(refused), path, now)]

    def _malformed_inside(
        self, message: Message, accepted: AcceptedRequest, malformed: MalformedMessage, path: Path, now: float
    ) -> list[Effect]:
        counted: list[Effect] = [Count(Tally.MALFORMED)]
        if message.type is MessageType.ACK:
            return counted
        # PAYLOAD-MALFORMED for Quick Mode payloads, KINK_ERROR for KINK's own (RFC 4430 §4.2.8, §5.5).
        refused = Refused(NotifyType(malformed.notify or NotifyType.PAYLOAD_MALFORMED), str(malformed))
        answer = KinkError(malformed.code) if malformed.notify is None else notify_of(refused)
        return [*counted, *self._refused_member(message, accepted, refused, answer, path, now)]

    def _refused_member(
        self,
        message: Message,
        accepted: AcceptedRequest,
        refused: Refused,
        answer: KinkPayload,
        path: Path,
        now: float,
    ) -> list[Effect]:
        if not self._members.take(accepted.client, now, SEALED_ERROR):
            return [Count(Tally.ERROR_SUPPRESSED)]
        reply = SendMessage(self._sealed(message, accepted, answer), path, labels.sent([answer]))
        return [_refusal(accepted.client, message, refused), reply]

    def _bare(self, message: Message, datagram: bytes, payload: KinkPayload, path: Path, now: float) -> list[Effect]:
        if message.type is MessageType.ACK:
            return []
        reply = SendMessage(bare_reply(message.xid, payload), path, labels.sent([payload]))
        return self._to_stranger(reply, len(datagram), now)

    def _to_stranger(self, reply: SendMessage, asked: int, now: float, *told: Tell) -> list[Effect]:
        """Send, and tell, to a source that nobody vouches for: seldom, and never more octets than it sent.

        The source may be forged, and this host must be no use for sending somebody more than a forger can send
        himself (RFC 4430 §4.2.8, §10). Every command that does any work is longer than the error it may draw.

        Args:
            asked: octets of the datagram to answer.
        """
        source = source_of(reply.path.remote.address)
        allowance = self._neighbours if source in self._places else self._strangers
        if len(reply.datagram) > asked or not allowance.take(source, now, len(reply.datagram)):
            return [Count(Tally.ERROR_SUPPRESSED)]
        return [*told, reply]


def _unknown(client: str, payloads: tuple[KinkPayload, ...]) -> list[Effect]:
    """Notifies that mean nothing here are ignored, and logged (RFC 4430 §5.5)."""
    types = labels.unknown_notifies(payloads)
    return [Tell("notify_ignored", (("peer", client), ("types", types)))] if types else []


def _lent_others(peer: Peer, wished: Sequence[Address]) -> bool:
    """Whether somebody has come with addresses of before this host was restarted, and was lent others at a command that
    names none. Who has SAs has them from here.
    """
    lent = peer.settings.lease
    if lent is None or lent.addresses == () or {*wished} <= {*lent.addresses}:
        return False
    return not any(peer.pairs(policy) for policy in peer.policies)


def _answered(message: Message, grant: Grant) -> Label:
    if grant.refusals:
        outcome = "granted_partly" if grant.ackreq else "refused"
    elif any(isinstance(payload, KinkError) for payload in grant.payloads):
        outcome = "refused"
    else:
        outcome = "granted_3way" if grant.ackreq else "granted"
    return _answer_label(message.type, outcome)


@cache
def _answer_label(kind: MessageType, outcome: str) -> Label:
    return Label(Family.ANSWERS, f"{kind.name.lower()}.{outcome}")


def _grant(message: Message, opened: Opened, accepted: AcceptedRequest, peer: Peer, path: Path, now: float) -> Grant:
    quick_mode = [payload for payload in opened.payloads if isinstance(payload, Isakmp)]
    if any(payload.unread for payload in quick_mode):
        return Grant((KinkError(ErrorCode.BADQMVERS),))
    if len(quick_mode) != len(opened.payloads):
        raise Refused(NotifyType.PAYLOAD_MALFORMED, "other payloads than KINK_ISAKMP in the command")
    asked = tuple(payload.payloads for payload in quick_mode)
    return peer.respond(message.type, asked, key=accepted.key, path=path, now=now)


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
