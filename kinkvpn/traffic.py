"""Which packets a table of the configuration is about: selectors of [[peer.policy]] and [[policy]]."""

from __future__ import annotations

from enum import Enum
from ipaddress import ip_network
from itertools import islice, product
from typing import TYPE_CHECKING, TypeVar

from esp.policy import (
    ANY_PORT,
    ANY_PROTOCOL,
    Action,
    Addresses,
    Policy,
    PortRange,
    Ports,
    Selector,
    address_interval,
    is_host,
    overlap,
)
from kinkvpn import values
from kinkvpn.document import Unexpected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kinkvpn.document import Table

T = TypeVar("T")

# specification
PORT_PROTOCOLS = frozenset(values.PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "udplite"))
TYPE_PROTOCOLS = frozenset(values.PROTOCOLS[name] for name in ("icmp", "icmpv6"))

# ours
# Each is a pair of SAs. Lists of subnets multiply, so a short file could ask for millions.
MAXIMUM_POLICIES = 4096
# Selector sets of one [[policy]], which multiply likewise. A routing rule or more is made of each, and the kernel looks
# at its rules one by one.
MAXIMUM_SETS = 256

# Ranks of policies: a [[policy]] stands before the peers' (rank 0, as any) unless it says otherwise.
PROTECTING, AFTER = 1, 2

ANYWHERE: tuple[Addresses, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class Passing(Enum):
    """What a [[policy]] does; what protects is a peer's."""

    BYPASS = "bypass"
    DISCARD = "discard"


class Order(Enum):
    """Where a [[policy]] stands: with the others before the peers' policies, or behind them."""

    BEFORE = "before"
    AFTER = "after"


# What protects.


def read_selectors(entry: Table, room: int) -> list[Selector]:
    """The selectors of one [[peer.policy]]; none when something in it is wrong, so that nothing follows from that.

    A KINK identification says one subnet or range, one protocol and one port (RFC 2407 §4.6.2), so a list of them is a
    selector for each, and more than that is refused.
    """
    local = entry.require_items("local", values.addresses, "a subnet of this side, or several")
    remote = entry.require_items("remote", values.addresses, "a subnet of the peer's side, or several")
    protocol = entry.get("protocol", values.protocol, ANY_PROTOCOL)
    ports = [entry.items(key, _one_port) or (ANY_PORT,) for key in ("local_port", "remote_port")]
    for key in ("icmp_type", "icmp_code"):
        entry.refuse(key, "KINK cannot say it, so nothing is protected by it; a [[policy]] can discard")
    _check_ports(entry, protocol)
    if entry.sound:
        _check_families(entry, "local", local, remote)
        _check_families(entry, "remote", remote, local)
    selectors = [Selector(*one) for one in islice(_sets(local, remote, (protocol,), *ports), room + 1)]
    if entry.sound and len(selectors) > room:
        entry.report(f"{entry.name}: too many policies: expected at most {MAXIMUM_POLICIES} pairs of subnets in all")
    return selectors if entry.sound else []


def _one_port(value: object) -> int:
    if isinstance(value, str):
        raise Unexpected("a port, or a list of them: KINK has no word for a range")
    return values.port(value)


def _sets(
    local: Sequence[Addresses],
    remote: Sequence[Addresses],
    protocols: Sequence[int],
    local_ports: Sequence[Ports],
    remote_ports: Sequence[Ports],
) -> Iterator[tuple[Addresses, Addresses, int, Ports, Ports]]:
    combined = product(local, remote, protocols, local_ports, remote_ports)
    return (one for one in combined if one[0].version == one[1].version)


def _check_ports(entry: Table, protocol: int) -> None:
    for key in ("local_port", "remote_port"):
        if entry.sound and key in entry and protocol not in PORT_PROTOCOLS:
            expected = "a protocol that has ports beside it: tcp, udp, sctp, udplite"
            entry.report_value((key,), entry.written(key), expected)


def _check_families(entry: Table, key: str, subnets: Sequence[Addresses], others: Sequence[Addresses]) -> None:
    """A subnet with no partner of its family would silently mean nothing."""
    families = {other.version for other in others}
    for subnet in subnets:
        if families and subnet.version not in families:
            other = "remote" if key == "local" else "local"
            entry.report_value((key,), str(subnet), f"an IPv{subnet.version} subnet in {other} too")


def check_hosts(entry: Table, selectors: Sequence[Selector]) -> None:
    """Transport mode is between two hosts (RFC 4301 §4.1); between subnets a packet would lose its addresses."""
    for key, subnets in (
        ("local", {one.local: None for one in selectors}),
        ("remote", {one.remote: None for one in selectors}),
    ):
        for subnet in subnets:
            if not is_host(subnet):
                entry.report_value((key,), str(subnet), 'one address, for mode = "transport" is between two hosts')


def overlaps(items: Sequence[T], selector_of: Callable[[T], Selector]) -> Iterator[tuple[T, T]]:
    """Every pair that overlaps. In the order of their first remote address, only those not yet past one can meet it."""
    around: list[T] = []
    for item in sorted(items, key=lambda one: _sweep_key(selector_of(one))):
        selector = selector_of(item)
        version, first, _ = _sweep_key(selector)
        around = [other for other in around if _reaches(selector_of(other), version, first)]
        yield from ((other, item) for other in around if overlap(selector_of(other), selector))
        around.append(item)


def _sweep_key(selector: Selector) -> tuple[int, int, int]:
    first, last = address_interval(selector.remote)
    return selector.version, first, -last


def _reaches(selector: Selector, version: int, address: int) -> bool:
    return selector.version == version and address_interval(selector.remote)[1] >= address


# What does not.


def read_policy(entry: Table, number: int) -> tuple[Policy, Order] | None:
    """One [[policy]]; None when something in it is wrong.

    Args:
        entry: the table.
        number: of it among the others, from 1, for its name.
    """
    passing = entry.require("action", values.one_of(Passing), Passing.DISCARD, '"bypass" or "discard"')
    name = entry.get("name", values.label, "") or f"{passing.value}/{number}"
    order = entry.get("order", values.one_of(Order), Order.BEFORE)
    sets = _read_sets(entry, passing)
    entry.close()
    if not entry.sound:
        return None
    return Policy(name, sets[0], Action(passing.value), also=tuple(sets[1:])), order


def _read_sets(entry: Table, passing: Passing) -> list[Selector]:
    """Its selector sets; of addresses that are left open, those of the family that the others have."""
    local = entry.items("local", values.addresses)
    remote = entry.items("remote", values.addresses)
    protocol = entry.get("protocol", values.protocol, ANY_PROTOCOL)
    ports = [entry.items(key, values.ports) or (ANY_PORT,) for key in ("local_port", "remote_port")]
    messages = _messages(entry, protocol, passing)
    _check_ports(entry, protocol)
    if entry.sound and local and remote:
        _check_families(entry, "local", local, remote)
        _check_families(entry, "remote", remote, local)
    combined = _sets(local or ANYWHERE, remote or ANYWHERE, (protocol,), messages or ports[0], ports[1])
    sets = [Selector(*one) for one in islice(combined, MAXIMUM_SETS + 1)]
    if entry.sound and len(sets) > MAXIMUM_SETS:
        most = f"expected at most {MAXIMUM_SETS} combinations of its addresses and ports, or several [[policy]]"
        entry.report(f"{entry.name}: {most}")
    return sets


def _messages(entry: Table, protocol: int, passing: Passing) -> tuple[PortRange, ...]:
    """ICMP by type and code, as a selector has it (RFC 4301 §4.4.1.1); none for all of it."""
    kinds = entry.items("icmp_type", values.octets)
    codes = entry.get("icmp_code", values.octets, PortRange(0, 0xFF))
    if entry.sound and kinds and protocol not in TYPE_PROTOCOLS:
        entry.report_value(("icmp_type",), entry.written("icmp_type"), 'protocol = "icmp" or "icmpv6" beside it')
    if entry.sound and kinds and passing is Passing.BYPASS:
        expected = 'action = "discard": the kernel\'s rules, which lead past the tunnel, know nothing of types'
        entry.report_value(("icmp_type",), entry.written("icmp_type"), expected)
    if entry.sound and "icmp_code" in entry and not kinds:
        entry.report_value(("icmp_code",), entry.written("icmp_code"), "icmp_type beside it")
    return tuple(PortRange(kind.first << 8 | codes.first, kind.last << 8 | codes.last) for kind in kinds)


# Shown.


def show_selector(selector: Selector) -> str:
    """``10.1.0.0/24 -> 10.2.0.0/24 tcp any:443``, as status, logs and errors have it."""
    text = f"{selector.local} -> {selector.remote}"
    if selector.protocol == ANY_PROTOCOL:
        return text
    names = {number: name for name, number in values.PROTOCOLS.items()}
    text += f" {names.get(selector.protocol, selector.protocol)}"
    if selector.local_port == selector.remote_port == ANY_PORT:
        return text
    if selector.protocol in TYPE_PROTOCOLS and isinstance(selector.local_port, PortRange):
        return f"{text} {_show_messages(selector.local_port)}"
    return f"{text} {_show_ports(selector.local_port)}:{_show_ports(selector.remote_port)}"


def _show_ports(ports: Ports) -> str:
    if isinstance(ports, PortRange):
        return _span(*ports)
    return str(ports or "any")


def _show_messages(messages: PortRange) -> str:
    text = f"type {_span(messages.first >> 8, messages.last >> 8)}"
    codes = messages.first & 0xFF, messages.last & 0xFF
    return text if codes == (0, 0xFF) else f"{text} code {_span(*codes)}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
