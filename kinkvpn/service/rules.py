"""Which packets the kernel's routing rules take past the tunnel, and whether it takes any rules at all."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from esp.policy import Network
    from esp.sa import Endpoint

# IANA, protocol numbers.
UDP, ESP = 17, 50

ANY = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """One entry of ``ip rule``: where packets of its traffic are looked up (ip-rule(8)).

    Args:
        source, destination: subnets of one address family; that of length 0 is any.
        protocol: IP protocol number, 0 for any.
        source_ports, destination_ports: first and last; None for any.
        own: packets alone that this host sends itself, not those that it forwards.
        into_tunnel: looked up in the table of routes into the tunnel; otherwise in the main one, past the tunnel.
    """

    source: Network
    destination: Network
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    own: bool = False
    into_tunnel: bool = False


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


def own_rules(sockets: Sequence[Endpoint]) -> tuple[RoutingRule, ...]:
    """What leaves our own sockets goes past the tunnel: ESP and KINK are bypassed, as RFC 4301 §4.4.1 wants of IKE.

    Told by the port that it leaves from, which nobody else has while we do, and not by a mark (SO_MARK): strict
    reverse path filtering asks the same rules about what arrives for that port, and it comes without a mark.

    Args:
        sockets: where they are bound; a port of 0 stands for raw ESP.
    """
    return tuple(map(_own_rule, sockets))


def _own_rule(bound: Endpoint) -> RoutingRule:
    address = ip_address(bound.address.partition("%")[0])
    source = ANY[address.version] if address.is_unspecified else ip_network(address)
    protocol, ports = (UDP, (bound.port, bound.port)) if bound.port else (ESP, None)
    return RoutingRule(source, ANY[address.version], protocol, ports, own=True)
