"""Who may come without a [[peer]] of their own, and what they are lent: [people] and [[people.allow]]."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import permutations
from typing import TYPE_CHECKING

from esp.policy import Selector
from esp.suite import DEFAULT_SUITES, Suite
from kinkvpn import values
from kinkvpn.admission import Rule
from kinkvpn.config.peer import MAXIMUM_SILENCE
from kinkvpn.document import Unexpected
from kinkvpn.proto.lease import MAX_DOMAINS, MAX_ROUTES, MAX_SERVERS, Lease
from kinkvpn.proto.retransmit import FULL_CYCLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esp.policy import Network
    from kinkvpn.document import Table
    from kinkvpn.proto.lease import Address

# ours
MAXIMUM_PEOPLE = 10_000  # each is a peer with its policies: 30 kB
MAXIMUM_MACHINES = 16  # of one of them
MAXIMUM_RULES = 256  # looked at one after the other for who comes
# MS-DTYP §2.4.2.1
_SID = re.compile(r"S-1-\d{1,15}(-\d{1,10}){1,15}")
# A principal as libkrb5 writes it, or one with * in it.
_PATTERN = re.compile(r"[^\s@]+@[^\s@]+")


@dataclass(frozen=True, slots=True)
class PeopleSettings:
    """[people].

    Args:
        pool: what addresses are lent from, in order; none where nobody may come.
        fixed: addresses that somebody always gets, by principal.
        rules: the first that matches counts.
        most: machines of people at once.
        machines: of one principal at once.
        suites: that their SAs may have, in order.
        probe_after, dead_after: as of a peer.
    """

    pool: tuple[Network, ...] = ()
    fixed: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    most: int = 1000
    # Ours. A laptop, a desktop, a telephone, and a few programs that have a network of their own.
    machines: int = 8
    suites: tuple[Suite, ...] = DEFAULT_SUITES
    probe_after: float | None = 10.0
    dead_after: float = FULL_CYCLE

    def lent(self) -> tuple[Selector, ...]:
        """Traffic of everybody who may come."""
        routes = dict.fromkeys(route for rule in self.rules for route in rule.lease.routes)
        return tuple(Selector(route, own) for own in self.pool for route in routes if route.version == own.version)


NOBODY = PeopleSettings()


def read_people(table: Table) -> PeopleSettings:
    """[people] and the tables in it; nobody where there is none."""
    groups = table.table("groups")
    sids = groups.entries(_sid)
    fixed = table.table("fixed")
    settings = PeopleSettings(
        pool=table.items("addresses", values.network),
        fixed=_fixed(fixed),
        rules=_rules(table, sids),
        most=table.get("most", values.integer(1, MAXIMUM_PEOPLE), NOBODY.most),
        machines=table.get("machines", values.integer(1, MAXIMUM_MACHINES), NOBODY.machines),
        suites=table.items("suites", _suite, DEFAULT_SUITES),
        probe_after=table.get("probe_after", values.seconds(0, MAXIMUM_SILENCE), NOBODY.probe_after) or None,
        dead_after=table.get("dead_after", values.seconds(1, MAXIMUM_SILENCE), NOBODY.dead_after),
    )
    if settings.rules and not settings.pool and table.sound:
        table.report('people.addresses is missing: expected a subnet to lend from, such as "10.8.0.0/24"')
    if settings.pool and not settings.rules and table.sound:
        table.report("people.allow is missing: expected at least one [[people.allow]]")
    for each in (groups, fixed, table):
        each.close()
    return settings


def _fixed(table: Table) -> Mapping[str, tuple[Address, ...]]:
    """[people.fixed]. An address that two have belongs to neither for certain."""
    found = table.entries(_addresses)
    holders: dict[Address, str] = {}
    for principal, addresses in found.items():
        if _PATTERN.fullmatch(principal) is None or "*" in principal:
            expected = "expected a principal with its realm, such as alice@EXAMPLE.COM"
            table.report(f"{table.name}: {principal}: {expected}", (principal,))
        for address in addresses:
            holder = holders.setdefault(address, principal)
            if holder != principal:
                table.report_value((principal,), str(address), f"one of its own; {holder} has this one")
    return found


def _rules(table: Table, sids: Mapping[str, str]) -> tuple[Rule, ...]:
    inherited = _lease(table, Lease(()))
    entries = table.tables("allow")
    if len(entries) > MAXIMUM_RULES:
        table.report(f"people.allow: {len(entries)} rules: expected at most {MAXIMUM_RULES}")
        return ()
    return tuple(_rule(entry, inherited, sids) for entry in entries)


def _rule(entry: Table, inherited: Lease, sids: Mapping[str, str]) -> Rule:
    rule = Rule(
        who=entry.items("who", _pattern),
        groups=frozenset(entry.items("groups", lambda value: _group(value, sids))),
        barred=entry.items("except", _pattern),
        lease=_lease(entry, inherited),
    )
    if entry.sound and not rule.who and not rule.groups:
        entry.report(f'{entry.name}.who is missing: expected whom it lets in, such as "*@EXAMPLE.COM", or groups')
    if entry.sound and not rule.lease.routes:
        entry.report(f"{entry.name}.routes is missing: expected the subnets that they reach, here or in [people]")
    entry.close()
    return rule


def _lease(table: Table, inherited: Lease) -> Lease:
    """What a table says of it, and what it inherits; addresses are found for each."""
    lease = Lease(
        (),
        table.items("routes", values.network, inherited.routes),
        table.items("dns", _server, inherited.servers),
        table.items("domains", values.domain, inherited.domains),
    )
    for key, found, most in (
        ("routes", lease.routes, MAX_ROUTES),
        ("dns", lease.servers, MAX_SERVERS),
        ("domains", lease.domains, MAX_DOMAINS),
    ):
        if key in table and table.sound and len(found) > most:
            table.report_value((key,), table.written(key), f"at most {most} of them")
    if "routes" in table and table.sound:
        _check_apart(table, lease.routes)
    return lease


def _check_apart(table: Table, routes: Sequence[Network]) -> None:
    """Each is a policy, and a person's program has none for what is in another: answers from there would be lost."""
    for one, other in permutations(routes, 2):
        if one.version == other.version and one.prefixlen >= other.prefixlen and one.network_address in other:
            table.report_value(("routes",), str(one), f"subnets of which none is in another, and {other} has this one")
            return


def _suite(value: object) -> Suite:
    """What their programs offer, which are configured nowhere."""
    offered = {suite.name: suite for suite in DEFAULT_SUITES}
    if not isinstance(value, str) or value not in offered:
        raise Unexpected(f"one that everybody offers: {', '.join(offered)}")
    return offered[value]


def _server(value: object) -> Address:
    return ip_address(values.ip_address(value))


def _pattern(value: object) -> str:
    if not isinstance(value, str) or _PATTERN.fullmatch(value) is None:
        raise Unexpected('a principal with its realm, such as "alice@EXAMPLE.COM" or "*@EXAMPLE.COM"')
    return value


def _sid(value: object) -> str:
    if not isinstance(value, str) or _SID.fullmatch(value) is None:
        raise Unexpected("a group's SID, such as S-1-5-21-1004336348-1177238915-682003330-1105")
    return value


def _group(value: object, sids: Mapping[str, str]) -> str:
    if isinstance(value, str) and value in sids:
        return sids[value]
    try:
        return _sid(value)
    except Unexpected as expected:
        raise Unexpected(f"a name in [people.groups], or {expected}") from None


def _addresses(value: object) -> tuple[Address, ...]:
    found = tuple(_server(one) for one in (value if isinstance(value, list) else [value]))
    if not found or len({address.version for address in found}) != len(found):
        raise Unexpected("an address, or one of each family")
    return found
