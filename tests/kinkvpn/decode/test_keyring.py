"""Keytabs and tickets: the captured AP-REQs open with the right key, and a closed one says what it lacks."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.captures import KEYTABS
from support.der import Recipe, make_ap_req
from support.vectors import KEYTABS as BY_HOST
from support.vectors import VectorMessage, load_messages, load_vector

from kinkvpn.decode import asn1
from kinkvpn.decode.findings import Kind
from kinkvpn.decode.keyring import MAX_TICKETS, Keyring, KeysUnreadable, NotOpened
from kinkvpn.errors import AuthenticationFailed
from kinkvpn.wire import kink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WITH_AP_REQ = [message for message in load_messages() if message.server is not None and not message.decoder_refused]
CREATE, REPLY = load_vector("create-2way-tunnel-aes256")


def ap_req(message: VectorMessage) -> asn1.ApReq:
    (payload,) = [one for one in kink.parse_message(message.datagram).payloads if isinstance(one, kink.ApReq)]
    return asn1.read_ap_req(payload.ap_req)


def ap_rep(message: VectorMessage) -> asn1.Sealed:
    (payload,) = [one for one in kink.parse_message(message.datagram).payloads if isinstance(one, kink.ApRep)]
    return asn1.read_ap_rep(payload.ap_rep)


def refused(keytabs: Sequence[Path], request: asn1.ApReq) -> NotOpened:
    with pytest.raises(NotOpened) as closed:
        Keyring(keytabs).open_request(request)
    return closed.value


@pytest.mark.parametrize("message", WITH_AP_REQ, ids=str)
def test_what_is_in_a_ticket_is_what_the_independent_decoder_found(message: VectorMessage) -> None:
    opened = Keyring(list(BY_HOST.values())).open_request(ap_req(message))
    assert (opened.ticket.client, opened.ticket.server) == (message.client, message.server)
    assert opened.stamp[0] + opened.stamp[1] / 1e6 == pytest.approx(message.authenticator_time, abs=1e-6)
    assert message.session_key is not None
    assert opened.ticket.key.enctype == message.session_key.enctype
    assert not opened.subkey


def test_an_old_ticket_opens_whatever_the_clock_says() -> None:
    opened = Keyring(KEYTABS).open_request(ap_req(CREATE))
    assert opened.ticket.end > 0
    assert opened.ticket.opened_by == opened.ticket.server


def test_the_reply_gives_back_the_time_of_the_authenticator() -> None:
    keyring = Keyring(KEYTABS)
    opened = keyring.open_request(ap_req(CREATE))
    assert keyring.open_reply(opened.ticket.key, ap_rep(REPLY)) == opened.stamp
    with pytest.raises(AuthenticationFailed):
        keyring.open_reply(opened.ticket.key, ap_rep(load_vector("dpd-epoch")[1]))


def test_a_ticket_is_opened_once() -> None:
    keyring = Keyring(KEYTABS)
    first, second = load_vector("retransmit-no-responder")[:2]
    assert keyring.open_request(ap_req(first)).ticket is keyring.open_request(ap_req(second)).ticket


def test_no_keytab_at_all() -> None:
    closed = refused([], ap_req(CREATE))
    assert closed.finding.kind is Kind.NO_KEY
    assert "no keytab given" in str(closed)


def test_a_keytab_of_somebody_else() -> None:
    assert "no keytab has a key of kink/b.kink.test@KINK.TEST (kvno" in str(refused([BY_HOST["a"]], ap_req(CREATE)))


def test_another_kvno_or_enctype() -> None:
    request = ap_req(CREATE)
    wanted = replace(request, ticket=replace(request.ticket, sealed=asn1.Sealed(20, 9, b"x" * 60)))
    assert "needs kvno 9, aes256-cts-hmac-sha384-192 (20); the keytabs have kvno" in str(refused(KEYTABS, wanted))


def test_another_key_under_the_same_number() -> None:
    request = ap_req(CREATE)
    sealed = request.ticket.sealed
    broken = replace(sealed, ciphertext=sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1]))
    closed = refused(KEYTABS, replace(request, ticket=replace(request.ticket, sealed=broken)))
    assert "it is another key of that number" in str(closed)


def test_a_ticket_under_an_alias_opens_with_the_same_key() -> None:
    request = ap_req(CREATE)
    alias = replace(request, ticket=replace(request.ticket, server="kink/alias@KINK.TEST"))
    assert Keyring(KEYTABS).open_request(alias).ticket.opened_by == "kink/b.kink.test@KINK.TEST"


def test_user_to_user_says_that_no_keytab_helps() -> None:
    closed = refused(KEYTABS, replace(ap_req(CREATE), use_session_key=True))
    assert closed.finding.kind is Kind.USER_TO_USER
    assert "user-to-user" in str(closed)


@pytest.mark.parametrize("octets", [None, b"", b"garbage", b"\x05\x04\x00\x0c" + bytes(12), KEYTABS[0].read_bytes()])
def test_what_is_no_credential_cache_is_refused(octets: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ccache"
    if octets is not None:
        path.write_bytes(octets)
    with pytest.raises(KeysUnreadable, match=rf"^ccache {re.escape(str(path))}\b"):
        Keyring([], [path])


def test_an_authenticator_that_does_not_open() -> None:
    request = ap_req(CREATE)
    closed = refused(KEYTABS, replace(request, authenticator=asn1.Sealed(18, None, bytes(80))))
    assert closed.finding.kind is Kind.AP_REQ_BAD


def test_an_ap_req_made_to_order_opens() -> None:
    opened = Keyring(KEYTABS).open_request(asn1.read_ap_req(make_ap_req(Recipe())))
    assert opened.ticket.client == "kink/a.kink.test@KINK.TEST"
    assert (opened.stamp, opened.ticket.end) == ((1_795_426_748, 123456), 1_795_430_000.0)


def test_an_authenticator_of_another_client() -> None:
    closed = refused(KEYTABS, asn1.read_ap_req(make_ap_req(Recipe(authenticator_client="eve.kink.test"))))
    assert closed.finding.kind is Kind.AP_REQ_BAD
    assert "authenticator kink/eve.kink.test@KINK.TEST's" in str(closed)


@pytest.mark.parametrize("part", [b"garbage", make_ap_req(Recipe())])
def test_a_ticket_that_opens_and_is_none(part: bytes) -> None:
    closed = refused(KEYTABS, asn1.read_ap_req(make_ap_req(Recipe(ticket_part=part))))
    assert closed.finding.kind is Kind.AP_REQ_BAD
    assert "the ticket opens, and holds no key" in str(closed)


def test_tickets_are_remembered_up_to_a_bound() -> None:
    keyring, first = Keyring(KEYTABS), asn1.read_ap_req(make_ap_req(Recipe()))
    opened = keyring.open_request(first).ticket
    for _ in range(MAX_TICKETS):
        assert keyring.open_request(first).ticket is opened
    for number in range(MAX_TICKETS):
        keyring.open_request(asn1.read_ap_req(make_ap_req(Recipe(end=1_795_430_000.0 + number))))
    assert keyring.open_request(first).ticket is not opened


@pytest.mark.parametrize("octets", [b"", b"\x05\x02", b"no keytab\n"])
def test_what_is_no_keytab_is_refused(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "keytab"
    path.write_bytes(octets)
    with pytest.raises(KeysUnreadable, match=str(path)):
        Keyring([path])


def test_a_keytab_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeysUnreadable, match="No such file"):
        Keyring([tmp_path / "keytab"])


def test_errors_in_libkrb5s_words() -> None:
    keyring = Keyring([])
    assert keyring.error_text(37) == "Clock skew too great"
    assert keyring.error_text(9999) == "no such code"


def test_keys_stay_out_of_repr() -> None:
    opened = Keyring(KEYTABS).open_request(ap_req(CREATE))
    assert CREATE.session_key is not None
    assert CREATE.session_key.octets.hex() not in repr(opened)
