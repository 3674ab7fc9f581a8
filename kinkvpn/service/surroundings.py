"""What this host is in: the subnets of its interfaces, and which of them lead to the rest of the world."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from pyroute2 import IPRoute, NetlinkError

if TYPE_CHECKING:
    from esp.policy import Network


def subnets_inside() -> list[Network]:
    """Those that may well be behind this host: of interfaces that no default route leaves by.

    None where netlink says nothing.
    """
    found: dict[Network, None] = {}
    with suppress(NetlinkError, OSError), IPRoute() as netlink:
        routes = [*netlink.get_default_routes(family=2), *netlink.get_default_routes(family=10)]
        outward = {route.get_attr("RTA_OIF") for route in routes}
        for address in netlink.get_addr():
            interface = ip_interface(f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}")
            usable = not (interface.is_loopback or interface.is_link_local or interface.network.num_addresses == 1)
            if usable and address["index"] not in outward:
                found[interface.network] = None
    return list(found)
