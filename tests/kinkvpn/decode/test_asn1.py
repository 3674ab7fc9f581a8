"""DER of real AP-REQs, AP-REPs and KRB-ERRORs; and of none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import load_messages, load_vector

from kinkvpn.decode import asn1
from kinkvpn.errors import MalformedMessage
from kinkvpn.wire import kink

if TYPE_CHECKING:
    from collections.abc import Callable

READERS: list[Callable[[bytes], object]] = [
    asn1.read_ap_req,
    asn1.read_ap_rep,
    asn1.read_krb_error,
    asn1.read_ticket,
    asn1.read_enc_ticket_part,
    asn1.read_authenticator,
    asn1.read_enc_ap_rep_part,
]


def payloads(kind: type) -> list[kink.KinkPayload]:
    """Of that kind, outside KINK_ENCRYPT, in every message that the wire layer reads."""
    found = []
    for message in load_messages():
        try:
            found += [payload for payload in kink.parse_message(message.datagram).payloads if isinstance(payload, kind)]
        except MalformedMessage:
            continue
    return found


AP_REQS = [payload.ap_req for payload in payloads(kink.ApReq) if isinstance(payload, kink.ApReq)]
AP_REPS = [payload.ap_rep for payload in payloads(kink.ApRep) if isinstance(payload, kink.ApRep)]
ERRORS = [payload.krb_error for payload in payloads(kink.KrbError) if isinstance(payload, kink.KrbError)]
SEEDS = [AP_REQS[0], AP_REPS[0], ERRORS[0]]


def test_every_captured_ap_req_says_what_the_independent_decoder_says() -> None:
    assert len(AP_REQS) > 30
    for message in load_messages():
        if message.server is not None and not message.decoder_refused:
            ap_req = asn1.read_ap_req(
                next(p.ap_req for p in kink.parse_message(message.datagram).payloads if isinstance(p, kink.ApReq))
            )
            assert ap_req.ticket.server == message.server
            assert ap_req.mutual_required
            assert not ap_req.use_session_key
            assert ap_req.ticket.sealed.enctype in (17, 18)
            assert ap_req.ticket.sealed.kvno in (1, 2)


def test_ap_reps_and_errors() -> None:
    assert {asn1.read_ap_rep(ap_rep).enctype for ap_rep in AP_REPS} <= {17, 18}
    errors = [asn1.read_krb_error(error) for error in ERRORS]
    # KRB_AP_ERR_BAD_INTEGRITY where an enctype is not permitted, KRB_AP_ERR_NOT_US where the key is missing.
    assert {error.code for error in errors} == {31, 35}
    assert {error.server for error in errors} == {"kink/b.kink.test@KINK.TEST", "kink/c.kink.test@KINK.TEST"}
    assert {error.client_time for error in errors} == {None}


def test_a_real_error_names_its_server_and_time() -> None:
    (reply,) = [m for m in load_vector("error-krb-unauthenticated-etype")[:2] if m.outer == ("KINK_KRB_ERROR",)]
    (payload,) = kink.parse_message(reply.datagram).payloads
    assert isinstance(payload, kink.KrbError)
    error = asn1.read_krb_error(payload.krb_error)
    assert error.server_time > 1_795_000_000
    assert error.text


@pytest.mark.parametrize("octets", SEEDS, ids=["AP-REQ", "AP-REP", "KRB-ERROR"])
def test_every_truncation_is_refused(octets: bytes) -> None:
    read = READERS[SEEDS.index(octets)]
    read(octets)
    for cut in range(len(octets)):
        with pytest.raises(MalformedMessage):
            read(octets[:cut])


@given(st.sampled_from(READERS), st.binary(max_size=80))
def test_any_octets_are_read_or_refused(read: Callable[[bytes], object], octets: bytes) -> None:
    try:
        read(octets)
    except MalformedMessage:
        return


@given(st.sampled_from(range(3)), st.data())
def test_any_change_of_a_real_one_is_read_or_refused(which: int, data: st.DataObject) -> None:
    octets = bytearray(SEEDS[which])
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        READERS[which](bytes(octets))
    except MalformedMessage:
        return


def test_names_are_escaped_as_rfc_1964_has_them() -> None:
    def element(tag: int, *inside: bytes) -> bytes:
        body = b"".join(inside)
        return bytes([tag, len(body)]) + body

    parts = element(0x30, element(0x1B, b"host/a"), element(0x1B, b"b@c"))
    name = element(0x30, element(0xA0, b"\x02\x01\x01"), element(0xA1, parts))
    sealed = element(0x30, element(0xA0, b"\x02\x01\x12"), element(0xA2, element(0x04, b"x")))
    fields = [b"\x02\x01\x05", element(0x1B, b"R"), name, sealed]
    tagged = [element(0xA0 + number, inside) for number, inside in enumerate(fields)]
    ticket = asn1.read_ticket(element(0x61, element(0x30, *tagged)))
    assert ticket.server == "host\\/a/b\\@c@R"
    assert ticket.sealed == asn1.Sealed(18, None, b"x")


def test_a_key_stays_out_of_repr() -> None:
    part = asn1.EncTicketPart("a@R", 18, b"SECRETKEY")
    assert "SECRET" not in repr(part)
    assert "SECRET" not in repr(asn1.Sealed(18, 1, b"SECRET"))
