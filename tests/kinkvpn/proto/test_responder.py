from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.kinkhosts import Host, Wire, assert_twins, policy, principal, settings, two_hosts
from support.playbook import ANY, Playbook

from esp.sa import Endpoint
from kinkvpn.kerberos.fake import CLOCK_SKEW
from kinkvpn.proto import responder as responder_module
from kinkvpn.proto.allowance import BURST
from kinkvpn.proto.create import Grant, HalfOpen
from kinkvpn.proto.envelope import open_reply, seal_command
from kinkvpn.proto.events import (
    AckReceived,
    CommandRepeated,
    Count,
    DeadlineReached,
    Effect,
    Event,
    InstallInbound,
    InstallOutbound,
    Path,
    RemoveInbound,
    RemoveOutbound,
    ReplyReceived,
    SendMessage,
    Tally,
    Tell,
    TicketReady,
    TicketRefused,
    WakeAt,
)
from kinkvpn.proto.extensions import MACHINE_OCTETS, machine_notify
from kinkvpn.proto.identification import identifications_of
from kinkvpn.proto.lease import Lease
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.ports import AcceptedRequest, OutstandingRequest, TicketRefusal
from kinkvpn.proto.proposal import offer
from kinkvpn.proto.quick_mode import SaPair
from kinkvpn.proto.responder import ANSWER_KEPT, MAX_REPEATS, Responder, State, Transaction
from kinkvpn.proto.retransmit import FULL_CYCLE, TRANSMISSIONS
from kinkvpn.wire.ipsec_doi import PayloadType
from kinkvpn.wire.isakmp import Delete, IsakmpPayload, KeyExchange, Nonce, Notify, SecurityAssociation
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
    TgtReq,
    build_message,
    parse_message,
)

SOURCE = Endpoint("192.0.2.1", 910)
SPI = b"\x12\x34\x56\x78"
CREATE, DELETE, STATUS, ACK = MessageType.CREATE, MessageType.DELETE, MessageType.STATUS, MessageType.ACK
SA_EFFECTS = InstallInbound | InstallOutbound | RemoveInbound | RemoveOutbound


class Asker:
    """Host b, and whoever sends it commands by hand: as host a unless said otherwise."""

    def __init__(self, name: str = "a", **changes: Any) -> None:
        self.wire = Wire()
        self.b = Host(self.wire, "b", settings("a", policy("b", **changes)))
        self.ticket = self.wire.realm.issue(principal(name), principal("b"))
        self.xids = itertools.count(1)

    def command(
        self, kind: MessageType, *payloads: KinkPayload, xid: int | None = None, epoch: int = 1
    ) -> tuple[bytes, OutstandingRequest]:
        request = self.ticket.make_request()
        number = next(self.xids) if xid is None else xid
        return seal_command(kind, number, epoch, request, self.ticket.key, payloads), request

    def create(self, *extra: IsakmpPayload, spi: bytes = SPI, **how: Any) -> tuple[bytes, OutstandingRequest]:
        return self.command(CREATE, Isakmp((*create_payloads(spi), *extra)), **how)

    def send(self, datagram: bytes, source: Endpoint = SOURCE) -> list[Effect]:
        effects = self.b.receive(datagram, source)
        self.b.perform(effects)
        return effects

    def read(self, effects: list[Effect], request: OutstandingRequest) -> tuple[KinkPayload, ...]:
        """What the one REPLY among ``effects`` says, verified."""
        (datagram,) = sent(effects)
        message = parse_message(datagram)
        ap = message.payloads[0]
        assert isinstance(ap, ApRep)
        return open_reply(message, datagram, ap, [request], self.ticket.key).payloads

    def notify(self, effects: list[Effect], request: OutstandingRequest) -> tuple[int, bytes]:
        (payload,) = self.read(effects, request)
        assert isinstance(payload, Isakmp)
        (notify,) = payload.payloads
        assert isinstance(notify, Notify)
        return notify.type, notify.value


def create_payloads(spi: bytes = SPI) -> tuple[IsakmpPayload, ...]:
    asked = policy("a")
    ids = identifications_of(asked.selector, initiator=True)
    return (offer(asked, spi), Nonce(b"initiator's nonce"), *ids)


def sent(effects: list[Effect]) -> list[bytes]:
    return [effect.datagram for effect in effects if isinstance(effect, SendMessage)]


def counted(effects: list[Effect]) -> list[Tally]:
    return [effect.tally for effect in effects if isinstance(effect, Count)]


# ------------------------------------------------------------ the table


def transaction(state: State) -> Transaction:
    asker = Asker()
    pair = SaPair("net", 1000, 2000, "s", False, 60, 0.0)
    asker.b.peer._pairs.await_ack(pair)
    grant = None if state is State.ANSWERED else Grant((), ackreq=True, half_open=(HalfOpen(pair, [Tell("acked")]),))
    made = Transaction(b"reply", Path(SOURCE), grant, asker.b.peer, 0.0)
    if state is State.ACKNOWLEDGED:
        made.handle(AckReceived(), 1.0)
    if state is State.ABANDONED:
        for _ in range(TRANSMISSIONS):
            made.handle(DeadlineReached(), made.deadline)
    assert made.state is state
    return made


EVENTS: list[Event] = [
    TicketReady(Asker().ticket),
    TicketRefused(TicketRefusal("")),
    ReplyReceived(Message(MessageType.REPLY, 1, ()), b""),
    CommandRepeated(),
    AckReceived(),
    DeadlineReached(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    """Listed, or ignored and counted; never an exception."""
    made = transaction(state)
    effects = made.handle(event, 1e6)
    listed = (state, type(event)) in Transaction.TRANSITIONS
    assert (effects == [Count(Tally.IGNORED_EVENT)]) is not listed
    assert listed or made.state is state


def test_an_unacknowledged_reply_is_sent_again_and_then_abandoned() -> None:
    made = transaction(State.AWAIT_ACK)
    assert made.start() == [SendMessage(b"reply", Path(SOURCE)), WakeAt(0.5)]
    play = Playbook(made)
    again = SendMessage(b"reply", Path(SOURCE))
    for time in (0.5, 1.5, 3.5, 7.5, 15.5, 23.5):
        play.at(time) >> DeadlineReached() << Count(Tally.COMMANDS_RETRANSMITTED) << again << WakeAt(ANY)
    play.at(FULL_CYCLE) >> DeadlineReached() << Count(Tally.ACK_ABANDONED) << ANY << ANY
    play >> CommandRepeated() << Count(Tally.IGNORED_EVENT)
    play.end()
    assert made.evict(FULL_CYCLE) == []


def test_an_ack_ends_the_waiting_and_the_reply_is_kept() -> None:
    made = transaction(State.AWAIT_ACK)
    play = Playbook(made, 0.3)
    play >> AckReceived() << Tell("acked") << ANY
    play >> CommandRepeated() << SendMessage(b"reply", Path(SOURCE))
    play >> AckReceived() << Count(Tally.IGNORED_EVENT)
    play.end()


# ------------------------------------------------------------ what is answered


def test_create_is_answered_and_installed_before_the_reply_leaves() -> None:
    asker = Asker()
    datagram, request = asker.create()
    effects = asker.send(datagram)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(InstallInbound) < kinds.index(InstallOutbound) < kinds.index(SendMessage)
    (payload,) = asker.read(effects, request)
    assert isinstance(payload, Isakmp)
    assert isinstance(payload.payloads[0], SecurityAssociation)
    assert counted(effects) == [Tally.COMMANDS_RECEIVED]


@pytest.mark.parametrize(
    ("extra", "notify"),
    [
        (KeyExchange(b"g^x"), (1, bytes([PayloadType.KE]))),
        (Delete(3, (SPI,)), (16, b"")),
        (Nonce(b"another nonce"), (16, b"")),
    ],
)
def test_refusals_go_out_under_the_key(extra: IsakmpPayload, notify: tuple[int, bytes]) -> None:
    asker = Asker()
    datagram, request = asker.create(extra)
    effects = asker.send(datagram)
    assert asker.notify(effects, request) == notify
    assert counted(effects) == [Tally.COMMANDS_RECEIVED, Tally.COMMANDS_REFUSED]
    assert asker.b.inbound == {}
    assert asker.b.events("command_refused")


def test_a_create_for_an_spi_in_use_or_just_deleted_is_refused() -> None:
    asker = Asker()
    asker.send(asker.create()[0])
    again, request = asker.create()
    assert asker.notify(asker.send(again), request) == (11, b"")
    asker.send(asker.command(DELETE, Isakmp((Delete(3, (SPI,)),)))[0])
    again, request = asker.create()
    assert asker.notify(asker.send(again), request) == (11, b"")


def test_a_command_that_comes_again_from_elsewhere_is_answered_there_unless_it_is_a_replay() -> None:
    asker = Asker()
    elsewhere = Endpoint("203.0.113.1", 20_000)

    def answered(effects: list[Effect]) -> list[Endpoint]:
        return [effect.path.remote for effect in effects if isinstance(effect, SendMessage)]

    first, _ = asker.create(xid=7)
    assert answered(asker.send(first)) == [SOURCE]
    assert answered(asker.send(first, elsewhere)) == [SOURCE]
    asker.wire.now = 0.5
    second, _ = asker.create(xid=7)
    assert answered(asker.send(second, elsewhere)) == [elsewhere]
    assert answered(asker.send(second)) == [elsewhere]
    assert asker.b.counts[Tally.DUPLICATE] == 2
    assert {sa.remote for sa in (*asker.b.inbound.values(), *asker.b.outbound.values())} == {
        elsewhere._replace(port=4500)
    }


def test_delete_of_an_unknown_spi() -> None:
    asker = Asker()
    datagram, request = asker.command(DELETE, Isakmp((Delete(3, (SPI,)),)))
    assert asker.notify(asker.send(datagram), request) == (11, b"")


def test_thousands_of_unknown_spis_in_one_delete() -> None:
    asker = Asker()
    spis = tuple(number.to_bytes(4, "big") for number in range(1000, 9000))
    datagram, request = asker.command(DELETE, *[Isakmp((Delete(3, spis),))])
    (payload,) = asker.read(asker.send(datagram), request)
    assert isinstance(payload, Isakmp)
    assert {type(each) for each in payload.payloads} == {Notify}


def test_status_is_answered_by_nothing_but_the_epoch() -> None:
    asker = Asker()
    datagram, request = asker.command(STATUS)
    assert asker.read(asker.send(datagram), request) == ()


def test_another_quick_mode_is_answered_badqmvers() -> None:
    asker = Asker()
    datagram, request = asker.command(CREATE, Isakmp((), 2, 0, (1, b"from the future")))
    assert asker.read(asker.send(datagram), request) == (KinkError(6),)


@pytest.mark.parametrize("payloads", [(Isakmp(()),), (KinkError(1),), (Isakmp(()), KrbError(b"")), ()])
def test_other_than_quick_modes(payloads: tuple[KinkPayload, ...]) -> None:
    asker = Asker()
    datagram, request = asker.command(CREATE, *payloads)
    assert asker.notify(asker.send(datagram), request) == (16, b"")


def test_malformed_inside_is_answered_under_the_key_and_within_the_allowance() -> None:
    asker = Asker()
    answers = []
    for inside in (b"\6\0\0\0\0\0\0\x08\x63\x10\0\0", b"\x09\0\0\0\0\0\0\4") * 4:
        request = asker.ticket.make_request()
        encrypt = Encrypt(asker.ticket.key.encrypt(inside))
        message = Message(CREATE, next(asker.xids), (ApReq(1, request.ap_req), encrypt))
        effects = asker.send(build_message(message, asker.ticket.key.checksum))
        assert Tally.MALFORMED in counted(effects)
        answers += [asker.read(effects, request)] if sent(effects) else []
    assert len(answers) == BURST
    (payload,) = answers[0]
    assert isinstance(payload, Isakmp)
    assert isinstance(payload.payloads[0], Notify)
    assert payload.payloads[0].type == 16
    assert answers[1] == (KinkError(1),)


def test_another_doi_inside_is_invdoi() -> None:
    asker = Asker()
    datagram, request = asker.command(CREATE, Isakmp((Notify(3, b"", 14, doi=2),)))
    assert asker.read(asker.send(datagram), request) == (KinkError(2),)


def test_an_ack_with_nonsense_in_it_is_not_answered() -> None:
    asker = Asker()
    encrypt = Encrypt(asker.ticket.key.encrypt(b"\6\0\0\0"))
    message = Message(ACK, 1, (ApReq(1, asker.ticket.make_request().ap_req), encrypt))
    assert asker.send(build_message(message, asker.ticket.key.checksum)) == [Count(Tally.MALFORMED)]


def test_a_stranger_of_the_realm_is_refused_and_nothing_is_remembered() -> None:
    asker = Asker("x")
    datagram, request = asker.create(xid=9)
    effects = asker.send(datagram)
    assert asker.notify(effects, request) == (14, b"")
    assert counted(effects) == [Tally.UNKNOWN_PEER]
    again, request = asker.create(xid=9)
    assert asker.notify(asker.send(again), request) == (14, b"")
    assert asker.send(asker.command(ACK, xid=9)[0]) == [Count(Tally.UNKNOWN_PEER)]
    answered = [bool(sent(asker.send(asker.create()[0]))) for _ in range(5)]
    assert answered == [True] * 3 + [False] * 2


# ------------------------------------------------------------ what is not


def test_a_good_ap_req_under_a_bad_cksum_is_dropped_in_silence() -> None:
    asker = Asker()
    datagram, _ = asker.create()
    assert asker.send(datagram[:-1] + bytes([datagram[-1] ^ 1])) == [Count(Tally.BAD_CHECKSUM)]


def test_gettgt_is_refused() -> None:
    asker = Asker()
    datagram = build_message(Message(MessageType.GETTGT, 5, (TgtReq(b"kink/b@TEST"),)))
    effects = asker.send(datagram)
    assert counted(effects) == [Tally.GETTGT_REFUSED]
    (reply,) = [parse_message(each) for each in sent(effects)]
    assert (reply.type, reply.xid, reply.payloads, reply.checksum) == (MessageType.REPLY, 5, (KinkError(7),), b"")


def test_gettgt_is_answered_within_the_allowance() -> None:
    asker = Asker()
    asker.b.kerberos.renew_tgt()
    for xid in range(20):
        effects = asker.send(build_message(Message(MessageType.GETTGT, xid, (TgtReq(b"kink/b@TEST"),))))
        assert counted(effects)[0] is Tally.GETTGT_ANSWERED
        for reply in map(parse_message, sent(effects)):
            assert (reply.xid, reply.payloads, reply.checksum) == (xid, (TgtRep(asker.b.kerberos.tgts[-1]),), b"")
    assert asker.b.counts[Tally.ERROR_SUPPRESSED] == 20 - BURST


def test_a_name_that_is_not_ours_is_told_so() -> None:
    asker = Asker()
    asker.b.kerberos.renew_tgt()
    effects = asker.send(build_message(Message(MessageType.GETTGT, 5, (TgtReq(b"kink/c@TEST"),))))
    assert counted(effects) == [Tally.GETTGT_NOT_US]
    (reply,) = [parse_message(each) for each in sent(effects)]
    (error,) = reply.payloads
    assert isinstance(error, KrbError)
    assert asker.b.kerberos.read_error(error.krb_error).code == 35


@pytest.mark.parametrize("kind", [CREATE, DELETE, STATUS, ACK])
def test_a_ticket_made_with_a_tgt_that_is_gone_is_answered_by_the_present_one(kind: MessageType) -> None:
    """RFC 4430 §3.7.1; to an ACK nothing is answered."""
    asker = Asker()
    asker.b.kerberos.renew_tgt()
    asker.ticket = asker.wire.realm.issue(principal("a"), principal("b"), asker.b.kerberos.tgts[-1])
    asker.b.kerberos.lose_tgts()
    asker.b.kerberos.renew_tgt()
    effects = asker.send(asker.command(kind)[0])
    assert counted(effects) == [Tally.STALE_TGT]
    assert not [effect for effect in effects if isinstance(effect, Tell)]  # nothing is wrong
    answers = [parse_message(each).payloads for each in sent(effects)]
    assert answers == ([] if kind is ACK else [(TgtRep(asker.b.kerberos.tgts[-1]),)])


@pytest.mark.parametrize("payloads", [(), (ApReq(1, b""), ApReq(1, b"")), (Isakmp(()),), (ApRep(1, b""),)])
def test_other_than_one_ap_req(payloads: tuple[KinkPayload, ...]) -> None:
    asker = Asker()
    # Octets after the message are no part of it (RFC 4430 §4): without them the empty CREATE is too short to answer.
    effects = asker.send(build_message(Message(CREATE, 5, payloads)) + bytes(8))
    assert counted(effects) == [Tally.UNEXPECTED_PAYLOAD]
    assert [parse_message(each).payloads for each in sent(effects)] == [(KinkError(1),)]
    assert asker.send(build_message(Message(ACK, 5, payloads))) == [Count(Tally.UNEXPECTED_PAYLOAD)]


def test_what_kerberos_refuses_is_answered_bare_and_within_the_allowance() -> None:
    asker = Asker()
    other = asker.wire.realm.issue(principal("a"), principal("x"))
    datagram = seal_command(STATUS, 5, 1, other.make_request(), other.key)
    effects = asker.send(datagram)
    assert counted(effects) == [Tally.AP_REQUEST_REFUSED]
    (reply,) = [parse_message(each) for each in sent(effects)]
    assert [type(payload) for payload in reply.payloads] == [KrbError]
    assert reply.checksum == b""
    answers = [asker.send(datagram) for _ in range(6)]
    assert [bool(sent(each)) for each in answers] == [True] * 4 + [False] * 2
    assert counted(answers[-1]) == [Tally.AP_REQUEST_REFUSED, Tally.ERROR_SUPPRESSED]
    assert len(asker.b.events("ap_request_refused")) == BURST
    # An ACK is never answered.
    ack = seal_command(ACK, 5, 1, other.make_request(), other.key)
    assert asker.send(ack) == [Count(Tally.AP_REQUEST_REFUSED)]


def test_skew_is_answered_under_the_key_but_not_for_ever() -> None:
    """An overheard command comes again when it is old enough: the answers are few."""
    asker = Asker()
    datagram, request = asker.command(STATUS)
    asker.wire.now = 1000.0
    effects = asker.send(datagram)
    (payload,) = asker.read(effects, request)
    assert isinstance(payload, KrbError)
    assert asker.b.kerberos.read_error(payload.krb_error).code == 37
    assert counted(effects) == [Tally.AP_REQUEST_REFUSED]
    assert [bool(sent(asker.send(datagram))) for _ in range(6)] == [True] * 4 + [False] * 2
    bad = datagram[:-1] + bytes([datagram[-1] ^ 1])
    assert asker.send(bad) == [Count(Tally.BAD_CHECKSUM)]


@pytest.mark.parametrize(
    ("datagram", "tally", "code"),
    [
        (b"", Tally.MALFORMED, None),
        (bytes(15), Tally.MALFORMED, None),
        ("01 20 0010 00000001 00000005 00 00 0000 0000000000000000", Tally.WRONG_VERSION, 3),
        ("01 10 0010 00000002 00000005 00 00 0000 0000000000000000", Tally.WRONG_DOI, 2),
        ("01 10 0010 00000001 00000005 63 00 0000 0000000000000000", Tally.MALFORMED, 1),
        ("03 20 0010 00000001 00000005 00 00 0000 0000000000000000", Tally.WRONG_VERSION, None),  # a REPLY
        ("05 20 0010 00000001 00000005 00 00 0000 0000000000000000", Tally.WRONG_VERSION, None),  # an ACK
        ("63 10 0010 00000001 00000005 00 00 0000 0000000000000000", Tally.MALFORMED, None),
    ],
)
def test_what_does_not_parse(datagram: bytes | str, tally: Tally, code: int | None) -> None:
    octets = bytes.fromhex(datagram) if isinstance(datagram, str) else datagram
    asker = Asker()
    effects = asker.send(octets)
    assert counted(effects) == [tally]
    replies = [parse_message(each) for each in sent(effects)]
    assert [(reply.xid, reply.payloads) for reply in replies] == ([] if code is None else [(5, (KinkError(code),))])


def test_errors_to_one_source_are_few() -> None:
    asker = Asker()
    octets = bytes.fromhex("01 20 0010 00000001 00000005 00 00 0000 0000000000000000")
    answers = [bool(sent(asker.send(octets))) for _ in range(8)]
    assert answers == [True] * 5 + [False] * 3
    assert asker.b.counts[Tally.ERROR_SUPPRESSED] == 3
    asker.wire.now = 1.0
    assert sent(asker.send(octets))


def test_an_error_is_never_longer_than_what_draws_it() -> None:
    """A forger of sources gets nothing out of this host that he does not put in himself."""
    asker = Asker()
    for octets in range(16, 40):
        for header in ("01 20 0010 00000001 00000005 00 00 0000", "04 10 0010 00000001 00000005 00 00 0000"):
            datagram = bytes.fromhex(header).ljust(octets, b"x")
            asker.wire.now += 1.0
            answers = sent(asker.send(datagram))
            assert [len(answer) <= octets for answer in answers] == ([True] if octets >= 24 else [])
    # A KRB-ERROR is longer than an AP-REQ that is nothing but noise.
    noise = build_message(Message(STATUS, 5, (ApReq(1, b"x"),)))
    assert counted(asker.send(noise)) == [Tally.AP_REQUEST_REFUSED, Tally.ERROR_SUPPRESSED]


def test_forged_sources_do_not_silence_the_errors_under_a_key() -> None:
    asker = Asker()
    octets = bytes.fromhex("01 20 0010 00000001 00000005 00 00 0000").ljust(24, b"x")
    answers = 0
    for number in range(5000):
        source = Endpoint(f"198.18.{number // 250}.{number % 250}", 910)
        answers += len(sent(asker.b.receive(octets, source)))
    assert answers == 65536 // 24
    datagram, request = asker.command(STATUS)
    asker.wire.now = 1000.0
    (payload,) = asker.read(asker.send(datagram), request)
    assert isinstance(payload, KrbError)


def test_forged_sources_do_not_silence_the_errors_to_where_a_peer_is() -> None:
    asker = Asker()
    octets = bytes.fromhex("01 20 0010 00000001 00000005 00 00 0000").ljust(24, b"x")
    for number in range(5000):
        asker.b.receive(octets, Endpoint(f"198.18.{number // 250}.{number % 250}", 910))
    assert not sent(asker.b.receive(octets, Endpoint("198.51.100.1", 910)))
    assert [bool(sent(asker.send(octets))) for _ in range(6)] == [True] * 5 + [False]


def test_two_thousand_peers_hear_of_a_wrong_clock_within_a_minute() -> None:
    asker = Asker()
    heard = 0
    for number in range(2000):
        name = f"kink/peer{number}@TEST"
        asker.wire.realm._principals.add(name)
        ticket = asker.wire.realm.issue(name, principal("b"))
        datagram = seal_command(STATUS, 1, 1, ticket.make_request(), ticket.key)
        asker.wire.now += CLOCK_SKEW + 1 if number == 0 else 0.001
        heard += bool(sent(asker.b.receive(datagram, Endpoint(f"198.18.{number // 250}.{number % 250}", 910))))
        if number == 0:
            started = asker.wire.now
    assert heard > 1900
    assert asker.wire.now - started < 3


def test_notifies_that_nobody_knows_are_logged() -> None:
    """RFC 4430 §5.5: ignored, and logged; REPLAY-STATUS is known."""
    asker = Asker()
    strange = tuple(Notify(3, b"", number) for number in (9999, 39999, 24577))
    datagram, request = asker.command(STATUS, Isakmp(strange))
    assert asker.read(asker.send(datagram), request) == ()
    told = [dict(line.fields)["types"] for line in asker.b.events("notify_ignored")]
    assert told == ["9999, 39999"]


def test_a_peer_that_is_refused_for_ever_is_answered_and_told_of() -> None:
    """How many lines that are in the log, its ration says."""
    asker = Asker()
    for _ in range(50):
        datagram, request = asker.create(KeyExchange(b"g^x"))
        assert asker.notify(asker.send(datagram), request)[0] == 1
    assert len(asker.b.events("command_refused")) == 50


# ------------------------------------------------------------ the cache


def test_an_answer_is_repeated_for_a_retransmission_and_not_for_ever() -> None:
    asker = Asker()
    datagram, _ = asker.create(xid=5)
    (reply,) = sent(asker.send(datagram))
    answers = [sent(asker.send(datagram)) for _ in range(1000)]
    assert answers == [[reply]] * MAX_REPEATS + [[]] * (1000 - MAX_REPEATS)
    assert asker.b.counts[Tally.DUPLICATE] == 1000
    assert asker.b.counts[Tally.REPEAT_SUPPRESSED] == 1000 - MAX_REPEATS


def test_a_peer_has_its_share_of_the_answers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """One peer that asks without end does not make this host forget what another waits for."""
    monkeypatch.setattr(responder_module, "MAX_ANSWERS", 20)
    monkeypatch.setattr(responder_module, "LEAST_SHARE", 2)
    wire = Wire()
    b = Host(wire, "b", settings("a", policy("b", responder_nonce=True)))
    mallory = Host(wire, "x", settings("b", policy("a")))
    greedy = Peer(
        settings("x", policy("b", name="other")),
        principal=principal("b"),
        epoch=1,
        kerberos=b.kerberos,
        random=b.random.randbytes,
        allocate_spi=b.allocate_spi,
        next_xid=lambda: next(b.xids),
    )
    b.responder = Responder(kerberos=b.kerberos, peers={principal("a"): b.peer, principal("x"): greedy}, epoch=1)
    ticket = wire.realm.issue(principal("a"), principal("b"))
    create = seal_command(CREATE, 5, 1, ticket.make_request(), ticket.key, (Isakmp(create_payloads()),))
    b.perform(b.receive(create, SOURCE))
    (waiting,) = b.peer.half_open
    ticket = wire.realm.issue(principal("x"), principal("b"))
    for xid in range(100):
        status = seal_command(STATUS, xid, 1, ticket.make_request(), ticket.key)
        b.perform(b.receive(status, mallory.endpoint))
    assert b.peer.half_open == [waiting]
    assert len(b.responder._transactions) == 10 + 1
    wire.now += ANSWER_KEPT
    b.responder.wake(wire.now)
    assert not b.responder._transactions
    assert not b.responder._held
    assert not b.responder._seen


def test_one_wake_is_asked_for_however_many_answers_are_kept() -> None:
    asker = Asker()
    wakes: list[Effect] = []
    for number in range(50):
        asker.wire.now = number / 10
        wakes += [each for each in asker.b.receive(asker.command(STATUS)[0], SOURCE) if isinstance(each, WakeAt)]
    assert wakes == [WakeAt(ANSWER_KEPT)]
    (again,) = asker.b.responder.wake(ANSWER_KEPT)
    assert again == WakeAt(pytest.approx(ANSWER_KEPT + 0.1))
    assert len(asker.b.responder._transactions) == 49


def test_what_is_answered_is_counted_by_what_it_says() -> None:
    asker = Asker()

    def said(effects: list[Effect]) -> list[str]:
        found = [label for each in effects if isinstance(each, Count | SendMessage) for label in each.labels]
        return [f"{label.family} {label.name}" for label in found]

    assert said(asker.send(asker.create()[0])) == ["answers create.granted"]
    again = asker.send(asker.create()[0])
    assert said(again) == ["answers create.refused", "notifies_sent invalid_spi"]
    assert said(asker.send(asker.command(STATUS, Isakmp((Notify(3, b"", 40000),)))[0])) == [
        "notifies_received other_status",
        "answers status.granted",
    ]
    assert said(asker.send(asker.command(CREATE, Isakmp((), 2, 0, (1, b"x")))[0])) == [
        "answers create.refused",
        "kink_errors_sent badqmvers",
    ]
    gettgt = build_message(Message(MessageType.GETTGT, 5, (TgtReq(b"kink/b@TEST"),)))
    assert said(asker.send(gettgt)) == ["kink_errors_sent u2udenied"]
    other = asker.wire.realm.issue(principal("a"), principal("x"))
    assert said(asker.send(seal_command(STATUS, 6, 1, other.make_request(), other.key))) == ["krb_errors_sent 35"]


def test_the_same_datagram_and_the_same_command_are_answered_from_the_cache() -> None:
    asker = Asker()
    datagram, _ = asker.create(xid=5)
    (reply,) = sent(asker.send(datagram))
    assert asker.send(datagram) == [Count(Tally.DUPLICATE), SendMessage(reply, Path(SOURCE))]
    fresh, _ = asker.create(xid=5)
    again = [Count(Tally.RETRANSMITTED), SendMessage(reply, Path(SOURCE))]
    assert asker.send(fresh) == again
    assert asker.send(fresh) == [Count(Tally.DUPLICATE), SendMessage(reply, Path(SOURCE))]
    assert len(asker.b.inbound) == len(asker.b.outbound) == 1


def test_what_was_granted_is_answered_though_the_ticket_has_run_out_since() -> None:
    asker = Asker()
    asker.wire.now = asker.ticket.endtime - asker.wire.posix() + CLOCK_SKEW - 1
    (reply,) = sent(asker.send(asker.create(xid=5)[0]))
    asker.wire.now += 2
    effects = asker.send(asker.create(xid=5)[0])
    assert counted(effects) == [Tally.AP_REQUEST_REFUSED]
    assert sent(effects) == [reply]
    datagram, request = asker.create(xid=6)
    (payload,) = asker.read(asker.send(datagram), request)
    assert isinstance(payload, KrbError)


def test_an_xid_of_another_life_is_another_command() -> None:
    asker = Asker()
    asker.send(asker.create(xid=5)[0])
    datagram, request = asker.create(xid=5, epoch=2, spi=b"\1\1\1\1")
    effects = asker.send(datagram)
    assert counted(effects) == [Tally.PEER_RESTARTED, Tally.COMMANDS_RECEIVED]
    asker.read(effects, request)
    assert list(asker.b.outbound) == [0x01010101]


def test_answers_are_forgotten_in_time() -> None:
    asker = Asker()
    datagram, _ = asker.command(STATUS, xid=5)
    asker.send(datagram)
    asker.wire.run(ANSWER_KEPT - 1)
    assert counted(asker.send(datagram)) == [Tally.DUPLICATE]
    asker.wire.run(ANSWER_KEPT + 1)
    # What the cache has forgotten the replay cache has not.
    assert counted(asker.send(datagram)) == [Tally.AP_REQUEST_REFUSED]
    fresh, _ = asker.command(STATUS, xid=5)
    assert counted(asker.send(fresh)) == [Tally.COMMANDS_RECEIVED]


def test_the_cache_is_bounded_and_an_evicted_exchange_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder_module, "MAX_ANSWERS", 3)
    monkeypatch.setattr(responder_module, "LEAST_SHARE", 3)
    asker = Asker(responder_nonce=True)
    create, _ = asker.create()
    asker.send(create)
    assert len(asker.b.peer.half_open) == 1
    statuses = [asker.command(STATUS)[0] for _ in range(6)]
    for status in statuses:
        asker.send(status)
    assert asker.b.peer.half_open == []
    assert asker.b.counts[Tally.ACK_ABANDONED] == 1
    for status in statuses[-3:]:
        assert counted(asker.send(status)) == [Tally.DUPLICATE]
    for status in statuses[:3]:
        assert counted(asker.send(status)) == [Tally.AP_REQUEST_REFUSED]
    for _ in range(10):
        asker.send(asker.command(STATUS, xid=999)[0])
    assert len(asker.b.responder._seen) <= 6
    asker.wire.run(1.0)
    assert asker.b.counts[Tally.ACK_ABANDONED] == 1


# ------------------------------------------------------------ ACK


def test_an_ack_installs_outbound_once() -> None:
    asker = Asker(responder_nonce=True)
    effects = asker.send(asker.create(xid=5)[0])
    assert not any(isinstance(effect, InstallOutbound) for effect in effects)
    assert parse_message(sent(effects)[0]).ackreq
    assert asker.send(asker.command(ACK, xid=6)[0]) == [Count(Tally.UNKNOWN_XID)]
    assert asker.b.responder.wake(0.4) == []
    effects = asker.send(asker.command(ACK, xid=5)[0])
    assert isinstance(effects[0], InstallOutbound)
    assert asker.send(asker.command(ACK, xid=5)[0]) == [Count(Tally.IGNORED_EVENT)]
    # The very ACK again is a replay.
    assert len(asker.b.outbound) == 1
    asker.wire.run(60.0)
    assert asker.b.counts[Tally.ACK_ABANDONED] == 0


def test_an_ack_after_the_pair_was_deleted_changes_nothing() -> None:
    asker = Asker(responder_nonce=True)
    asker.send(asker.create(xid=5)[0])
    asker.send(asker.command(DELETE, Isakmp((Delete(3, (SPI,)),)))[0])
    effects = asker.send(asker.command(ACK, xid=5)[0])
    assert Tally.IGNORED_EVENT in counted(effects)
    assert asker.b.outbound == {}
    asker.wire.run(10.0)
    assert asker.b.inbound == {}


def test_a_repeated_ack_of_a_stranger_to_the_transaction() -> None:
    """Only the client that sent the command acknowledges its REPLY."""
    asker = Asker(responder_nonce=True)
    asker.send(asker.create(xid=5)[0])
    stranger = asker.wire.realm.issue(principal("x"), principal("b"))
    ack = seal_command(ACK, 5, 1, stranger.make_request(), stranger.key)
    assert asker.send(ack) == [Count(Tally.UNKNOWN_PEER)]
    assert asker.b.outbound == {}


# ------------------------------------------------------------ hostile octets


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.integers(0, 6), st.integers(0, 2**16), st.integers(1, 255))
def test_any_changed_octet_of_a_conversation_changes_nothing(which: int, where: int, flip: int) -> None:
    """CREATE, REPLY, ACK, STATUS, REPLY, DELETE, REPLY: one of them arrives with one octet changed.

    Nothing is installed, removed or ended by it, and the conversation comes to its end by retransmission.
    """
    wire = Wire()
    a, b = two_hosts(wire, b={"responder_nonce": True})
    numbers = itertools.count()

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        if next(numbers) != which:
            return [datagram]
        octets = bytearray(datagram)
        octets[where % len(octets)] ^= flip
        host = b if sender is a else a
        busy = host.peer.busy
        effects = host.receive(bytes(octets), sender.endpoint)
        assert not any(isinstance(effect, SA_EFFECTS) for effect in effects)
        assert host.peer.busy is busy
        host.perform(effects)
        return []

    wire.meddle = meddle
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(5.0)
    assert_twins(a, b, 1)
    a.perform(a.peer.probe()[1])
    wire.run(10.0)
    a.perform(a.peer.close(wire.now))
    wire.run(40.0)
    assert_twins(a, b, 0)
    assert not a.peer.busy


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_octet_of_a_create_and_of_its_reply(flip: int) -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(0.015)
    (create,) = [datagram for _, _, datagram in wire.log]
    for where in range(len(create)):
        changed = create[:where] + bytes([create[where] ^ flip]) + create[where + 1 :]
        fresh = Host(wire, "b", settings("a", policy("b")))
        assert not any(isinstance(effect, SA_EFFECTS) for effect in fresh.receive(changed, a.endpoint))
    wire.hosts[b.endpoint.address] = b
    (reply,) = sent(b.receive(create, a.endpoint))
    for where in range(len(reply)):
        changed = reply[:where] + bytes([reply[where] ^ flip]) + reply[where + 1 :]
        effects = a.receive(changed, b.endpoint)
        assert not any(isinstance(effect, SA_EFFECTS) for effect in effects)
        assert a.peer.busy
    a.perform(a.receive(reply, b.endpoint))
    assert len(a.outbound) == 1


@given(st.binary(max_size=200))
def test_random_octets(octets: bytes) -> None:
    asker = Asker()
    effects = asker.b.receive(octets, SOURCE)
    assert not any(isinstance(effect, SA_EFFECTS) for effect in effects)


@given(st.sampled_from(MessageType), st.integers(0, 2**32 - 1), st.binary(max_size=80), st.binary(max_size=32))
def test_random_ap_requests(kind: MessageType, xid: int, ap_req: bytes, checksum: bytes) -> None:
    asker = Asker()
    datagram = build_message(Message(kind, xid, (ApReq(1, ap_req),), checksum=checksum))
    effects = asker.b.receive(datagram, SOURCE)
    assert not any(isinstance(effect, SA_EFFECTS) for effect in effects)


@pytest.mark.parametrize(
    ("end", "nonce"),
    [*itertools.product(["deleted", "restarted", "expired"], [False, True]), ("unacknowledged", True)],
)
def test_a_create_held_back_makes_no_pair_once_more(end: str, nonce: bool) -> None:
    """Its KEYMAT would be that of the pair that is gone, with the packet counter at the start again."""
    asker = Asker(responder_nonce=nonce)
    held, _ = asker.create(xid=5)
    asker.send(asker.create(xid=5)[0])
    if nonce and end != "unacknowledged":
        asker.send(asker.command(ACK, xid=5)[0])
    if end == "deleted":
        asker.send(asker.command(DELETE, Isakmp((Delete(3, (SPI,)),)))[0])
    elif end == "restarted":
        asker.send(asker.command(STATUS, epoch=2)[0])
    elif end == "expired":
        asker.b.perform(asker.b.peer.hard_expired("net", next(iter(asker.b.inbound)), 0.0))
    asker.wire.run(290.0)
    assert asker.b.outbound == {}
    inbound = dict(asker.b.inbound)  # one at most, that waits for the answer to its DELETE
    effects = asker.send(held)
    assert (Tally.STALE_EPOCH if end == "restarted" else Tally.COMMANDS_REFUSED) in counted(effects)
    assert asker.b.outbound == {}
    assert asker.b.inbound == inbound


def test_a_command_of_another_machine_is_not_taken_for_one_with_its_numbers() -> None:
    """Whoever has heard them, and has tickets of the same person, gets no answer of it, nor has it sent elsewhere."""
    asker, elsewhere = Asker(), Endpoint("203.0.113.9", 4500)
    lent = Lease((ip_address("10.8.0.7"),), (ip_network("10.1.0.0/16"),))
    admitted: list[bytes] = []

    def welcome(_accepted: AcceptedRequest, machine: bytes, _wished: object) -> Peer:
        peer = Peer(
            settings("a", lease=lent, machine=machine),
            principal=principal("b"),
            epoch=1,
            kerberos=asker.b.kerberos,
            random=asker.b.random.randbytes,
            allocate_spi=asker.b.allocate_spi,
            next_xid=lambda: 1,
        )
        admitted.append(machine)
        asker.b.responder.admit(peer)
        return peer

    asker.b.responder = Responder(kerberos=asker.b.kerberos, peers={}, epoch=1, welcome=welcome)
    laptop, stolen = (Isakmp((machine_notify(letter * MACHINE_OCTETS),)) for letter in (b"l", b"s"))
    datagram, request = asker.command(STATUS, laptop, xid=7)
    assert asker.read(asker.send(datagram), request) == ()
    kept, asker.ticket = asker.ticket, asker.wire.realm.issue(principal("a"), principal("b"))
    assert asker.send(asker.command(STATUS, stolen, xid=7)[0], elsewhere) == [Count(Tally.XID_TAKEN)]
    datagram, request = asker.command(STATUS, stolen, xid=8)
    assert asker.read(asker.send(datagram, elsewhere), request) == ()
    asker.ticket = kept
    again = asker.send(asker.command(STATUS, laptop, xid=7)[0])
    assert [effect.path.remote for effect in again if isinstance(effect, SendMessage)] == [SOURCE]
    assert admitted == [b"l" * MACHINE_OCTETS, b"s" * MACHINE_OCTETS]


def test_a_replayed_conversation_changes_nothing() -> None:
    wire = Wire()
    a, b = two_hosts(wire, b={"responder_nonce": True})
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    before = dict(b.outbound), dict(b.inbound), dict(a.outbound), dict(a.inbound)
    for late in (1.0, 40.0, 400.0):
        wire.run(late)
        for sender, _, datagram in list(wire.log):
            receiver, source = (b, a) if sender == "a" else (a, b)
            effects = receiver.receive(datagram, source.endpoint)
            assert not any(isinstance(effect, SA_EFFECTS) for effect in effects)
    assert before == (b.outbound, b.inbound, a.outbound, a.inbound)


def test_the_other_implementation_sends_no_ids() -> None:
    asker = Asker()
    datagram, request = asker.command(CREATE, Isakmp(create_payloads()[:2]))
    (payload,) = asker.read(asker.send(datagram), request)
    assert isinstance(payload, Isakmp)
    assert [type(each) for each in payload.payloads] == [SecurityAssociation]
    assert len(asker.b.outbound) == 1


def test_answers_go_to_the_port_that_the_command_came_from() -> None:
    asker = Asker()
    lonely = Responder(kerberos=asker.b.kerberos, peers={}, epoch=1)
    datagram, _ = asker.create()
    effects = lonely.receive(parse_message(datagram), datagram, Path(SOURCE._replace(port=4711)), 0.0)
    assert counted(effects) == [Tally.UNKNOWN_PEER]
    assert [effect.path.remote.port for effect in effects if isinstance(effect, SendMessage)] == [4711]
