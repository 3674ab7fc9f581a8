from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.kinkhosts import POSIX, Host, Wire, policy, principal, settings
from support.playbook import ANY, Playbook

from esp.sa import Endpoint
from kinkvpn.kerberos.fake import FakeAccepted, FakeKerberos, FakeRealm
from kinkvpn.proto.envelope import bare_reply, open_command, seal_reply
from kinkvpn.proto.events import (
    AckReceived,
    CommandRepeated,
    Count,
    DeadlineReached,
    Effect,
    Event,
    FetchTicket,
    Path,
    ReplyReceived,
    SendMessage,
    Tally,
    Tell,
    TicketReady,
    TicketRefused,
    WakeAt,
)
from kinkvpn.proto.initiator import MAX_ACKS_AGAIN, Initiator, State, error_name
from kinkvpn.proto.outcome import Completed, Failed, Restart
from kinkvpn.proto.ports import ApRequestRefused, SessionKey, TicketRefusal
from kinkvpn.proto.quick_mode import AnswerUnusable, RequestFailed
from kinkvpn.proto.retransmit import FULL_CYCLE, TRANSMISSIONS
from kinkvpn.wire.isakmp import IsakmpPayload, Nonce, Notify
from kinkvpn.wire.kink import (
    ApRep,
    ApReq,
    Encrypt,
    Isakmp,
    KinkError,
    KinkPayload,
    KrbError,
    Message,
    MessageType,
    TgtRep,
    build_message,
    parse_message,
)

XID, EPOCH, PEER_EPOCH = 77, 1, 2
PATH = Path(Endpoint("192.0.2.2", 910))
BEGUN, DONE, WITHDRAWN = Tell("begun"), Tell("done"), Tell("withdrawn")


class Question:
    """A command that leaves a trace of every call."""

    type = MessageType.CREATE
    subject = "question"
    answer: Exception | None = None

    def payloads(self) -> tuple[KinkPayload, ...]:
        return (Isakmp((Notify(3, b"", 40000),)),)

    def begin(self, _key: SessionKey, _now: float) -> list[Effect]:
        return [BEGUN]

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        del answers, ackreq, key, now
        if self.answer is not None:
            raise self.answer
        return [DONE]

    def withdraw(self) -> list[Effect]:
        return [WITHDRAWN]


class Stage:
    """An initiator, its ticket, and a peer's Kerberos."""

    def __init__(self, **changes: Any) -> None:
        self.wire = Wire()
        self.ticket = self.wire.realm.issue(principal("a"), principal("b"))
        self.acceptor = FakeKerberos(self.wire.realm, principal("b"))
        self.question = Question()
        self.initiator = Initiator(
            self.question,
            **{
                "xid": XID,
                "server": principal("b"),
                "route": lambda transmission, now: PATH,
                "epoch": EPOCH,
                "kerberos": self.acceptor,
                **changes,
            },
        )
        self.play = Playbook(self.initiator)

    def asked(self) -> Stage:
        """The first transmission is out."""
        (
            self.play
            >> TicketReady(self.ticket)
            << BEGUN
            << Count(Tally.COMMANDS_SENT)
            << SendMessage(ANY, PATH)
            << WakeAt(0.5)
        )
        return self

    def accepted(self, transmission: int = -1) -> FakeAccepted:
        """What the peer makes of one of the transmissions."""
        message = parse_message(self.play.sent[transmission])
        assert isinstance(message.payloads[0], ApReq)
        return self.acceptor.accept(message.payloads[0].ap_req)

    def reply(
        self, *payloads: KinkPayload, ackreq: bool = False, to: FakeAccepted | None = None, epoch: int = PEER_EPOCH
    ) -> ReplyReceived:
        to = to or self.accepted()
        return received(seal_reply(XID, epoch, to.make_reply(), to.key, payloads, ackreq=ackreq))

    def krb_error(self, skew: float) -> KrbError:
        """What a peer says whose clock is ``skew`` seconds ahead of ours."""
        ahead = FakeRealm((), clock=lambda: self.wire.posix() + skew, random=bytes)
        ahead.find = self.wire.realm.find  # the same realm at another time
        message = parse_message(self.play.sent[-1])
        assert isinstance(message.payloads[0], ApReq)
        with pytest.raises(ApRequestRefused) as refused:
            FakeKerberos(ahead, principal("b")).accept(message.payloads[0].ap_req)
        return KrbError(refused.value.krb_error)


def received(datagram: bytes) -> ReplyReceived:
    return ReplyReceived(parse_message(datagram), datagram)


def in_state(state: State) -> Stage:
    stage = Stage()
    if state is State.AWAIT_TICKET:
        return stage
    stage.asked()
    if state is State.AWAIT_REPLY:
        return stage
    if state is State.LINGERING:
        stage.initiator.handle(stage.reply(), 0.1)
    else:
        for _ in range(TRANSMISSIONS):
            stage.initiator.handle(DeadlineReached(), stage.initiator.deadline or 0.0)
    assert stage.initiator.state is state
    return stage


EVENTS: dict[type, Any] = {
    TicketReady: lambda stage: TicketReady(replace(stage.ticket, tgt=b"the peer's")),
    TicketRefused: lambda stage: TicketRefused(TicketRefusal("no KDC")),
    ReplyReceived: lambda stage: received(bare_reply(XID, KinkError(1))),
    CommandRepeated: lambda stage: CommandRepeated(),
    AckReceived: lambda stage: AckReceived(),
    DeadlineReached: lambda stage: DeadlineReached(),
}


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, kind: type) -> None:
    """Listed, or ignored and counted; never an exception."""
    assert set(EVENTS) == set(Event.__args__)
    stage = in_state(state)
    event = EVENTS[kind](stage)
    before = stage.initiator.outcome
    effects = stage.initiator.handle(event, 2e6)
    listed = (state, kind) in Initiator.TRANSITIONS
    assert (effects == [Count(Tally.IGNORED_EVENT)]) is not listed
    if not listed:
        assert stage.initiator.state is state
        assert stage.initiator.outcome is before


# ------------------------------------------------------------ the way through


def test_start_asks_for_the_ticket() -> None:
    assert Stage().initiator.start() == [FetchTicket(XID, principal("b"), False)]
    assert Stage(fresh_ticket=True).initiator.start() == [FetchTicket(XID, principal("b"), True)]


def test_two_way() -> None:
    stage = Stage().asked()
    message = parse_message(stage.play.sent[0])
    assert (message.type, message.xid, message.ackreq) == (MessageType.CREATE, XID, False)
    assert isinstance(message.payloads[0], ApReq)
    assert message.payloads[0].epoch == EPOCH
    accepted = stage.accepted()
    opened = open_command(message, stage.play.sent[0], message.payloads[0], accepted.key)
    assert opened.payloads == stage.question.payloads()
    reply = stage.reply(Isakmp(()), to=accepted)
    (stage.play.at(0.25) >> reply << Count(Tally.REPLIES_RECEIVED) << DONE << WakeAt(0.25 + FULL_CYCLE)).end()
    assert stage.initiator.outcome == Completed(0.25)
    assert stage.initiator.peer_epoch == PEER_EPOCH
    assert stage.initiator.deadline == 0.25 + FULL_CYCLE
    # The same REPLY again needs no ACK, and is none of ours when it does not verify.
    stage.play >> reply << Count(Tally.DUPLICATE) >> received(bare_reply(XID, KinkError(1)))
    stage.play << Count(Tally.UNAUTHENTICATED_ERROR)
    # Neither too early, nor late.
    stage.play.at(1.0) >> DeadlineReached() << WakeAt(0.25 + FULL_CYCLE)
    (stage.play.at(0.25 + FULL_CYCLE) >> DeadlineReached()).end()
    assert stage.initiator.state is State.CLOSED
    assert stage.initiator.deadline is None


@pytest.mark.parametrize(
    ("payloads", "ackreq"),
    [
        ((), True),
        ((Isakmp((Nonce(b"responder"),)),), True),
        ((Isakmp((Nonce(b"responder"),)),), False),  # §6.3 broken, and still the peer waits
    ],
)
def test_ack_and_ack_again(payloads: tuple[KinkPayload, ...], ackreq: bool) -> None:
    stage = Stage().asked()
    reply = stage.reply(*payloads, ackreq=ackreq)
    stage.play >> reply << Count(Tally.REPLIES_RECEIVED) << DONE << SendMessage(ANY, PATH) << WakeAt(ANY)
    stage.play >> reply << Count(Tally.RETRANSMITTED) << SendMessage(ANY, PATH)
    stage.play >> reply << Count(Tally.RETRANSMITTED) << SendMessage(ANY, PATH)
    stage.play.end()
    acks = [parse_message(datagram) for datagram in stage.play.sent[1:]]
    assert {(ack.type, ack.xid) for ack in acks} == {(MessageType.ACK, XID)}
    # RFC 4430 §6.2: an AP-REQ and nothing else; each with an authenticator of its own.
    assert [[type(payload) for payload in ack.payloads] for ack in acks] == [[ApReq]] * 3
    for transmission in (1, 2, 3):
        stage.accepted(transmission)


def test_retransmissions_have_fresh_authenticators_one_xid_and_one_ticket() -> None:
    stage = Stage().asked()
    times = [0.5, 1.5, 3.5, 7.5, 15.5, 23.5]
    for time, then in zip(times, [*times[1:], FULL_CYCLE], strict=True):
        stage.play.at(time - 0.01) >> DeadlineReached() << WakeAt(time)
        stage.play.at(time) >> DeadlineReached()
        stage.play << Count(Tally.COMMANDS_RETRANSMITTED) << SendMessage(ANY, PATH) << WakeAt(then)
    (stage.play.at(FULL_CYCLE) >> DeadlineReached()).end()
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Failed)
    assert outcome.peer_may_hold_state
    assert outcome.reason == "no answer in 31.5 s to 7 transmissions"
    assert len(set(stage.play.sent)) == TRANSMISSIONS
    keys = set()
    for number, datagram in enumerate(stage.play.sent):
        accepted = stage.accepted(number)  # the replay cache takes every one
        keys.add(accepted.key.prf(b""))
        message = parse_message(datagram)
        assert message.xid == XID
        ap = message.payloads[0]
        assert isinstance(ap, ApReq)
        assert open_command(message, datagram, ap, accepted.key).payloads == stage.question.payloads()
    assert len(keys) == 1


@pytest.mark.parametrize("transmission", range(4))
def test_an_answer_to_an_earlier_authenticator_is_accepted(transmission: int) -> None:
    stage = Stage().asked()
    for time in (0.5, 1.5, 3.5):
        stage.play.at(time) >> DeadlineReached() << ANY << ANY << ANY
    stage.play >> stage.reply(to=stage.accepted(transmission)) << Count(Tally.REPLIES_RECEIVED) << DONE << ANY
    stage.play.end()


def test_no_ticket() -> None:
    stage = Stage()
    (stage.play >> TicketRefused(TicketRefusal("no KDC")) << WITHDRAWN).end()
    assert stage.initiator.outcome == Failed("no KDC")
    assert stage.initiator.state is State.CLOSED


# ------------------------------------------------------------ what is not believed


def test_unauthenticated_errors_never_end_an_exchange_but_are_remembered() -> None:
    stage = Stage().asked()
    for datagram in (
        bare_reply(XID, KinkError(1)),
        bare_reply(XID, stage.krb_error(1000)),
        bare_reply(XID, KrbError(b"garbage")),
        build_message(Message(MessageType.REPLY, XID, ())),
        build_message(Message(MessageType.REPLY, XID, (Isakmp((Notify(3, b"", 14),)),))),
    ):
        stage.play >> received(datagram) << Count(Tally.UNAUTHENTICATED_ERROR)
    assert stage.initiator.outcome is None
    assert stage.initiator.peer_epoch is None
    stage.play >> stage.reply() << Count(Tally.REPLIES_RECEIVED) << DONE << ANY


@pytest.mark.parametrize(
    ("payload", "hint"),
    [
        (KinkError(3), "KINK_INVMAJ"),
        (KinkError(4711), "KINK error 4711"),
        (KrbError(b"garbage"), "an unreadable KRB-ERROR"),
        (None, "Kerberos error 37 (its clock and ours differ too much) fake"),
    ],
)
def test_what_was_said_without_authentication_is_told_in_the_end(payload: KinkPayload | None, hint: str) -> None:
    stage = Stage().asked()
    stage.initiator.handle(received(bare_reply(XID, payload or stage.krb_error(1000))), 0.1)
    for number in range(TRANSMISSIONS):
        stage.initiator.handle(DeadlineReached(), 1e6 + number * 100)
    assert isinstance(stage.initiator.outcome, Failed)
    assert stage.initiator.outcome.reason.endswith(f"; it did say, unauthenticated: {hint}")


def test_replies_that_do_not_verify_change_nothing() -> None:
    stage = Stage().asked()
    good = stage.accepted()
    other = stage.wire.realm.issue(principal("a"), principal("b"))
    elsewhere = stage.acceptor.accept(other.make_request().ap_req)
    twin = stage.acceptor.accept(stage.ticket.make_request().ap_req)  # the right key, another authenticator
    for reply in (
        stage.reply(to=elsewhere),
        stage.reply(to=twin),
        stage.reply(KinkError(1), to=replace(elsewhere, ctime=good.ctime)),
        received(seal_reply(XID, PEER_EPOCH, good.make_reply(), other.key)),
        received(seal_reply(XID, PEER_EPOCH, b"", good.key)),
    ):
        stage.play >> reply << Count(Tally.UNAUTHENTICATED_REPLY)
    assert stage.initiator.outcome is None
    assert stage.initiator.peer_epoch is None


# ------------------------------------------------------------ what may be tried


def user_to_user(stage: Stage) -> KrbError:
    """What a peer without a keytab says."""
    with pytest.raises(ApRequestRefused) as refused:
        FakeKerberos(stage.wire.realm, principal("b"), keytab=False).accept(stage.ticket.make_request().ap_req)
    return KrbError(refused.value.krb_error)


def test_a_peer_that_wants_user_to_user_is_heard_and_the_exchange_goes_on() -> None:
    """RFC 4430 §3.1: the error is not authenticated."""
    stage = Stage().asked()
    stage.play >> received(bare_reply(XID, user_to_user(stage))) << Count(Tally.USER_TO_USER_REQUIRED)
    assert stage.initiator.hint == b""
    stage.play.at(0.5) >> DeadlineReached() << Count(Tally.COMMANDS_RETRANSMITTED) << ANY << ANY
    assert stage.initiator.hint is None
    stage.play >> stage.reply() << Count(Tally.REPLIES_RECEIVED) << DONE << ANY
    # Late, and of no use any more.
    stage.play >> TicketReady(replace(stage.ticket, tgt=b"the peer's")) << Count(Tally.IGNORED_EVENT)
    stage.play >> received(bare_reply(XID, user_to_user(stage))) << Count(Tally.UNAUTHENTICATED_ERROR)


def test_a_tgt_is_a_hint_where_a_user_to_user_ticket_is_in_use() -> None:
    """RFC 4430 §3.7.1."""
    stage = Stage().asked()
    stage.play >> received(bare_reply(XID, TgtRep(b"new"))) << Count(Tally.UNAUTHENTICATED_ERROR)
    stage = Stage()
    stage.ticket = replace(stage.ticket, tgt=b"old")
    stage.asked()
    stage.play >> received(bare_reply(XID, TgtRep(b"old"))) << Count(Tally.UNAUTHENTICATED_ERROR)
    stage.play >> received(bare_reply(XID, TgtRep(b"new"))) << Count(Tally.TGT_OFFERED)
    assert stage.initiator.hint == b"new"
    assert stage.initiator.outcome is None
    assert stage.initiator.peer_epoch is None  # nothing is known of the peer's life


@pytest.mark.parametrize(("before", "reason"), [(None, "user-to-user tickets only"), (b"old", "new ticket-granting")])
def test_a_ticket_that_the_kdc_has_made_starts_the_command_again(before: bytes | None, reason: str) -> None:
    stage = Stage(offset=3.0)
    stage.ticket = replace(stage.ticket, tgt=before)
    stage.asked()
    if before is not None:
        stage.play >> TicketReady(stage.ticket) << Count(Tally.IGNORED_EVENT)  # the same again
    (stage.play >> TicketRefused(TicketRefusal("forged"))).end()  # the old one will do
    (stage.play >> TicketReady(replace(stage.ticket, tgt=b"new"))).end()
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Restart)
    assert reason in outcome.reason
    assert (outcome.tgt, outcome.offset, stage.initiator.state) == (b"new", 3.0, State.CLOSED)
    assert "new'" not in repr(outcome)
    again = stage.initiator.again(outcome, XID + 1)
    assert again.start() == [FetchTicket(XID + 1, principal("b"), False, b"new")]
    assert (again.command, again.switches, again.second_try) == (stage.question, 1, False)


def test_hints_are_followed_twice_for_one_command() -> None:
    stage = Stage(switches=2).asked()
    stage.play >> received(bare_reply(XID, user_to_user(stage))) << Count(Tally.UNAUTHENTICATED_ERROR)


# ------------------------------------------------------------ what is


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (KinkError(1), "the peer answers KINK_PROTOERR"),
        (KinkError(6), "the peer answers KINK_BADQMVERS"),
        (KinkError(999), "the peer answers KINK error 999"),
        (KrbError(b"x"), "the peer answers an unreadable KRB-ERROR"),
    ],
)
def test_an_authentic_error_ends_it(payload: KinkPayload, reason: str) -> None:
    stage = Stage().asked()
    stage.play >> stage.reply(payload) << Count(Tally.REPLIES_RECEIVED) << WITHDRAWN << WakeAt(ANY)
    stage.play.end()
    assert isinstance(stage.initiator.outcome, Failed)
    assert stage.initiator.outcome.reason.startswith(reason)
    assert not stage.initiator.outcome.peer_may_hold_state


def test_kink_ok_is_no_error() -> None:
    stage = Stage().asked()
    stage.play >> stage.reply(KinkError(0)) << Count(Tally.REPLIES_RECEIVED) << DONE << ANY


def test_skew_restarts_under_a_shifted_clock() -> None:
    stage = Stage(offset=5.0).asked()
    stage.play >> stage.reply(stage.krb_error(1000)) << Count(Tally.REPLIES_RECEIVED) << WakeAt(ANY)
    stage.play.end()
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Restart)
    assert outcome.offset == pytest.approx(1000.0)
    assert not outcome.fresh_ticket
    assert "+1000 s" in outcome.reason


def test_the_offset_is_in_the_authenticator() -> None:
    for offset in (0.0, 250.0):
        stage = Stage(offset=offset).asked()
        assert stage.initiator.offset == offset
        assert stage.accepted().ctime == POSIX + offset


def test_an_expired_ticket_restarts_with_a_fresh_one() -> None:
    stage = Stage(offset=7.0).asked()
    reply = stage.reply(KrbError(_error(32)))
    stage.play >> reply << Count(Tally.REPLIES_RECEIVED) << WakeAt(ANY)
    reason = "the peer answers Kerberos error 32 (our ticket has expired by its clock) fake"
    assert stage.initiator.outcome == Restart(reason, offset=7.0, fresh_ticket=True)


def test_an_expired_ticket_tells_of_the_clock_too() -> None:
    """A peer whose clock is ahead calls every ticket of ours old: a fresh one alone would only be told SKEW."""
    stage = Stage(offset=5.0).asked()
    stage.play >> stage.reply(KrbError(_error(32, apart=600.0))) << Count(Tally.REPLIES_RECEIVED) << WakeAt(ANY)
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Restart)
    assert outcome.fresh_ticket
    assert outcome.offset == 605.0
    assert "its clock is +605 s from ours" in outcome.reason


def test_not_yet_valid_teaches_the_clock_and_fails() -> None:
    stage = Stage().asked()
    reply = stage.reply(KrbError(_error(33, apart=-600.0)))
    stage.play >> reply << Count(Tally.REPLIES_RECEIVED) << WITHDRAWN << WakeAt(ANY)
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Failed)
    assert outcome.offset == -600.0
    assert "its clock is -600 s from ours; it takes the ticket when that is older" in outcome.reason


# ------------------------------------------------------------ an unauthenticated word about keys


def refused_without_a_key(code: int = 44) -> tuple[Stage, ReplyReceived]:
    stage = Stage().asked()
    return stage, received(bare_reply(XID, KrbError(_error(code))))


@pytest.mark.parametrize("code", [31, 44, 45])
def test_a_peer_without_our_ticket_s_key_makes_us_ask_for_a_fresh_ticket_once(code: int) -> None:
    stage, refusal = refused_without_a_key(code)
    asked = FetchTicket(XID, principal("b"), fresh=True)
    stage.play >> refusal << Count(Tally.UNAUTHENTICATED_ERROR) << asked
    stage.play >> refusal << Count(Tally.UNAUTHENTICATED_ERROR)
    (stage.play >> TicketReady(stage.ticket)).end()
    assert stage.initiator.outcome is None, "nothing ends before the peer has had its time to answer"
    stage.play.at(0.5) >> DeadlineReached()
    stage.play.end()
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Restart)
    assert not outcome.fresh_ticket, "whoever keeps tickets has it"
    assert f"unauthenticated: Kerberos error {code}" in outcome.reason


def test_an_answer_still_counts_after_such_a_word() -> None:
    stage, refusal = refused_without_a_key()
    stage.play >> refusal << Count(Tally.UNAUTHENTICATED_ERROR) << ANY
    stage.play >> TicketReady(stage.ticket)
    stage.play >> stage.reply() << Count(Tally.REPLIES_RECEIVED) << DONE << ANY
    assert isinstance(stage.initiator.outcome, Completed)


def test_without_a_fresh_ticket_the_exchange_goes_on_as_it_was() -> None:
    stage, refusal = refused_without_a_key()
    stage.play >> refusal << Count(Tally.UNAUTHENTICATED_ERROR) << ANY
    (stage.play >> TicketRefused(TicketRefusal("no answer from the KDC"))).end()
    stage.play.at(0.5) >> DeadlineReached() << Count(Tally.COMMANDS_RETRANSMITTED) << SendMessage(ANY, PATH) << ANY
    assert stage.initiator.outcome is None


@pytest.mark.parametrize(("code", "changes"), [(37, {}), (32, {}), (44, {"second_try": True})])
def test_other_words_and_a_second_try_move_nobody(code: int, changes: dict[str, Any]) -> None:
    stage = Stage(**changes).asked()
    refusal = received(bare_reply(XID, KrbError(_error(code))))
    (stage.play >> refusal << Count(Tally.UNAUTHENTICATED_ERROR)).end()


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (37, " (its clock and ours differ too much)"),
        (44, " (its keytab has another version of the key that our ticket is made with)"),
        (31, " (its keytab cannot decrypt our ticket)"),
        (60, ""),
    ],
)
def test_other_kerberos_errors_and_skew_without_a_time_are_the_end(code: int, meaning: str) -> None:
    stage = Stage().asked()
    stage.play >> stage.reply(KrbError(_error(code))) << Count(Tally.REPLIES_RECEIVED) << WITHDRAWN << ANY
    assert stage.initiator.outcome == Failed(f"the peer answers Kerberos error {code}{meaning} fake")


def _error(code: int, *, apart: float | None = None) -> bytes:
    """A fake KRB-ERROR, of a peer whose clock is that far from ours; without, it lacks the client's time."""
    wire = Wire()
    kerberos = FakeKerberos(wire.realm, principal("b"), clock_offset=apart or 0.0)
    accepted = None if apart is None else SimpleNamespace(ctime=wire.posix())
    return kerberos._refusal(code, accepted, "").krb_error


@pytest.mark.parametrize(
    ("answer", "undone", "peer_may_hold_state"),
    [(RequestFailed("no"), [WITHDRAWN], False), (AnswerUnusable("what?"), [], True)],
)
@pytest.mark.parametrize("ackreq", [False, True])
def test_ackreq_is_acknowledged_even_in_error(
    answer: Exception, undone: list[Effect], peer_may_hold_state: bool, ackreq: bool
) -> None:
    """RFC 4430 §3.2."""
    stage = Stage().asked()
    stage.question.answer = answer
    stage.play >> stage.reply(Isakmp(()), ackreq=ackreq) << Count(Tally.REPLIES_RECEIVED)
    for effect in undone:
        stage.play << effect
    if ackreq:
        stage.play << SendMessage(ANY, PATH)
    (stage.play << WakeAt(ANY)).end()
    assert stage.initiator.outcome == Failed(str(answer), peer_may_hold_state)


def test_a_reply_that_comes_again_and_again_is_acknowledged_a_few_times() -> None:
    """A lost ACK is made good (RFC 4430 §3.2); whoever overheard a REPLY has no use of us."""
    stage = Stage().asked()
    reply = stage.reply(ackreq=True)
    stage.initiator.handle(reply, 0.1)
    answers = [stage.initiator.handle(reply, 0.2) for _ in range(1000)]
    assert sum(isinstance(effect, SendMessage) for answer in answers for effect in answer) == MAX_ACKS_AGAIN
    assert answers[TRANSMISSIONS][0] == Count(Tally.RETRANSMITTED)
    assert answers[-1] == [Count(Tally.REPEAT_SUPPRESSED)]


@pytest.mark.parametrize("payloads", [(Isakmp(()), Isakmp((), 2, 0, (0, b""))), (Isakmp((), 2, 0, (0, b"later")),)])
def test_another_version_of_quick_mode_cannot_be_used(payloads: tuple[KinkPayload, ...]) -> None:
    stage = Stage().asked()
    stage.play >> stage.reply(*payloads) << Count(Tally.REPLIES_RECEIVED) << WakeAt(ANY)
    assert isinstance(stage.initiator.outcome, Failed)
    assert stage.initiator.outcome.peer_may_hold_state


def test_an_authentic_answer_that_cannot_be_read_is_told_and_acknowledged() -> None:
    """RFC 4430 §3.5: there is no telling the peer, and §3.2: an ACK wherever ACKREQ is, even so."""
    stage = Stage().asked()
    accepted = stage.accepted()
    encrypt = Encrypt(accepted.key.encrypt(b"\6\0\0\0nonsense"))
    message = Message(MessageType.REPLY, XID, (ApRep(PEER_EPOCH, accepted.make_reply()), encrypt), ackreq=True)
    reply = received(build_message(message, accepted.key.checksum))
    stage.play >> reply << Count(Tally.REPLIES_RECEIVED) << SendMessage(ANY, PATH) << WakeAt(ANY)
    stage.play.end()
    assert isinstance(stage.initiator.outcome, Failed)
    assert stage.initiator.outcome.peer_may_hold_state
    assert stage.initiator.outcome.reason.startswith("the peer's answer cannot be read: ")
    assert stage.initiator.peer_epoch == PEER_EPOCH


@pytest.mark.parametrize("code", range(128))
def test_any_kerberos_error_is_understood(code: int) -> None:
    """RFC 4430 §4.2.3: whatever the code is, under the key it ends the exchange or starts it again, and is named."""
    stage = Stage().asked()
    stage.initiator.handle(stage.reply(KrbError(_error(code))), 0.1)
    outcome = stage.initiator.outcome
    assert isinstance(outcome, Failed | Restart)
    assert f"Kerberos error {code}" in outcome.reason


def test_notifies_that_nobody_knows_are_logged() -> None:
    stage = Stage().asked()
    strange = Isakmp((Notify(3, b"", 9999), Notify(3, b"", 39999), Notify(3, b"", 24577)))
    told = Tell("notify_ignored", (("peer", principal("b")), ("types", "9999, 39999")))
    stage.play >> stage.reply(strange) << Count(Tally.REPLIES_RECEIVED) << told << DONE << ANY
    stage.play.end()


def test_error_names() -> None:
    assert error_name(7) == "KINK_U2UDENIED"
    assert error_name(8) == "KINK error 8"


def test_nothing_secret_is_shown() -> None:
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")))
    ticket = a.ticket(principal("b"))
    assert "key" not in repr(ticket).lower()
    assert repr(ticket.key) == "FakeSessionKey()"
