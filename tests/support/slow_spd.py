"""The SPD as RFC 4301 §4.4.1 tells of it, slowly: addresses are objects, and every entry is looked at in turn."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from esp.inner import OPAQUE
from esp.policy import AddressRange, Direction, PortRange
from esp.spd import Match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.inner import Flow
    from esp.policy import Addresses, Policy, Ports, Selector


def _has(addresses: Addresses, packed: bytes) -> bool:
    address = ip_address(packed)
    if isinstance(addresses, AddressRange):
        return addresses.version == address.version and int(addresses.first) <= int(address) <= int(addresses.last)
    return address in addresses


def _field(wanted: Ports, shown: int) -> Match:
    """One of protocol and ports; 0 is any (RFC 4301 §4.4.1.1: ANY encompasses OPAQUE)."""
    if wanted == 0 and not isinstance(wanted, PortRange):
        return Match.YES
    if shown == OPAQUE:
        return Match.YES if wanted == OPAQUE else Match.UNKNOWN
    if isinstance(wanted, PortRange):
        return Match.YES if wanted.first <= shown <= wanted.last else Match.NO
    return Match.YES if wanted == shown else Match.NO


def slow_match(selector: Selector, flow: Flow, direction: Direction = Direction.OUTBOUND) -> Match:
    """Whether ``flow`` is of the traffic of ``selector``."""
    protocol, addresses, ports = flow
    half = len(addresses) // 2
    source, destination = addresses[:half], addresses[half:]
    source_port, destination_port = (OPAQUE, OPAQUE) if ports == OPAQUE else (ports >> 16, ports & 0xFFFF)
    if direction is Direction.INBOUND:
        source, destination = destination, source
        source_port, destination_port = destination_port, source_port
    if not _has(selector.local, source) or not _has(selector.remote, destination):
        return Match.NO
    fields = (
        _field(selector.protocol, protocol),
        _field(selector.local_port, source_port),
        _field(selector.remote_port, destination_port),
    )
    if Match.NO in fields:
        return Match.NO
    return Match.UNKNOWN if Match.UNKNOWN in fields else Match.YES


def _names_opaque(selector: Selector) -> bool:
    return OPAQUE in (selector.protocol, selector.local_port, selector.remote_port)


def slow_lookup(policies: Sequence[Policy], flow: Flow, direction: Direction = Direction.OUTBOUND) -> Policy | None:
    """The policy that decides; behind one that may be meant only what asks for OPAQUE."""
    uncertain = False
    for policy in policies:
        if direction not in policy.directions:
            continue
        for selector in policy.selectors:
            match = slow_match(selector, flow, direction)
            if match is Match.UNKNOWN:
                uncertain = True
            if match is Match.YES and (not uncertain or _names_opaque(selector)):
                return policy
    return None
