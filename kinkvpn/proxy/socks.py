"""SOCKS version 5 (RFC 1928) with user names and passwords (RFC 1929): octets to values and back.

Each parser is given what has come so far and returns None as long as that is too little; otherwise what it has found,
and how many octets that was.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from kinkvpn.proxy.target import MalformedRequest, Target, parse_host

VERSION = 5
PASSWORD_VERSION = 1  # RFC 1929 §2
# The longest of each: greeting of 255 methods; name and password of 255 octets; request with a name of 255.
LONGEST_MESSAGE = 515
_PORT = struct.Struct("!H")


class Method(IntEnum):
    """RFC 1928 §3."""

    NONE = 0
    PASSWORD = 2
    UNACCEPTABLE = 0xFF


class Command(IntEnum):
    """RFC 1928 §4."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class AddressType(IntEnum):
    """RFC 1928 §5."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


class ReplyCode(IntEnum):
    """RFC 1928 §6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_UNSUPPORTED = 7
    ADDRESS_UNSUPPORTED = 8


class UnsupportedAddress(MalformedRequest):
    """An address type that RFC 1928 does not know."""


@dataclass(frozen=True, slots=True)
class Password:
    """RFC 1929 §2."""

    user: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """RFC 1928 §4. ``command`` is a number: what is none of ours has an answer too."""

    command: int
    target: Target


def parse_greeting(octets: bytes) -> tuple[frozenset[int], int] | None:
    """The methods that a client has (RFC 1928 §3). Raises MalformedRequest."""
    if octets[:1] not in (b"", bytes([VERSION])):
        raise MalformedRequest(f"SOCKS version {octets[0]}: expected {VERSION}")
    if len(octets) < 2 or len(octets) < 2 + octets[1]:
        return None
    ends = 2 + octets[1]
    return frozenset(octets[2:ends]), ends


def build_choice(method: Method) -> bytes:
    """The method that was chosen (RFC 1928 §3)."""
    return bytes([VERSION, method])


def parse_password(octets: bytes) -> tuple[Password, int] | None:
    """RFC 1929 §2. Raises MalformedRequest."""
    if octets[:1] not in (b"", bytes([PASSWORD_VERSION])):
        raise MalformedRequest(f"version {octets[0]} of user name and password: expected {PASSWORD_VERSION}")
    if len(octets) < 2 or len(octets) < 3 + octets[1]:
        return None
    at = 2 + octets[1]
    ends = at + 1 + octets[at]
    if len(octets) < ends:
        return None
    return Password(octets[2:at], octets[at + 1 : ends]), ends


def build_verdict(*, accepted: bool) -> bytes:
    """RFC 1929 §2."""
    return bytes([PASSWORD_VERSION, not accepted])


def parse_request(octets: bytes) -> tuple[Request, int] | None:
    """RFC 1928 §4. Raises MalformedRequest; UnsupportedAddress is one that has an answer of its own."""
    if octets[:1] not in (b"", bytes([VERSION])):
        raise MalformedRequest(f"SOCKS version {octets[0]}: expected {VERSION}")
    if len(octets) < 3:
        return None
    found = _parse_address(octets, 3)
    return None if found is None else (Request(octets[1], found[0]), found[1])


def build_reply(code: ReplyCode, bound: Target | None = None) -> bytes:
    """RFC 1928 §6; ``bound`` where there is none is 0.0.0.0:0."""
    return bytes([VERSION, code, 0]) + _build_address(bound or Target(IPv4Address(0), 0))


def parse_datagram(octets: bytes) -> tuple[Target, bytes]:
    """Where a datagram of a client is to go, and what (RFC 1928 §7).

    Raises:
        MalformedRequest: cut short, no such address, or a fragment: who implements none drops them, says the RFC.
    """
    if len(octets) < 3:
        raise MalformedRequest("a datagram without the header of SOCKS")
    if octets[2]:
        raise MalformedRequest("a fragment of a datagram")
    found = _parse_address(octets, 3)
    if found is None:
        raise MalformedRequest("a datagram that ends within the header of SOCKS")
    return found[0], octets[found[1] :]


def build_datagram(source: Target, octets: bytes) -> bytes:
    """One for the client (RFC 1928 §7)."""
    return bytes(3) + _build_address(source) + octets


def _parse_address(octets: bytes, at: int) -> tuple[Target, int] | None:
    if len(octets) <= at:
        return None
    kind, begins = octets[at], at + 1
    match kind:
        case AddressType.IPV4:
            ends = begins + 4
        case AddressType.IPV6:
            ends = begins + 16
        case AddressType.NAME:
            if len(octets) <= begins:
                return None
            ends = begins + 1 + octets[begins]
            begins += 1
        case _:
            raise UnsupportedAddress(f"address type {kind}: expected 1, 3 or 4")
    if len(octets) < ends + _PORT.size:
        return None
    (port,) = _PORT.unpack_from(octets, ends)
    host = octets[begins:ends]
    if kind == AddressType.IPV4:
        return Target(IPv4Address(host), port), ends + _PORT.size
    if kind == AddressType.IPV6:
        return Target(IPv6Address(host), port), ends + _PORT.size
    return Target(parse_host(host.decode("ascii", "replace")), port), ends + _PORT.size


def _build_address(target: Target) -> bytes:
    port = _PORT.pack(target.port)
    match target.host:
        case IPv4Address() as address:
            return bytes([AddressType.IPV4]) + address.packed + port
        case IPv6Address() as address:
            return bytes([AddressType.IPV6]) + address.packed + port
        case name:
            encoded = name.encode("ascii")
            return bytes([AddressType.NAME, len(encoded)]) + encoded + port
