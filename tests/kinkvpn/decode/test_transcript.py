"""Records of the captured exchanges, against the independent decoder; and of messages made to order."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.captures import KEYTABS, START, ether, extract, frame, kinds, records, udp, vector_frames
from support.der import Recipe, make_ap_req
from support.vectors import KEYTABS as BY_HOST
from support.vectors import VectorMessage, load_messages, load_vector

from kinkvpn.decode.keyring import Keyring
from kinkvpn.decode.transcript import Transcript, iso
from kinkvpn.kerberos.libkrb5 import Context
from kinkvpn.kerberos.session import SessionKey
from kinkvpn.wire import isakmp, kink
from kinkvpn.wire.ipsec_doi import NotifyType

VECTORS = sorted({message.vector for message in load_messages()})
ALL = list(BY_HOST.values())
CREATE, REPLY = load_vector("create-2way-tunnel-aes256")
REQUEST_FRAME, REPLY_FRAME = vector_frames("create-2way-tunnel-aes256")
KEYRING = Keyring(KEYTABS)
(DATAGRAM,), _ = extract([REQUEST_FRAME])


@pytest.fixture(scope="module")
def decoded() -> dict[str, list[dict[str, Any]]]:
    return {vector: records(vector_frames(vector), ALL) for vector in VECTORS}


@pytest.mark.parametrize("message", load_messages(), ids=str)
def test_a_record_says_what_the_independent_decoder_says(
    message: VectorMessage, decoded: dict[str, list[dict[str, Any]]]
) -> None:
    record = decoded[message.vector][message.index]
    json.dumps(record)
    if message.client is not None:
        assert (record["client"], record["server"]) == (message.client, message.server)
        assert record["authenticator"]["at"] == pytest.approx(message.authenticator_time, abs=1e-5)
    if message.checksum_ok is not None:
        assert record["checksum"] == ("good" if message.checksum_ok else "wrong")
    if message.outer and not message.decoder_refused:
        assert tuple(payload["payload"] for payload in record["payloads"]) == message.outer
    if message.plaintext is not None:
        (sealed,) = [payload for payload in record["payloads"] if payload["payload"] == "KINK_ENCRYPT"]
        assert tuple(payload["payload"] for payload in sealed["inside"]) == message.inner
    # Octets after Length are the one thing that the other decoder refuses and a receiver does not (RFC 4430 §4).
    trailing = "trailing-octets" in kinds(record)
    lone = message.vector == "error-kink" and message.index == 17  # it has no opinion of a message without payload
    assert (record["status"] == "failed") == ((message.decoder_refused and not trailing) or lone)


# Index in error-kink: the finding that names what was done to the message.
REASONS = {
    0: ("malformed", "MjVer"),
    2: ("reserved-not-zero", "minor version"),
    4: ("malformed", "Domain of Interpretation"),
    6: ("malformed", "Payload Length"),
    8: ("malformed", "payload of type 9"),
    10: ("malformed", "Length at octet 2: 804"),
    12: ("no-ap-payload", "GETTGT without KINK_TGT_REQ"),
    13: ("unknown-number", "message type 0"),
    14: ("unknown-number", "message type 9"),
    15: ("reserved-not-zero", "RESERVED2"),
    17: ("no-ap-payload", "CREATE without KINK_AP_REQ"),
    18: ("checksum-wrong", "does not verify"),
    19: ("replayed", "again: receivers see a replay"),
    20: ("trailing-octets", "4 octets after Length"),
}


@pytest.mark.parametrize("index", REASONS)
def test_the_bad_messages_are_flagged_for_what_was_done_to_them(
    index: int, decoded: dict[str, list[dict[str, Any]]]
) -> None:
    kind, words = REASONS[index]
    texts = [found["text"] for found in decoded["error-kink"][index]["findings"] if found["kind"] == kind]
    assert any(words in text for text in texts)


def test_twelve_bad_messages_fail_and_no_other(decoded: dict[str, list[dict[str, Any]]]) -> None:
    failed = [
        (vector, record["number"] - 1)
        for vector in VECTORS
        for record in decoded[vector]
        if record["status"] == "failed"
    ]
    assert failed == [("error-kink", index) for index in REASONS if index < 19]
    assert len(failed) == 12


def test_the_conversation_of_three_messages(decoded: dict[str, list[dict[str, Any]]]) -> None:
    create, reply, ack = decoded["create-3way-transform"]
    assert create["relation"]["role"] == "command"
    assert (reply["relation"]["answers"], reply["ap_rep"]["answers"], reply["ackreq"]) == (1, 1, True)
    assert reply["relation"]["after_ms"] > 0
    assert ack["relation"] == {
        "role": "ack",
        "acknowledges": 2,
        "repeats": None,
        "identical": False,
        "repeat_after_ms": None,
    }


def test_retransmissions_and_restarts_are_seen(decoded: dict[str, list[dict[str, Any]]]) -> None:
    repeats = [record["relation"]["repeats"] for record in decoded["retransmit-no-responder"]]
    assert repeats == [None, 1, 1, 1, 1]
    assert "epoch-changed" in kinds(decoded["dpd-epoch"][2])
    assert ["clock" in kinds(record) for record in decoded["error-krb-skew"]] == [False, False, True, False]


def test_an_authenticated_error_is_explained(decoded: dict[str, list[dict[str, Any]]]) -> None:
    reply = decoded["error-krb-skew"][1]
    (inside,) = reply["payloads"][1]["inside"]
    assert inside["krb_error"]["code"] == {"number": 37, "name": "KRB_AP_ERR_SKEW"}
    assert reply["status"] == "verified"


def test_an_error_in_the_clear_is_said_to_be_one(decoded: dict[str, list[dict[str, Any]]]) -> None:
    reply = decoded["error-krb-nokey"][1]
    assert (reply["status"], kinds(reply)) == ("clear", ["unprotected"])


@pytest.mark.parametrize("vector", VECTORS)
def test_the_same_on_port_4500(vector: str, decoded: dict[str, list[dict[str, Any]]]) -> None:
    moved = records(vector_frames(vector, port=4500), ALL)
    for here, there in zip(moved, decoded[vector], strict=True):
        assert here["marked"]
        same = ("type", "xid", "status", "checksum", "client", "server", "payloads", "findings")
        assert [here[key] for key in same] == [there[key] for key in same]


def test_no_key_and_no_nonce_in_a_record(decoded: dict[str, list[dict[str, Any]]]) -> None:
    text = json.dumps(decoded).lower()
    secrets = {message.session_key.octets for message in load_messages() if message.session_key}
    secrets |= {
        part
        for message in load_messages()
        for one in message.keymat
        for part in (one.ni, one.nr, one.literal[:16], one.library[:16])
        if part
    }
    assert len(secrets) > 20
    for secret in secrets:
        assert secret.hex() not in text


def test_without_keytabs_the_shell_is_shown() -> None:
    create, reply = records([REQUEST_FRAME, REPLY_FRAME], [])
    assert (create["status"], create["checksum"], create["client"]) == ("failed", "unverified", None)
    assert create["server"] == "kink/b.kink.test@KINK.TEST"
    assert kinds(create) == ["no-key"]
    assert kinds(reply) == ["no-key"]
    assert [payload["payload"] for payload in create["payloads"]] == ["KINK_AP_REQ", "KINK_ENCRYPT"]
    assert create["payloads"][1]["opened"] is False


def test_a_reply_whose_command_was_not_captured() -> None:
    (reply,) = records([REPLY_FRAME])
    assert kinds(reply) == ["command-not-captured", "unsolicited"]
    assert reply["status"] == "failed"


def test_a_reply_without_its_command_opens_with_the_ticket_of_another() -> None:
    first, answer, *_rest, second_answer = vector_frames("status-and-delete")[:4]
    found = records([first, answer, second_answer])
    assert found[2]["status"] == "verified"
    assert "ap-rep-unmatched" in kinds(found[2])


def key_of(message: VectorMessage) -> SessionKey:
    context = Context()
    assert message.session_key is not None
    return SessionKey(context, context.key_of(message.session_key.enctype, message.session_key.octets))


def sealed(*payloads: kink.KinkPayload, **changes: Any) -> bytes:
    """The first CREATE with other payloads under its own AP-REQ."""
    key, message = key_of(CREATE), kink.parse_message(CREATE.datagram)
    encrypted = kink.Encrypt(key.encrypt(kink.build_plaintext(payloads)))
    return kink.build_message(replace(message, payloads=(message.payloads[0], encrypted), **changes), key.checksum)


def one(octets: bytes) -> dict[str, Any]:
    source, destination = (end.partition(":")[0] for end in (CREATE.source, CREATE.destination))
    (record,) = records([frame(ether() / udp(octets, source, destination))])
    return record


def made(recipe: Recipe) -> dict[str, Any]:
    """A STATUS with such an AP-REQ, and a good Cksum."""
    context = Context()
    key = SessionKey(context, context.key_of(recipe.session_enctype, recipe.session_key))
    message = kink.Message(kink.MessageType.STATUS, 9, (kink.ApReq(0, make_ap_req(recipe)),))
    return one(kink.build_message(message, key.checksum))


def test_an_ap_req_made_to_order_is_good() -> None:
    record = made(Recipe())
    assert (record["status"], kinds(record)) == ("verified", [])


@pytest.mark.parametrize(
    ("recipe", "kind", "status"),
    [
        (Recipe(options=0), "no-mutual", "verified"),
        (Recipe(options=0x60000000), "user-to-user", "failed"),
        (Recipe(session_enctype=23, session_key=bytes(16)), "weak-enctype", "verified"),
        (Recipe(at=START - 400), "clock", "verified"),
        (Recipe(end=START - 1), "ticket-time", "verified"),
        (Recipe(authenticator_client="eve.kink.test"), "ap-req-bad", "failed"),
    ],
)
def test_ap_reqs_with_something_about_them(recipe: Recipe, kind: str, status: str) -> None:
    record = made(recipe)
    assert (kinds(record), record["status"]) == ([kind], status)


def test_quick_mode_made_to_order() -> None:
    notify = isakmp.Notify(3, b"", NotifyType.NO_PROPOSAL_CHOSEN)
    private = isakmp.Notify(0, b"", 40000, b"\x01\x02")
    record = one(sealed(kink.Isakmp((notify, private)), type=kink.MessageType.STATUS))
    assert record["status"] == "verified"
    (tree,) = record["payloads"][1]["inside"]
    assert [entry["notify"]["name"] for entry in tree["quick_mode"]] == ["NO_PROPOSAL_CHOSEN", "private use 40000"]
    assert tree["quick_mode"][1]["data"] == "0x0102"


def test_quick_mode_of_another_version_is_not_read() -> None:
    record = one(sealed(kink.Isakmp((), 2, 0, (1, b"whatever"))))
    assert record["status"] == "verified"
    assert "unknown-number" in kinds(record)


def test_a_key_exchange_shows_group_and_length_only() -> None:
    transform = isakmp.Transform(1, 20, (isakmp.Attribute(3, 14),))
    sa = isakmp.SecurityAssociation((isakmp.Proposal(1, 3, b"\x00\x01\x02\x03", (transform,)),))
    ke = isakmp.KeyExchange(b"\xab" * 256)
    record = one(sealed(kink.Isakmp((sa, isakmp.Nonce(bytes(16)), ke))))
    entry = record["payloads"][1]["inside"][0]["quick_mode"][2]
    assert (entry["payload"], entry["public_value_octets"], entry["group"]["number"]) == ("KE", 256, 14)
    assert "abababab" not in json.dumps(record)


def test_get_tgt_and_its_answers_are_in_the_clear() -> None:
    def message(kind: kink.MessageType, payload: kink.KinkPayload) -> bytes:
        return kink.build_message(kink.Message(kind, 5, (payload,)))

    get = one(message(kink.MessageType.GETTGT, kink.TgtReq(b"kink/b@R")))
    assert (get["status"], get["payloads"][0]["principal"]) == ("clear", "kink/b@R")
    bad = one(message(kink.MessageType.REPLY, kink.TgtRep(b"no ticket")))
    assert "malformed" in kinds(bad)
    denied = one(message(kink.MessageType.REPLY, kink.KinkError(7)))
    assert denied["payloads"][0]["error"]["name"] == "KINK_U2UDENIED"
    strange = one(message(kink.MessageType.REPLY, kink.KinkError(9999)))
    assert "unknown-number" in kinds(strange)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (kink.ApReq(0, b"garbage"), "ap-req-bad"),
        (kink.ApRep(0, b"garbage"), "ap-rep-bad"),
        (kink.KrbError(b"garbage"), "malformed"),
    ],
)
def test_kerberos_garbage(payload: kink.KinkPayload, kind: str) -> None:
    record = one(kink.build_message(kink.Message(kink.MessageType.REPLY, 5, (payload,))))
    assert kind in kinds(record)
    assert record["status"] == "failed"


def test_a_missing_checksum_and_a_foreign_ciphertext() -> None:
    message = kink.parse_message(CREATE.datagram)
    bare = one(kink.build_message(replace(message, checksum=b"")))
    assert "checksum-missing" in kinds(bare)
    garbage = kink.Encrypt(bytes(80))
    foreign = one(
        kink.build_message(replace(message, payloads=(message.payloads[0], garbage)), key_of(CREATE).checksum)
    )
    assert "not-decrypted" in kinds(foreign)
    assert foreign["checksum"] == "good"


def test_a_captured_part_of_a_message_says_what_to_do() -> None:
    source, destination = (end.partition(":")[0] for end in (CREATE.source, CREATE.destination))
    (record,) = records([frame(ether() / udp(CREATE.datagram, source, destination), cut=208)])
    assert {"malformed", "cut-short"} <= set(kinds(record))
    assert any("tcpdump with -s 0" in found["text"] for found in record["findings"])


def test_fewer_octets_than_a_header() -> None:
    record = one(b"\x01\x10")
    assert (record["type"], record["status"], record["relation"]) == (None, "failed", None)


def test_an_expired_ticket_is_a_finding_and_no_failure() -> None:
    late = [replace(found, time=(found.time or 0) + 86_400.0 * 300) for found in (REQUEST_FRAME, REPLY_FRAME)]
    create, _ = records(late)
    assert create["status"] == "verified"
    assert {"clock", "ticket-time"} <= set(kinds(create))


def test_time_is_written_as_rfc_3339_and_never_fails() -> None:
    assert iso(START) == "2026-11-23T09:39:08.500000Z"
    assert iso(1e30).startswith("1000000000000000")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(load_messages()), st.integers(0, 900), st.binary(max_size=6)), max_size=6))
def test_any_messages_make_records(changes: list[tuple[VectorMessage, int, bytes]]) -> None:
    transcript = Transcript(KEYRING)
    for message, at, put in changes:
        octets = message.datagram[:at] + put + message.datagram[at + len(put) :]
        record = transcript.record(replace(DATAGRAM, time=None, octets=octets))
        json.dumps(record)
        assert record["status"] in ("verified", "clear", "failed")
    transcript.conversations.finish()
