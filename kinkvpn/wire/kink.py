"""KINK messages (RFC 4430 §4): header, payload chain, padding, checksum. CONTRACT STUB, to be completed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.wire.isakmp import IsakmpPayload


class MessageType(IntEnum):
    """RFC 4430 §4, Type."""

    CREATE = 1
    DELETE = 2
    REPLY = 3
    GETTGT = 4
    ACK = 5
    STATUS = 6


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
    epoch: int
    ap_req: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApRep:
    epoch: int
    ap_rep: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KrbError:
    krb_error: bytes


@dataclass(frozen=True, slots=True)
class TgtReq:
    principal: bytes


@dataclass(frozen=True, slots=True)
class TgtRep:
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Isakmp:
    """Quick Mode payloads of one transaction (§4.2.6). With a version other than 1.0 ``payloads`` is empty and
    ``unread`` holds (InnerNextPload, the octets)."""

    payloads: tuple[IsakmpPayload, ...]
    major: int = 1
    minor: int = 0
    unread: tuple[int, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Encrypt:
    """§4.2.7; ``ciphertext`` is opaque here. ``parse_plaintext``/``build_plaintext`` handle what is inside."""

    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KinkError:
    code: int


KinkPayload = ApReq | ApRep | KrbError | TgtReq | TgtRep | Isakmp | Encrypt | KinkError


@dataclass(frozen=True, slots=True)
class Message:
    type: MessageType
    xid: int
    payloads: tuple[KinkPayload, ...]
    ackreq: bool = False
    checksum: bytes = field(default=b"", repr=False)
    doi: int = 1


def parse_message(datagram: bytes) -> Message:
    """Raises MalformedMessage (subclasses carry the KINK error code to answer with: see errors)."""
    raise NotImplementedError


def build_message(message: Message, checksum: Callable[[bytes], bytes] | None = None) -> bytes:
    """The datagram. With ``checksum`` given it is called once with the octets to sign (§4: Length without the
    Cksum, CksumLen 0, final padding included) and its result is appended and Length and CksumLen filled in;
    without, ``message.checksum`` is used as it stands (so parse then build is the identity)."""
    raise NotImplementedError


def signed_octets(datagram: bytes) -> bytes:
    """What the Cksum of a parsed, well-formed ``datagram`` covers (§4)."""
    raise NotImplementedError


def parse_plaintext(plaintext: bytes) -> tuple[KinkPayload, ...]:
    """Inside KINK_ENCRYPT (§4.2.7)."""
    raise NotImplementedError


def build_plaintext(payloads: tuple[KinkPayload, ...]) -> bytes:
    raise NotImplementedError
