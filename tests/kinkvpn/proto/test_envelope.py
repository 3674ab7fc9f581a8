from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import Wire, principal

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos.fake import FakeKerberos
from kinkvpn.proto.envelope import bare_reply, open_command, open_reply, seal_command, seal_reply
from kinkvpn.wire.isakmp import Nonce
from kinkvpn.wire.kink import (
    ApRep,
    ApReq,
    Encrypt,
    Isakmp,
    KinkError,
    Message,
    MessageType,
    build_message,
    parse_message,
)

WIRE = Wire()
TICKET = WIRE.realm.issue(principal("a"), principal("b"))
KEY = TICKET.key
INSIDE = (Isakmp((Nonce(b"12345678"),)), KinkError(1))


def command(*payloads: Isakmp | KinkError) -> bytes:
    return seal_command(MessageType.CREATE, 7, 99, TICKET.make_request(), KEY, payloads)


def ap_of(message: Message) -> ApReq | ApRep:
    ap = message.payloads[0]
    assert isinstance(ap, ApReq | ApRep)
    return ap


def test_a_command_opens_to_what_was_sealed() -> None:
    datagram = command(*INSIDE)
    message = parse_message(datagram)
    assert [type(payload) for payload in message.payloads] == [ApReq, Encrypt]
    ap = ap_of(message)
    assert isinstance(ap, ApReq)
    opened = open_command(message, datagram, ap, KEY)
    assert (opened.epoch, opened.payloads, opened.ackreq) == (99, INSIDE, False)
    assert (message.type, message.xid) == (MessageType.CREATE, 7)


def test_nothing_inside_means_no_encrypt_payload() -> None:
    """As an ACK has it: AP-REQ and nothing else (RFC 4430 §6.2)."""
    message = parse_message(command())
    assert [type(payload) for payload in message.payloads] == [ApReq]


def test_a_reply_opens_with_whichever_request_it_answers() -> None:
    requests = [TICKET.make_request() for _ in range(4)]
    accepted = FakeKerberos(WIRE.realm, principal("b")).accept(requests[2].ap_req)
    datagram = seal_reply(7, 5, accepted.make_reply(), accepted.key, INSIDE, ackreq=True)
    message = parse_message(datagram)
    ap = ap_of(message)
    assert isinstance(ap, ApRep)
    opened = open_reply(message, datagram, ap, requests, KEY)
    assert (opened.epoch, opened.payloads, opened.ackreq) == (5, INSIDE, True)
    for others in ([], requests[:2] + requests[3:]):
        with pytest.raises(AuthenticationFailed, match="none of the outstanding"):
            open_reply(message, datagram, ap, others, KEY)


def test_payloads_in_the_clear_count_when_the_cksum_covers_them() -> None:
    ap = ApReq(1, b"ap-req")
    message = Message(MessageType.DELETE, 1, (ap, KinkError(3), Encrypt(KEY.encrypt(b"\0\0\0\0"))))
    datagram = build_message(message, KEY.checksum)
    message = parse_message(datagram)
    received = ap_of(message)
    assert isinstance(received, ApReq)
    assert open_command(message, datagram, received, KEY).payloads == (KinkError(3),)


@given(st.data())
def test_one_changed_octet_is_not_authentic(data: st.DataObject) -> None:
    datagram = bytearray(command(*INSIDE))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = parse_message(bytes(datagram))
    except MalformedMessage:
        return
    ap = next((payload for payload in message.payloads if isinstance(payload, ApReq)), None)
    if ap is not None:
        with pytest.raises(AuthenticationFailed):
            open_command(message, bytes(datagram), ap, KEY)


def test_no_cksum_another_key_and_good_cksum_over_bad_ciphertext() -> None:
    other = WIRE.realm.issue(principal("a"), principal("b")).key
    ap = ApReq(1, b"ap-req")
    for message, checksum in (
        (Message(MessageType.STATUS, 1, (ap,)), None),
        (Message(MessageType.STATUS, 1, (ap,)), other.checksum),
        (Message(MessageType.STATUS, 1, (ap, Encrypt(other.encrypt(b"\0\0\0\0")))), KEY.checksum),
    ):
        datagram = build_message(message, checksum)
        with pytest.raises(AuthenticationFailed):
            open_command(parse_message(datagram), datagram, ap, KEY)


def test_authentic_and_still_malformed() -> None:
    ap = ApReq(1, b"ap-req")
    datagram = build_message(Message(MessageType.STATUS, 1, (ap, Encrypt(KEY.encrypt(b"\6\0\0\0")))), KEY.checksum)
    with pytest.raises(MalformedMessage):
        open_command(parse_message(datagram), datagram, ap, KEY)


def test_a_bare_reply_is_one_payload_and_no_cksum() -> None:
    message = parse_message(bare_reply(7, KinkError(1)))
    assert (message.type, message.xid, message.payloads, message.checksum) == (
        MessageType.REPLY,
        7,
        (KinkError(1),),
        b"",
    )
