"""What is there of a message, whatever is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.messages import ISAKMP_PAYLOADS
from support.vectors import VectorMessage, load_messages, load_vector

from kinkvpn.decode import survey
from kinkvpn.decode.findings import Kind
from kinkvpn.wire import isakmp, kink
from kinkvpn.wire.cursor import Writer

GOOD = load_vector("create-3way-transform")[0].datagram
PLAINTEXT = load_vector("create-3way-transform")[0].plaintext
assert PLAINTEXT is not None

# How the outer payload types are called by the independent decoder.
NAMES = {kind: f"KINK_{kind.name}" for kind in kink.PayloadType}


def changed(octets: bytes, at: int, put: bytes) -> bytes:
    return octets[:at] + put + octets[at + len(put) :]


def found(findings: tuple[survey.Finding, ...] | list[survey.Finding]) -> list[Kind]:
    return [finding.kind for finding in findings]


@pytest.mark.parametrize("message", load_messages(), ids=str)
def test_payloads_are_those_the_independent_decoder_saw(message: VectorMessage) -> None:
    seen = survey.survey_message(message.datagram)
    if message.outer and seen.refusal is None:
        assert tuple(NAMES[kink.PayloadType(chunk.type)] for chunk in seen.chunks) == message.outer
        assert all(survey.read_outer(chunk) is not None for chunk in seen.chunks)
    if message.plaintext is not None:
        chunks, findings = survey.survey_plaintext(message.plaintext)
        assert tuple(NAMES[kink.PayloadType(chunk.type)] for chunk in chunks) == message.inner
        assert not findings


def test_a_good_message_has_no_findings() -> None:
    seen = survey.survey_message(GOOD)
    assert not seen.findings
    assert seen.header is not None
    assert (seen.header.type, seen.header.major, seen.header.xid) == (1, 1, 0)
    assert [chunk.offset for chunk in seen.chunks] == [16, 656]


@pytest.mark.parametrize(
    ("at", "put", "kind"),
    [
        (1, b"\x11", Kind.RESERVED_NOT_ZERO),
        (13, b"\x01", Kind.RESERVED_NOT_ZERO),
        (17, b"\x01", Kind.RESERVED_NOT_ZERO),
        (655, b"\x01", Kind.PADDING_NOT_ZERO),
    ],
)
def test_what_receivers_ignore_is_seen(at: int, put: bytes, kind: Kind) -> None:
    seen = survey.survey_message(changed(GOOD, at, put))
    assert seen.refusal is None
    assert found(seen.findings) == [kind]


def test_two_faults_in_the_header_are_both_named() -> None:
    seen = survey.survey_message(changed(changed(GOOD, 1, b"\x20"), 7, b"\x05"))
    assert [finding.text for finding in seen.findings] == [
        "malformed: MjVer at octet 1: 2 is not 1",
        "DOI 5, KINK has 1 (IPsec)",
    ]


def test_octets_after_length_are_counted() -> None:
    (finding,) = survey.survey_message(GOOD + b"abc").findings
    assert finding.kind is Kind.TRAILING_OCTETS
    assert "3 octets after Length" in finding.text


def test_the_payloads_before_a_broken_one_are_shown() -> None:
    octets = changed(GOOD, 658, b"\xff\xff")  # the length of the second payload
    seen = survey.survey_message(octets)
    assert found(seen.findings) == [Kind.MALFORMED]
    assert [chunk.type for chunk in seen.chunks] == [1, 7]


def test_a_chain_without_an_end_ends() -> None:
    header = kink.HEADER.pack(1, 0x10, 16 + 4 * 2000, 1, 0, 1, 0, 0)
    seen = survey.survey_message(header + b"\x01\x00\x00\x04" * 2000)
    assert len(seen.chunks) == survey.MAX_CHUNKS


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        (1, Kind.RESERVED_NOT_ZERO),  # RESERVED2 of KINK_ENCRYPT
        (5, Kind.RESERVED_NOT_ZERO),  # of the generic header of KINK_ISAKMP
        (10, Kind.RESERVED_NOT_ZERO),  # RESERVED of KINK_ISAKMP
        (13, Kind.RESERVED_NOT_ZERO),  # of SA
        (25, Kind.RESERVED_NOT_ZERO),  # of the proposal
        (37, Kind.RESERVED_NOT_ZERO),  # of the transform
        (42, Kind.RESERVED_NOT_ZERO),  # RESERVED2 of the transform
    ],
)
def test_reserved_octets_inside_are_seen(at: int, kind: Kind) -> None:
    assert PLAINTEXT is not None
    assert PLAINTEXT[at] == 0
    chunks, findings = survey.survey_plaintext(changed(PLAINTEXT, at, b"\x01"))
    (chunk,) = chunks
    findings += survey.survey_quick_mode(chunk.body)[1]
    assert found(findings) == [kind]


def test_bad_quick_mode_is_refused_and_still_taken_apart() -> None:
    assert PLAINTEXT is not None
    octets = changed(PLAINTEXT, 23, b"\x02")  # Situation
    chunks, findings = survey.survey_plaintext(octets)
    assert found(findings) == [Kind.MALFORMED]
    inside, _ = survey.survey_quick_mode(chunks[0].body)
    assert [survey.read_quick_mode(chunk) is None for chunk in inside] == [True, False]


@given(st.lists(ISAKMP_PAYLOADS, min_size=1, max_size=4))
def test_quick_mode_payloads_read_one_by_one_are_those_that_were_written(payloads: list[isakmp.IsakmpPayload]) -> None:
    writer = Writer()
    isakmp.write_payloads(writer, payloads)
    body = kink.ISAKMP_HEADER.pack(isakmp.first_type(payloads), 0x10, 0) + writer.getvalue()
    chunks, findings = survey.survey_quick_mode(body)
    assert [survey.read_quick_mode(chunk) for chunk in chunks] == payloads
    assert not findings


@given(st.binary(max_size=200))
def test_any_octets_are_surveyed(octets: bytes) -> None:
    survey.survey_message(octets)
    for chunk in survey.survey_plaintext(octets)[0]:
        survey.read_outer(chunk)
    for chunk in survey.survey_quick_mode(octets)[0]:
        survey.read_quick_mode(chunk)


@given(st.sampled_from(load_messages()), st.integers(0, 1000))
def test_every_truncation_is_surveyed(message: VectorMessage, cut: int) -> None:
    seen = survey.survey_message(message.datagram[:cut])
    assert (seen.header is None) == (min(cut, len(message.datagram)) < 16)
    assert seen.refusal is None or found(seen.findings)[0] is Kind.MALFORMED
