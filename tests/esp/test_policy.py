"""Selectors and what makes a policy: which are good, what they contain, and where they meet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.selectors import HOSTS4, HOSTS6, flows, selectors
from support.slow_spd import slow_match
from support.tunnel import SELECTOR4

from esp.errors import InvalidPolicy
from esp.inner import OPAQUE
from esp.policy import (
    Action,
    AddressRange,
    Direction,
    Policy,
    PortRange,
    Selector,
    address_interval,
    box,
    check_policy,
    check_selector,
    covers,
    icmp_messages,
    is_host,
    networks_of,
    overlap,
    within,
)
from esp.spd import Match

if TYPE_CHECKING:
    from esp.inner import Flow

ANY4, ANY6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
A4, B4, A6 = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), IPv6Address("fd00::1")


@given(selectors(), selectors(), flows())
def test_what_covers_matches_whatever_the_other_does(one: Selector, other: Selector, flow: Flow) -> None:
    matches = slow_match(one, flow), slow_match(other, flow)
    assert not covers(one, other) or matches[1] is not Match.YES or matches[0] is Match.YES
    assert overlap(one, other) or matches != (Match.YES, Match.YES)


@given(selectors(), selectors())
def test_what_covers_and_what_overlaps_is_told_by_the_corners(wide: Selector, narrow: Selector) -> None:
    """Each field is an interval, so that one is within another if its ends are."""
    if wide.version != narrow.version:
        assert not covers(wide, narrow)
        assert not overlap(wide, narrow)
        return
    within = [all(one[0] <= end <= one[1] for end in two) for one, two in zip(box(wide), box(narrow), strict=True)]
    assert covers(wide, narrow) == all(within)
    shared = [range(max(a[0], b[0]), min(a[1], b[1]) + 1) for a, b in zip(box(wide), box(narrow), strict=True)]
    assert overlap(wide, narrow) == overlap(narrow, wide) == all(one.stop > one.start for one in shared)


@given(st.sampled_from([HOSTS4, HOSTS6]), st.data())
def test_a_range_is_the_subnets_that_it_is_made_of(hosts: list[str], data: st.DataObject) -> None:
    first, last = sorted(data.draw(st.tuples(*[st.sampled_from(hosts)] * 2)), key=lambda one: int(ip_network(one)[0]))
    addresses = AddressRange(ip_network(first)[0], ip_network(last)[0])
    subnets = networks_of(addresses)
    assert address_interval(addresses) == (address_interval(subnets[0])[0], address_interval(subnets[-1])[1])
    assert all(address_interval(one)[1] + 1 == address_interval(other)[0] for one, other in pairwise(subnets))
    assert networks_of(subnets[0]) == subnets[:1]
    assert is_host(addresses) == (first == last)
    assert str(addresses) == f"{addresses.first}-{addresses.last}"


def test_icmp_messages_are_type_and_code() -> None:
    """RFC 4301 §4.4.1.1: type in the eight bits that count most, code in the others."""
    assert icmp_messages(8) == (0x0800, 0x08FF)
    assert icmp_messages(3, 4) == (0x0304, 0x0304)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (Selector(ANY4, ANY6), "two address families"),
        (Selector(AddressRange(A4, B4), AddressRange(A6, A6)), "two address families"),
        (Selector(AddressRange(B4, A4), ANY4), "10.0.0.2-10.0.0.1 is no range"),
        (Selector(ANY4, AddressRange(A4, A6)), "10.0.0.1-fd00::1 is no range"),
        (Selector(ANY4, ANY4, 256), "protocol 256"),
        (Selector(ANY4, ANY4, -2), "protocol -2"),
        (Selector(ANY4, ANY4, 6, 65_536), "port 65536"),
        (Selector(ANY4, ANY4, 6, 0, -2), "port -2"),
        (Selector(ANY4, ANY4, 6, PortRange(81, 80)), "port 81-80"),
        (Selector(ANY4, ANY4, 6, 0, PortRange(80, 65_536)), "port 80-65536"),
        (Selector(ANY4, ANY4, 6, PortRange(OPAQUE, OPAQUE)), "port -1--1"),
        (Selector(ANY4, ANY4, 0, 80), "port 80 with protocol 0, which has no ports"),
        (Selector(ANY4, ANY4, OPAQUE, OPAQUE), "which has no ports"),
        (Selector(ANY6, ANY6, 47, 0, 1), "port 1 with protocol 47, which has no ports"),
        (Selector(ANY6, ANY6, 58, 0, 1), "type and code of protocol 58 are its local port"),
    ],
)
def test_selectors_that_match_nothing_are_refused(selector: Selector, message: str) -> None:
    with pytest.raises(InvalidPolicy, match=message):
        check_selector(selector)
    with pytest.raises(InvalidPolicy, match=message):
        check_policy(Policy("bad", SELECTOR4, Action.BYPASS, also=(selector,)))


@given(selectors())
def test_selectors_that_match_something_are_taken(selector: Selector) -> None:
    check_selector(selector)


def test_what_protects_has_one_selector_and_both_directions() -> None:
    check_policy(Policy("two", SELECTOR4, Action.DISCARD, also=(SELECTOR4,)))
    with pytest.raises(InvalidPolicy, match="several selector sets"):
        check_policy(Policy("two", SELECTOR4, also=(SELECTOR4,)))
    for directions in (frozenset[Direction](), frozenset({Direction.INBOUND})):
        with pytest.raises(InvalidPolicy, match="one direction, or none"):
            check_policy(Policy("half", SELECTOR4, directions=directions))


@pytest.mark.parametrize(
    ("network", "outer", "inside"),
    [
        ("10.1.0.0/16", "10.0.0.0/8", True),
        ("10.1.0.0/16", "10.1.0.0/16", True),
        ("10.0.0.0/8", "10.1.0.0/16", False),
        ("192.0.2.0/24", "10.0.0.0/8", False),
        ("fd00:1::/32", "fd00::/8", True),
        ("fd00::/8", "::/0", True),
        ("10.0.0.0/8", "::/0", False),
        ("fd00::/8", "0.0.0.0/0", False),
    ],
)
def test_a_subnet_within_another(network: str, outer: str, inside: bool) -> None:
    assert within(ip_network(network), ip_network(outer)) is inside
