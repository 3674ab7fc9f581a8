"""What a person sees: at most a hundred columns, nothing unprintable, colour only when asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from support.captures import ether, frame, records, udp, vector_frames
from support.vectors import KEYTABS, load_messages, load_vector

from kinkvpn.decode.view import WIDTH, View
from kinkvpn.wire import isakmp, kink
from kinkvpn.wire.ipsec_doi import NotifyType

if TYPE_CHECKING:
    from kinkvpn.decode.transcript import Record

VECTORS = sorted({message.vector for message in load_messages()})
PLAIN = View(colour=False)


def text_of(vector: str) -> str:
    return "\n\n".join(PLAIN.message(record) for record in records(vector_frames(vector), list(KEYTABS.values())))


def test_a_message_as_it_is_printed() -> None:
    assert text_of("create-3way-transform").split("\n\n")[1].splitlines() == [
        "#2  REPLY  XID 0x00000000                                                                   verified",
        "    2026-11-23 09:39:08.523400Z  10.99.0.12:910 > 10.99.0.11:910  (frame 2, 240 octets)",
        "    header            version 1, DOI 1, Length 240, ACKREQ, Cksum good (12 octets)",
        "    answers           #1, after 23.4 ms",
        "    principals        kink/a.kink.test@KINK.TEST -> kink/b.kink.test@KINK.TEST",
        "    AP-REP            answers the authenticator of #1",
        "    epoch             2026-11-23 09:39:03Z",
        "    KINK_AP_REP       89 octets",
        "    KINK_ENCRYPT      112 octets, opened",
        "      KINK_ISAKMP     Quick Mode 1.0",
        "        SA            1 proposal",
        "                        proposal 1: ESP, SPI 0x0aa44e01",
        "                          transform 2: AES_CBC, life duration 3600 s, encapsulation mode TRANSPORT,",
        "                                       key length 128 bits, authentication algorithm HMAC_SHA",
        "        Nr            16 octets",
    ]


@pytest.mark.parametrize("vector", VECTORS)
def test_no_line_is_too_wide_and_none_ends_in_blanks(vector: str) -> None:
    for line in text_of(vector).splitlines():
        assert len(line) <= WIDTH
        assert line == line.rstrip()
        assert line.isprintable()


def test_ends_that_are_long_make_two_lines_of_one() -> None:
    record = records(vector_frames("create-3way-transform"), list(KEYTABS.values()))[1]
    end = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"
    lines = PLAIN.message(record | {"source": end, "destination": end, "marked": True}).splitlines()
    assert lines[1:3] == [
        f"    2026-11-23 09:39:08.523400Z  {end} >",
        f"    {end}  non-ESP marker  (frame 2, 240 octets)",
    ]


def test_what_is_wrong_stands_out() -> None:
    text = text_of("error-kink")
    assert text.count("NOT VERIFIED") == 12
    assert " !! malformed: MjVer at octet 1: 2 is not 1" in text
    assert "KINK_ERROR        KINK_INVMAJ" in text
    assert "KRB_AP_ERR_SKEW (37): Clock skew too great" in text
    assert "DELETE        ESP 0x02337e6e" in text_of("delete-by-responder")


def test_names_from_the_network_cannot_move_the_cursor() -> None:
    message = kink.Message(kink.MessageType.GETTGT, 1, (kink.TgtReq(b"kink/\x1b[31mred\n@R\xff"),))
    (record,) = records([frame(ether() / udp(kink.build_message(message)))])
    assert "\x1b" not in PLAIN.message(record)
    assert "kink/?[31mred?@R\\xff" in PLAIN.message(record)


def record_of(*payloads: isakmp.IsakmpPayload) -> Record:
    message = kink.Message(kink.MessageType.REPLY, 1, (kink.Isakmp(payloads),), ackreq=True)
    (record,) = records([frame(ether() / udp(kink.build_message(message)))])
    return record


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (isakmp.Notify(3, b"\0\0\1\0", NotifyType.INVALID_SPI), "NOTIFY          INVALID_SPI, ESP SPI 0x00000100"),
        (isakmp.Notify(0, b"", 1, b"\4"), "NOTIFY          INVALID_PAYLOAD_TYPE, about a payload of type KE"),
        (isakmp.Notify(0, b"", 40959, b"\1\2"), "NOTIFY          private use 40959, data 0x0102"),
        (isakmp.Delete(3, (b"\0\0\1\0", b"\0\0\1\1")), "DELETE          ESP 0x00000100 0x00000101"),
        (isakmp.KeyExchange(bytes(32)), "KE              group not named, public value of 32 octets"),
        (isakmp.Unknown(99, b"abc"), "type 99         3 octets"),
    ],
)
def test_quick_mode_payloads_as_they_are_printed(payload: isakmp.IsakmpPayload, line: str) -> None:
    assert line in [found.strip() for found in PLAIN.message(record_of(payload)).splitlines()]


def test_a_ticket_that_is_handed_out_as_it_is_printed() -> None:
    create = load_vector("create-2way-tunnel-aes256")[0].datagram
    ticket = create[create.index(b"\x61\x82") :]
    ticket = ticket[: 4 + int.from_bytes(ticket[2:4], "big")]
    message = kink.Message(kink.MessageType.REPLY, 1, (kink.TgtRep(ticket),))
    (record,) = records([frame(ether() / udp(kink.build_message(message)))])
    assert "KINK_TGT_REP      a ticket for kink/b.kink.test@KINK.TEST, aes128-cts-hmac-sha1-96" in PLAIN.message(record)
    assert record["status"] == "clear"


@pytest.mark.parametrize("vector", ["create-3way-transform", "error-kink"])
def test_colour_adds_escapes_and_nothing_else(vector: str) -> None:
    for record in records(vector_frames(vector)):
        painted = View(colour=True).message(record)
        assert "\x1b[" in painted
        assert re.sub(r"\x1b\[\d+m", "", painted) == PLAIN.message(record)


def summary(**changes: Any) -> Record:
    nobody: dict[str, Any] = {"count": 0, "numbers": []}
    record: Record = {
        "record": "summary",
        "ok": True,
        "messages": 3,
        "frames": 7,
        "status": {"verified": 2, "clear": 1, "failed": 0},
        "unanswered": nobody,
        "unacknowledged": nobody,
        "findings": {},
        "remarks": [],
    }
    return record | changes


def test_the_summary() -> None:
    assert PLAIN.summary(summary()) == "3 KINK messages in 7 frames: 2 verified, 1 in the clear"
    many = {"count": 25, "numbers": list(range(1, 26))}
    text = PLAIN.summary(summary(unanswered=many, findings={"clock": 2}, remarks=["the file ends"]))
    assert "  never answered      #1 #2" in text
    assert "#20 and 5 more" in " ".join(text.split())
    assert "  findings            clock 2" in text
    assert text.endswith("  the file ends")
