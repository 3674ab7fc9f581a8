"""People of a gateway: whether what they are lent leads to them, whether there is room for more, and whether rules that
go by groups let anybody in.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute

from kinkvpn.admission import NO_GROUPS
from kinkvpn.doctor.finding import Finding, Setting, error, ok, warning
from kinkvpn.doctor.host import sysctl
from kinkvpn.doctor.routes import FAMILIES, Table, inside
from kinkvpn.errors import AuthenticationFailed
from kinkvpn.kerberos.credentials import some
from kinkvpn.service.pool import hosts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esp.policy import Network
    from kinkvpn.config import Configuration, PeopleSettings
    from kinkvpn.doctor.examination import Patient
    from kinkvpn.doctor.routes import Route
    from kinkvpn.proto.ports import AcceptedRequest

# Ours. Subnets to propose for a pool, in private ranges (RFC 1918 §3, RFC 4193 §3.1), as our documents have it.
PROPOSED: Final = {4: "10.8.{}.0/24", 6: "fd00:8:{:x}::/64"}
# Ours. Those who are named in a line for the configuration; of more, somebody writes a pattern.
MOST_NAMED: Final = 3
WITHOUT = (
    "an MIT KDC puts no groups into tickets; one of Active Directory does, unless an account says that it must not"
)


def let_in(patient: Patient) -> Iterator[Finding]:
    """The pool among the routes of this host; and, of a daemon that runs, who is here and who was refused."""
    configured = patient.configuration
    if configured is None or not configured.people.rules:
        return
    with IPRoute() as netlink:
        found = [*_pool(patient, configured, Table(netlink))]
    if patient.status is not None:
        found += [*_room(patient, configured, patient.status), *_refused(patient, configured, patient.status)]
    yield from found or [ok("people", "what people are lent leads to them, and there is room for more")]


# The pool, and this host's routes.


def _pool(patient: Patient, configured: Configuration, table: Table) -> Iterator[Finding]:
    """Addresses that a gateway lends, and that are somebody else's already."""
    for pool in configured.people.pool:
        for route in table.routes(pool.version):
            if route.device.name == configured.tun.name or not route.network.prefixlen:
                continue
            if route.connected and (inside(route.network, pool) or inside(pool, route.network)):
                yield from _neighbours(patient, configured, table, pool, route)
            elif inside(route.network, pool):
                line = f"{route.network}, in people.addresses {pool}, is routed to {route.device.name}"
                why = "whoever is lent an address there comes in, and what is sent to them goes elsewhere"
                mend = f"ip route del {route.network} dev {route.device.name}"
                yield error("people-pool-routed", line, why, mend)


def _neighbours(
    patient: Patient, configured: Configuration, table: Table, pool: Network, route: Route
) -> Iterator[Finding]:
    """The pool and a network that this host is in have addresses in common."""
    device, network = route.device.name, route.network
    line = f"people.addresses {pool} and the network of {device}, {network}, are not apart"
    if network.prefixlen >= pool.prefixlen:
        why = "what is sent to whoever is lent an address there goes out there instead"
        yield error("people-pool-lan", line, why).mended_by(_elsewhere(patient, configured, table, pool))
    elif pool.version == 6 or "1" not in (sysctl(f"net/ipv4/conf/{each}/proxy_arp") for each in ("all", device)):
        why = "hosts there look for people beside them, and nobody answers unless this host does in their place"
        proxy = f"sysctl -w net.ipv4.conf.{device}.proxy_arp=1" if pool.version == 4 else ""
        yield warning("people-pool-lan", line, why, proxy).mended_by(_elsewhere(patient, configured, table, pool))


def _elsewhere(patient: Patient, configured: Configuration, table: Table, pool: Network) -> Setting | None:
    """A pool that is in no network of this host's."""
    taken = [route.network for route in table.routes(pool.version) if route.network.prefixlen]
    proposed = map(ip_network, map(PROPOSED[pool.version].format, count()))
    free = next(each for each in proposed if not any(each.overlaps(other) for other in taken))
    pools = [str(free if each == pool else each) for each in configured.people.pool]
    return patient.setting("people", f"addresses = {json.dumps(pools)}")


# Those who are here.


def _guests(configured: Configuration, status: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Peers of the daemon that no configuration names."""
    named = {peer.name for peer in configured.peers}
    return [peer for peer in status["peers"] if peer["name"] not in named]


def _room(patient: Patient, configured: Configuration, status: Any) -> Iterator[Finding]:  # noqa: ANN401 - JSON
    guests, people, listed = _guests(configured, status), configured.people, patient.kinkvpn("peers")
    if len(guests) >= people.most:
        line = f"{len(guests)} machines of people are here, and there may be no more (people.most)"
        setting = patient.setting("people", f"most = {2 * people.most}")
        yield warning("people-most", line, "whoever comes next is refused", listed).mended_by(setting)
    lent = {ip_network(policy["remote"]) for guest in guests for policy in guest["policies"]}
    own = {ip_network(address.ip) for address in configured.tun.addresses}
    for version in FAMILIES:
        size, taken = _addresses(people, version, lent | own)
        if 0 < size <= taken:
            pools = ", ".join(str(pool) for pool in people.pool if pool.version == version)
            line = f"all addresses of people.addresses {pools} are lent or kept"
            why = "whoever comes next gets none; a further subnet can stand beside it, after a restart of the daemon"
            yield warning("people-pool-full", line, why, listed)


def _addresses(people: PeopleSettings, version: int, used: set[Network]) -> tuple[int, int]:
    """How many there are to lend, and how many of those are somebody's: lent, the gateway's own, or kept for one."""
    pools = [pool for pool in people.pool if pool.version == version]
    fixed = {ip_network(address) for addresses in people.fixed.values() for address in addresses}
    taken = {each for each in used | fixed if any(inside(each, pool) for pool in pools)}
    return sum(hosts(pool).length for pool in pools), len(taken)


# Groups.


def _refused(patient: Patient, configured: Configuration, status: Any) -> Iterator[Finding]:  # noqa: ANN401 - JSON
    """Who came without groups, where rules go by them, and has not been let in since."""
    here = {guest["principal"] for guest in _guests(configured, status)}
    events = [event for event in patient.events() if NO_GROUPS in str(event.get("reason", ""))]
    refused = sorted({str(event["peer"]) for event in events} - here)
    if refused:
        line = f"no rule lets {some({*refused})} in by groups: {NO_GROUPS} (last time {events[-1]['time']})"
        rule = patient.setting("people", f"who = {json.dumps(refused[:MOST_NAMED])}")
        found = warning("people-no-pac", line, WITHOUT)
        yield found.mended_by(replace(rule, section="[[people.allow]]", file=str(patient.file)) if rule else None)


def own_groups(accepted: AcceptedRequest, people: PeopleSettings, realm: str) -> Iterator[Finding]:
    """Whether a ticket for ourselves has groups in it, as others would; where rules go by them."""
    if not any(rule.groups for rule in people.rules):
        return
    try:
        told, reason = bool(accepted.groups()), "has no PAC"
    except AuthenticationFailed as error:
        told, reason = False, str(error)
    if not told:
        line = f"rules go by groups, and a ticket that the KDC of {realm} makes for us tells none: {reason}"
        yield warning("people-no-pac", line, WITHOUT)
