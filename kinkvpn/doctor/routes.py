"""The host's routes, rules and switches: who else wants the packets that are meant for the tunnel."""

from __future__ import annotations

import shlex
import socket
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute, NetlinkError

from esp.policy import networks_of, within
from esp.sa import Mode
from kinkvpn.doctor.finding import Finding, error, note, ok, warning
from kinkvpn.doctor.host import sysctl
from kinkvpn.service.netconf import RT_TABLE_MAIN, RULE_OF_MAIN, RULE_PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esp.policy import Network
    from kinkvpn.config import Configuration
    from kinkvpn.doctor.examination import Patient

# specification
FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
RTN_UNICAST, RTPROT_KERNEL = 1, 2  # linux/rtnetlink.h
STRICT: Final = "1"  # net.ipv4.conf.*.rp_filter (RFC 3704 §2.2); 2 is loose
# Kinds of devices that are other tunnels, as rtnetlink names them; a TUN device says "tun".
TUNNELS: Final = frozenset({"tun", "wireguard", "xfrm", "vti", "vti6", "gre", "ipip", "sit", "ppp", "l2tp"})


@dataclass(frozen=True, slots=True)
class Device:
    """A network interface."""

    index: int
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table.

    Args:
        network: where to.
        device: by which.
        connected: the kernel has made it, for an address of this host's in that network.
    """

    network: Network
    device: Device
    connected: bool


class Table:
    """What the kernel has now, through netlink, in the network namespace of this thread."""

    def __init__(self, netlink: IPRoute) -> None:
        self._netlink = netlink
        self._devices = {found.index: found for found in map(_device, netlink.get_links())}

    def routes(self, version: int) -> Iterator[Route]:
        """Unicast ones of the main table."""
        for route in self._netlink.get_routes(family=FAMILIES[version], table=RT_TABLE_MAIN):
            device = self._devices.get(route.get_attr("RTA_OIF"))
            if route["type"] == RTN_UNICAST and device is not None:
                everything = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a destination, nothing is bound
                destination = route.get_attr("RTA_DST") or everything
                connected = route["proto"] == RTPROT_KERNEL
                yield Route(ip_network(f"{destination}/{route['dst_len']}"), device, connected)

    def way_to(self, address: str) -> Device | None:
        """The device that packets to ``address`` leave by; None where there is no way."""
        try:
            answers = list(self._netlink.route("get", dst=address.partition("%")[0]))
        except NetlinkError:
            return None
        return next((self._devices.get(answer.get_attr("RTA_OIF")) for answer in answers), None)

    def foreign_rules(self, version: int, first: int) -> Iterator[tuple[int, int]]:
        """Priority and table of rules that are asked before one of priority ``first``, and are not ours."""
        for rule in self._netlink.get_rules(family=FAMILIES[version]):
            priority, table = rule.get_attr("FRA_PRIORITY") or 0, rule.get_attr("FRA_TABLE") or rule["table"]
            if 0 < priority < first and rule.get_attr("FRA_PROTOCOL") != RULE_PROTOCOL:
                yield priority, table


def narrowed(address: str, mtu: int) -> str:
    """Has the kernel send no larger packets to ``address``, by the way that they take."""
    with IPRoute() as netlink:
        route = next(iter(netlink.route("get", dst=address.partition("%")[0])))
        device, via = Table(netlink).way_to(address), route.get_attr("RTA_GATEWAY")
    words = [
        "ip",
        "route",
        "replace",
        address,
        *(["via", via] if via else []),
        *(["dev", device.name] if device else []),
    ]
    return shlex.join([*words, "mtu", str(mtu)])


def _device(link: Any) -> Device:  # noqa: ANN401 - pyroute2 has no types
    about = link.get_attr("IFLA_LINKINFO")
    return Device(link["index"], link.get_attr("IFLA_IFNAME"), (about and about.get_attr("IFLA_INFO_KIND")) or "")


def competing(patient: Patient) -> Iterator[Finding]:
    """Routes elsewhere for what is behind the peers, the ways to the peers, and rules that are asked before ours."""
    configured = patient.configuration
    if configured is None:
        return
    with IPRoute() as netlink:
        table = Table(netlink)
        found = [
            *_stolen(patient, configured, table),
            *_outside(patient, configured, table),
            *_rules(configured, table),
        ]
    yield from found or [ok("routes", "no other route or rule claims what is behind the peers")]


def _stolen(patient: Patient, configured: Configuration, table: Table) -> Iterator[Finding]:
    """Subnets of the peers that the main table leads elsewhere."""
    routes = {version: list(table.routes(version)) for version in FAMILIES}
    for peer in patient.peers:
        for policy in peer.policies:
            for wanted in networks_of(policy.selector.remote) if policy.mode is Mode.TUNNEL else ():
                taking = [
                    route
                    for route in routes[wanted.version]
                    if route.device.name != configured.tun.name and inside(route.network, wanted)
                ]
                if wanted.prefixlen:
                    yield from (_taken(wanted, route, peer.name) for route in taking)
                elif taking:
                    yield _default(wanted, taking, peer.name)


def _default(wanted: Network, routes: list[Route], peer: str) -> Finding:
    line = f"everything ({wanted}) goes to {' and '.join(route.device.name for route in routes)} by the main table"
    return note("route-default", line, "our rules go before it, and lead all but our own ESP into the tunnel", "", peer)


def inside(network: Network, wanted: Network) -> bool:
    """Whether it is ``wanted`` or a part of it. Everything has parts that are elsewhere: who wants all knows that."""
    return network == wanted or (wanted.prefixlen > 0 and within(network, wanted))


def _taken(wanted: Network, route: Route, peer: str) -> Finding:
    delete = f"ip route del {route.network} dev {route.device.name}"
    if route.connected and route.network == wanted:
        line = f"{wanted} is to be behind the peer, and this host is in it, by {route.device.name}"
        why = "no packet can go there and stay here: the subnets behind the two ends have to be different ones"
        return error("subnet-ours", line, why, f"ip address show dev {route.device.name}", peer)
    if route.connected:
        line = f"{route.network}, a part of {wanted}, is where {route.device.name} is"
        why = "what is sent there stays here, and the rest goes into the tunnel"
        return note("subnet-part-ours", line, why, peer=peer)
    if route.network == wanted:
        line = f"{wanted} is routed to {route.device.name} already"
        return error("route-taken", line, "kinkvpn up adds its own route and is refused", delete, peer)
    line = f"{route.network}, a part of {wanted}, goes to {route.device.name}"
    why = "the more specific route wins: that part never gets into the tunnel, in the clear where it goes"
    return warning("route-elsewhere", line, why, delete, peer)


def _outside(patient: Patient, configured: Configuration, table: Table) -> Iterator[Finding]:
    """How the peers themselves are reached."""
    for peer in patient.peers:
        for address in _numeric(peer.address):
            device = table.way_to(address)
            if device is None:
                continue  # the look at the way there says so
            if device.name == configured.tun.name and not patient.daemon_runs:
                line = f"{address} is reached through {device.name} itself"
                why = "a device of that name is left from somebody"
                yield error("route-loop", line, why, f"ip link del {device.name}", peer.name)
            elif device.kind in TUNNELS and device.name != configured.tun.name:
                line = f"{address} is reached through {device.name}, which is another tunnel ({device.kind})"
                why = "a tunnel in a tunnel: it works while the other one does, and has less room for packets"
                yield warning("route-other-vpn", line, why, f"ip route get {address}", peer.name)


def _numeric(address: str) -> list[str]:
    """Where a peer is, by number or by name: none where nobody knows."""
    try:
        return [str(ip_address(address.partition("%")[0]))]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_DGRAM) if address else []
    except OSError:
        return []  # the look at names says so
    return list(dict.fromkeys(str(answer[4][0]) for answer in found))[:1]


def _rules(configured: Configuration, table: Table) -> Iterator[Finding]:
    for version in FAMILIES:
        for priority, number in table.foreign_rules(version, min(configured.tun.table, RULE_OF_MAIN)):
            line = f"IPv{version} routing rule {priority} (table {number}) is asked before ours"
            why = "what it takes never gets to the tunnel; [tun] table sets the number of our first rule"
            yield warning("rule-ahead", line, why, f"ip -{version} rule del priority {priority}")


def switches(patient: Patient) -> Iterator[Finding]:
    """Reverse path filtering and forwarding."""
    configured = patient.configuration
    if configured is None:
        return
    found = [*_reverse_path(configured), *_forwarding(patient, configured)]
    yield from found or [ok("switches", "forwarding and reverse path filtering are as the policies need them")]


def _reverse_path(configured: Configuration) -> Iterator[Finding]:
    """Only where nothing routes into the device does a strict filter drop what comes out of it."""
    name = configured.tun.name
    everywhere, fresh = sysctl("net/ipv4/conf/all/rp_filter"), sysctl("net/ipv4/conf/default/rp_filter")
    # The device's value counts where it is there, and `default` is what it will be made with; the larger of both holds.
    strict = max(everywhere, sysctl(f"net/ipv4/conf/{name}/rp_filter") or fresh) == STRICT
    if strict and not configured.tun.routes:
        line = f"strict reverse path filtering holds for {name}, and tun.routes is off"
        why = "what comes out of the tunnel is dropped unless your own routes lead its source there"
        mend = f"sysctl -w net.ipv4.conf.{name}.rp_filter=2" if sysctl(f"net/ipv4/conf/{name}/rp_filter") else ""
        yield warning("rp-filter", line, why, mend or "sysctl -w net.ipv4.conf.default.rp_filter=2")


def _forwarding(patient: Patient, configured: Configuration) -> Iterator[Finding]:
    """Where there is a subnet behind us, on another device than ours, its hosts' packets have to be forwarded."""
    names = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
    for version, behind in _subnets_behind(patient, configured).items():
        if behind and sysctl(names[version]) == "0":
            line = f"IPv{version} forwarding is off, and {behind[0]} is behind this host"
            why = "this host itself gets through the tunnel, the others there do not"
            yield warning("forwarding", line, why, f"sysctl -w {names[version].replace('/', '.')}=1")


def _subnets_behind(patient: Patient, configured: Configuration) -> dict[int, list[str]]:
    local = [
        network
        for peer in patient.peers
        for policy in peer.policies
        if policy.mode is Mode.TUNNEL
        for network in networks_of(policy.selector.local)
        if network.prefixlen
    ]
    with IPRoute() as netlink:
        table = Table(netlink)
        return {
            version: [
                f"{route.network} ({route.device.name})"
                for route in table.routes(version)
                if route.device.name not in (configured.tun.name, "lo")
                and any(each.version == version and inside(route.network, each) for each in local)
            ]
            for version in FAMILIES
        }
