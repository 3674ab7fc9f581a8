"""Selectors and the policy list, against slow ones made of ipaddress objects."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory import kept
from support.tunnel import SELECTOR4, flip

from esp.errors import InvalidPolicy
from esp.inner import OPAQUE, PROTOCOLS_WITH_PORTS, Flow
from esp.policy import (
    MAX_FLOWS,
    Action,
    Match,
    Policy,
    PolicyList,
    Selector,
    SelectorMatcher,
    check_selector,
    covers,
)

# Few addresses, protocols and ports, so that selectors and flows meet often.
HOSTS4 = [f"10.{net}.{sub}.{host}" for net in (0, 1) for sub in (0, 128) for host in (1, 2)]
HOSTS6 = [f"2001:db8:{net}::{host}" for net in (0, 1) for host in (1, 2)]
PROTOCOLS = [1, 6, 17]
PORTS = [53, 80]


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    six = draw(st.integers(0, 3)) == 0
    hosts, lengths = (HOSTS6, [0, 47, 48, 128]) if six else (HOSTS4, [0, 8, 16, 17, 32])
    local, remote = (
        ip_network(f"{draw(st.sampled_from(hosts))}/{draw(st.sampled_from(lengths))}", strict=False) for _ in "lr"
    )
    protocol = draw(st.sampled_from([0, *PROTOCOLS]))
    port = st.sampled_from([0, *PORTS]) if protocol in PROTOCOLS_WITH_PORTS else st.just(0)
    return Selector(local, remote, protocol, draw(port), draw(port))


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    hosts = HOSTS6 if draw(st.integers(0, 3)) == 0 else HOSTS4
    host = st.sampled_from(hosts).map(lambda text: ip_address(text).packed)
    protocol = draw(st.sampled_from([*PROTOCOLS, OPAQUE]))
    shown = protocol in PROTOCOLS_WITH_PORTS and draw(st.booleans())
    port = st.sampled_from(PORTS)
    return protocol, draw(host) + draw(host), draw(port) << 16 | draw(port) if shown else OPAQUE


def slow_match(selector: Selector, flow: Flow) -> Match:
    """What RFC 4301 §4.4.1.1 says, for a packet that leaves."""
    protocol, addresses, ports = flow
    address = IPv4Address if len(addresses) == 8 else IPv6Address
    half = len(addresses) // 2
    source, destination = address(addresses[:half]), address(addresses[half:])
    if source not in selector.local or destination not in selector.remote:
        return Match.NO
    unknown = False
    if selector.protocol != 0:
        if protocol == OPAQUE:
            unknown = True
        elif protocol != selector.protocol:
            return Match.NO
    for wanted, shown in ((selector.local_port, ports >> 16), (selector.remote_port, ports & 0xFFFF)):
        if wanted != 0:
            if ports == OPAQUE:
                unknown = True
            elif wanted != shown:
                return Match.NO
    return Match.UNKNOWN if unknown else Match.YES


def reverse(flow: Flow) -> Flow:
    protocol, addresses, ports = flow
    half = len(addresses) // 2
    turned = ports if ports == OPAQUE else (ports & 0xFFFF) << 16 | ports >> 16
    return protocol, addresses[half:] + addresses[:half], turned


@given(selectors(), flows())
def test_matching_is_the_slow_one_both_ways(selector: Selector, flow: Flow) -> None:
    matcher, expected = SelectorMatcher(selector), slow_match(selector, flow)
    assert matcher.match_outbound(flow) is expected
    assert matcher.match_inbound(reverse(flow)) is expected
    assert SelectorMatcher(flip(selector)).match_inbound(flow) is expected


@given(st.lists(selectors(), max_size=12), st.lists(flows(), max_size=12), st.data())
def test_lookup_is_the_slow_list(chosen: list[Selector], asked: list[Flow], data: st.DataObject) -> None:
    policies = [Policy(str(number), selector) for number, selector in enumerate(chosen)]
    spd = PolicyList()
    for policy in policies:
        spd.add(policy)
    for flow in [*asked, *asked]:  # the second time from what was kept
        if policies and data.draw(st.integers(0, 5)) == 0:
            spd.remove(policies.pop(data.draw(st.integers(0, len(policies) - 1))).name)
        deciding = next((policy for policy in policies if slow_match(policy.selector, flow) is not Match.NO), None)
        if deciding is not None and slow_match(deciding.selector, flow) is Match.UNKNOWN:
            deciding = None
        assert spd.lookup(flow) is deciding


def test_a_fragment_that_may_be_protected_is_not_let_out() -> None:
    spd = PolicyList()
    spd.add(Policy("web", replace(SELECTOR4, protocol=6, remote_port=80)))
    spd.add(Policy("rest", SELECTOR4, Action.BYPASS))
    addresses = IPv4Address("10.1.0.1").packed + IPv4Address("10.2.0.1").packed
    assert spd.lookup((6, addresses, OPAQUE)) is None
    assert spd.lookup((6, addresses, 81)) == Policy("rest", SELECTOR4, Action.BYPASS)
    assert spd.lookup((17, addresses, OPAQUE)) == Policy("rest", SELECTOR4, Action.BYPASS)


def test_a_host_that_scans_fills_a_bounded_cache_and_changes_no_answer() -> None:
    spd = PolicyList()
    spd.add(Policy("four", SELECTOR4))
    inside = IPv4Address("10.1.0.1").packed + IPv4Address("10.2.0.1").packed
    outside = IPv4Address("10.1.0.1").packed + IPv4Address("10.3.0.1").packed

    def scan(ports: int) -> None:
        policy = spd.lookup((17, inside if ports % 2 else outside, ports))
        assert (policy is not None) == (ports % 2 == 1)

    full, later = kept(scan, MAX_FLOWS, 3 * MAX_FLOWS)
    assert later < 1.2 * full


@given(selectors(), selectors())
def test_what_covers_matches_whatever_the_other_does(wide: Selector, narrow: Selector) -> None:
    """Checked on the corners of the narrow one: networks, protocols and ports are all intervals."""
    if wide.local.version != narrow.local.version:
        assert not covers(wide, narrow)
        return
    corners = [
        (protocol, local.packed + remote.packed, local_port << 16 | remote_port)
        for local in (narrow.local[0], narrow.local[-1])
        for remote in (narrow.remote[0], narrow.remote[-1])
        for protocol in ([narrow.protocol] if narrow.protocol else [6, 99])
        for local_port in ([narrow.local_port] if narrow.local_port else [1, 2])
        for remote_port in ([narrow.remote_port] if narrow.remote_port else [1, 2])
    ]
    assert all(slow_match(narrow, corner) is Match.YES for corner in corners)
    assert covers(wide, narrow) == all(slow_match(wide, corner) is Match.YES for corner in corners)


ANY4, ANY6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (Selector(ANY4, ANY6), "two address families"),
        (Selector(ANY4, ANY4, 256), "protocol 256"),
        (Selector(ANY4, ANY4, -1), "protocol -1"),
        (Selector(ANY4, ANY4, 6, 65_536), "port 65536"),
        (Selector(ANY4, ANY4, 6, 0, -1), "port -1"),
        (Selector(ANY4, ANY4, 0, 80), "port 80 with protocol 0, which has no ports"),
        (Selector(ANY6, ANY6, 58, 0, 1), "port 1 with protocol 58, which has no ports"),
    ],
)
def test_selectors_that_match_nothing_are_refused(selector: Selector, message: str) -> None:
    with pytest.raises(InvalidPolicy, match=message):
        check_selector(selector)
    spd = PolicyList()
    with pytest.raises(InvalidPolicy, match=message):
        spd.add(Policy("bad", selector))
    assert "bad" not in spd


@given(selectors())
def test_selectors_that_match_something_are_taken(selector: Selector) -> None:
    check_selector(selector)


def test_names_are_unique() -> None:
    spd = PolicyList()
    spd.add(Policy("four", SELECTOR4))
    with pytest.raises(InvalidPolicy, match="a policy 'four' already"):
        spd.add(Policy("four", flip(SELECTOR4)))
    assert spd["four"] == Policy("four", SELECTOR4)
    spd.remove("four")
    with pytest.raises(InvalidPolicy, match="no policy 'four'"):
        spd.remove("four")
    spd.add(Policy("four", SELECTOR4))
