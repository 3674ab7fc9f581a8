"""KINK messages: the captured ones, round trip, every truncation, and every way to be malformed."""

from __future__ import annotations

import pytest
from fuzz.fuzz_wire import check_message, refusal
from hypothesis import given
from hypothesis import strategies as st
from support.messages import MESSAGES, PLAINTEXTS
from support.vectors import Layer, VectorMessage, load_messages, load_vector

from kinkvpn.errors import LocalMisuse, MalformedMessage, MalformedQuickMode, UnsupportedDoi, UnsupportedMajorVersion
from kinkvpn.wire import kink
from kinkvpn.wire.isakmp import Nonce, Notify
from kinkvpn.wire.kink import (
    ApRep,
    ApReq,
    Encrypt,
    ErrorCode,
    Isakmp,
    KinkError,
    KinkPayload,
    KrbError,
    Message,
    MessageType,
    TgtRep,
    TgtReq,
    build_message,
    build_plaintext,
    parse_message,
    parse_plaintext,
    signed_octets,
)

CAPTURED = load_messages()
READABLE = [message for message in CAPTURED if message.refusal is None or message.refusal.layer is not Layer.WIRE]
UNREADABLE = [message for message in CAPTURED if message not in READABLE]
# What we build again octet for octet: reserved bits set, or octets after Length, are read and not repeated.
NOISY = {("error-kink", 2), ("error-kink", 15), ("error-kink", 16), ("error-kink", 20)}
CANONICAL = [message for message in READABLE if (message.vector, message.index) not in NOISY]
PLAIN = [message.plaintext for message in CAPTURED if message.plaintext is not None]

NAMES = {
    "KINK_AP_REQ": ApReq,
    "KINK_AP_REP": ApRep,
    "KINK_KRB_ERROR": KrbError,
    "KINK_ISAKMP": Isakmp,
    "KINK_ENCRYPT": Encrypt,
    "KINK_ERROR": KinkError,
}


def types(payloads: tuple[KinkPayload, ...]) -> list[type]:
    return [type(payload) for payload in payloads]


# --- the layout, by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "octets"),
    [
        (
            Message(MessageType.REPLY, 0x1000, (KinkError(ErrorCode.INVMAJ),)),
            "03 10 0018 00000001 00001000 08 00 0000  00 00 0008 00000003",
        ),
        (
            Message(MessageType.STATUS, 7, (ApReq(0x01020304, b"abcde"),), checksum=b"\xcc" * 12),
            "06 10 002c 00000001 00000007 01 00 000c  00 00 000d 01020304 6162636465 000000" + "cc" * 12,
        ),
        (
            Message(MessageType.REPLY, 7, (ApRep(5, b"x"), Encrypt(b"yz")), ackreq=True, checksum=b"\xcc" * 4),
            "03 10 0028 00000001 00000007 02 80 0004  07 00 0009 00000005 78 000000  00 00 0006 797a 0000 cccccccc",
        ),
        (
            Message(MessageType.GETTGT, 2**32 - 1, (TgtReq(b"a@B"),)),
            "04 10 0017 00000001 ffffffff 04 00 0000  00 00 0007 614042",
        ),
        (
            Message(MessageType.REPLY, 1, (TgtRep(b"tgt"), KrbError(b"e"))),
            "03 10 001d 00000001 00000001 05 00 0000  03 00 0007 746774 00  00 00 0005 65",
        ),
        (
            Message(MessageType.CREATE, 1, (Isakmp((Nonce(b"\xaa" * 8),)), Isakmp((), 2, 1, (10, b"zz")))),
            "01 10 002e 00000001 00000001 06 00 0000  06 00 0014 0a 10 0000  00 00 000c aaaaaaaaaaaaaaaa"
            "  00 00 000a 0a 21 0000 7a7a",
        ),
        (Message(MessageType.CREATE, 0, ()), "01 10 0010 00000001 00000000 00 00 0000"),
        (Message(MessageType.ACK, 0, (), checksum=b"c"), "05 10 0011 00000001 00000000 00 00 0001 63"),
    ],
)
def test_messages_are_laid_out_as_the_rfc_draws_them(message: Message, octets: str) -> None:
    assert build_message(message).hex(" ") == bytes.fromhex(octets).hex(" ")
    assert parse_message(bytes.fromhex(octets)) == message


def test_a_plaintext_is_laid_out_as_the_rfc_draws_it() -> None:
    payloads = (KrbError(b"abc"), KinkError(6))
    octets = bytes.fromhex("03 000000  08 00 0007 616263 00  00 00 0008 00000006")
    assert build_plaintext(payloads) == octets
    assert parse_plaintext(octets) == payloads
    assert build_plaintext(()) == bytes(4)
    assert parse_plaintext(bytes(4)) == ()


def test_the_last_payload_of_a_plaintext_is_not_padded() -> None:
    """§4.1: lengths leave padding out, and here the length of the ciphertext says where the plaintext ends."""
    assert build_plaintext((KrbError(b"abc"),)) == bytes.fromhex("03 000000  00 00 0007 616263")


# --- captured --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("captured", READABLE, ids=str)
def test_a_captured_message_has_the_payloads_another_decoder_saw(captured: VectorMessage) -> None:
    message = parse_message(captured.datagram)
    if captured.index != 20 or captured.vector != "error-kink":  # that decoder stops at octets after Length
        assert types(message.payloads) == [NAMES[name] for name in captured.outer]
    if captured.plaintext is not None:
        assert types(parse_plaintext(captured.plaintext)) == [NAMES[name] for name in captured.inner]


@pytest.mark.parametrize("captured", CANONICAL, ids=str)
def test_a_captured_message_is_built_again_octet_for_octet(captured: VectorMessage) -> None:
    message = parse_message(captured.datagram)
    assert build_message(message) == captured.datagram
    if captured.plaintext is not None:
        assert build_plaintext(parse_plaintext(captured.plaintext)) == captured.plaintext


@pytest.mark.parametrize("captured", CANONICAL, ids=str)
def test_what_was_signed_is_what_is_verified(captured: VectorMessage) -> None:
    """§4: Length without the Cksum, CksumLen zero. Cut out by hand here, and handed to the signer by build."""
    message = parse_message(captured.datagram)
    length = int.from_bytes(captured.datagram[2:4], "big") - len(message.checksum)
    header = bytearray(captured.datagram[:16])
    header[2:4], header[14:16] = length.to_bytes(2, "big"), b"\0\0"
    assert signed_octets(captured.datagram) == bytes(header) + captured.datagram[16:length]
    if message.checksum:
        signed: list[bytes] = []

        def sign(octets: bytes) -> bytes:
            signed.append(octets)
            return message.checksum

        unsigned = Message(message.type, message.xid, message.payloads, message.ackreq, b"ignored", message.doi)
        assert build_message(unsigned, sign) == captured.datagram
        assert signed == [signed_octets(captured.datagram)]


def test_the_capture_of_bad_messages_holds_the_twelve() -> None:
    """The independent decoder and our table agree, but for two that only an exchange can find bad: 17 and 19."""
    bad = [message for message in CAPTURED if message.decoder_refused]
    assert len(bad) == 12
    assert {message.vector for message in CAPTURED if message.refusal is not None} == {"error-kink"}
    ours = {message.index for message in CAPTURED if message.refusal is not None}
    assert ours - {message.index for message in bad} == {17, 19}
    assert [message.index for message in UNREADABLE] == [0, 4, 6, 8, 10, 13, 14]


@pytest.mark.parametrize("captured", UNREADABLE, ids=lambda captured: captured.refusal.reason)
def test_a_bad_message_says_what_to_answer(captured: VectorMessage) -> None:
    refusal = captured.refusal
    assert refusal is not None
    with pytest.raises(MalformedMessage) as caught:
        parse_message(captured.datagram)
    error = caught.value
    assert error.xid == int.from_bytes(captured.datagram[8:12], "big")
    assert error.message_type == captured.datagram[0]
    assert error.answerable is (refusal.code is not None)
    if refusal.code is not None:
        assert (error.code, error.notify) == (refusal.code, None)


@pytest.mark.parametrize("index", [0, 4, 6, 8, 10])
def test_the_other_implementation_answers_the_same(index: int) -> None:
    bad, answer = load_vector("error-kink")[index : index + 2]
    with pytest.raises(MalformedMessage) as caught:
        parse_message(bad.datagram)
    xid, code = caught.value.xid, caught.value.code
    assert xid is not None
    assert build_message(Message(MessageType.REPLY, xid, (KinkError(code),))) == answer.datagram


@pytest.mark.parametrize(
    ("index", "differs_from_19"),
    [(2, "version"), (15, "flags"), (18, "checksum"), (12, "type"), (20, "octets after Length")],
)
def test_a_well_formed_bad_message_is_left_to_later_layers(index: int, differs_from_19: str) -> None:
    """What the parser must ignore (§4) it ignores; the Cksum covers it all the same."""
    bad, good = load_vector("error-kink")[index], load_vector("error-kink")[19]
    assert parse_message(bad.datagram).payloads == parse_message(good.datagram).payloads
    same = signed_octets(bad.datagram) == signed_octets(good.datagram)
    assert same is (differs_from_19 in ("checksum", "octets after Length"))


# --- truncation, trailing octets, mutation ---------------------------------------------------------------------------

DATAGRAMS = sorted({message.datagram for message in READABLE})


def test_every_truncation_of_every_datagram_is_refused() -> None:
    for datagram in DATAGRAMS:
        length = int.from_bytes(datagram[2:4], "big")
        for cut in range(length):
            with pytest.raises(MalformedMessage) as caught:
                parse_message(datagram[:cut])
            if cut < 16:
                assert (caught.value.field, caught.value.xid, caught.value.answerable) == ("header", None, False)
            else:
                assert (caught.value.field, caught.value.offset) == ("Length", 2)
                assert caught.value.xid == int.from_bytes(datagram[8:12], "big")


def test_every_truncation_with_a_length_that_agrees_is_refused_or_read() -> None:
    """The Length lies along: what is read then is shorter by its Cksum only, and nothing but MalformedMessage comes."""
    for datagram in DATAGRAMS:
        message = parse_message(datagram)
        signed = len(signed_octets(datagram))
        for cut in range(16, int.from_bytes(datagram[2:4], "big")):
            shorter = datagram[:2] + cut.to_bytes(2, "big") + datagram[4:cut]
            refused = refusal(parse_message, shorter)
            if refused is not None:
                assert refused.offset <= cut
            else:
                assert parse_message(shorter).payloads == message.payloads
                assert len(signed_octets(shorter)) == signed
            unsigned = shorter[:14] + b"\0\0" + shorter[16:]
            if cut < signed - 3:
                with pytest.raises(MalformedMessage):
                    parse_message(unsigned)


def test_every_truncation_of_every_plaintext_is_refused() -> None:
    for plaintext in PLAIN:
        for cut in range(len(plaintext)):
            with pytest.raises(MalformedMessage) as caught:
                parse_plaintext(plaintext[:cut])
            assert caught.value.offset <= cut


@given(st.sampled_from(DATAGRAMS), st.sampled_from(PLAIN), st.binary(min_size=1, max_size=20))
def test_octets_after_the_end_are_ignored(datagram: bytes, plaintext: bytes, junk: bytes) -> None:
    """§4 after Length, §4.2.7 after the last payload of a plaintext."""
    assert parse_message(datagram + junk) == parse_message(datagram)
    assert signed_octets(datagram + junk) == signed_octets(datagram)
    assert parse_plaintext(plaintext + junk) == parse_plaintext(plaintext)


@given(st.sampled_from(DATAGRAMS), st.data())
def test_a_mutated_datagram_is_read_or_refused(datagram: bytes, data: st.DataObject) -> None:
    mutated = bytearray(datagram)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    check_message(bytes(mutated))


# --- round trip ------------------------------------------------------------------------------------------------------


@given(MESSAGES)
def test_what_is_built_parses_to_the_same(message: Message) -> None:
    datagram = build_message(message)
    assert parse_message(datagram) == message
    assert build_message(parse_message(datagram)) == datagram


@given(MESSAGES, st.binary(min_size=1, max_size=32))
def test_a_signed_message_is_aligned_and_carries_what_the_signer_said(message: Message, mic: bytes) -> None:
    signed: list[bytes] = []

    def sign(octets: bytes) -> bytes:
        signed.append(octets)
        return mic

    datagram = build_message(message, sign)
    assert signed == [signed_octets(datagram)]
    assert len(signed[0]) % 4 == 0
    assert datagram.endswith(mic)
    parsed = parse_message(datagram)
    assert (parsed.checksum, parsed.payloads) == (mic, message.payloads)


@given(PLAINTEXTS, st.binary(max_size=16))
def test_what_is_built_into_a_plaintext_parses_to_the_same(payloads: tuple[KinkPayload, ...], pad: bytes) -> None:
    plaintext = build_plaintext(payloads)
    assert parse_plaintext(plaintext + pad) == payloads


def test_reserved_bits_and_padding_are_ignored() -> None:
    """§4: MUST be ignored by the receiver. Header nibble, flags, payload RESERVED, ISAKMP RESERVED, padding."""
    isakmp = Isakmp((Nonce(b"\xaa" * 9),))
    message = Message(MessageType.REPLY, 9, (isakmp, ApRep(1, b"abc")), True, b"\xcc" * 12)
    datagram = build_message(message)
    noisy = bytearray(datagram)
    noisy[1] |= 0x0F
    noisy[13] |= 0x7F
    isakmp_end = 16 + 8 + 13
    for reserved in (17, 22, 23, isakmp_end, isakmp_end + 1, isakmp_end + 2, isakmp_end + 4, isakmp_end + 14):
        assert noisy[reserved] == 0
        noisy[reserved] = 0xFF
    assert parse_message(bytes(noisy)) == message
    assert build_message(parse_message(bytes(noisy))) == datagram
    plaintext = bytearray(build_plaintext((KinkError(1),)))
    plaintext[1:4] = b"\xff\xff\xff"
    assert parse_plaintext(bytes(plaintext)) == (KinkError(1),)


# --- alignment -------------------------------------------------------------------------------------------------------


def error_with(tail: str, length: int, cksum_length: int = 0, first: int = 3) -> bytes:
    """A REPLY whose octets after the header are ``tail``."""
    return bytes.fromhex(f"03 10 {length:04x} 00000001 00000001 {first:02x} 00 {cksum_length:04x}" + tail)


@pytest.mark.parametrize("padding", ["", "00", "ff"])
def test_the_last_payload_without_cksum_may_be_padded_or_not(padding: str) -> None:
    octets = error_with("00 00 0007 616263" + padding, 23 + len(padding) // 2)
    assert parse_message(octets).payloads == (KrbError(b"abc"),)


@pytest.mark.parametrize(
    ("octets", "field", "offset"),
    [
        (error_with("00 00 0005 61 00", 22), "padding", 21),  # neither unpadded nor padded
        (error_with("00 00 0005 61 000000 00", 25), "payloads", 24),  # more than padding
        (error_with("00 00 0004", 20, first=0), "payloads", 16),  # octets that no payload owns
        (error_with("00 00 0005 61 cccc", 23, 2), "padding", 21),  # Cksum not aligned
        (error_with("00 00 0004 00000000 cccc", 26, 2), "payloads", 20),  # octets between padding and Cksum
        (error_with("08 00 0005 61 00 00 0008 00000001", 29), "Payload Length", 26),  # second payload not aligned
    ],
)
def test_what_does_not_align_is_refused(octets: bytes, field: str, offset: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(octets)
    assert (caught.value.field, caught.value.offset, caught.value.xid) == (field, offset, 1)


# --- malformed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "field", "offset"),
    [
        (error_with("", 15, first=0), "Length", 2),
        (error_with("", 0, first=0), "Length", 2),
        (error_with("", 17, first=0), "Length", 2),
        (error_with("cccc", 18, 3, first=0), "CksumLen", 14),
        (error_with("", 16, 65535, first=0), "CksumLen", 14),
        (error_with("00 00 0004", 20, first=9), "Next Payload", 16),
        (error_with("00 00 0004", 20, first=255), "Next Payload", 16),
        (error_with("09 00 0004 00 00 0004", 24), "Next Payload", 20),
        (error_with("03 00 0004 00 00 0004", 24, first=7), "Next Payload", 16),
        (error_with("00 00 0007 000000", 23, first=1), "EPOCH", 20),
        (error_with("00 00 0007 000000", 23, first=2), "EPOCH", 20),
        (error_with("00 00 0007 000000", 23, first=8), "ErrorCode", 20),
        (error_with("00 00 0009 0000000000", 25, first=8), "ERROR", 24),
        (error_with("00 00 0006 0a10", 22, first=6), "KINK_ISAKMP", 20),
        (error_with("00 00 0003 00", 21), "Payload Length", 18),
        (error_with("00 00 0006 00", 21), "Payload Length", 18),
    ],
)
def test_each_fault_is_named_where_it_is(octets: bytes, field: str, offset: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(octets)
    error = caught.value
    assert (error.field, error.offset) == (field, offset)
    assert (error.code, error.notify, error.xid, error.message_type) == (ErrorCode.PROTOERR, None, 1, 3)
    assert not error.answerable


@pytest.mark.parametrize(
    ("plaintext", "field", "offset"),
    [
        ("", "InnerNextPload", 0),
        ("080000", "InnerNextPload", 0),
        ("08000000", "payload header", 4),
        ("09000000 00000004", "Next Payload", 4),
        ("07000000 00000004", "Next Payload", 4),  # KINK_ENCRYPT belongs to the outer chain
    ],
)
def test_each_fault_of_a_plaintext_is_named_where_it_is(plaintext: str, field: str, offset: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_plaintext(bytes.fromhex(plaintext))
    assert (caught.value.field, caught.value.offset, caught.value.xid) == (field, offset, None)


def test_quick_mode_faults_carry_the_notify_and_offsets_of_the_whole() -> None:
    octets = error_with("00 00 0010 0a 10 0000 00 00 0008 11223344", 32, first=6)
    with pytest.raises(MalformedQuickMode) as caught:
        parse_message(octets)
    assert (caught.value.field, caught.value.offset, caught.value.notify) == ("Nonce Data", 28, 16)
    with pytest.raises(MalformedQuickMode) as caught:
        parse_plaintext(bytes.fromhex("06000000 00 00 0010 0a 10 0000 00 00 0008 11223344"))
    assert (caught.value.field, caught.value.offset) == ("Nonce Data", 16)


def test_a_doi_inside_must_be_the_headers() -> None:
    plaintext = build_plaintext((Isakmp((Notify(3, b"", 14, doi=2),)),))
    with pytest.raises(UnsupportedDoi, match="Domain of Interpretation at octet 16: 2 is not the header's 1"):
        parse_plaintext(plaintext)


@pytest.mark.parametrize("major", [0, 2, 15])
def test_another_major_version_is_answered_whatever_else_is_wrong(major: int) -> None:
    octets = bytes([1, major << 4]) + bytes.fromhex("ffff 00000009 0000002a 63 00 ffff")
    with pytest.raises(UnsupportedMajorVersion) as caught:
        parse_message(octets)
    assert (caught.value.code, caught.value.xid, caught.value.answerable) == (ErrorCode.INVMAJ, 42, True)


@given(st.integers(0, 2**32 - 1).filter(lambda doi: doi != 1))
def test_another_doi_is_answered(doi: int) -> None:
    with pytest.raises(UnsupportedDoi) as caught:
        parse_message(build_message(Message(MessageType.CREATE, 3, (), doi=doi)))
    assert (caught.value.code, caught.value.offset, caught.value.answerable) == (ErrorCode.INVDOI, 4, True)


@pytest.mark.parametrize("kind", [0, 7, 127, 128, 255])
def test_other_message_types_are_refused_and_not_answered(kind: int) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_message(bytes([kind]) + build_message(Message(MessageType.CREATE, 3, ()))[1:])
    assert (caught.value.field, caught.value.message_type, caught.value.answerable) == ("Type", kind, False)


def test_payloads_are_counted() -> None:
    chain = "03 00 0004" * 64 + "00 00 0004"
    with pytest.raises(MalformedMessage, match="more than 64 payloads in a chain"):
        parse_message(error_with(chain, 16 + 65 * 4))
    assert len(parse_message(error_with(chain[10:], 16 + 64 * 4)).payloads) == 64


def test_another_quick_mode_version_is_kept_unread() -> None:
    """§4.2.6, §12.1: whatever is in it, so that KINK_BADQMVERS can be answered."""
    octets = bytes.fromhex("06000000 00 00 000b 01 20 0000 ffffff")
    assert parse_plaintext(octets) == (Isakmp((), 2, 0, (1, b"\xff\xff\xff")),)


@given(st.binary(max_size=64))
def test_octets_that_were_never_parsed_have_nothing_signed(octets: bytes) -> None:
    refused = refusal(signed_octets, octets)
    assert refused is None or 0 <= refused.offset <= len(octets)


# --- what is not built -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageType.CREATE, 2**32, ()),
        Message(MessageType.CREATE, -1, ()),
        Message(MessageType.CREATE, 1, (), doi=2**32),
        Message(MessageType.CREATE, 1, (ApReq(2**32, b""),)),
        Message(MessageType.CREATE, 1, (KinkError(-1),)),
        Message(MessageType.CREATE, 1, (Encrypt(b""), KinkError(1))),
        Message(MessageType.CREATE, 1, (Encrypt(b""), Encrypt(b""))),
        Message(MessageType.CREATE, 1, (KrbError(bytes(65532)),)),
        Message(MessageType.CREATE, 1, (KrbError(bytes(65517)),)),
        Message(MessageType.CREATE, 1, (KrbError(b""),) * 65),
        Message(MessageType.CREATE, 1, (Isakmp((), 2, 0),)),
        Message(MessageType.CREATE, 1, (Isakmp((), 1, 0, (1, b"")),)),
        Message(MessageType.CREATE, 1, (Isakmp((Nonce(bytes(8)),), 2, 0, (1, b"")),)),
        Message(MessageType.CREATE, 1, (Isakmp((), 16, 0, (1, b"")),)),
        Message(MessageType.CREATE, 1, (Isakmp((), 1, 16, (1, b"")),)),
        Message(MessageType.CREATE, 1, (Isakmp((), 2, 0, (256, b"")),)),
    ],
)
def test_what_could_not_be_read_again_is_not_built(message: Message) -> None:
    with pytest.raises(LocalMisuse):
        build_message(message)


def test_a_message_is_at_most_as_long_as_length_can_say() -> None:
    longest = Message(MessageType.CREATE, 1, (KrbError(bytes(65515)),))
    assert len(build_message(longest)) == 65535 == kink.MAX_LENGTH
    assert parse_message(build_message(longest)) == longest
    with pytest.raises(LocalMisuse, match="65536 octets"):
        build_message(Message(MessageType.CREATE, 1, (KrbError(bytes(65500)),)), lambda _: bytes(16))


def test_encryption_is_not_nested() -> None:
    with pytest.raises(LocalMisuse, match="inside KINK_ENCRYPT"):
        build_plaintext((Encrypt(b""),))


def test_secrets_do_not_show() -> None:
    payloads = (ApReq(1, b"secret"), ApRep(1, b"secret"), Encrypt(b"secret"))
    assert "secret" not in repr(Message(MessageType.CREATE, 1, payloads, checksum=b"secret"))
