"""What goes past the tunnel by a word of the configuration: policies, made of it and of where this host is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import product
from typing import TYPE_CHECKING

from pyroute2 import IPRoute, NetlinkError

from esp.policy import Action, Policy, Selector, covers
from kinkvpn.config.clear import Known
from kinkvpn.service.rules import ANY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esp.policy import Network
    from kinkvpn.config import Configuration

# IANA, protocol and port numbers.
TCP, UDP = 6, 17
PORTS = {
    Known.KDC: ((UDP, 88), (TCP, 88), (UDP, 464), (TCP, 464)),  # RFC 4120 §7.2, RFC 3244 §2
    Known.DNS: ((UDP, 53), (TCP, 53), (TCP, 853)),  # RFC 1035 §4.2, RFC 7858 §3.1
}
# Whatever it is attached to: what no router forwards (RFC 5771 §4, RFC 4291 §2.7), by which neighbours find each other.
NEIGHBOURHOOD = tuple(ip_network(each) for each in ("224.0.0.0/24", "255.255.255.255/32", "ff02::/16"))
RTN_UNICAST, RT_TABLE_MAIN = 1, 254  # linux/rtnetlink.h


def with_bypass(configuration: Configuration, attached: Iterable[Network]) -> Configuration:
    """``configuration``, with a [[policy]] for each thing that ``clear.bypass`` names.

    They stand ahead of the peers' policies. But one that would leave nothing of a peer's, such as the LAN of a host in
    it that has a tunnel of its own, stands behind them all: what somebody protects by name stays protected.

    Args:
        configuration: as it was read.
        attached: the subnets that "lan" stands for.
    """
    before: list[Policy] = []
    after: list[Policy] = []
    for name, selector in _selectors(configuration, attached):
        whole = any(covers(selector, policy.selector) for policy in configuration.policies)
        (after if whole else before).append(Policy(name, selector, Action.BYPASS))
    return replace(configuration, before=(*before, *configuration.before), after=(*configuration.after, *after))


def here(configuration: Configuration) -> Configuration:
    """As :func:`with_bypass`, where this host is now."""
    lan = Known.LAN in configuration.clear.bypass
    return with_bypass(configuration, attached_networks(configuration.tun.name) if lan else ())


def _selectors(configuration: Configuration, attached: Iterable[Network]) -> Iterator[tuple[str, Selector]]:
    for entry in configuration.clear.bypass:
        if entry is Known.LAN:
            for network in (*attached, *NEIGHBOURHOOD):
                yield f"lan/{network}", Selector(ANY[network.version], network)
        elif isinstance(entry, Known):
            for (protocol, port), anywhere in product(PORTS[entry], ANY.values()):
                name = f"{entry.value}/{protocol}/{port}/{anywhere.version}"
                yield name, Selector(anywhere, anywhere, protocol, remote_port=port)
        else:
            yield f"bypass/{entry}", Selector(ANY[entry.version], entry)


def attached_networks(device: str) -> tuple[Network, ...]:
    """The private subnets that this host is attached to, otherwise than by ``device``; asks the kernel.

    A network can call itself whatever it likes, and would have what is for public addresses leave past the tunnel if
    that were believed (TunnelCrack): addresses that nobody has on the Internet are all that a LAN can have.
    """
    found: dict[Network, None] = {}
    with IPRoute() as netlink:
        own = set(netlink.link_lookup(ifname=device)) | set(netlink.link_lookup(ifname="lo"))
        for version in ANY:
            found |= dict.fromkeys(_attached(netlink, version, own))
    return tuple(found)


def _attached(netlink: IPRoute, version: int, own: set[int]) -> Iterator[Network]:
    try:
        routes = list(netlink.get_routes(family={4: 2, 6: 10}[version], table=RT_TABLE_MAIN))
    except NetlinkError:
        return  # no such family here
    for route in routes:
        destination, indirect = route.get_attr("RTA_DST"), route.get_attr("RTA_GATEWAY") or route.get_attr("RTA_VIA")
        if destination is None or indirect or route["type"] != RTN_UNICAST or route.get_attr("RTA_OIF") in own:
            continue
        network = ip_network(f"{destination}/{route['dst_len']}")
        if (network.is_private or network.is_link_local) and not network.is_multicast:
            yield network
