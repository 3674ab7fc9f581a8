"""Which packets the kernel's routing rules take past the tunnel or into it, and whether it takes any rules at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from itertools import compress
from typing import TYPE_CHECKING

from esp.policy import ANY_PORT, ANY_PROTOCOL, Action, PortRange, networks_of, overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from esp.policy import Network, Policy, Ports, Selector
    from esp.sa import Endpoint

# IANA, protocol numbers.
UDP, ESP, AH = 17, 50, 51
RAW = 255  # what the kernel looks up for whole packets (raw(7), IP_HDRINCL), until Linux 6.4 whatever is in them
TYPED = frozenset({1, 58})  # ICMP and ICMPv6, of whose types the kernel's rules know nothing
# Routing, fragment, destination options: what the kernel takes for the protocol of an IPv6 fragment that starts so.
EXTENSIONS = (43, 44, 60)

ANY = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class Way(Enum):
    """Where a packet goes."""

    PAST = "past"  # as the main table has it, past the tunnel
    TUNNEL = "tunnel"  # into the tunnel, wherever it is for
    ROUTES = "routes"  # into the tunnel where a route of ours leads there


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """One entry of ``ip rule`` (ip-rule(8)).

    Args:
        source, destination: subnets of one address family; that of length 0 is any.
        protocol: IP protocol number, 0 for any.
        source_ports, destination_ports: first and last; None for any.
        own: packets alone that this host sends itself, not those that it forwards.
        hidden: packets alone that this host forwards and that show no ports: fragments.
        way: where its packets go.
    """

    source: Network
    destination: Network
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    own: bool = False
    hidden: bool = False
    way: Way = Way.PAST


def needs_rules(routes: Iterable[Network], outside: Iterable[str]) -> bool:
    """Whether routes in the main table alone would not do.

    They would catch our own ESP where a peer's outer address is inside of what is protected (transport mode does that,
    and whoever protects everything), and a default route has its place taken there.

    Args:
        routes: subnets that lead into the tunnel.
        outside: the peers' outer addresses, as far as they are known.
    """
    addresses = [ip_address(outer.partition("%")[0]) for outer in outside]
    return any(
        subnet.prefixlen == 0 or any(address in subnet for address in addresses if address.version == subnet.version)
        for subnet in routes
    )


# Decides nothing: the table of the host's own addresses comes first. But rules for packets of this host alone do not
# make the kernel read the ports of what arrives, by which they are asked about it (fib_rule_requires_fldissect).
_READ_PORTS = RoutingRule(ANY[4], ip_network("127.0.0.1/32"), UDP)


def own_rules(sockets: Sequence[Endpoint], *, ah: bool = False) -> tuple[RoutingRule, ...]:
    """What leaves our own sockets goes past the tunnel: ESP and KINK are bypassed, as RFC 4301 §4.4.1 wants of IKE.

    Told by the port that it leaves from, which nobody else has while we do, and not by a mark (SO_MARK): strict
    reverse path filtering asks the same rules about what arrives for that port, and it comes without a mark.

    Args:
        sockets: where they are bound; a port of 0 stands for raw ESP.
        ah: and for AH, whose packets leave whole.
    """
    without_udp = (ESP, AH, RAW) if ah else (ESP,)
    own = (rule for bound in sockets for rule in _own_rules(bound, without_udp))
    return (_READ_PORTS, *dict.fromkeys(own))


def _own_rules(bound: Endpoint, without_udp: Sequence[int]) -> Iterator[RoutingRule]:
    address = ip_address(bound.address.partition("%")[0])
    source = ANY[address.version] if address.is_unspecified else ip_network(address)
    everywhere = ANY[address.version]
    if bound.port:
        yield RoutingRule(source, everywhere, UDP, (bound.port, bound.port), own=True)
        return
    for protocol in without_udp:
        yield RoutingRule(source, everywhere, protocol, own=True)


def policy_rules(policies: Sequence[Policy]) -> tuple[RoutingRule, ...]:
    """What is bypassed goes past the tunnel, what is discarded into it, where the engine counts it.

    What protects has routes. It takes a rule only where something behind it in the list would bypass a part of it.
    Types of ICMP are nothing that a rule knows, so that what is discarded by them is discarded where it comes into the
    tunnel by itself; and where something behind it bypasses more, that goes into the tunnel as a whole.

    Whoever cuts packets could have them pass by rules that name ports or protocols, and out by what is behind those:
    the kernel reads neither in a fragment. So where they may be of what a rule takes into the tunnel, they go there,
    and the engine drops what does not show what it is (RFC 4301 §7.4).

    Args:
        policies: all of them, in order.
    """
    rules: dict[RoutingRule, None] = {}
    ahead: list[Selector] = []
    for policy in policies:
        for selector in policy.selectors:
            if policy.action is Action.BYPASS:
                meets = [overlap(each, selector) for each in ahead]
                rules |= dict.fromkeys(rule for each in compress(ahead, meets) for rule in _forced(each))
                ahead = [each for each, caught in zip(ahead, meets, strict=True) if not caught]
                rules |= dict.fromkeys(_rules_of(selector, Way.PAST))
            elif policy.action is Action.DISCARD and not _is_typed(selector):
                rules |= dict.fromkeys(_forced(selector))
            else:
                ahead.append(selector)
    return tuple(rules)


def _is_typed(selector: Selector) -> bool:
    return selector.protocol in TYPED and selector.local_port != ANY_PORT


def _forced(selector: Selector) -> Iterator[RoutingRule]:
    """Into the tunnel, with what does not show whether it is of ``selector``."""
    yield from _rules_of(selector, Way.TUNNEL)
    whole = replace(selector, local_port=ANY_PORT, remote_port=ANY_PORT)
    if whole != selector and not _is_typed(selector):
        yield from (replace(rule, hidden=True) for rule in _rules_of(whole, Way.TUNNEL))
    if whole.version == 6 and whole.protocol != ANY_PROTOCOL:
        for extension in EXTENSIONS:
            yield from _rules_of(replace(whole, protocol=extension), Way.TUNNEL)


def _rules_of(selector: Selector, way: Way) -> Iterator[RoutingRule]:
    local, remote = selector.local_port, selector.remote_port
    ports = (None, None) if _is_typed(selector) else (_span(local), _span(remote))
    for source in networks_of(selector.local):
        for destination in networks_of(selector.remote):
            yield RoutingRule(source, destination, selector.protocol, *ports, way=way)


def _span(ports: Ports) -> tuple[int, int] | None:
    if isinstance(ports, PortRange):
        return ports.first, ports.last
    return (ports, ports) if ports else None
