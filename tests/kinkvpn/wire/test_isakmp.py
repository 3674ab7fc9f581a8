"""Quick Mode payloads: round trip, scapy as a second opinion, and every way to be malformed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers import isakmp as scapy
from support.messages import ISAKMP_PAYLOADS, QUICK_MODE

from kinkvpn.errors import LocalMisuse, MalformedQuickMode, UnsupportedDoi
from kinkvpn.wire.cursor import Reader, Writer
from kinkvpn.wire.ipsec_doi import IdType, PayloadType
from kinkvpn.wire.isakmp import (
    MAX_ATTRIBUTES,
    MAX_PAYLOADS,
    MAX_PROPOSALS,
    Attribute,
    Delete,
    Identification,
    IsakmpPayload,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    Transform,
    Unknown,
    first_type,
    read_payloads,
    write_payloads,
)

if TYPE_CHECKING:
    from scapy.packet import Packet

TRANSFORM = Transform(1, 20, (Attribute(4, 3), Attribute(6, 256), Attribute(2, b"\x00\x01\x51\x80")))
PROPOSAL = Proposal(1, 3, b"\x12\x34\x56\x78", (TRANSFORM,))
SA = SecurityAssociation((PROPOSAL,))
# RFC 2408 §3.3 to §3.6 by hand: an SA of 48 octets, in it one proposal of 36, in it one transform of 24.
SA_OCTETS = bytes.fromhex(
    "0000 0030 00000001 00000001"  # SA, DOI 1, SIT_IDENTITY_ONLY
    "0000 0024 01 03 04 01 12345678"  # Proposal 1, ESP, SPI of four octets, one transform
    "0000 0018 01 14 0000 8004 0003 8006 0100 0002 0004 00015180"  # Transform 1, AES-GCM-16, TV, TV, TLV
)


def build(payloads: tuple[IsakmpPayload, ...]) -> bytes:
    writer = Writer()
    write_payloads(writer, payloads)
    return writer.getvalue()


def parse(octets: bytes, first: int) -> tuple[IsakmpPayload, ...]:
    return read_payloads(Reader(octets, error=MalformedQuickMode), first)


def payload(body: str, following: int = 0) -> bytes:
    octets = bytes.fromhex(body)
    return bytes([following, 0]) + (len(octets) + 4).to_bytes(2, "big") + octets


def test_an_sa_payload_is_laid_out_as_rfc_2408_draws_it() -> None:
    assert build((SA,)) == SA_OCTETS
    assert parse(SA_OCTETS, PayloadType.SA) == (SA,)


@pytest.mark.parametrize(
    ("value", "kind", "octets"),
    [
        (KeyExchange(b"\x01\x02\x03"), 4, payload("010203")),
        (Identification(1, 17, 4500, b"\x0a\x00\x00\x01"), 5, payload("01 11 1194 0a000001")),
        (Identification(4, 0, 0, b"\x0a\x01\x00\x00\xff\xff\x00\x00"), 5, payload("04 00 0000 0a010000 ffff0000")),
        (Nonce(b"\xaa" * 8), 10, payload("aa" * 8)),
        (Notify(3, b"\x12\x34\x56\x78", 11, b"\x04"), 11, payload("00000001 03 04 000b 12345678 04")),
        (Delete(3, (b"\x12\x34\x56\x78", b"\x9a\xbc\xde\xf0")), 12, payload("00000001 03 04 0002 12345678 9abcdef0")),
        (Unknown(8, b"\x01"), 8, payload("01")),
    ],
)
def test_each_payload_is_laid_out_as_drawn(value: IsakmpPayload, kind: int, octets: bytes) -> None:
    assert first_type((value,)) == kind
    assert build((value,)) == octets
    assert parse(octets, kind) == (value,)


@given(QUICK_MODE)
def test_what_is_built_parses_to_the_same(payloads: tuple[IsakmpPayload, ...]) -> None:
    octets = build(payloads)
    assert parse(octets, first_type(payloads)) == payloads
    assert build(parse(octets, first_type(payloads))) == octets


@given(QUICK_MODE.filter(bool), st.data())
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_a_cut_chain_is_refused(payloads: tuple[IsakmpPayload, ...], data: st.DataObject) -> None:
    octets = build(payloads)
    cut = data.draw(st.integers(0, len(octets) - 1))
    with pytest.raises(MalformedQuickMode) as caught:
        parse(octets[:cut], first_type(payloads))
    assert caught.value.offset <= cut


@given(QUICK_MODE, st.binary(min_size=1, max_size=4))
def test_octets_after_the_last_payload_are_refused(payloads: tuple[IsakmpPayload, ...], junk: bytes) -> None:
    octets = build(payloads)
    with pytest.raises(MalformedQuickMode) as caught:
        parse(octets + junk, first_type(payloads))
    assert (caught.value.field, caught.value.offset) == ("Quick Mode payloads", len(octets))


# --- scapy as a second opinion ---------------------------------------------------------------------------------------


@given(ISAKMP_PAYLOADS.filter(lambda value: not isinstance(value, Unknown)))
def test_scapy_reads_what_we_build(value: IsakmpPayload) -> None:
    """scapy's dissector follows the same figures of RFC 2408, written by other people."""
    if isinstance(value, SecurityAssociation):
        # scapy 2.8 forgets the SPI in the length of a proposal's transforms and so eats into the next proposal.
        value = SecurityAssociation(value.proposals[:1])
    header = scapy.ISAKMP(next_payload=first_type((value,)), exch_type=32)
    theirs = scapy.ISAKMP(bytes(header)[:24] + (28).to_bytes(4, "big") + build((value,))).payload
    match value:
        case SecurityAssociation():
            proposal = value.proposals[0]
            assert (theirs.doi, theirs.situation) == (value.doi, value.situation)
            assert (theirs.prop.proposal, theirs.prop.proto) == (proposal.number, proposal.protocol)
            assert (theirs.prop.SPI, theirs.prop.trans_nb) == (proposal.spi, len(proposal.transforms))
            assert scapy_transforms(theirs.prop.trans) == [
                (transform.number, transform.identifier, len(transform.attributes)) for transform in proposal.transforms
            ]
        case KeyExchange():
            assert theirs.ke == value.public_value
        case Identification():
            assert (theirs.IDtype, theirs.ProtoID, theirs.Port) == (value.type, value.protocol, value.port)
            assert bytes(theirs)[8:] == value.value
        case Nonce():
            assert theirs.nonce == value.value
        case Notify():
            assert (theirs.doi, theirs.proto, theirs.notify_msg_type) == (value.doi, value.protocol, value.type)
            assert (theirs.SPI, theirs.notify_data) == (value.spi, value.value)
        case Delete():
            assert (theirs.doi, theirs.proto, tuple(theirs.SPIs)) == (value.doi, value.protocol, value.spis)


def scapy_transforms(packet: Packet) -> list[tuple[int, int, int]]:
    found = []
    while isinstance(packet, scapy.ISAKMP_payload_Transform):
        found.append((packet.transform_count, packet.transform_id, len(packet.transforms)))
        packet = packet.payload
    return found


def test_we_read_what_scapy_builds() -> None:
    attributes = [("LifeType", "seconds"), ("LifeDuration", 86400), ("EncapsulationMode", "Tunnel"), ("KeyLength", 256)]
    transform = scapy.ISAKMP_payload_Transform(transform_count=1, transform_id=12, transforms=attributes)
    proposal = scapy.ISAKMP_payload_Proposal(proposal=1, proto=3, SPI=b"abcd", trans_nb=1, trans=transform)
    nonce = scapy.ISAKMP_payload_Nonce(next_payload=0, nonce=bytes(range(16)))
    octets = bytes(scapy.ISAKMP_payload_SA(next_payload=10, prop=proposal) / nonce)
    life = Attribute(1, 1), Attribute(2, b"\x01\x51\x80")
    expected = Transform(1, 12, (*life, Attribute(4, 1), Attribute(6, 256)))
    assert parse(octets, 1) == (SecurityAssociation((Proposal(1, 3, b"abcd", (expected,)),)), Nonce(bytes(range(16))))


# --- malformed -------------------------------------------------------------------------------------------------------


def sa(proposals: str) -> bytes:
    return payload("00000001 00000001" + proposals)


@pytest.mark.parametrize(
    ("kind", "octets", "field", "offset"),
    [
        (2, payload(""), "Next Payload", 4),
        (3, payload(""), "Next Payload", 4),
        (1, payload("00000001 0000"), "SA", 4),
        (1, payload("00000001 00000003 00000000"), "Situation", 8),
        (1, sa(""), "payload header", 12),
        (1, sa("0000000c 01030400 12345678"), "payload header", 24),
        (1, sa("0000000c 01030401 12345678"), "payload header", 24),
        (1, sa("00000014 01030402 12345678 00000008 01140000"), "# of Transforms", 19),
        (1, sa("00000014 01030400 12345678 00000008 01140000"), "# of Transforms", 19),
        (1, sa("00000015 01030401 12345678 00000008 01140000 00"), "Proposal", 32),
        (1, sa("03000014 01030401 12345678 00000008 01140000 00000004"), "Next Payload", 36),
        (1, sa("0000001c 01030402 12345678 02000008 01140000 00000008 02140000"), "Next Payload", 36),
        (1, sa("00000014 01030401 12345678 00000008 01140000 00"), "SA", 32),
        (1, sa("00000013 01030301 123456 00000008 01140000"), "SPI Size", 18),
        (1, sa("00000010 01020001 00000008 01140000"), "SPI Size", 18),
        (1, sa("0000000c 0104ff01 00000008"), "SPI", 20),
        (1, sa("00000012 01030401 12345678 00000006 0114"), "Transform", 28),
        (1, sa("00000016 01030401 12345678 0000000a 01140000 8001"), "Attribute Type", 32),
        (1, sa("0000001a 01030401 12345678 0000000e 01140000 00020003 0001"), "Attribute Value", 36),
        (4, payload(""), "Key Exchange Data", 4),
        (5, payload("01 00"), "Identification", 4),
        (5, payload("02 00 0000 61"), "ID Type", 4),
        (5, payload("0b 00 0000 61"), "ID Type", 4),
        (5, payload("01 00 0000 0a0000"), "Identification Data", 8),
        (10, payload("aa" * 7), "Nonce Data", 4),
        (10, payload("aa" * 257), "Nonce Data", 4),
        (11, payload("00000001 03 04 00"), "Notify", 4),
        (11, payload("00000001 03 04 000b 123456"), "SPI", 12),
        (12, payload("00000001 03 04 00"), "Delete", 4),
        (12, payload("00000001 03 03 0001 123456"), "SPI Size", 9),
        (12, payload("00000001 01 00 0001"), "SPI Size", 9),
        (12, payload("00000001 03 04 0000"), "# of SPIs", 10),
        (12, payload("00000001 03 04 0002 12345678"), "# of SPIs", 10),
        (12, payload("00000001 03 04 0001 12345678 00"), "# of SPIs", 10),
    ],
)
def test_each_fault_is_named_where_it_is(kind: int, octets: bytes, field: str, offset: int) -> None:
    with pytest.raises(MalformedQuickMode) as caught:
        parse(octets, kind)
    assert (caught.value.field, caught.value.offset) == (field, offset)
    # Offsets are absolute: behind four octets of something else everything moves by four.
    with pytest.raises(MalformedQuickMode) as caught:
        read_payloads(Reader(b"kink" + octets, 4, error=MalformedQuickMode), kind)
    assert caught.value.offset == offset + 4


@pytest.mark.parametrize(
    ("kind", "octets"),
    [
        (1, payload("00000002 00000001 00000014 01030401 12345678 00000008 01140000")),
        (11, payload("00000000 03 00 000b")),
        (12, payload("00000000 03 04 0001 12345678")),
    ],
)
def test_a_doi_other_than_the_headers_is_refused(kind: int, octets: bytes) -> None:
    with pytest.raises(UnsupportedDoi) as caught:
        parse(octets, kind)
    assert caught.value.offset == 4


@pytest.mark.parametrize("kind", IdType)
@given(st.integers(0, 40))
def test_addresses_have_exactly_their_length(kind: IdType, length: int) -> None:
    right = {1: 4, 4: 8, 5: 16, 6: 32, 7: 8, 8: 32}[kind]
    octets = payload(f"{kind:02x} 06 0050" + "7f" * length)
    if length == right:
        assert parse(octets, 5) == (Identification(kind, 6, 80, b"\x7f" * length),)
    else:
        with pytest.raises(MalformedQuickMode):
            parse(octets, 5)


@pytest.mark.parametrize("length", [8, 256])
def test_nonces_at_their_bounds(length: int) -> None:
    assert parse(payload("aa" * length), 10) == (Nonce(b"\xaa" * length),)


def test_reserved_octets_are_ignored() -> None:
    """RFC 4430 §4: RESERVED is ignored on receipt, and zero when built again."""
    noisy = bytearray(SA_OCTETS)
    for reserved in (1, 13, 25, 30, 31):
        assert noisy[reserved] == 0
        noisy[reserved] = 0xFF
    assert parse(bytes(noisy), 1) == (SA,)


def test_counts_are_bounded() -> None:
    endless = payload("", 13) * MAX_PAYLOADS + payload("")
    with pytest.raises(MalformedQuickMode, match="more than 32 payloads"):
        parse(endless, 13)
    proposal = build((SA,))[12:]
    proposals = (b"\x02" + proposal[1:]) * MAX_PROPOSALS + proposal
    with pytest.raises(MalformedQuickMode, match="more than 64 payloads"):
        parse(sa(proposals.hex()), 1)
    attributes = "80010001" * (MAX_ATTRIBUTES + 1)
    transform = payload("01140000" + attributes).hex()
    with pytest.raises(MalformedQuickMode, match="more than 32 in a transform"):
        parse(sa(payload("01030401 12345678" + transform).hex()), 1)


@pytest.mark.parametrize(
    "value",
    [
        SecurityAssociation(()),
        SecurityAssociation((PROPOSAL,) * (MAX_PROPOSALS + 1)),
        SecurityAssociation((PROPOSAL,), doi=2**32),
        SecurityAssociation((PROPOSAL,), situation=-1),
        SecurityAssociation((Proposal(1, 3, b"abcd", ()),)),
        SecurityAssociation((Proposal(1, 3, b"abc", (TRANSFORM,)),)),
        SecurityAssociation((Proposal(256, 3, b"abcd", (TRANSFORM,)),)),
        SecurityAssociation((Proposal(1, 4, bytes(256), (TRANSFORM,)),)),
        SecurityAssociation((Proposal(1, 3, b"abcd", (TRANSFORM,) * 256),)),
        SecurityAssociation((Proposal(1, 3, b"abcd", (Transform(1, 256, ()),)),)),
        SecurityAssociation((Proposal(1, 3, b"abcd", (Transform(1, 1, (Attribute(1, 1),) * 33),)),)),
        SecurityAssociation((Proposal(1, 3, b"abcd", (Transform(1, 1, (Attribute(0x8000, 1),)),)),)),
        SecurityAssociation((Proposal(1, 3, b"abcd", (Transform(1, 1, (Attribute(2, 65536),)),)),)),
        KeyExchange(b""),
        Identification(2, 0, 0, b"host"),
        Identification(1, 0, 0, b"123"),
        Identification(1, 0, 65536, b"1234"),
        Nonce(bytes(7)),
        Nonce(bytes(257)),
        Notify(3, bytes(256), 1),
        Notify(3, b"", 65536),
        Delete(3, ()),
        Delete(3, (b"abc",)),
        Delete(1, (b"",)),
        Delete(3, (b"abcd", b"abcde")),
        Unknown(0, b""),
        Unknown(1, b""),
        Unknown(2, b""),
        Unknown(256, b""),
    ],
)
def test_what_could_not_be_read_again_is_not_built(value: IsakmpPayload) -> None:
    with pytest.raises(LocalMisuse):
        build((SA, value))


def test_too_many_payloads_are_not_built() -> None:
    with pytest.raises(LocalMisuse, match="33 payloads"):
        build((Unknown(13, b""),) * 33)


def test_a_nonce_does_not_show() -> None:
    assert "secret" not in repr(Nonce(b"secret nonce"))
