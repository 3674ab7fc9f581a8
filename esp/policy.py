"""Whose traffic is whose: selectors, and what becomes of what they choose (RFC 4301 §4.4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range
from typing import NamedTuple

from esp.errors import InvalidPolicy
from esp.inner import OPAQUE, PROTOCOLS_WITH_PORTS, PROTOCOLS_WITH_TYPE

Network = IPv4Network | IPv6Network

ANY_PROTOCOL = 0
ANY_PORT = 0


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses from ``first`` to ``last``, both of them and of one family."""

    first: IPv4Address | IPv6Address
    last: IPv4Address | IPv6Address

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.first.version

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


Addresses = Network | AddressRange


class PortRange(NamedTuple):
    """Ports from ``first`` to ``last``, both of them; of ICMP, what :func:`icmp_messages` says."""

    first: int
    last: int


Ports = int | PortRange

# First and last of what may stand in one place of a flow; OPAQUE is less than everything that a packet shows.
Interval = tuple[int, int]


def icmp_messages(kind: int, code: int | None = None) -> PortRange:
    """Messages of one type, and of one code or any, as a selector's ``local_port`` (RFC 4301 §4.4.1.1)."""
    return PortRange(kind << 8, kind << 8 | 0xFF) if code is None else PortRange(kind << 8 | code, kind << 8 | code)


class Action(Enum):
    """What happens to traffic that matches (RFC 4301 §4.4.1)."""

    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


class Direction(Enum):
    """Which way packets go, as this host sees it."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


BOTH = frozenset(Direction)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which inner packets: ``local`` and ``remote`` as this host sees them (RFC 4301 §4.4.1.1).

    One selector set of an SPD entry. OPAQUE, where it is allowed, means packets that do not show what is asked for:
    fragments but the first, and IPv6 packets with more extension headers than are followed. "Any" has those too.

    Args:
        local, remote: subnets or ranges of one address family.
        protocol: IP protocol number, 0 for any, or OPAQUE.
        local_port, remote_port: 0 for any, a port, a range or OPAQUE; other values than 0 only with a protocol that has
            ports. With ICMP, ICMPv6 and the mobility header ``local_port`` is a range of 256 times type plus code.
    """

    local: Addresses
    remote: Addresses
    protocol: int = ANY_PROTOCOL
    local_port: Ports = ANY_PORT
    remote_port: Ports = ANY_PORT

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.local.version


@dataclass(frozen=True, slots=True)
class Policy:
    """One SPD entry. ``name`` is what SAs and events refer to it by.

    Args:
        also: further selector sets of the entry (RFC 4301 §4.4.1.2); not of one that protects, whose SAs have one.
        peer: who is at the other end, by keying's name; policies of one peer share what is known of its silence.
        answer_within: seconds; if a packet has gone out to ``peer`` and nothing authentic has come back for so long,
            keying is told (:class:`esp.events.Unanswered`). None: not watched. The first policy of a peer decides.
        large: tell keying when large packets go out (:class:`esp.events.LargeSent`).
        directions: whose list it is in; what protects is in both.
        rank: its place among others: lower ones decide before it, and of its own those that were there before it.
    """

    name: str
    selector: Selector
    action: Action = Action.PROTECT
    peer: str = ""
    answer_within: float | None = None
    also: tuple[Selector, ...] = ()
    directions: frozenset[Direction] = BOTH
    large: bool = False
    rank: int = 0

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """All of its selector sets."""
        return self.selector, *self.also


def by_ports(selector: Selector) -> bool:
    """Whether it asks for ports, or for type and code: what fragments but the first do not show (RFC 4301 §7.3)."""
    return any(ports not in (ANY_PORT, OPAQUE) for ports in (selector.local_port, selector.remote_port))


def address_interval(addresses: Addresses) -> Interval:
    """First and last address, as integers."""
    if isinstance(addresses, AddressRange):
        return int(addresses.first), int(addresses.last)
    return int(addresses.network_address), int(addresses.broadcast_address)


def is_host(addresses: Addresses) -> bool:
    """Whether it is one address."""
    first, last = address_interval(addresses)
    return first == last


def networks_of(addresses: Addresses) -> tuple[Network, ...]:
    """The fewest subnets that have these addresses and no others."""
    if not isinstance(addresses, AddressRange):
        return (addresses,)
    return tuple(summarize_address_range(addresses.first, addresses.last))


def _interval(value: Ports, most: int) -> Interval:
    if isinstance(value, PortRange):
        return value
    return (value, value) if value else (OPAQUE, most)


Box = tuple[Interval, Interval, Interval, Interval, Interval]


def box(selector: Selector) -> Box:
    """A selector as intervals: local and remote address, protocol, local and remote port."""
    return (
        address_interval(selector.local),
        address_interval(selector.remote),
        _interval(selector.protocol, 0xFF),
        _interval(selector.local_port, 0xFFFF),
        _interval(selector.remote_port, 0xFFFF),
    )


def within(network: Network, outer: Network) -> bool:
    """Whether every address of ``network`` is one of ``outer``."""
    if isinstance(network, IPv4Network):
        return isinstance(outer, IPv4Network) and network.subnet_of(outer)
    return isinstance(outer, IPv6Network) and network.subnet_of(outer)


def covers(wide: Selector, narrow: Selector) -> bool:
    """Whether every flow of ``narrow`` is one of ``wide`` too."""
    return wide is narrow or (
        wide.version == narrow.version
        and all(one[0] <= two[0] and two[1] <= one[1] for one, two in zip(box(wide), box(narrow), strict=True))
    )


def overlap(one: Selector, other: Selector) -> bool:
    """Whether some flow is of both."""
    return one.version == other.version and all(
        a[0] <= b[1] and b[0] <= a[1] for a, b in zip(box(one), box(other), strict=True)
    )


def check_policy(policy: Policy) -> None:
    """See that ``policy`` says something (RFC 4301 §4.4.1).

    Raises:
        InvalidPolicy: with the field and the value.
    """
    for selector in policy.selectors:
        check_selector(selector)
    if policy.action is Action.PROTECT and policy.also:
        raise InvalidPolicy(f"policy {policy.name!r} protects several selector sets, and an SA has one")
    if not policy.directions or (policy.action is Action.PROTECT and policy.directions != BOTH):
        raise InvalidPolicy(f"policy {policy.name!r} protects one direction, or none, and SAs come in pairs")


def check_selector(selector: Selector) -> None:
    """See that ``selector`` can match anything (RFC 4301 §4.4.1.1).

    Raises:
        InvalidPolicy: with the field and the value.
    """
    if selector.local.version != selector.remote.version:
        raise InvalidPolicy(f"{selector.local} and {selector.remote} are of two address families")
    for addresses in (selector.local, selector.remote):
        if isinstance(addresses, AddressRange) and not _ascends(addresses):
            raise InvalidPolicy(f"{addresses} is no range of one address family")
    if not OPAQUE <= selector.protocol <= 255:
        raise InvalidPolicy(f"protocol {selector.protocol} is not within 0 to 255")
    for ports in (selector.local_port, selector.remote_port):
        _check_ports(selector.protocol, ports)
    if selector.protocol in PROTOCOLS_WITH_TYPE and selector.remote_port != ANY_PORT:
        raise InvalidPolicy(f"type and code of protocol {selector.protocol} are its local port, not its remote one")


def _ascends(addresses: AddressRange) -> bool:
    return addresses.first.version == addresses.last.version and int(addresses.first) <= int(addresses.last)


def _check_ports(protocol: int, ports: Ports) -> None:
    first, last = ports if isinstance(ports, PortRange) else (ports, ports)
    if not (0 <= first <= last <= 0xFFFF or ports == OPAQUE):
        shown = f"{first}-{last}" if isinstance(ports, PortRange) else ports
        raise InvalidPolicy(f"port {shown} is not within 0 to 65535")
    if ports != ANY_PORT and protocol not in PROTOCOLS_WITH_PORTS | PROTOCOLS_WITH_TYPE:
        raise InvalidPolicy(f"port {first} with protocol {protocol}, which has no ports")
