"""Whose traffic is whose: selectors and the ordered policy list (RFC 4301 §4.4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from esp.errors import InvalidPolicy
from esp.inner import OPAQUE, PROTOCOLS_WITH_PORTS

if TYPE_CHECKING:
    from esp.inner import Flow

Network = IPv4Network | IPv6Network

ANY_PROTOCOL = 0
ANY_PORT = 0


class Action(Enum):
    """What happens to traffic that matches (RFC 4301 §4.4.1)."""

    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which inner packets: ``local`` and ``remote`` as this host sees them (RFC 4301 §4.4.1.1).

    Args:
        local, remote: subnets of one address family.
        protocol: IP protocol number, 0 for any.
        local_port, remote_port: 0 for any; other values only with a protocol that has ports.
    """

    local: Network
    remote: Network
    protocol: int = ANY_PROTOCOL
    local_port: int = ANY_PORT
    remote_port: int = ANY_PORT


@dataclass(frozen=True, slots=True)
class Policy:
    """One SPD entry. ``name`` is what SAs and events refer to it by.

    Args:
        peer: who is at the other end, by keying's name; policies of one peer share what is known of its silence.
        answer_within: seconds; if a packet has gone out to ``peer`` and nothing authentic has come back for so long,
            keying is told (:class:`esp.events.Unanswered`). None: not watched. The first policy of a peer decides.
    """

    name: str
    selector: Selector
    action: Action = Action.PROTECT
    peer: str = ""
    answer_within: float | None = None


class Match(Enum):
    """Whether a flow is of a selector's traffic."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # the addresses are, but the packet does not show the rest (RFC 4301 §4.4.1.1, OPAQUE)


class SelectorMatcher:
    """A selector made ready for flows: networks as integers."""

    __slots__ = ("_local", "_local_mask", "_octets", "_ports", "_protocol", "_remote", "_remote_mask")

    def __init__(self, selector: Selector) -> None:
        self._octets = selector.local.max_prefixlen // 8
        self._local, self._local_mask = int(selector.local.network_address), int(selector.local.netmask)
        self._remote, self._remote_mask = int(selector.remote.network_address), int(selector.remote.netmask)
        self._protocol = selector.protocol
        self._ports = selector.local_port, selector.remote_port

    def match_outbound(self, flow: Flow) -> Match:
        """For a packet that leaves: its source is local."""
        protocol, addresses, ports = flow
        octets = self._octets
        if len(addresses) != 2 * octets:
            return Match.NO
        return self._match(protocol, addresses[:octets], addresses[octets:], ports, ports >> 16, ports & 0xFFFF)

    def match_inbound(self, flow: Flow) -> Match:
        """For a packet that arrives: its destination is local."""
        protocol, addresses, ports = flow
        octets = self._octets
        if len(addresses) != 2 * octets:
            return Match.NO
        return self._match(protocol, addresses[octets:], addresses[:octets], ports, ports & 0xFFFF, ports >> 16)

    def _match(
        self, protocol: int, local: bytes, remote: bytes, ports: int, local_port: int, remote_port: int
    ) -> Match:
        if int.from_bytes(local) & self._local_mask != self._local:
            return Match.NO
        if int.from_bytes(remote) & self._remote_mask != self._remote:
            return Match.NO
        if self._protocol == ANY_PROTOCOL:
            return Match.YES
        if protocol != self._protocol:
            return Match.UNKNOWN if protocol == OPAQUE else Match.NO
        return self._match_ports(ports, local_port, remote_port)

    def _match_ports(self, ports: int, local_port: int, remote_port: int) -> Match:
        local, remote = self._ports
        if local == remote == ANY_PORT:
            return Match.YES
        if ports == OPAQUE:
            return Match.UNKNOWN
        if local not in (ANY_PORT, local_port) or remote not in (ANY_PORT, remote_port):
            return Match.NO
        return Match.YES


def covers(wide: Selector, narrow: Selector) -> bool:
    """Whether every flow of ``narrow`` is one of ``wide`` too."""
    return wide is narrow or (
        _contains(wide.local, narrow.local)
        and _contains(wide.remote, narrow.remote)
        and wide.protocol in (ANY_PROTOCOL, narrow.protocol)
        and wide.local_port in (ANY_PORT, narrow.local_port)
        and wide.remote_port in (ANY_PORT, narrow.remote_port)
    )


def _contains(wide: Network, narrow: Network) -> bool:
    if isinstance(wide, IPv4Network):
        return isinstance(narrow, IPv4Network) and narrow.subnet_of(wide)
    return isinstance(narrow, IPv6Network) and narrow.subnet_of(wide)


def check_selector(selector: Selector) -> None:
    """See that ``selector`` can match anything (RFC 4301 §4.4.1.1).

    Raises:
        InvalidPolicy: with the field and the value.
    """
    if selector.local.version != selector.remote.version:
        raise InvalidPolicy(f"{selector.local} and {selector.remote} are of two address families")
    if not 0 <= selector.protocol <= 255:
        raise InvalidPolicy(f"protocol {selector.protocol} is not within 0 to 255")
    for port in (selector.local_port, selector.remote_port):
        if not 0 <= port <= 0xFFFF:
            raise InvalidPolicy(f"port {port} is not within 0 to 65535")
        if port != ANY_PORT and selector.protocol not in PROTOCOLS_WITH_PORTS:
            raise InvalidPolicy(f"port {port} with protocol {selector.protocol}, which has no ports")


# Ours. One entry is about 250 octets: 4 MB at most. A host that scans fills it and pays for its own misses.
MAX_FLOWS = 16_384


class PolicyList:
    """The SPD: ordered, the first match decides, no match is a refusal (RFC 4301 §4.4.1).

    What decided for a flow is kept, so that the cost of a packet does not depend on how many policies there are.
    """

    __slots__ = ("_flows", "_matchers", "_policies")

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._matchers: list[tuple[SelectorMatcher, Policy]] = []
        self._flows: dict[Flow, Policy | None] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._policies

    def __getitem__(self, name: str) -> Policy:
        """The policy called ``name``.

        Raises:
            InvalidPolicy: there is none.
        """
        try:
            return self._policies[name]
        except KeyError:
            raise InvalidPolicy(f"no policy {name!r}") from None

    def add(self, policy: Policy) -> None:
        """Put ``policy`` behind those there are.

        Raises:
            InvalidPolicy: its name is taken, or its selector matches nothing.
        """
        if policy.name in self._policies:
            raise InvalidPolicy(f"there is a policy {policy.name!r} already")
        check_selector(policy.selector)
        self._policies[policy.name] = policy
        self._matchers.append((SelectorMatcher(policy.selector), policy))
        self._flows.clear()

    def remove(self, name: str) -> Policy:
        """Take out and return the policy called ``name``.

        Raises:
            InvalidPolicy: there is none.
        """
        policy = self[name]
        del self._policies[name]
        self._matchers = [entry for entry in self._matchers if entry[1] is not policy]
        self._flows.clear()
        return policy

    def any_of(self, peer: str) -> bool:
        """Whether some policy is of ``peer``."""
        return any(policy.peer == peer for policy in self._policies.values())

    def lookup(self, flow: Flow) -> Policy | None:
        """The policy that decides for a packet of ``flow`` that leaves; None where none is known to.

        An entry that may or may not be meant, because the packet is a fragment without ports, ends the search without
        a decision. RFC 4301 §5.1 would go on to the entries behind it, and one of those could be BYPASS.
        """
        try:
            return self._flows[flow]
        except KeyError:
            return self._search(flow)

    def _search(self, flow: Flow) -> Policy | None:
        found = None
        for matcher, policy in self._matchers:
            match = matcher.match_outbound(flow)
            if match is not Match.NO:
                found = policy if match is Match.YES else None
                break
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        self._flows[flow] = found
        return found
