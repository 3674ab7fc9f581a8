"""What of a gateway's lease a person takes: it says what it has, and not what is to become of their other traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from esp.policy import within

if TYPE_CHECKING:
    from esp.policy import Network
    from kinkvpn.proto.lease import Lease

# RFC 6598: carriers' own, which Python calls neither private nor global.
_SHARED = ip_network("100.64.0.0/10")


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


def accept(lease: Lease, wishes: Wishes) -> tuple[Lease, tuple[Network, ...]]:
    """``lease`` as far as it is wanted, and the routes that are not.

    Subnets of private use lead nowhere else, so a gateway may have them. Of the public Internet it gets what it was
    allowed by name, or all of it: else a gateway could have anybody's traffic for the asking. Routes of a family that
    it lends no address of are of no use.
    """
    families = {address.version for address in lease.addresses}
    usable = [route for route in lease.routes if route.version in families]
    taken = tuple(route for route in usable if _wanted(route, wishes))
    servers, domains = (lease.servers, lease.domains) if wishes.dns else ((), ())
    narrowed = replace(lease, routes=_without_inner(taken), servers=servers, domains=domains)
    return narrowed, tuple(route for route in usable if route not in taken)


def _wanted(route: Network, wishes: Wishes) -> bool:
    return wishes.all_traffic or _private(route) or any(within(route, allowed) for allowed in wishes.routes)


def _private(route: Network) -> bool:
    return bool(route.prefixlen) and (route.is_private or within(route, _SHARED))


def _without_inner(routes: tuple[Network, ...]) -> tuple[Network, ...]:
    """Those that no other one has in it: traffic that two policies want belongs to neither for certain."""
    return tuple(one for one in routes if not any(within(one, other) for other in routes if other != one))
