"""KINK messages (RFC 4430 §4): header, payload chain, padding, checksum, and what is inside KINK_ENCRYPT. Pure.

Nothing here knows a key. A message is parsed, its checksum verified by whoever has the session key over
:func:`signed_octets`, its KINK_ENCRYPT decrypted, and the plaintext parsed by :func:`parse_plaintext`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from kinkvpn.errors import LocalMisuse, MalformedMessage, MalformedQuickMode, UnsupportedDoi, UnsupportedMajorVersion
from kinkvpn.wire.cursor import Reader, Writer, pack, read_chain, write_chain
from kinkvpn.wire.ipsec_doi import IPSEC_DOI
from kinkvpn.wire.isakmp import IsakmpPayload, first_type, read_payloads, write_payloads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# --- specification ---------------------------------------------------------------------------------------------------

#  0                   1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +---------------+-------+-------+---------------+---------------+
# |     Type      | MjVer |RESRVED|            Length             |  RFC 4430 §4
# +---------------+-------+-------+---------------+---------------+
# |                 Domain of Interpretation (DOI)                |
# +---------------+---------------+---------------+---------------+
# |                      Transaction ID (XID)                     |
# +---------------+-+-------------+---------------+---------------+
# |  NextPayload  |A|  RESERVED2  |           CksumLen            |
# +---------------+-+-------------+---------------+---------------+
# ~        payloads, padding, Cksum (CksumLen octets)             ~
# +---------------+---------------+---------------+---------------+
HEADER = struct.Struct("!BBHIIBBH")
# In the body of KINK_AP_REQ and KINK_AP_REP, and all of KINK_ERROR:
# +---------------+---------------+---------------+---------------+
# |                     EPOCH or ErrorCode                        |  RFC 4430 §4.2.1, §4.2.2, §4.2.8
# +---------------+---------------+---------------+---------------+
WORD = struct.Struct("!I")
# +---------------+-------+-------+---------------+---------------+
# | InnerNextPload| QMMaj | QMMin |            RESERVED           |  RFC 4430 §4.2.6
# +---------------+-------+-------+---------------+---------------+
ISAKMP_HEADER = struct.Struct("!BBH")
# +---------------+---------------+---------------+---------------+
# | InnerNextPload|                   RESERVED2                   |  RFC 4430 §4.2.7, the first encrypted octets
# +---------------+---------------+---------------+---------------+
PLAINTEXT_HEADER = struct.Struct("!B3x")

MAJOR_VERSION = 1
QUICK_MODE_VERSION = (1, 0)
ACKREQ = 0x80
ALIGNMENT = 4  # §4.1
MAX_LENGTH = 65535  # Length has two octets

# --- ours ------------------------------------------------------------------------------------------------------------

# §4.2 allows any number. A message that does work has one KINK_AP_REQ and one KINK_ISAKMP for each SA pair it creates;
# 64 is more than any host sends at once, and keeps what an unauthenticated datagram can cost small. Depth needs no
# number: KINK_ENCRYPT may not be inside KINK_ENCRYPT, and nothing else nests.
MAX_PAYLOADS = 64


class MessageType(IntEnum):
    """RFC 4430 §4, Type."""

    CREATE = 1
    DELETE = 2
    REPLY = 3
    GETTGT = 4
    ACK = 5
    STATUS = 6


class PayloadType(IntEnum):
    """RFC 4430 §4.2, Next Payload."""

    DONE = 0
    AP_REQ = 1
    AP_REP = 2
    KRB_ERROR = 3
    TGT_REQ = 4
    TGT_REP = 5
    ISAKMP = 6
    ENCRYPT = 7
    ERROR = 8


class ErrorCode(IntEnum):
    """RFC 4430 §4.2.8."""

    OK = 0
    PROTOERR = 1
    INVDOI = 2
    INVMAJ = 3
    INVMIN = 4  # reserved by the RFC; never sent, understood
    INTERR = 5
    BADQMVERS = 6
    U2UDENIED = 7


@dataclass(frozen=True, slots=True)
class ApReq:
    """KINK_AP_REQ (§4.2.1). ``epoch``: POSIX seconds modulo 2**32; ``ap_req``: DER, not looked into here."""

    epoch: int
    ap_req: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApRep:
    """KINK_AP_REP (§4.2.2). ``epoch``: POSIX seconds modulo 2**32; ``ap_rep``: DER, not looked into here."""

    epoch: int
    ap_rep: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KrbError:
    """KINK_KRB_ERROR (§4.2.3): DER, not looked into here."""

    krb_error: bytes


@dataclass(frozen=True, slots=True)
class TgtReq:
    """KINK_TGT_REQ (§4.2.4): a principal name as RFC 1964 §2.1.3 exports it, the NAME octets only."""

    principal: bytes


@dataclass(frozen=True, slots=True)
class TgtRep:
    """KINK_TGT_REP (§4.2.5): a ticket, DER, not looked into here."""

    ticket: bytes


@dataclass(frozen=True, slots=True)
class Isakmp:
    """KINK_ISAKMP (§4.2.6): the Quick Mode payloads of one transaction.

    With a version other than 1.0 ``payloads`` is empty and ``unread`` holds (InnerNextPload, the octets), so that
    KINK_BADQMVERS can be answered (§12); with 1.0 ``unread`` is None.
    """

    payloads: tuple[IsakmpPayload, ...]
    major: int = 1
    minor: int = 0
    unread: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Encrypt:
    """KINK_ENCRYPT (§4.2.7); ``ciphertext`` is opaque here, :func:`parse_plaintext` reads what is inside."""

    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KinkError:
    """KINK_ERROR (§4.2.8). ``code``: an ErrorCode, or any other 32-bit number a peer may send."""

    code: int


KinkPayload = ApReq | ApRep | KrbError | TgtReq | TgtRep | Isakmp | Encrypt | KinkError


@dataclass(frozen=True, slots=True)
class Message:
    """A KINK message (§4).

    Args:
        type: CREATE, DELETE, GETTGT, STATUS are commands; REPLY answers one; ACK answers a REPLY with ACKREQ.
        xid: transaction ID, 32 bits.
        payloads: the outer chain, in order.
        ackreq: the A bit.
        checksum: Cksum as received, empty when CksumLen is 0.
        doi: always 1 in a message that was parsed.
    """

    type: MessageType
    xid: int
    payloads: tuple[KinkPayload, ...]
    ackreq: bool = False
    checksum: bytes = field(default=b"", repr=False)
    doi: int = IPSEC_DOI


def parse_message(datagram: bytes) -> Message:
    """Read one KINK message (§4).

    Octets after Length are ignored, as are reserved bits and what padding holds. The last payload may end the message
    unpadded if no Cksum follows, since §4.1 leaves padding out of every length; padded to four octets it is read too.

    Args:
        datagram: what one UDP datagram carried, without a non-ESP marker.

    Raises:
        MalformedMessage: ``code`` is what to answer (UnsupportedMajorVersion, UnsupportedDoi, else KINK_PROTOERR);
            ``xid`` and ``message_type`` are set once the sixteen octets of the header are there. Offsets count from
            the start of ``datagram``.
    """
    kind, version, length, doi, xid, first, flags, cksum_length = Reader(datagram).unpack(HEADER, "header")
    try:
        _check_version(version)
        reader = _bounded(datagram, length, cksum_length)
        if doi != IPSEC_DOI:
            raise UnsupportedDoi("Domain of Interpretation", 4, f"{doi} is not {IPSEC_DOI}")
        if kind not in _MESSAGE_TYPES:
            raise MalformedMessage("Type", 0, f"{kind} is no message type")
        payloads = _read_payloads(reader, first, _READERS)
        _read_final_padding(reader, cksum_length > 0)
    except MalformedMessage as error:
        error.message_type, error.xid = kind, xid
        raise
    checksum = datagram[length - cksum_length : length]
    return Message(MessageType(kind), xid, payloads, bool(flags & ACKREQ), checksum, doi)


def build_message(message: Message, checksum: Callable[[bytes], bytes] | None = None) -> bytes:
    """The datagram of ``message`` (§4); the inverse of :func:`parse_message`.

    Args:
        message: what to send.
        checksum: called once with the octets to sign (Length without the Cksum, CksumLen 0, final padding included);
            its result is appended and Length and CksumLen filled in. Without it ``message.checksum`` is used as it
            stands, so that parse and build are inverse.

    Raises:
        LocalMisuse: a value that does not fit its field, KINK_ENCRYPT not the last payload, a message too long.
    """
    authenticated = checksum is not None or len(message.checksum) > 0
    first = _payload_type(message.payloads[0]) if message.payloads else PayloadType.DONE
    writer = Writer()  # the header's length is a multiple of the alignment
    _write_payloads(writer, message.payloads)
    if authenticated:
        writer.align(ALIGNMENT)
    chain = writer.getvalue()
    unsigned = HEADER.size + len(chain)
    mic = message.checksum if checksum is None else checksum(_build_header(message, first, unsigned, 0) + chain)
    return _build_header(message, first, unsigned + len(mic), len(mic)) + chain + mic


def signed_octets(datagram: bytes) -> bytes:
    """What the Cksum covers (§4): ``datagram`` up to it, Length without it, CksumLen zero, reserved bits as received.

    Raises:
        MalformedMessage: Length or CksumLen do not fit ``datagram``; cannot be if it was parsed.
    """
    kind, version, length, doi, xid, first, flags, cksum_length = Reader(datagram).unpack(HEADER, "header")
    _bounded(datagram, length, cksum_length)
    covered = length - cksum_length
    return HEADER.pack(kind, version, covered, doi, xid, first, flags, 0) + datagram[HEADER.size : covered]


def parse_plaintext(plaintext: bytes) -> tuple[KinkPayload, ...]:
    """The payloads inside KINK_ENCRYPT (§4.2.7), aligned from the start of ``plaintext``.

    Octets after the last payload are ignored: RFC 3961 encryption may pad.

    Raises:
        MalformedMessage: MalformedQuickMode (``notify`` is set), UnsupportedDoi, else KINK_PROTOERR. Offsets count
            from the start of ``plaintext``.
    """
    reader = Reader(plaintext)
    (first,) = reader.unpack(PLAINTEXT_HEADER, "InnerNextPload")
    return _read_payloads(reader, first, _INNER_READERS)


def build_plaintext(payloads: tuple[KinkPayload, ...]) -> bytes:
    """What to encrypt into KINK_ENCRYPT (§4.2.7); the inverse of :func:`parse_plaintext`.

    Raises:
        LocalMisuse: a value that does not fit its field, or KINK_ENCRYPT among ``payloads``.
    """
    if any(isinstance(payload, Encrypt) for payload in payloads):
        raise LocalMisuse("KINK_ENCRYPT inside KINK_ENCRYPT")
    writer = Writer()
    writer.pack(PLAINTEXT_HEADER, "InnerNextPload", _payload_type(payloads[0]) if payloads else PayloadType.DONE)
    _write_payloads(writer, payloads)
    return writer.getvalue()


# --- reading ---------------------------------------------------------------------------------------------------------


def _check_version(version: int) -> None:
    # The low four bits are RESRVED and ignored, though the other implementation takes them for a minor version.
    if version >> 4 != MAJOR_VERSION:
        raise UnsupportedMajorVersion("MjVer", 1, f"{version >> 4} is not {MAJOR_VERSION}")


def _bounded(datagram: bytes, length: int, cksum_length: int) -> Reader:
    """A reader over the payloads and their padding, between header and Cksum."""
    if not HEADER.size <= length <= len(datagram):
        raise MalformedMessage("Length", 2, f"{length}, but the datagram has {len(datagram)} octets")
    if cksum_length > length - HEADER.size:
        raise MalformedMessage("CksumLen", 14, f"{cksum_length} does not fit Length {length}")
    return Reader(datagram, HEADER.size, length - cksum_length)


def _read_payloads(
    reader: Reader, first: int, readers: dict[int, Callable[[Reader], KinkPayload]]
) -> tuple[KinkPayload, ...]:
    payloads = []
    offset = reader.position
    for kind, following, body in read_chain(reader, first, ALIGNMENT, MAX_PAYLOADS):
        if kind not in readers:
            raise body.fail("Next Payload", f"no payload of type {kind} can be here", offset)
        if kind == PayloadType.ENCRYPT and following != PayloadType.DONE:
            raise body.fail("Next Payload", f"type {following} after KINK_ENCRYPT", body.position - 4)
        payloads.append(readers[kind](body))
        if body.remaining:  # before the name is looked up, for every payload there is
            body.expect_end(PayloadType(kind).name)
        offset = reader.position
    return tuple(payloads)


def _read_final_padding(reader: Reader, authenticated: bool) -> None:
    if authenticated or reader.remaining:
        reader.align(ALIGNMENT, "padding")
    reader.expect_end("payloads")


def _read_ap_req(body: Reader) -> ApReq:
    (epoch,) = body.unpack(WORD, "EPOCH")
    return ApReq(epoch, body.rest())


def _read_ap_rep(body: Reader) -> ApRep:
    (epoch,) = body.unpack(WORD, "EPOCH")
    return ApRep(epoch, body.rest())


def _read_isakmp(body: Reader) -> Isakmp:
    first, version, _reserved = body.unpack(ISAKMP_HEADER, "KINK_ISAKMP")
    major, minor = version >> 4, version & 15
    if (major, minor) != QUICK_MODE_VERSION:
        return Isakmp((), major, minor, (first, body.rest()))
    return Isakmp(read_payloads(body.within(body.remaining, "Quick Mode payloads", MalformedQuickMode), first))


def _read_error(body: Reader) -> KinkError:
    (code,) = body.unpack(WORD, "ErrorCode")
    return KinkError(code)


_INNER_READERS: Final[dict[int, Callable[[Reader], KinkPayload]]] = {
    PayloadType.AP_REQ: _read_ap_req,
    PayloadType.AP_REP: _read_ap_rep,
    PayloadType.KRB_ERROR: lambda body: KrbError(body.rest()),
    PayloadType.TGT_REQ: lambda body: TgtReq(body.rest()),
    PayloadType.TGT_REP: lambda body: TgtRep(body.rest()),
    PayloadType.ISAKMP: _read_isakmp,
    PayloadType.ERROR: _read_error,
}
_READERS: Final = _INNER_READERS | {PayloadType.ENCRYPT: lambda body: Encrypt(body.rest())}
_MESSAGE_TYPES: Final = frozenset(MessageType)


# --- writing ---------------------------------------------------------------------------------------------------------


def _build_header(message: Message, first: int, length: int, cksum_length: int) -> bytes:
    if length > MAX_LENGTH:
        raise LocalMisuse(f"a message of {length} octets, {MAX_LENGTH} at most")
    version, flags = MAJOR_VERSION << 4, ACKREQ if message.ackreq else 0
    identity = message.type, version, length, message.doi, message.xid
    return pack(HEADER, "header", *identity, first, flags, cksum_length)


def _write_payloads(writer: Writer, payloads: Sequence[KinkPayload]) -> None:
    if any(isinstance(payload, Encrypt) for payload in payloads[:-1]):
        raise LocalMisuse("KINK_ENCRYPT must be the last payload")
    chain = [(_TYPES[type(payload)], _build_payload(payload)) for payload in payloads]
    write_chain(writer, chain, ALIGNMENT, MAX_PAYLOADS)


def _payload_type(payload: KinkPayload) -> int:
    return _TYPES[type(payload)]


_TYPES: Final[dict[type, PayloadType]] = {
    ApReq: PayloadType.AP_REQ,
    ApRep: PayloadType.AP_REP,
    KrbError: PayloadType.KRB_ERROR,
    TgtReq: PayloadType.TGT_REQ,
    TgtRep: PayloadType.TGT_REP,
    Isakmp: PayloadType.ISAKMP,
    Encrypt: PayloadType.ENCRYPT,
    KinkError: PayloadType.ERROR,
}


def _build_payload(payload: KinkPayload) -> bytes:
    """The body of ``payload``, without the generic header."""
    match payload:
        case ApReq(epoch, octets) | ApRep(epoch, octets):
            return _word("EPOCH", epoch) + octets
        case KinkError(code):
            return _word("ErrorCode", code)
        case Isakmp():
            return _build_isakmp(payload)
        case KrbError(octets) | TgtReq(octets) | TgtRep(octets):
            return octets
    return payload.ciphertext


def _word(name: str, value: int) -> bytes:
    return pack(WORD, name, value)


def _build_isakmp(payload: Isakmp) -> bytes:
    readable = (payload.major, payload.minor) == QUICK_MODE_VERSION
    if readable != (payload.unread is None) or (payload.payloads and not readable):
        raise LocalMisuse("KINK_ISAKMP has payloads in version 1.0 and unread octets in any other")
    if not (0 <= payload.major < 16 and 0 <= payload.minor < 16):
        raise LocalMisuse(f"Quick Mode version {payload.major}.{payload.minor}")
    first, octets = payload.unread or (first_type(payload.payloads), b"")
    writer = Writer()
    writer.pack(ISAKMP_HEADER, "KINK_ISAKMP", first, payload.major << 4 | payload.minor, 0)
    if octets:
        writer.put(octets)
    write_payloads(writer, payload.payloads)
    return writer.getvalue()
