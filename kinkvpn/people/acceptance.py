"""What of a gateway's lease a person takes: it says what it has, and not what is to become of their other traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from esp.policy import within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esp.policy import Network
    from kinkvpn.proto.lease import Address, Lease

# RFC 1918, RFC 6598, RFC 4193: those that lead nowhere else. What Python calls private is more.
PRIVATE: Final = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person has asked for.

    Args:
        all_traffic: everything is to go through the gateway.
        routes: public subnets that may, if the gateway has them; what is in them too.
        dns: its name servers are to be asked.
    """

    all_traffic: bool = False
    routes: tuple[Network, ...] = ()
    dns: bool = True


class Accepted(NamedTuple):
    """What becomes of a lease.

    Args:
        lease: as far as it is wanted.
        routes, servers: that are not.
    """

    lease: Lease
    routes: tuple[Network, ...]
    servers: tuple[Address, ...]


def accept(lease: Lease, wishes: Wishes) -> Accepted:
    """What of ``lease`` is wanted.

    Subnets of private use lead nowhere else, so a gateway may have them. Of the public Internet it gets what it was
    allowed by name, or all of it: else a gateway could have anybody's traffic for the asking. Routes of a family that
    it lends no address of are of no use. A name server that no route leads to would be asked in the clear.
    """
    families = {address.version for address in lease.addresses}
    usable = [route for route in lease.routes if route.version in families]
    taken = tuple(route for route in usable if _wanted(route, wishes))
    reached = tuple(server for server in lease.servers if wishes.dns and _led_to(server, taken))
    domains = lease.domains if reached else ()
    narrowed = replace(lease, routes=_without_inner(taken), servers=reached, domains=domains)
    others = tuple(server for server in lease.servers if wishes.dns and server not in reached)
    return Accepted(narrowed, tuple(route for route in usable if route not in taken), others)


def _wanted(route: Network, wishes: Wishes) -> bool:
    return wishes.all_traffic or any(within(route, allowed) for allowed in (*PRIVATE, *wishes.routes))


def _led_to(server: Address, routes: Iterable[Network]) -> bool:
    return any(server.version == route.version and server in route for route in routes)


def _without_inner(routes: tuple[Network, ...]) -> tuple[Network, ...]:
    """Those that no other one has in it: traffic that two policies want belongs to neither for certain."""
    return tuple(one for one in routes if not any(within(one, other) for other in routes if other != one))
