"""What RFC 4430 asks of whole conversations, and no single module answers for (docs/conformance/rfc4430.md)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from support.kinkhosts import POSIX, Host, Wire, assert_twins, policy, principal, settings, two_hosts

from esp.sa import Endpoint
from kinkvpn.kerberos.fake import _REQUEST, CLOCK_SKEW, FakeRequest
from kinkvpn.proto.envelope import open_reply, seal_command
from kinkvpn.proto.events import Effect, InstallInbound, InstallOutbound, SendMessage
from kinkvpn.proto.identification import identifications_of
from kinkvpn.proto.proposal import offer
from kinkvpn.proto.quick_mode import NONCE_OCTETS
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.wire.isakmp import Delete, Identification, KeyExchange, Nonce, Notify, SecurityAssociation
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
    build_message,
    build_plaintext,
    parse_message,
    parse_plaintext,
    signed_octets,
)

if TYPE_CHECKING:
    from kinkvpn.kerberos.fake import FakeSessionKey, FakeTicket

SOURCE = Endpoint("192.0.2.1", 910)
SPI = b"\x12\x34\x56\x78"
QUICK_MODE = SecurityAssociation | Nonce | Identification | Notify | Delete
COMMANDS = (MessageType.CREATE, MessageType.DELETE, MessageType.STATUS)


def conversation(**changes: object) -> tuple[Wire, Host, Host]:
    """CREATE, STATUS and DELETE between hosts of different epochs, all of it in ``wire.log``."""
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")), epoch=0x11111111)
    b = Host(wire, "b", settings("a", policy("b", **changes)), epoch=0x22222222)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    assert_twins(a, b, 1)
    a.perform(a.peer.probe()[1])
    b.perform(b.peer.probe()[1])
    wire.run(2.0)
    a.perform(a.peer.close(2.0))
    wire.run(10.0)
    assert_twins(a, b, 0)
    return wire, a, b


def opened(wire: Wire, datagram: bytes) -> tuple[KinkPayload, ...]:
    """Everything beside the AP payload, decrypted with the session key that the realm issued."""
    message = parse_message(datagram)
    (encrypt,) = [payload for payload in message.payloads if isinstance(payload, Encrypt)] or [None]
    return () if encrypt is None else parse_plaintext(key_of(wire, message.xid).decrypt(encrypt.ciphertext))


def key_of(wire: Wire, xid: int) -> FakeSessionKey:
    """The session key of the ticket in the command of transaction ``xid``."""
    for _, _, datagram in wire.log:
        message = parse_message(datagram)
        if message.xid == xid and isinstance(message.payloads[0], ApReq):
            ticket = wire.realm.find(_REQUEST.unpack(message.payloads[0].ap_req)[1])
            assert ticket is not None
            return ticket.key
    raise AssertionError(f"no command {xid}")


@pytest.mark.parametrize("nonce", [False, True], ids=["2way", "3way"])
def test_every_message_of_a_conversation_is_as_section_4_wants_it(nonce: bool) -> None:
    """Version, reserved bits, Length, epoch, A bit, and a Cksum by the session key over the whole."""
    wire, _, _ = conversation(responder_nonce=nonce)
    kinds = {kind for _, kind, _ in wire.log}
    assert kinds == {"CREATE", "REPLY", "STATUS", "DELETE", *(["ACK"] if nonce else [])}
    creates = {parse_message(datagram).xid for _, kind, datagram in wire.log if kind == "CREATE"}
    for sender, kind, datagram in wire.log:
        message = parse_message(datagram)
        assert datagram[1] == 0x10
        assert int.from_bytes(datagram[2:4], "big") == len(datagram)
        assert datagram[13] & 0x7F == 0
        assert message.ackreq is (nonce and kind == "REPLY" and message.xid in creates)
        ap, *rest = message.payloads
        assert isinstance(ap, ApRep if kind == "REPLY" else ApReq)
        assert ap.epoch == {"a": 0x11111111, "b": 0x22222222}[sender]
        assert all(isinstance(payload, Encrypt) for payload in rest)
        assert len(datagram) % 4 == 0
        key_of(wire, message.xid).verify(signed_octets(datagram), message.checksum)


def test_no_payload_of_phase_1_and_no_hash_is_ever_sent() -> None:
    wire, _, _ = conversation(responder_nonce=True)
    seen = set()
    for _, _, datagram in wire.log:
        for payload in opened(wire, datagram):
            assert isinstance(payload, Isakmp)
            assert (payload.major, payload.minor) == (1, 0)
            seen |= {type(inside) for inside in payload.payloads}
    assert seen == {SecurityAssociation, Nonce, Identification, Delete, Notify}
    assert all(issubclass(kind, QUICK_MODE) for kind in seen)


def test_payloads_stand_in_the_order_of_section_6_3() -> None:
    """SA, nonce, KE, IDci and IDcr, notifies: in CREATE and in its REPLY, with Nr and without."""
    order = (SecurityAssociation, Nonce, KeyExchange, Identification, Notify)
    for nonce in (False, True):
        wire, _, _ = conversation(responder_nonce=nonce)
        creates = {parse_message(datagram).xid for _, kind, datagram in wire.log if kind == "CREATE"}
        for _, kind, datagram in wire.log:
            if parse_message(datagram).xid not in creates or kind == "ACK":
                continue
            (payload,) = opened(wire, datagram)
            assert isinstance(payload, Isakmp)
            places = [order.index(type(inside)) for inside in payload.payloads]
            assert places == sorted(places)
            assert places.count(0) == 1
            assert places.count(1) == (1 if kind == "CREATE" or nonce else 0)
            assert places.count(3) == 2


def test_a_transaction_has_one_xid_and_no_two_have_the_same() -> None:
    wire, _, _ = conversation(responder_nonce=True)
    commands: dict[int, tuple[str, str]] = {}
    for sender, kind, datagram in wire.log:
        xid = parse_message(datagram).xid
        if kind in ("REPLY", "ACK"):
            assert xid in commands
        else:
            assert commands.setdefault(xid, (sender, kind)) == (sender, kind)
    assert len(commands) == 4


def test_an_initiator_receives_before_it_asks_and_sends_when_it_is_answered() -> None:
    """§3.2, 2-way, steps 1, 2 and 5; nothing but the inbound SA stands in between."""
    wire = Wire()
    a, b = two_hosts(wire)
    done: list[Effect] = []
    perform = a.perform

    def watch(effects: list[Effect]) -> None:
        done.extend(each for each in effects if isinstance(each, InstallInbound | InstallOutbound | SendMessage))
        perform(effects)

    a.perform = watch  # looks on
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(0.015)
    assert [type(each) for each in done] == [InstallInbound, SendMessage]
    assert a.outbound == {}
    wire.run(1.0)
    assert [type(each) for each in done] == [InstallInbound, SendMessage, InstallInbound, InstallOutbound]
    assert_twins(a, b, 1)


def test_nothing_is_concluded_from_the_lack_of_a_status() -> None:
    """§3.7: no traffic, no STATUS, for hours: the SAs stand, and nobody says a word."""
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(1.0)
    said = len(wire.log)
    wire.run(6 * 3600.0)
    assert len(wire.log) == said
    assert_twins(a, b, 1)


class Asker:
    """Host b and a ticket for it, for commands made by hand."""

    def __init__(self, **changes: object) -> None:
        self.wire = Wire()
        self.b = Host(self.wire, "b", settings("a", policy("b", **changes)))
        self.ticket = self.wire.realm.issue(principal("a"), principal("b"))
        self.xids = itertools.count(1)

    def ask(self, kind: MessageType, *payloads: KinkPayload, after: float = 0.0) -> list[Effect]:
        request = self.ticket.make_request()
        datagram = seal_command(kind, next(self.xids), 1, request, self.ticket.key, payloads)
        return self.deliver(datagram, request, after=after)

    def deliver(self, datagram: bytes, request: FakeRequest, *, after: float = 0.0) -> list[Effect]:
        self.request = request
        self.wire.now += after
        return self.b.receive(datagram, SOURCE)

    def said(self, effects: list[Effect]) -> tuple[KinkPayload, ...]:
        """What the REPLY says beside its AP-REP, which answers the newest request."""
        (datagram,) = [each.datagram for each in effects if isinstance(each, SendMessage)]
        message = parse_message(datagram)
        ap = message.payloads[0]
        assert isinstance(ap, ApRep)
        return open_reply(message, datagram, ap, [self.request], self.ticket.key).payloads


def question(kind: MessageType) -> tuple[KinkPayload, ...]:
    asked = policy("a")
    ids = identifications_of(asked.selector, initiator=True)
    return {
        MessageType.CREATE: (Isakmp((offer(asked, SPI), Nonce(b"initiator's nonce"), *ids)),),
        MessageType.DELETE: (Isakmp((Delete(3, (SPI,)),)),),
        MessageType.STATUS: (),
    }[kind]


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_error_of_the_doi_is_a_notify_under_the_key(kind: MessageType) -> None:
    """§6.3, §6.4: CREATE with another transform, DELETE without a Delete; of STATUS any malformed Quick Mode."""
    asker = Asker()
    wrong = Isakmp((Notify(3, b"", 14),)) if kind is not MessageType.STATUS else Isakmp((Nonce(bytes(8)),) * 2)
    if kind is MessageType.STATUS:
        plaintext = build_plaintext((wrong,))[:-1]
        request = asker.ticket.make_request()
        message = Message(kind, 1, (ApReq(1, request.ap_req), Encrypt(asker.ticket.key.encrypt(plaintext))))
        effects = asker.deliver(build_message(message, asker.ticket.key.checksum), request)
        assert asker.said(effects) == (KinkError(1),)  # KINK_ISAKMP itself is cut short: KINK's own error
        return
    (payload,) = asker.said(asker.ask(kind, wrong))
    assert isinstance(payload, Isakmp)
    (notify,) = payload.payloads
    assert isinstance(notify, Notify)
    assert notify.type == 16


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_error_of_kerberos_with_the_key_at_hand_is_under_it(kind: MessageType) -> None:
    """§6.3 to §6.5, the form with KINK_AP_REP and KINK_KRB_ERROR."""
    asker = Asker()
    request = asker.ticket.make_request()
    datagram = seal_command(kind, 1, 1, request, asker.ticket.key, question(kind))
    (payload,) = asker.said(asker.deliver(datagram, request, after=CLOCK_SKEW + 1))
    assert isinstance(payload, KrbError)
    details = asker.b.kerberos.read_error(payload.krb_error)
    assert details.code == 37
    assert details.client_time == request.ctime


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_error_without_the_key_is_alone(kind: MessageType) -> None:
    """§6.3 to §6.5, the last form: one payload, no Cksum."""
    asker = Asker()
    other = asker.wire.realm.issue(principal("a"), principal("x"))
    request = other.make_request()
    for datagram, expected in (
        (seal_command(kind, 1, 1, request, other.key, question(kind)), KrbError),
        (build_message(Message(kind, 2, (KinkError(1), KinkError(1)))), KinkError),
        (bytes([kind, 0x20]) + bytes(30), KinkError),
    ):
        (sent,) = [each for each in asker.deliver(datagram, request) if isinstance(each, SendMessage)]
        reply = parse_message(sent.datagram)
        assert [type(payload) for payload in reply.payloads] == [expected]
        assert reply.checksum == b""


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_quick_mode_versions_are_not_mixed(order: tuple[int, int]) -> None:
    """§4.2.6, §12: with one payload of a later version in it the transaction is refused as a whole."""
    asker = Asker()
    made = {1: question(MessageType.CREATE)[0], 2: Isakmp((), 2, 0, (1, b"from the future"))}
    effects = asker.ask(MessageType.CREATE, *(made[number] for number in order))
    assert asker.said(effects) == (KinkError(6),)
    assert not any(isinstance(effect, InstallInbound) for effect in effects)


@pytest.mark.parametrize("garbage", [b"\0", bytes(15), b"\xff" * 16, b"garbage that an encryption may leave"])
def test_what_is_behind_the_last_payload_of_a_plaintext_is_ignored(garbage: bytes) -> None:
    """§4.2.7."""
    asker = Asker()
    request = asker.ticket.make_request()
    plaintext = build_plaintext(question(MessageType.CREATE)) + garbage
    message = Message(MessageType.CREATE, 1, (ApReq(1, request.ap_req), Encrypt(asker.ticket.key.encrypt(plaintext))))
    effects = asker.deliver(build_message(message, asker.ticket.key.checksum), request)
    (payload,) = asker.said(effects)
    assert isinstance(payload, Isakmp)
    assert isinstance(payload.payloads[0], SecurityAssociation)


def test_each_nonce_is_new_and_of_its_length() -> None:
    wire, _, _ = conversation(responder_nonce=True)
    nonces = [
        inside.value
        for _, _, datagram in wire.log
        for payload in opened(wire, datagram)
        if isinstance(payload, Isakmp)
        for inside in payload.payloads
        if isinstance(inside, Nonce)
    ]
    assert [len(nonce) for nonce in nonces] == [NONCE_OCTETS] * 2
    assert len(set(nonces)) == 2


def test_skew_that_nobody_vouches_for_moves_no_clock() -> None:
    """§3.5: every authenticator after the forged error has the host's own time."""
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")), skew=-10_000.0)
    b = Host(wire, "b", settings("a", policy("b")))
    forged: list[bytes] = []

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        if sender is a:
            return [datagram]
        # What b says under the key comes without it: the KRB-ERROR alone, which anybody could have made.
        (payload,) = parse_plaintext(ticket.key.decrypt(parse_message(datagram).payloads[1].ciphertext))
        forged.append(build_message(Message(MessageType.REPLY, parse_message(datagram).xid, (payload,))))
        return [forged[-1]]

    wire.meddle = meddle
    ticket: FakeTicket = a.ticket(principal("b"))
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(FULL_CYCLE - 1)
    times = []
    for sender, _, datagram in wire.log:
        ap = parse_message(datagram).payloads[0]
        if sender == "a" and isinstance(ap, ApReq):
            times.append(_REQUEST.unpack(ap.ap_req)[2] - POSIX + 10_000.0)
    assert forged
    assert b.inbound == {}
    assert len(times) == 7
    assert all(0 <= time <= FULL_CYCLE for time in times)


def test_the_timer_considers_the_round_trip() -> None:
    """§9: over a path of 0.8 s there and back the second command is not sent twice for nothing, as the first one is."""
    wire = Wire()
    a, _ = two_hosts(wire)
    wire.latency = 0.4
    a.perform(a.peer.acquired("net", 0.0))
    wire.run(10.0)
    assert wire.kinds().count(("a", "CREATE")) == 2
    a.perform(a.peer.probe()[1])
    wire.run(20.0)
    assert wire.kinds().count(("a", "STATUS")) == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_round_trip_is_measured_from_the_transmission_that_is_answered(number: int) -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    lost = iter([True] * number)
    wire.meddle = lambda sender, datagram: [] if sender is a and next(lost, False) else [datagram]
    a.perform(a.peer.probe()[1])
    wire.run(10.0)
    assert len(wire.kinds()) == number + 2
    (exchange,) = a.peer._exchanges.values()
    assert exchange.round_trip == pytest.approx(0.02)
