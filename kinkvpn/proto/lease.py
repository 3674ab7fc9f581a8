"""What a gateway lends to whoever comes without a network of their own: addresses, routes and name servers.

The words are those of IKEv2's Configuration Payload (RFC 7296 §3.15, RFC 8598 for domains), in a notify of ours:
docs/extensions.md is the specification. Asked for in STATUS, before the first CREATE, whose identifications name the
address: so nothing of RFC 4430's CREATE is different for it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

from kinkvpn.errors import MalformedMessage
from kinkvpn.proto.extensions import MAGIC
from kinkvpn.wire.cursor import Reader
from kinkvpn.wire.ipsec_doi import IdType, NotifyType, Protocol
from kinkvpn.wire.isakmp import Identification, Notify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esp.policy import Network
    from kinkvpn.wire.isakmp import IsakmpPayload

Address: TypeAlias = IPv4Address | IPv6Address

# Behind the magic:
# +---------------+---------------+---------------+---------------+
# |   CFG Type    |                   RESERVED                    |  RFC 7296 §3.15
# +-+-------------+---------------+---------------+---------------+
# |R|       Attribute Type        |            Length             |  RFC 7296 §3.15.1, any number of them
# +-+-----------------------------+-------------------------------+
_HEADER = struct.Struct("!B3x")
_ATTRIBUTE = struct.Struct("!HH")
_TYPE_BITS = 0x7FFF  # R is reserved: "MUST be set to zero and MUST be ignored on receipt"
# Ours. What a resolver looks at (resolv.conf(5) has three servers and six domains, systemd-resolved more), and what one
# CREATE can ask for in two batches; a notify of all of them has 2 kB.
MAX_ROUTES = 32
MAX_SERVERS = 8
MAX_DOMAINS = 8
# Ours. A request or a lease with more is not from anybody who means it.
MAX_ATTRIBUTES = 64
# RFC 1123 §2.1, RFC 1035 §2.3.4. What is beyond goes into no resolv.conf: that file has a line for each word. As
# kinkvpn.values has it, and so a configuration.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z)(?!(?:.*\.)?[0-9]+\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)


class CfgType(IntEnum):
    """RFC 7296 §3.15."""

    REQUEST = 1
    REPLY = 2


class CfgAttribute(IntEnum):
    """RFC 7296 §3.15.1, RFC 8598 §3."""

    INTERNAL_IP4_ADDRESS = 1
    INTERNAL_IP4_DNS = 3
    INTERNAL_IP6_ADDRESS = 8
    INTERNAL_IP6_DNS = 10
    INTERNAL_IP4_SUBNET = 13
    INTERNAL_IP6_SUBNET = 15
    INTERNAL_DNS_DOMAIN = 25


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request.

    Args:
        addresses: that it had before and would have again, at most one of each family.
    """

    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """What is lent.

    Args:
        addresses: one, or one of each family.
        routes: what is behind the gateway.
        servers: that answer DNS there.
        domains: that they know, and that short names are completed with; lower case.
    """

    addresses: tuple[Address, ...]
    routes: tuple[Network, ...] = ()
    servers: tuple[Address, ...] = ()
    domains: tuple[str, ...] = ()


# ------------------------------------------------------------ writing


def ask(wanted: Wanted) -> Notify:
    """``wanted`` as a notify; of a family that it names no address of, any will do."""
    named = {address.version: address for address in wanted.addresses}
    values = [
        (CfgAttribute.INTERNAL_IP4_ADDRESS, named[4].packed if 4 in named else b""),
        (CfgAttribute.INTERNAL_IP6_ADDRESS, _prefixed(named[6], 128) if 6 in named else b""),
        (CfgAttribute.INTERNAL_IP4_DNS, b""),
        (CfgAttribute.INTERNAL_IP6_DNS, b""),
        (CfgAttribute.INTERNAL_IP4_SUBNET, b""),
        (CfgAttribute.INTERNAL_IP6_SUBNET, b""),
        (CfgAttribute.INTERNAL_DNS_DOMAIN, b""),
    ]
    return _notify(CfgType.REQUEST, values)


def grant(lease: Lease) -> Notify:
    """``lease`` as a notify."""
    return _notify(CfgType.REPLY, _attributes(lease))


def _attributes(lease: Lease) -> Iterator[tuple[CfgAttribute, bytes]]:
    for address in lease.addresses:
        four = address.version == 4
        kind = CfgAttribute.INTERNAL_IP4_ADDRESS if four else CfgAttribute.INTERNAL_IP6_ADDRESS
        yield kind, address.packed if four else _prefixed(address, 128)
    for server in lease.servers:
        yield (
            CfgAttribute.INTERNAL_IP4_DNS if server.version == 4 else CfgAttribute.INTERNAL_IP6_DNS,
            server.packed,
        )
    for route in lease.routes:
        if isinstance(route, IPv4Network):
            yield CfgAttribute.INTERNAL_IP4_SUBNET, route.network_address.packed + route.netmask.packed
        else:
            yield CfgAttribute.INTERNAL_IP6_SUBNET, _prefixed(route.network_address, route.prefixlen)
    for domain in lease.domains:
        yield CfgAttribute.INTERNAL_DNS_DOMAIN, domain.encode("ascii")


def _prefixed(address: Address, length: int) -> bytes:
    return address.packed + bytes([length])


def _notify(kind: CfgType, values: Iterable[tuple[CfgAttribute, bytes]]) -> Notify:
    body = b"".join(_ATTRIBUTE.pack(attribute, len(value)) + value for attribute, value in values)
    # Of no SA: protocol ISAKMP, no SPI (RFC 2408 §3.14).
    return Notify(Protocol.ISAKMP, b"", NotifyType.KINKVPN_CONFIGURATION, MAGIC + _HEADER.pack(kind) + body)


# ------------------------------------------------------------ reading


def found_request(payloads: Iterable[IsakmpPayload]) -> Wanted | None:
    """The request in an authentic command, if there is one. Raises MalformedMessage."""
    return next((found for found in _found(payloads) if isinstance(found, Wanted)), None)


def wished(payloads: Iterable[IsakmpPayload]) -> Iterator[Address]:
    """Addresses that an authentic command has its sender have: asked for, or named by the first of two identifications
    (IDci, RFC 2409 §5.5) in the Quick Mode of a CREATE. An address that no host can have is none.
    """
    identification = next((each for each in payloads if isinstance(each, Identification)), None)
    if identification is not None:
        if identification.type in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
            yield ip_address(identification.value)
        return
    try:
        asked = found_request(payloads)
    except MalformedMessage:
        return
    yield from asked.addresses if asked is not None else ()


def found_lease(payloads: Iterable[IsakmpPayload]) -> Lease | None:
    """The lease in an authentic REPLY, if there is one. Raises MalformedMessage."""
    return next((found for found in _found(payloads) if isinstance(found, Lease)), None)


def _found(payloads: Iterable[IsakmpPayload]) -> Iterator[Wanted | Lease]:
    return (parse(each) for each in payloads if isinstance(each, Notify) and is_configuration(each))


def is_configuration(notify: Notify) -> bool:
    """Whether it is this notify of ours, by number and magic."""
    return notify.type == NotifyType.KINKVPN_CONFIGURATION and notify.value.startswith(MAGIC)


def parse(notify: Notify) -> Wanted | Lease:
    """What a notify for which :func:`is_configuration` holds says.

    Raises:
        MalformedMessage: it is not as docs/extensions.md has it.
    """
    reader = Reader(notify.value)
    reader.take(len(MAGIC), "magic")
    (kind,) = reader.unpack(_HEADER, "CFG Type")
    if kind not in (CfgType.REQUEST, CfgType.REPLY):
        raise reader.fail("CFG Type", f"{kind} is neither a request nor a reply")
    found = list(_read(reader, asked=kind == CfgType.REQUEST))
    addresses = _collected(reader, found, "address", 2)
    if len({address.version for address in addresses}) != len(addresses):
        raise reader.fail("INTERNAL_IP4_ADDRESS", "two addresses of one family")
    if kind == CfgType.REQUEST:
        return Wanted(addresses)
    if not addresses:
        raise reader.fail("INTERNAL_IP4_ADDRESS", "a lease without an address")
    return Lease(
        addresses,
        _collected(reader, found, "subnet", MAX_ROUTES),
        _collected(reader, found, "server", MAX_SERVERS),
        _collected(reader, found, "domain", MAX_DOMAINS),
    )


def _collected(reader: Reader, found: list[tuple[str, Any]], what: str, most: int) -> tuple[Any, ...]:
    values = tuple(dict.fromkeys(value for kind, value in found if kind == what))
    if len(values) > most:
        raise reader.fail(what, f"{len(values)} of them, and {most} are allowed")
    return values


def _read(reader: Reader, *, asked: bool) -> Iterator[tuple[str, Any]]:
    """Each attribute that has a value: which of four kinds of thing, and the thing."""
    for _ in range(MAX_ATTRIBUTES):
        if not reader.remaining:
            return
        kind, length = reader.unpack(_ATTRIBUTE, "Attribute Type")
        value = reader.within(length, "Length")
        try:
            attribute = CfgAttribute(kind & _TYPE_BITS)
        except ValueError:
            continue  # "unrecognized or unsupported attributes MUST be ignored" (RFC 7296 §3.15)
        if asked and not length:
            continue  # any will do
        yield _value(attribute, value)
        value.expect_end(attribute.name)
    if reader.remaining:
        raise reader.fail("Attribute Type", f"more than {MAX_ATTRIBUTES} attributes")


def _value(attribute: CfgAttribute, reader: Reader) -> tuple[str, Any]:
    name = attribute.name
    match attribute:
        case CfgAttribute.INTERNAL_IP4_ADDRESS:
            return "address", _host(reader, IPv4Address(reader.take(4, name)))
        case CfgAttribute.INTERNAL_IP6_ADDRESS:
            address = _host(reader, IPv6Address(reader.take(16, name)))
            reader.take(1, "prefix length")  # of a link, which there is none of here
            return "address", address
        case CfgAttribute.INTERNAL_IP4_DNS:
            return "server", _host(reader, IPv4Address(reader.take(4, name)))
        case CfgAttribute.INTERNAL_IP6_DNS:
            return "server", _host(reader, IPv6Address(reader.take(16, name)))
        case CfgAttribute.INTERNAL_IP4_SUBNET:
            return "subnet", _subnet(reader, IPv4Address(reader.take(4, name)), _ones(reader, reader.take(4, name)))
        case CfgAttribute.INTERNAL_IP6_SUBNET:
            return "subnet", _subnet(reader, IPv6Address(reader.take(16, name)), reader.take(1, name)[0])
        case CfgAttribute.INTERNAL_DNS_DOMAIN:
            return "domain", _domain(reader)


def _host(reader: Reader, address: Address) -> Address:
    """An address that a host can have: what is anything else would not lead where the sender says."""
    if address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local:
        raise reader.fail("address", f"{address} is no host's")
    if address == IPv4Address(0xFFFF_FFFF):
        raise reader.fail("address", f"{address} is no host's")
    return address


def _ones(reader: Reader, mask: bytes) -> int:
    """How many there are in a netmask that has them at its beginning alone."""
    bits = int.from_bytes(mask)
    length = bits.bit_count()
    if bits != 0xFFFF_FFFF >> (32 - length) << (32 - length):
        raise reader.fail("subnet", f"{mask.hex()} is no netmask")
    return length


def _subnet(reader: Reader, address: Address, length: int) -> Network:
    try:
        network = (IPv4Network if address.version == 4 else IPv6Network)((int(address), length))
    except ValueError:
        raise reader.fail("subnet", f"{address}/{length} is none") from None
    if network.prefixlen and (network.is_multicast or network.is_loopback or network.is_link_local):
        raise reader.fail("subnet", f"{network} is routed nowhere")
    return network


def _domain(reader: Reader) -> str:
    name = reader.rest().decode("latin-1").lower().removesuffix(".")
    if _DOMAIN.fullmatch(name) is None:
        raise reader.fail("INTERNAL_DNS_DOMAIN", "not a domain name")
    return name
