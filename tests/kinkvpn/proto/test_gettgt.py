from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import Host, Wire, assert_twins, policies, policy, principal, settings
from support.playbook import ANY, Playbook

from esp.sa import Endpoint
from kinkvpn.kerberos.fake import FakeKerberos
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.proto.envelope import bare_reply
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
    TicketReady,
    TicketRefused,
    WakeAt,
)
from kinkvpn.proto.gettgt import LISTEN_SECONDS, MAX_DETOURS, GetTgt, State, TicketRoute, answer_gettgt
from kinkvpn.proto.initiator import Initiator
from kinkvpn.proto.ports import ApRequestRefused, TgtDenied, TicketRefusal
from kinkvpn.proto.retransmit import FULL_CYCLE, TRANSMISSIONS
from kinkvpn.proto.settings import UserToUser
from kinkvpn.proto.status import StatusCommand
from kinkvpn.wire.kink import KinkError, KinkPayload, KrbError, MessageType, TgtRep, TgtReq, parse_message

XID = 77
PATH = Path(Endpoint("192.0.2.2", 910))
U2UDENIED = KinkError(7)
CONCLUDED = Count(Tally.COMMANDS_CONCLUDED)
CREATED, GAVE = ("a", "CREATE"), ("b", "REPLY")
ASKED = ("a", "GETTGT")


def exchange() -> GetTgt:
    kerberos = FakeKerberos(Wire().realm, principal("a"))
    return GetTgt(xid=XID, peer="b", principal=principal("b"), route=lambda *_: PATH, kerberos=kerberos)


def answer(payload: KinkPayload) -> ReplyReceived:
    datagram = bare_reply(XID, payload)
    return ReplyReceived(parse_message(datagram), datagram)


def not_us() -> KrbError:
    with pytest.raises(TgtDenied) as denied:
        FakeKerberos(Wire().realm, principal("b")).offer_tgt(b"kink/x@TEST")
    return KrbError(denied.value.krb_error)


# ------------------------------------------------------------ the exchange


def test_it_asks_by_name_and_takes_what_comes() -> None:
    gettgt = exchange()
    assert gettgt.wait() == [WakeAt(-inf, "b")]  # due at once
    play = Playbook(gettgt).at(5.0)
    play >> DeadlineReached() << Count(Tally.COMMANDS_SENT) << SendMessage(ANY, PATH) << WakeAt(5.5, "b")
    message = parse_message(play.sent[0])
    assert (message.type, message.xid, message.checksum) == (MessageType.GETTGT, XID, b"")
    assert message.payloads == (TgtReq(b"kink/b@TEST"),)  # RFC 1964 §2.1.3: the NAME octets and nothing before them
    (play >> answer(TgtRep(b"ticket")) << Count(Tally.TGT_RECEIVED) << CONCLUDED << WakeAt(ANY, "b")).end()
    assert (gettgt.tgts, gettgt.failure) == ([b"ticket"], "")
    gettgt.conclude()
    assert gettgt.state is State.CLOSED


def test_the_first_answer_may_be_a_forger_s_and_others_are_listened_for() -> None:
    gettgt = exchange()
    gettgt.handle(DeadlineReached(), 0.0)
    play = Playbook(gettgt).at(0.1) >> answer(TgtRep(b"0")) << Count(Tally.TGT_RECEIVED) << CONCLUDED
    ends = 0.1 + LISTEN_SECONDS
    play << WakeAt(ends, "b")
    play.at(0.2) >> answer(TgtRep(b"0")) << Count(Tally.DUPLICATE)
    play >> answer(U2UDENIED) << Count(Tally.UNAUTHENTICATED_ERROR)
    for number in range(1, MAX_DETOURS + 1):
        play >> answer(TgtRep(b"%d" % number)) << Count(Tally.TGT_RECEIVED)
    play >> answer(TgtRep(b"one too many")) << Count(Tally.IGNORED_EVENT)
    play.at(0.5) >> DeadlineReached() << WakeAt(ends, "b")  # nothing is sent again
    (play.at(ends) >> DeadlineReached()).end()
    assert (gettgt.tgts, gettgt.state) == ([b"0", b"1", b"2", b"3"], State.CLOSED)


def test_it_is_retransmitted_as_it_was_on_the_usual_back_off() -> None:
    gettgt = exchange()
    play = Playbook(gettgt)
    for time in (0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5):
        play.at(time) >> DeadlineReached() << ANY << SendMessage(ANY, PATH) << WakeAt(ANY, "b")
        play.at(time + 0.1) >> DeadlineReached() << WakeAt(gettgt.deadline, "b")  # too early
    (play.at(FULL_CYCLE) >> DeadlineReached() << CONCLUDED).end()
    assert gettgt.failure == "no answer in 31.5 s"
    assert len(play.sent) == TRANSMISSIONS
    assert len(set(play.sent)) == 1


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (U2UDENIED, "the peer answers KINK_U2UDENIED"),
        (None, "the peer answers Kerberos error 35 (our ticket is for another principal than it has keys of) fake"),
        (KrbError(b"garbage"), "the peer answers an unreadable KRB-ERROR"),
    ],
)
def test_an_error_ends_it_only_when_nothing_better_has_come(payload: KinkPayload | None, reason: str) -> None:
    gettgt = exchange()
    gettgt.handle(DeadlineReached(), 0.0)
    play = Playbook(gettgt).at(0.1) >> answer(payload or not_us()) << Count(Tally.UNAUTHENTICATED_ERROR)
    assert gettgt.state is State.AWAIT_TGT
    (play.at(0.5) >> DeadlineReached() << CONCLUDED).end()
    assert gettgt.failure == reason
    # Whoever forges one must keep the true answer from coming as well.
    gettgt = exchange()
    gettgt.handle(DeadlineReached(), 0.0)
    play = Playbook(gettgt).at(0.1) >> answer(payload or not_us()) << Count(Tally.UNAUTHENTICATED_ERROR)
    play.at(0.2) >> answer(TgtRep(b"ticket")) << Count(Tally.TGT_RECEIVED) << CONCLUDED << WakeAt(ANY, "b")
    play.end()
    assert gettgt.tgts == [b"ticket"]


EVENTS: tuple[Event, ...] = (
    TicketReady(Wire().realm.issue(principal("a"), principal("b"))),
    TicketRefused(TicketRefusal("no")),
    answer(U2UDENIED),
    CommandRepeated(),
    AckReceived(),
    DeadlineReached(),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    assert {type(one) for one in EVENTS} == set(Event.__args__)
    gettgt = exchange()
    gettgt.handle(DeadlineReached(), 0.0)
    if state is not State.AWAIT_TGT:
        gettgt.handle(answer(TgtRep(b"ticket")), 0.0)
    if state is State.CLOSED:
        gettgt.conclude()
    assert gettgt.state is state
    listed = (state, type(event)) in GetTgt.TRANSITIONS
    assert (gettgt.handle(event, 1e6) == [Count(Tally.IGNORED_EVENT)]) is not listed
    assert listed or gettgt.state is state


def test_no_ticket_in_a_repr() -> None:
    assert "secret" not in repr(FetchTicket(1, "b", False, b"secret"))


# ------------------------------------------------------------ the answer


@pytest.mark.parametrize(
    ("payloads", "tgt", "tally", "code"),
    [
        ((TgtReq(b"kink/b@TEST"),), True, Tally.GETTGT_ANSWERED, None),
        ((TgtReq(b"kink/b@TEST"),), False, Tally.GETTGT_REFUSED, 7),
        ((TgtReq(b"kink/x@TEST"),), True, Tally.GETTGT_NOT_US, None),
        ((TgtReq(b""),), True, Tally.GETTGT_NOT_US, None),
        ((), True, Tally.UNEXPECTED_PAYLOAD, 1),
        ((TgtReq(b"kink/b@TEST"), TgtReq(b"kink/b@TEST")), True, Tally.UNEXPECTED_PAYLOAD, 1),
        ((U2UDENIED,), True, Tally.UNEXPECTED_PAYLOAD, 1),
    ],
)
def test_what_a_gettgt_is_answered(
    payloads: tuple[KinkPayload, ...], tgt: bool, tally: Tally, code: int | None
) -> None:
    kerberos = FakeKerberos(Wire().realm, principal("b"))
    if tgt:
        kerberos.renew_tgt()
    payload, counted = answer_gettgt(payloads, kerberos)
    assert counted is tally
    if code is not None:
        assert payload == KinkError(code)
    elif tally is Tally.GETTGT_ANSWERED:
        assert payload == TgtRep(kerberos.tgts[-1])
    else:
        assert isinstance(payload, KrbError)
        assert kerberos.read_error(payload.krb_error).code == 35


# ------------------------------------------------------------ two hosts


def hosts(
    wire: Wire, user_to_user: UserToUser = UserToUser.AUTO, a: dict[str, Any] | None = None, **b: Any
) -> tuple[Host, Host]:
    """a trusts as said; b has a ticket-granting ticket, and a keytab unless it is told otherwise."""
    return (
        Host(wire, "a", settings("b", policy("a"), user_to_user=user_to_user), **(a or {})),
        Host(wire, "b", settings("a", policy("b")), **{"tgt": True, **b}),
    )


def test_by_policy_the_peer_is_asked_before_anything_else() -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    assert wire.kinds() == [ASKED, GAVE, CREATED, GAVE]
    assert_twins(a, b, 1)
    assert b.counts[Tally.GETTGT_ANSWERED] == a.counts[Tally.TGT_RECEIVED] == 1
    # What follows needs no GETTGT: neither a rekey, nor a DELETE.
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(100.0)
    assert wire.kinds().count(ASKED) == 1
    assert ("a", "DELETE") in wire.kinds()
    assert_twins(a, b, 1)


def test_one_gettgt_serves_every_policy() -> None:
    wire = Wire()
    names = ("one", "two", "three")
    a = Host(wire, "a", settings("b", *(policy("a", name) for name in names), user_to_user=UserToUser.ALWAYS))
    Host(wire, "b", settings("a", *(policy("b", name) for name in names)), tgt=True)
    for name in names:
        a.perform(a.peer.acquired(name, 0.0))
    wire.run(1.0)
    assert wire.kinds().count(ASKED) == 1
    assert wire.kinds().count(CREATED) == 3


def test_a_peer_without_a_keytab_says_so_and_is_believed_when_it_proves_it() -> None:
    wire = Wire()
    a, b = hosts(wire, keytab=False)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    assert wire.kinds() == [CREATED, GAVE, ASKED, GAVE, CREATED, GAVE]
    assert_twins(a, b, 1)
    assert a.counts[Tally.USER_TO_USER_REQUIRED] == b.counts[Tally.AP_REQUEST_REFUSED] == 1
    assert [tell.event for tell in a.told] == ["command_restarted", "sa_established"]
    # From then on it is known.
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(100.0)
    assert b.counts[Tally.AP_REQUEST_REFUSED] == 1
    assert_twins(a, b, 1)


def test_a_kdc_that_has_no_key_of_the_peer() -> None:
    wire = Wire()
    a, b = hosts(wire, keytab=False)
    wire.realm.keyless.add(principal("b"))
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    assert wire.kinds() == [ASKED, GAVE, CREATED, GAVE]
    assert a.counts[Tally.USER_TO_USER_REQUIRED] == 1
    assert_twins(a, b, 1)


@pytest.mark.parametrize("at_the_kdc", [False, True])
def test_a_policy_of_never_is_kept(at_the_kdc: bool) -> None:
    wire = Wire()
    a, _ = hosts(wire, UserToUser.NEVER, keytab=False)
    if at_the_kdc:
        wire.realm.keyless.add(principal("b"))
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(FULL_CYCLE + 0.1)
    assert ASKED not in wire.kinds()
    (failed,) = a.events("create_failed")
    reason = "has no key" if at_the_kdc else "69 (it has no keytab and takes user-to-user tickets only) fake"
    assert str(dict(failed.fields)["reason"]).endswith(reason)


def test_a_peer_that_denies_user_to_user_is_tried_without_where_policy_allows() -> None:
    wire = Wire()
    wire.realm.ticket_life = 60.0
    a, b = hosts(wire, keytab=False)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(70.0)
    b.kerberos.keytab = True
    b.kerberos.lose_tgts()
    a.cached.clear()
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(100.0)
    (failed,) = a.events("create_failed")
    assert str(dict(failed.fields)["reason"]).endswith("the peer answers KINK_U2UDENIED")
    assert b.counts[Tally.GETTGT_REFUSED] == 1
    assert_twins(a, b, 1)
    assert len(a.events("sa_established")) == 2  # the second with a service ticket


def test_a_peer_that_lost_its_ticket_offers_another_and_is_not_taken_for_dead() -> None:
    """RFC 4430 §3.7.1."""
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    before = set(a.outbound)
    b.kerberos.lose_tgts()
    b.kerberos.renew_tgt()
    start = len(wire.log)
    _, probing = a.peer.probe()
    a.perform(probing)
    wire.run(2.0)
    assert wire.kinds()[start:] == [("a", "STATUS"), GAVE, ("a", "STATUS"), GAVE]
    assert (a.counts[Tally.TGT_OFFERED], b.counts[Tally.STALE_TGT]) == (1, 1)
    assert set(a.outbound) == before
    assert a.counts[Tally.PEER_RESTARTED] == 0
    # The new ticket serves from now on.
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(50.0)
    assert b.counts[Tally.STALE_TGT] == 1
    assert_twins(a, b, 1)


def probed(wire: Wire, a: Host) -> None:
    """To the end of a probe of a peer that has been quiet."""
    wire.run(wire.now + 100.0)
    a.perform(a.peer.suspected(wire.now))
    wire.run(wire.now + 3 * FULL_CYCLE)


def test_who_offers_a_ticket_is_not_dead_though_the_kdc_is() -> None:
    """RFC 4430 §3.7.1: the initiator MUST NOT think so, and what stands goes on."""
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    before = set(a.outbound)
    b.kerberos.lose_tgts()
    b.kerberos.renew_tgt()

    ticket = a.ticket

    def silent(server: str, *, fresh: bool = False, tgt: bytes | None = None) -> Any:
        if tgt == b.kerberos.tgts[-1]:
            raise TicketUnavailable(TicketRefusal("no answer from the KDC"))
        return ticket(server, fresh=fresh, tgt=tgt)

    a.ticket = silent  # a KDC that is gone, and what was kept
    probed(wire, a)
    assert a.counts[Tally.PEERS_PROBED] == 1
    assert a.counts[Tally.TGT_OFFERED] > 0
    assert (a.counts[Tally.PEER_DEAD], set(a.outbound)) == (0, before)


@pytest.mark.parametrize("kept", [True, False])
def test_who_answers_neither_a_command_nor_a_gettgt_is_dead(kept: bool) -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    del wire.hosts[b.endpoint.address]
    if not kept:
        wire.realm.ticket_life = 0.0
        wire.run(40_000.0)  # the kept tickets have ended, and the KDC takes that one no more
        a.cached.clear()
    probed(wire, a)
    assert a.counts[Tally.PEER_DEAD] == 1
    assert a.outbound == {}


def test_a_renewed_ticket_of_the_peer_spoils_none_that_was_made_before() -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    b.kerberos.renew_tgt()
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(50.0)
    assert b.counts[Tally.STALE_TGT] == 0
    assert_twins(a, b, 1)


def test_an_expired_ticket_of_the_peer_is_asked_for_again() -> None:
    wire = Wire()
    wire.realm.ticket_life = 60.0
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(70.0)
    b.kerberos.renew_tgt()
    a.cached.clear()
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(100.0)
    assert wire.kinds().count(ASKED) == 2
    assert_twins(a, b, 1)


@pytest.mark.parametrize("code", [None, 32, 147])
def test_a_tgt_that_the_kdc_will_not_take_any_more_is_not_tried_for_ever(code: int | None) -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    a.cached.clear()
    stale, ticket = b.kerberos.tgts[-1], a.ticket

    def refusing(server: str, *, fresh: bool = False, tgt: bytes | None = None) -> Any:
        if tgt == stale:
            raise TicketUnavailable(TicketRefusal("no", code))
        return ticket(server, fresh=fresh, tgt=tgt)

    a.ticket = refusing  # a KDC that has changed its mind
    b.kerberos.renew_tgt()
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(50.0)
    assert len(a.events("create_failed")) == (code is None)  # which is what a silent KDC looks like too
    assert wire.kinds().count(ASKED) == 2
    assert len(a.events("sa_established")) == 2
    assert_twins(a, b, 1)


# ------------------------------------------------------------ what is forged


def forged(payload: KinkPayload) -> Any:
    """Every REPLY of b has ``payload`` come before it."""

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        message = parse_message(datagram)
        if sender.name == "b" and message.type is MessageType.REPLY:
            return [bare_reply(message.xid, payload), datagram]
        return [datagram]

    return meddle


def user_to_user_required() -> KrbError:
    wire = Wire()
    kerberos = FakeKerberos(wire.realm, principal("b"), keytab=False)
    with pytest.raises(ApRequestRefused) as refused:
        kerberos.accept(wire.realm.issue(principal("a"), principal("b")).make_request().ap_req)
    return KrbError(refused.value.krb_error)


def first(count: int) -> Any:
    """Every answer of b to a GETTGT has ``count`` others come before it."""

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        message = parse_message(datagram)
        forgeries = [bare_reply(message.xid, TgtRep(b"forged %d" % number)) for number in range(count)]
        offers = sender.name == "b" and isinstance(message.payloads[0], TgtRep)
        return [*forgeries, datagram] if offers else [datagram]

    return meddle


@pytest.mark.parametrize("count", range(1, MAX_DETOURS + 1))
def test_who_answers_a_gettgt_first_wins_nothing(count: int) -> None:
    """The KDC says of each what it is worth, and the peer's own is tried after them in the same attempt."""
    wire = Wire()
    a = Host(wire, "a", settings("b", *policies("a", 2, entry=""), user_to_user=UserToUser.ALWAYS))
    b = Host(wire, "b", settings("a", *policies("b", 2, entry="")), tgt=True)
    wire.meddle = first(count)
    for name in a.peer.policies:
        a.perform(a.peer.acquired(name, 0.0))
    wire.run(100.0)
    assert a.events("create_failed") == []
    assert wire.kinds().count(ASKED) == 1
    assert_twins(a, b, 2)


def test_who_forges_more_answers_than_are_tried_has_one_attempt_fail() -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    wire.meddle = first(1 + MAX_DETOURS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(0.5)
    (failed,) = a.events("create_failed")
    assert "no such ticket-granting ticket" in str(dict(failed.fields)["reason"])  # in the KDC's own words
    wire.meddle = first(0)
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(100.0)
    assert_twins(a, b, 1)


def test_a_kdc_that_refuses_the_only_answer_is_quoted_when_no_other_has_come() -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    b.kerberos.tgts[-1] = b"of another realm"
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(LISTEN_SECONDS)
    assert a.events("create_failed") == []
    wire.run(LISTEN_SECONDS + 1.0)
    (failed,) = a.events("create_failed")
    assert "no such ticket-granting ticket" in str(dict(failed.fields)["reason"])
    assert wire.kinds().count(ASKED) == 1


@pytest.mark.parametrize("payload", [user_to_user_required(), TgtRep(b"forged"), TgtRep(b""), U2UDENIED])
def test_a_forged_hint_ends_no_exchange(payload: KinkPayload) -> None:
    wire = Wire()
    a, b = hosts(wire)
    wire.meddle = forged(payload)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    assert_twins(a, b, 1)
    assert a.events("create_failed") == []


def test_another_principal_s_ticket_is_none_of_the_peer_s() -> None:
    """Whoever may have tickets may have them offered: the KDC looks at whose they are."""
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    wire.meddle = forged(TgtRep(wire.realm.issue_tgt(principal("x"))))
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(50.0)
    assert_twins(a, b, 1)
    assert a.events("create_failed") == []


def test_a_stream_of_hints_is_followed_a_few_times() -> None:
    wire = Wire()
    a, b = hosts(wire, UserToUser.ALWAYS)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    asked: list[bytes | None] = []
    ticket = a.ticket

    def counted(server: str, *, fresh: bool = False, tgt: bytes | None = None) -> Any:
        asked.append(tgt)
        return ticket(server, fresh=fresh, tgt=tgt)

    a.ticket = counted  # to see what the KDC is asked
    number = iter(range(1000))

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        message = parse_message(datagram)
        return [bare_reply(message.xid, TgtRep(bytes([next(number)])))] * 3 if sender.name == "b" else [datagram]

    wire.meddle = meddle
    _, probing = a.peer.probe()
    a.perform(probing)
    wire.run(40.0)
    assert len(asked) == 1 + MAX_DETOURS
    assert a.counts[Tally.TGT_OFFERED] > MAX_DETOURS
    assert b.counts[Tally.COMMANDS_RECEIVED] == 2  # the old ticket was in use to the end


def test_hints_for_exchanges_that_are_gone() -> None:
    wire = Wire()
    route = TicketRoute(
        settings("b", policy("a")), FakeKerberos(wire.realm, principal("a")), lambda: XID, lambda *_: PATH
    )
    assert route.hinted(5, b"") == []
    assert route.refused(5, TicketRefusal("no", 27)) == []
    route.ready(5, replace(wire.realm.issue(principal("a"), principal("b")), tgt=b"late"))
    assert route.fetch(6) == [FetchTicket(6, principal("b"))]
    # While the KDC is being asked, and while the peer is, nothing more is asked.
    assert route.hinted(6, b"") == []
    assert route.refused(6, TicketRefusal("no", 27)) == [Count(Tally.USER_TO_USER_REQUIRED), WakeAt(-inf, "b")]
    assert route.hinted(6, b"tgt") == []
    assert route.owns(XID)
    assert not route.owns(6)
    assert route.take_failed() == []


class Errands:
    """One peer's TicketRoute with whatever a network, a KDC and exchanges may do to it, in any order."""

    def __init__(self, policy_of_user_to_user: UserToUser) -> None:
        self.wire = Wire()
        self.numbers = itertools.count(1)
        peer = settings("b", policy("a"), user_to_user=policy_of_user_to_user)
        self.kerberos = FakeKerberos(self.wire.realm, principal("a"))
        self.route = TicketRoute(peer, self.kerberos, lambda: next(self.numbers), lambda *_: PATH)
        self.exchanges: dict[int, Initiator] = {}
        self.asked: dict[int, list[bytes | None]] = {}  # trips to the KDC under way
        self.trips: Counter[int] = Counter()
        self.gettgt: set[int] = set()
        self.now = 0.0

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, FetchTicket):
                assert effect.xid in self.exchanges
                self.asked.setdefault(effect.xid, []).append(effect.tgt)
                self.trips[effect.xid] += 1
            if isinstance(effect, SendMessage):
                self.gettgt.add(parse_message(effect.datagram).xid)
        for xid, _ in self.route.take_failed():
            self.conclude(xid)
        # What nobody vouches for costs little: one trip at a time, few for an exchange, one GETTGT for all of them.
        assert all(len(asked) <= 1 for asked in self.asked.values())
        assert all(count <= 2 + MAX_DETOURS for count in self.trips.values())
        assert sum(self.route.owns(xid) for xid in self.gettgt) <= 1

    def begin(self, fresh: bool, tgt: bytes | None) -> None:
        xid = next(self.numbers)
        self.exchanges[xid] = Initiator(
            StatusCommand(), xid=xid, server=principal("b"), route=lambda *_: PATH, epoch=1, kerberos=self.kerberos
        )
        self.take(self.route.fetch(xid, fresh=fresh, tgt=tgt))

    def arrive(self, xid: int, code: int | None) -> None:
        """A trip comes home, with a ticket for code 0."""
        for tgt in self.asked.pop(xid, [])[:1]:
            if code == 0:
                ticket = self.wire.realm.issue(principal("a"), principal("b"))
                self.route.ready(xid, replace(ticket, tgt=tgt))
                self.take([])
            else:
                self.take(self.route.refused(xid, TicketRefusal("no", code)))

    def conclude(self, xid: int) -> None:
        if xid in self.exchanges:
            self.asked.pop(xid, None)
            self.route.concluded(self.exchanges.pop(xid))

    def reply(self, payload: KinkPayload) -> None:
        for xid in self.gettgt:
            if self.route.owns(xid):
                datagram = bare_reply(xid, payload)
                self.take(self.route.replied(parse_message(datagram), datagram, self.now))
                return

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.route.wake(self.now))


TGTS = st.sampled_from([b"one", b"two"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.booleans(), st.none() | TGTS),
        st.tuples(st.just("arrive"), st.integers(0, 5), st.sampled_from([None, 0, 0, 26, 27, 32, 60])),
        st.tuples(st.just("hint"), st.integers(0, 5), st.just(b"") | TGTS),
        st.tuples(st.just("reply"), st.sampled_from([U2UDENIED, TgtRep(b"one"), TgtRep(b"two"), TgtRep(b"")])),
        st.tuples(st.just("conclude"), st.integers(0, 5)),
        st.tuples(st.just("pass_time"), st.sampled_from([0.0, 0.5, 8.0])),
    ),
    max_size=40,
)


@given(user_to_user=st.sampled_from(UserToUser), steps=STEPS)
def test_whatever_happens_little_is_asked_and_nobody_is_forgotten(user_to_user: UserToUser, steps: list[Any]) -> None:
    errands = Errands(user_to_user)
    for name, *arguments in steps:
        xids = list(errands.exchanges)
        if name in ("arrive", "hint", "conclude"):
            if not xids:
                continue
            arguments[0] = xids[arguments[0] % len(xids)]
        if name == "hint":
            errands.take(errands.route.hinted(*arguments))
        else:
            getattr(errands, name)(*arguments)
    # Whoever waits for the peer's ticket-granting ticket is told of it, or of its not coming.
    for _ in range(3 * TRANSMISSIONS):
        errands.pass_time(8.0)
        errands.reply(TgtRep(b"last"))
        for xid in list(errands.asked):
            errands.arrive(xid, 0)
    assert not any(errands.route.owns(xid) for xid in errands.gettgt)
    assert errands.asked == {}
    if user_to_user is UserToUser.NEVER:
        assert not errands.gettgt


def test_which_way_was_found_out_stands_unless_the_operator_says_another() -> None:
    wire = Wire()
    before = settings("b", policy("a"))
    route = TicketRoute(before, FakeKerberos(wire.realm, principal("a")), lambda: XID, lambda *_: PATH)
    route.user_to_user = True  # as found out
    route.change(replace(before, delete_grace=1.0))
    assert route.user_to_user
    route.change(replace(before, user_to_user=UserToUser.NEVER))
    assert not route.user_to_user
    route.change(replace(before, user_to_user=UserToUser.ALWAYS))
    assert route.user_to_user
