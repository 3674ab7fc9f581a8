"""Addresses, routes and routing rules of the TUN device, through netlink, and their undoing.

Where disjoint subnets are to go into the tunnel and nothing else, routes in the main table do, and there are no rules.
Where some of that traffic has to go past the tunnel, the routes have a table of their own, and rules say who looks
there.

A TUN device goes with the last descriptor of it, and its addresses and routes go with the device: a crash leaves
nothing but rules, which then lead to the main table or to an empty one, as if they were not there. The next start
removes them. The undoing here is for the orderly end, and for a device that outlives this process.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trio
from pyroute2 import IPRoute, NetlinkError

from kinkvpn.errors import KinkvpnError
from kinkvpn.service.rules import ANY, RoutingRule, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from esp.policy import Network
    from kinkvpn.values import Interface

log = logging.getLogger(__name__)

IPV6_MINIMUM_MTU = 1280  # RFC 8200 §5
# linux/if_addr.h. Duplicate address detection asks the link's neighbours; behind a tunnel there are none to answer,
# and the address would be unusable for the second that it takes.
IFA_F_NODAD = 0x02
# linux/if_link.h: no link-local address, hence no router solicitations into the tunnel, which no policy matches.
IN6_ADDR_GEN_MODE_NONE = 1
RT_TABLE_MAIN = 254  # linux/rtnetlink.h
_ANY_PORT = "1:65534"  # that a rule can name (net/core/fib_rules.c, fib_rule_port_range_valid)
RULE_OF_MAIN = 32_766  # the priority of the rule that leads to the main table (ip-rule(8))

# Ours: KINK's port. The table of our routes, and the priority of the first of the rules that lead there or past it, all
# of them ahead of the main table (32,766) and behind the host's own addresses (0).
TABLE = 910
# Ours. Who has made a rule, as FRA_PROTOCOL; the kernel keeps it for us, iproute2 knows no name for this number.
RULE_PROTOCOL = 91


class NetworkRefused(KinkvpnError):
    """The kernel would not have an address, a route or a rule; the message says which and why."""


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What the host is to look like.

    Args:
        device: name of the TUN device, which exists.
        mtu: octets.
        addresses: of this host, inside.
        routes: subnets that lead into the device.
        outside: addresses that must not: the peers' outer ones, or ESP would chase its own tail.
        rules: in this order, who looks up the routes and who does not; whom none names does. Without any, the routes
            are in the main table.
        table: otherwise, the number of their table, and the priority of the first rule; the others follow one by one.
            The table behind it leads everything into the device, for those rules that have no other way.
        sources: of routes between two hosts, the address that this host's own packets leave from.
    """

    device: str
    mtu: int
    addresses: tuple[Interface, ...] = ()
    routes: tuple[Network, ...] = ()
    outside: tuple[str, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    table: int = TABLE
    sources: Mapping[Network, str] = field(default_factory=dict)


class NetworkConfiguration:
    """``async with NetworkConfiguration(plan):`` the plan holds inside, and is undone in reverse at the end.

    Entering raises NetworkRefused, with everything undone that was done until then. netlink is synchronous here, in
    a worker thread, and in the network namespace of this process.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self._plan = plan
        self._undo: list[Callable[[IPRoute], object]] = []  # of device and addresses
        self._routes: dict[tuple[Network, int], dict[str, Any]] = {}  # those of ours, by table too, in order
        self._rules: dict[tuple[int, int], dict[str, Any]] = {}  # likewise, by IP version and priority
        self._one_at_a_time = trio.Lock()

    async def __aenter__(self) -> Self:
        # Not abandoned on cancellation: half of a plan would be left. It takes milliseconds.
        await trio.to_thread.run_sync(self.configure)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._restore)

    async def limit_mtu(self, subnets: Sequence[Network], octets: int) -> None:
        """Have packets to ``subnets``, as far as the plan routes them, be no larger than ``octets``.

        The route tells the host's own TCP, and what it forwards is answered by ICMP, as RFC 1191 §4 has it.
        """
        async with self._one_at_a_time:
            routed = [each for each in subnets if each in self._plan.routes]
            try:
                await trio.to_thread.run_sync(self._limit_mtu, routed, octets)
            except (NetlinkError, OSError) as error:
                log.warning("mtu_not_limited", extra={"fields": {"mtu": octets, "reason": str(error)}})

    async def change(self, plan: NetworkPlan) -> None:
        """Have routes and rules be those of ``plan``, which has the same device, addresses and table. What both plans
        have goes the same way all along.

        Raises:
            NetworkRefused: the kernel would not have one; they are as they were.
        """
        async with self._one_at_a_time:
            await trio.to_thread.run_sync(self._change, plan)

    def _change(self, plan: NetworkPlan) -> None:
        before = self._plan
        with IPRoute() as netlink:
            try:
                self._move(netlink, plan)
            except NetworkRefused:
                with suppress(NetworkRefused):
                    self._move(netlink, before)
                raise

    def _limit_mtu(self, subnets: Sequence[Network], octets: int) -> None:
        with IPRoute() as netlink:
            for subnet in subnets:
                # IPv6 knows no narrower link (RFC 8200 §5); what is larger than the other end likes it fragments there.
                mtu = max(octets, IPV6_MINIMUM_MTU) if subnet.version == 6 else octets
                found = netlink.link_lookup(ifname=self._plan.device)
                try:
                    netlink.route("replace", **self._route(subnet, int(found[0])), metrics={"mtu": mtu})
                except (NetlinkError, IndexError) as error:
                    # The tunnel carries on, with more fragments: no reason to end it.
                    fields = {"subnet": str(subnet), "mtu": mtu, "reason": str(error)}
                    log.warning("mtu_not_limited", extra={"fields": fields})
                else:
                    log.info("mtu_limited", extra={"fields": {"subnet": str(subnet), "mtu": mtu}})

    def configure(self) -> None:
        """Make it hold, without Trio. Raises NetworkRefused, with everything undone that was done until then."""
        plan = self._plan
        with IPRoute() as netlink, ExitStack() as failed:
            failed.callback(self._undo_all, netlink)
            self._clear_rules(netlink, self._wanted_rules())
            index = self._bring_up(netlink)
            for address in plan.addresses:
                self._add_address(netlink, index, address)
            self._move(netlink, plan)
            failed.pop_all()

    def _move(self, netlink: IPRoute, plan: NetworkPlan) -> None:
        """From the routes and rules that are there to those of ``plan``."""
        self._plan = plan
        (index,) = netlink.link_lookup(ifname=plan.device) or (0,)
        rules = self._wanted_rules()
        routes = self._wanted_routes(index, rules)
        for key, arguments in routes.items():
            if self._routes.get(key) != arguments:
                self._put_route(netlink, key, arguments)
        # Before the rules: routes in a table of their own are none yet for our ESP, which the rules lead past them.
        for outer in () if self._rules else plan.outside:
            self._check_outside(netlink, index, outer)
        for version in (4, 6):
            self._change_rules(netlink, version, rules.get(version, []))
        for key in [key for key in self._routes if key not in routes]:
            self._drop_route(netlink, key)

    def _restore(self) -> None:
        with IPRoute() as netlink:
            self._undo_all(netlink)

    def _undo_all(self, netlink: IPRoute) -> None:
        for version in (4, 6):
            self._change_rules(netlink, version, [])
        for key in reversed(list(self._routes)):
            self._drop_route(netlink, key)
        while self._undo:
            # Somebody may have undone it before us, or removed the device.
            with suppress(NetlinkError):
                self._undo.pop()(netlink)

    def _bring_up(self, netlink: IPRoute) -> int:
        plan = self._plan
        found = netlink.link_lookup(ifname=plan.device)
        if not found:
            raise NetworkRefused(f"there is no device {plan.device}")
        index = int(found[0])
        quiet = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE]]}]]}
        with suppress(NetlinkError):  # a kernel without IPv6 has nothing to be kept quiet
            netlink.link("set", index=index, IFLA_AF_SPEC=quiet)
        with _explained(f"{plan.device} up with an MTU of {plan.mtu}"):
            netlink.link("set", index=index, mtu=plan.mtu)
            netlink.link("set", index=index, state="up")
        self._undo.append(lambda again: again.link("set", index=index, state="down"))
        return index

    def _add_address(self, netlink: IPRoute, index: int, address: Interface) -> None:
        prefix = address.network.prefixlen
        arguments: dict[str, Any] = {"index": index, "address": str(address.ip), "prefixlen": prefix}
        extra = {"flags": IFA_F_NODAD} if address.version == 6 else {}
        with _explained(f"address {address} on {self._plan.device}"):
            netlink.addr("add", **arguments, **extra)
        self._undo.append(lambda again: again.addr("delete", **arguments))

    def _wanted_routes(
        self, index: int, rules: Mapping[int, Sequence[dict[str, Any]]]
    ) -> dict[tuple[Network, int], dict[str, Any]]:
        """Shortest prefix first: nothing leads elsewhere for a moment that a longer one will claim."""
        subnets = sorted(set(self._plan.routes), key=lambda subnet: (subnet.prefixlen, str(subnet)))
        found = {(subnet, self._table): self._route(subnet, index) for subnet in subnets}
        forced = self._plan.table + 1
        for version, entries in rules.items():
            if any(entry.get("table") == forced for entry in entries):
                found[ANY[version], forced] = {"dst": str(ANY[version]), "oif": index, "table": forced}
        return found

    def _drop_route(self, netlink: IPRoute, key: tuple[Network, int]) -> None:
        with suppress(NetlinkError):  # somebody may have, or has removed the device
            netlink.route("delete", **self._routes.pop(key))

    def _put_route(self, netlink: IPRoute, key: tuple[Network, int], arguments: dict[str, Any]) -> None:
        subnet, _ = key
        try:
            netlink.route("replace" if key in self._routes else "add", **arguments)
        except NetlinkError as error:
            holder = _route_to(netlink, subnet, arguments["table"])
            if error.code == errno.EEXIST and holder == arguments["oif"]:
                return  # an address of ours brought it
            there = f": it goes to {_device_name(netlink, holder)} already" if holder else ""
            source = self._plan.sources.get(subnet)
            if source is not None and error.code == errno.EINVAL:
                there = ": it is no address of this host"
            way = f"into {self._plan.device}" + (f" from {source}" if source else "")
            raise NetworkRefused(f"route to {subnet} {way}: {os.strerror(error.code)}{there}") from error
        self._routes[key] = arguments

    @property
    def _table(self) -> int:
        return self._plan.table if self._plan.rules else RT_TABLE_MAIN

    def _route(self, subnet: Network, index: int) -> dict[str, Any]:
        source = self._plan.sources.get(subnet)
        preferred = {} if source is None else {"prefsrc": source}
        return {"dst": str(subnet), "oif": index, "table": self._table, **preferred}

    def _wanted_rules(self) -> dict[int, list[dict[str, Any]]]:
        """By IP version, as netlink has them; without a gap, so that they are found again after a crash."""
        plan = self._plan
        if not plan.rules:
            return {}
        forced = {rule.destination.version for rule in plan.rules if rule.way is Way.TUNNEL}
        if not _has_ipv6(plan.device):
            forced.discard(6)  # "any" is both families, and of this one there is nothing to keep out
        found: dict[int, list[dict[str, Any]]] = {}
        for version in sorted(forced | {subnet.version for subnet in plan.routes}):
            rules = [rule for rule in plan.rules if rule.destination.version == version]
            last = RoutingRule(ANY[version], ANY[version], way=Way.ROUTES)
            entries = found[version] = _entries([*rules, last], plan.table)
            if plan.table + len(entries) >= RULE_OF_MAIN:
                raise NetworkRefused(f"{len(entries)} routing rules from {plan.table} on reach that of the main table")
        return found

    def _clear_rules(self, netlink: IPRoute, ours: Mapping[int, Sequence[object]]) -> None:
        """Those of a predecessor that had no time to: the run of ours from the table's number on.

        Not of somebody who lives: what he protects would go out in the clear. His table has routes, a dead one's none.
        """
        first = self._plan.table
        own = netlink.link_lookup(ifname=self._plan.device)
        for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            with suppress(NetlinkError):  # there are no more, or no such family
                living = _living(netlink, family, own)
                _check_apart(range(first, first + len(ours.get(version, ()))), living)
                for priority in count(first):
                    if any(priority in each.priorities for each in living):
                        break
                    netlink.rule("delete", family=family, priority=priority, protocol=RULE_PROTOCOL)

    def _change_rules(self, netlink: IPRoute, version: int, entries: Sequence[dict[str, Any]]) -> None:
        """One after the other, for the kernel takes no two that are alike in what one of them says.

        The last one, into the tunnel, is the last to come and the first to be undone: what is to go past the tunnel
        never goes into it. Where a list takes the place of another, some begin with the one and end with the other in
        between: a longer one is made from its end, a shorter one from its beginning, so that none of these lacks what
        both have, and what is protected never goes past the tunnel.
        """
        first = self._plan.table
        own = {"protocol": RULE_PROTOCOL}
        wanted = {first + number: entry | own | {"priority": first + number} for number, entry in enumerate(entries)}
        there = {priority: made for (each, priority), made in self._rules.items() if each == version}
        ascends = not there or 0 < len(wanted) < len(there)
        for priority in sorted(wanted.keys() | there.keys(), reverse=not ascends):
            if wanted.get(priority) != there.get(priority):
                self._change_rule(netlink, (version, priority), wanted.get(priority))

    def _change_rule(self, netlink: IPRoute, key: tuple[int, int], wanted: dict[str, Any] | None) -> None:
        """The new one before the old one goes; but not if the kernel takes them for the same."""
        there = self._rules.pop(key, None)
        added = wanted is not None and there is not None and _added(netlink, wanted)
        if there is not None:
            with suppress(NetlinkError):  # somebody may have
                netlink.rule("delete", **there)
        if wanted is not None and not added:
            with _explained(f"routing rule {key[1]}"):
                netlink.rule("add", **wanted)
        if wanted is not None:
            self._rules[key] = wanted

    def _check_outside(self, netlink: IPRoute, index: int, outer: str) -> None:
        """Ask the kernel itself: metrics, rules and longer prefixes have their say in it."""
        try:
            answers = list(netlink.route("get", dst=outer.partition("%")[0]))
        except NetlinkError:
            return  # no way there at the moment: that is not a loop
        if any(answer.get_attr("RTA_OIF") == index for answer in answers):
            raise NetworkRefused(
                f"the peer at {outer} would be reached through {self._plan.device} itself: "
                "give it a route of its own, or a remote subnet without it"
            )


def _has_ipv6(device: str) -> bool:
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _Living:
    """Somebody else who has rules like ours, and routes in the ``table`` that they lead to."""

    table: int
    priorities: range
    device: str


def _living(netlink: IPRoute, family: int, own: Sequence[int]) -> list[_Living]:
    """Who they are. Routes of our ``own`` device are left from before, if it outlived us."""
    last: dict[int, int] = {}
    for rule in netlink.get_rules(family=family):
        table = rule.get_attr("FRA_TABLE")
        if rule.get_attr("FRA_PROTOCOL") == RULE_PROTOCOL and table not in (None, 0, RT_TABLE_MAIN):
            last[table] = max(rule.get_attr("FRA_PRIORITY"), last.get(table, 0))
    found = []
    for table, priority in sorted(last.items()):
        devices = {route.get_attr("RTA_OIF") for route in netlink.get_routes(family=family, table=table)}
        if others := devices - {None, *own}:
            found.append(_Living(table, range(table, priority + 1), _device_name(netlink, min(others))))
    return found


def _check_apart(wanted: range, living: Iterable[_Living]) -> None:
    for each in living:
        both = range(max(wanted.start, each.priorities.start), min(wanted.stop, each.priorities.stop))
        if both:
            raise NetworkRefused(
                f"routing rules from {wanted.start} on: priority {both.start} is taken, for {each.device} "
                f"with routes in table {each.table}: "
                "give one of the two another table, further away than there are rules"
            )


def _added(netlink: IPRoute, rule: dict[str, Any]) -> bool:
    try:
        netlink.rule("add", **rule)
    except NetlinkError:
        return False
    return True


def _entries(rules: Sequence[RoutingRule], first: int) -> list[dict[str, Any]]:
    """``rules`` as netlink has them, from priority ``first`` on. One for what is hidden follows two that lead past it.

    The kernel has no word for packets that show no ports. What this host sends shows them when its way is chosen; and
    what arrives for it in fragments is asked for by strict reverse path filtering as if it were sent, without ports.
    """
    entries: list[dict[str, Any]] = []
    for rule in rules:
        taken = _arguments(rule, first)
        if rule.hidden:
            past = {key: value for key, value in taken.items() if key != "table"}
            past |= {"action": "goto", "goto": first + len(entries) + 3}
            entries += [past | {"dport_range": _ANY_PORT}, past | {"iifname": "lo"}]
        entries.append(taken)
    return entries


def _arguments(rule: RoutingRule, table: int) -> dict[str, Any]:
    """``rule`` as netlink has it (linux/fib_rules.h)."""
    arguments: dict[str, Any] = {
        "family": socket.AF_INET if rule.destination.version == 4 else socket.AF_INET6,
        "table": {Way.PAST: RT_TABLE_MAIN, Way.ROUTES: table, Way.TUNNEL: table + 1}[rule.way],
    }
    for key, subnet in (("src", rule.source), ("dst", rule.destination)):
        if subnet.prefixlen:
            arguments |= {key: str(subnet.network_address), f"{key}_len": subnet.prefixlen}
    for key, ports in (("sport_range", rule.source_ports), ("dport_range", rule.destination_ports)):
        if ports is not None:
            arguments[key] = f"{ports[0]}:{ports[1]}"
    if rule.protocol:
        arguments["ip_proto"] = rule.protocol
    if rule.own:
        arguments["iifname"] = "lo"
    return arguments


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NetworkRefused(f"{what}: {os.strerror(error.code)}") from error


def _route_to(netlink: IPRoute, subnet: Network, table: int) -> int | None:
    """Index of the device that ``subnet``, exactly, is routed to in ``table``."""
    family = socket.AF_INET if subnet.version == 4 else socket.AF_INET6
    for route in netlink.get_routes(family=family, table=table):
        destination = route.get_attr("RTA_DST") or ("0.0.0.0" if subnet.version == 4 else "::")  # noqa: S104 # no bind
        if f"{destination}/{route['dst_len']}" == str(subnet):
            index = route.get_attr("RTA_OIF")
            return None if index is None else int(index)
    return None


def _device_name(netlink: IPRoute, index: int) -> str:
    try:
        return str(netlink.get_links(index)[0].get_attr("IFLA_IFNAME"))
    except (NetlinkError, IndexError):
        return f"device {index}"
