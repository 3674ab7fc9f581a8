"""Selectors as identification payloads IDci and IDcr, and back (RFC 4430 §5.3, RFC 2407 §4.6.2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from kinkvpn.wire.ipsec_doi import IdType
from kinkvpn.wire.isakmp import Identification

if TYPE_CHECKING:
    from esp.policy import Network, Selector


def identification_of(network: Network, protocol: int, port: int) -> Identification:
    """One side of a selector; a single address goes out as an address, anything wider as a subnet."""
    if network.prefixlen == network.max_prefixlen:
        kind = IdType.IPV4_ADDR if network.version == 4 else IdType.IPV6_ADDR
        return Identification(kind, protocol, port, network.network_address.packed)
    kind = IdType.IPV4_ADDR_SUBNET if network.version == 4 else IdType.IPV6_ADDR_SUBNET
    return Identification(kind, protocol, port, network.network_address.packed + network.netmask.packed)


def identifications_of(selector: Selector, *, initiator: bool) -> tuple[Identification, Identification]:
    """IDci and IDcr for a selector that this host sees as initiator or as responder (RFC 2409 §5.5)."""
    local = identification_of(selector.local, selector.protocol, selector.local_port)
    remote = identification_of(selector.remote, selector.protocol, selector.remote_port)
    return (local, remote) if initiator else (remote, local)


def network_of(identification: Identification) -> Network | None:
    """The subnet that an identification names, or None where it names none that a policy here could hold."""
    kind, value = identification.type, identification.value
    if kind in (IdType.IPV4_ADDR_RANGE, IdType.IPV6_ADDR_RANGE):
        return _range(value[: len(value) // 2], value[len(value) // 2 :])
    if kind in (IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET):
        return _subnet4(value[:4], value[4:] or b"\xff" * 4)
    return _subnet6(value[:16], value[16:] or b"\xff" * 16)


def _range(first: bytes, last: bytes) -> Network | None:
    """From ``first`` to ``last``, where that is a subnet."""
    size = int.from_bytes(last, "big") - int.from_bytes(first, "big") + 1
    if size < 1 or size & (size - 1) or int.from_bytes(first, "big") % size:
        return None
    length = 8 * len(first) - (size.bit_length() - 1)
    return IPv4Network((first, length)) if len(first) == 4 else IPv6Network((first, length))


def _subnet4(address: bytes, mask: bytes) -> IPv4Network | None:
    length = _prefix_length(mask)
    return None if length is None else IPv4Network((IPv4Address(address), length), strict=False)


def _subnet6(address: bytes, mask: bytes) -> IPv6Network | None:
    length = _prefix_length(mask)
    return None if length is None else IPv6Network((IPv6Address(address), length), strict=False)


def _prefix_length(mask: bytes) -> int | None:
    bits = int.from_bytes(mask, "big")
    host = bits ^ ((1 << 8 * len(mask)) - 1)
    return 8 * len(mask) - host.bit_length() if host & (host + 1) == 0 else None


def names_selector(selector: Selector, initiator: Identification, responder: Identification) -> bool:
    """Whether IDci and IDcr of a peer's CREATE say exactly this selector, seen from the other end."""
    return (
        initiator.protocol == responder.protocol == selector.protocol
        and initiator.port == selector.remote_port
        and responder.port == selector.local_port
        and _names(selector.remote, initiator)
        and _names(selector.local, responder)
    )


def _names(network: Network, identification: Identification) -> bool:
    """``network_of(identification) == network``, without making one: it is asked for each policy of a peer."""
    kinds = (IdType.IPV4_ADDR, IdType.IPV4_ADDR_SUBNET)
    if network.version == 6:
        kinds = (IdType.IPV6_ADDR, IdType.IPV6_ADDR_SUBNET)
    octets, value = network.max_prefixlen // 8, identification.value
    mask = int(network.netmask)
    return (
        identification.type in kinds
        and int.from_bytes(value[octets:] or b"\xff" * octets, "big") == mask
        and int.from_bytes(value[:octets], "big") & mask == int(network.network_address)
    )
