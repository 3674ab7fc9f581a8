"""Selectors as identification payloads IDci and IDcr, and back (RFC 4430 §5.3, RFC 2407 §4.6.2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from esp.errors import InvalidPolicy
from esp.policy import AddressRange, PortRange, address_interval
from kinkvpn.wire.ipsec_doi import IdType
from kinkvpn.wire.isakmp import Identification

if TYPE_CHECKING:
    from esp.policy import Addresses, Interval, Ports, Selector


def identification_of(addresses: Addresses, protocol: int, port: Ports) -> Identification:
    """One side of a selector; a single address goes out as an address, a subnet as one, and a range as a range.

    Raises:
        InvalidPolicy: several ports, type and code of ICMP, or OPAQUE: no identification payload says that.
    """
    if isinstance(port, PortRange) or min(port, protocol) < 0:
        raise InvalidPolicy(f"protocol {protocol}, port {port}: an identification payload has one port or any")
    four = addresses.version == 4
    if isinstance(addresses, AddressRange):
        kind = IdType.IPV4_ADDR_RANGE if four else IdType.IPV6_ADDR_RANGE
        return Identification(kind, protocol, port, addresses.first.packed + addresses.last.packed)
    if addresses.prefixlen == addresses.max_prefixlen:
        kind = IdType.IPV4_ADDR if four else IdType.IPV6_ADDR
        return Identification(kind, protocol, port, addresses.network_address.packed)
    kind = IdType.IPV4_ADDR_SUBNET if four else IdType.IPV6_ADDR_SUBNET
    return Identification(kind, protocol, port, addresses.network_address.packed + addresses.netmask.packed)


def identifications_of(selector: Selector, *, initiator: bool) -> tuple[Identification, Identification]:
    """IDci and IDcr for a selector that this host sees as initiator or as responder (RFC 2409 §5.5).

    Raises:
        InvalidPolicy: as above.
    """
    local = identification_of(selector.local, selector.protocol, selector.local_port)
    remote = identification_of(selector.remote, selector.protocol, selector.remote_port)
    return (local, remote) if initiator else (remote, local)


_IPV4 = frozenset({IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET, IdType.IPV4_ADDR_RANGE})
_RANGES = frozenset({IdType.IPV4_ADDR_RANGE, IdType.IPV6_ADDR_RANGE})
_SINGLE = frozenset({IdType.IPV4_ADDR, IdType.IPV6_ADDR})


def _interval(identification: Identification) -> Interval | None:
    """First and last address, as integers; None where there are none, or the mask of a subnet has holes."""
    kind, value = identification.type, identification.value
    if kind in _SINGLE:
        only = int.from_bytes(value)
        return only, only
    half = len(value) // 2
    one, other = int.from_bytes(value[:half]), int.from_bytes(value[half:])
    if kind in _RANGES:
        return (one, other) if one <= other else None
    host = other ^ ((1 << 8 * half) - 1)
    return (one & other, one & other | host) if host & (host + 1) == 0 else None


def addresses_of(identification: Identification) -> Addresses | None:
    """What an identification names: a subnet, or a range that is none; None where it names nothing."""
    found = _interval(identification)
    if found is None:
        return None
    first, last = found
    four = identification.type in _IPV4
    size = last - first + 1
    if size & (size - 1) or first % size:
        address = IPv4Address if four else IPv6Address
        return AddressRange(address(first), address(last))
    length = (32 if four else 128) - (size.bit_length() - 1)
    return IPv4Network((first, length)) if four else IPv6Network((first, length))


def show(identification: Identification) -> str:
    """``10.1.0.0/24`` or ``10.1.0.0/24 protocol 6 port 443``, for logs."""
    addresses = addresses_of(identification)
    text = "no addresses" if addresses is None else str(addresses)
    text += f" protocol {identification.protocol}" if identification.protocol else ""
    return text + (f" port {identification.port}" if identification.port else "")


def names_selector(selector: Selector, initiator: Identification, responder: Identification) -> bool:
    """Whether IDci and IDcr of a peer's CREATE say exactly this selector, seen from the other end."""
    return (
        initiator.protocol == responder.protocol == selector.protocol
        and initiator.port == selector.remote_port
        and responder.port == selector.local_port
        and _names(selector.remote, initiator)
        and _names(selector.local, responder)
    )


def _names(addresses: Addresses, identification: Identification) -> bool:
    """Whether it is these addresses, however it says so."""
    four = identification.type in _IPV4
    return four == (addresses.version == 4) and address_interval(addresses) == _interval(identification)
