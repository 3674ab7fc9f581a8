"""When the main table does not do, and what then goes past the tunnel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.selectors import flows, selectors
from support.slow_spd import slow_lookup
from support.tunnel import SELECTOR4, SELECTOR6

from esp.inner import OPAQUE
from esp.policy import Action, AddressRange, Policy, PortRange, Selector, icmp_messages
from esp.sa import Endpoint
from esp.spd import point
from kinkvpn.service.rules import ANY, RoutingRule, Way, needs_rules, own_rules, policy_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.inner import Flow


@pytest.mark.parametrize(
    ("routes", "outside", "needed"),
    [
        (["10.2.0.0/24", "fd00:2::/64"], ["192.0.2.2", "2001:db8::2"], False),
        (["10.2.0.0/24"], ["10.2.0.2"], True),
        (["fd00:2::/64"], ["fd00:2::2%eth0"], True),
        (["10.2.0.0/24"], ["fd00:2::2"], False),
        (["128.0.0.0/1"], ["192.0.2.2"], True),
        (["0.0.0.0/0"], [], True),
        (["::/0"], [], True),
        ([], ["192.0.2.2"], False),
    ],
)
def test_rules_are_needed_where_esp_would_be_caught_or_a_place_is_taken(
    routes: list[str], outside: list[str], needed: bool
) -> None:
    assert needs_rules(map(ip_network, routes), outside) is needed


def test_our_own_are_told_by_the_port_that_they_leave_from() -> None:
    sockets = [Endpoint("0.0.0.0", 4500), Endpoint("::", 910), Endpoint("192.0.2.1", 0)]
    assert own_rules(sockets) == (
        RoutingRule(ANY[4], ip_network("127.0.0.1/32"), 17),
        RoutingRule(ANY[4], ANY[4], 17, (4500, 4500), own=True),
        RoutingRule(ANY[6], ANY[6], 17, (910, 910), own=True),
        RoutingRule(ip_network("192.0.2.1/32"), ANY[4], 50, own=True),
    )
    with_ah = [RoutingRule(ip_network("192.0.2.1/32"), ANY[4], protocol, own=True) for protocol in (50, 51, 255)]
    assert own_rules(sockets, ah=True) == (*own_rules(sockets[:2]), *with_ah)
    assert own_rules([*sockets, *sockets]) == own_rules(sockets), "one of each"


def way_of(flow: Flow, rules: Sequence[RoutingRule]) -> Way | None:
    """Of the first rule that matches, as the kernel has it."""
    source, destination, protocol, *ports = point(flow)
    for rule in rules:
        subnets = ((rule.source, source), (rule.destination, destination))
        spans = ((rule.source_ports, ports[0]), (rule.destination_ports, ports[1]))
        if (
            4 * len(flow[1]) == rule.destination.max_prefixlen
            and all(int(subnet[0]) <= address <= int(subnet[-1]) for subnet, address in subnets)
            and rule.protocol in (0, protocol)
            and all(span is None or span[0] <= port <= span[1] for span, port in spans)
            and not (rule.hidden and ports[1] > 0)
        ):
            return rule.way
    return None


def is_plain(selector: Selector) -> bool:
    """Whether the kernel can say it."""
    return OPAQUE not in (selector.protocol, selector.local_port, selector.remote_port) and selector.protocol != 1


POLICIES = st.lists(
    st.builds(Policy, st.just("a"), selectors().filter(is_plain), st.sampled_from(Action)), max_size=8
).map(lambda found: [replace(policy, name=str(number)) for number, policy in enumerate(found)])


@given(POLICIES, st.lists(flows(), min_size=1, max_size=8))
def test_packets_go_where_the_list_has_them(policies: list[Policy], asked: list[Flow]) -> None:
    rules = policy_rules(policies)
    for flow in asked:
        if flow[0] == OPAQUE or (flow[0] in (6, 17) and (flow[2] == OPAQUE or point(flow)[4] == 0)):
            continue  # fragments: see below; and to the kernel port 0 looks like one
        decided = slow_lookup(policies, flow)
        way = way_of(flow, rules)
        if decided is None or decided.action is Action.PROTECT:
            assert way is not Way.PAST
            assert decided is not None or way is None
        else:
            assert way is {Action.BYPASS: Way.PAST, Action.DISCARD: Way.TUNNEL}[decided.action]


@given(POLICIES, st.lists(flows(), min_size=1, max_size=8))
def test_nobody_gets_past_the_tunnel_by_cutting_packets(policies: list[Policy], asked: list[Flow]) -> None:
    """What shows no ports, or no protocol either, goes past it only where the list lets it pass like that."""
    rules = policy_rules(policies)
    for protocol, addresses, _ in asked:
        for cut, seen in ((protocol, protocol), (OPAQUE, 60)):
            if (cut in (6, 17) or (cut == OPAQUE and len(addresses) == 32)) and not uses_opaque(policies, protocol):
                decided = slow_lookup(policies, (cut, addresses, OPAQUE))
                passes = decided is not None and decided.action is Action.BYPASS
                assert (way_of((seen, addresses, OPAQUE), rules) is Way.PAST) == passes


def uses_opaque(policies: Sequence[Policy], protocol: int) -> bool:
    """Whether a selector of them names the number that the kernel has instead of a protocol, which is no such thing."""
    return protocol in (43, 44, 60) or any(each.selector.protocol in (43, 44, 60) for each in policies)


def test_what_protects_takes_a_rule_where_something_behind_it_bypasses_a_part() -> None:
    web = replace(SELECTOR4, protocol=6, remote_port=443)
    elsewhere = replace(SELECTOR4, remote=ip_network("10.3.0.0/16"))
    policies = [Policy("web", web), Policy("else", elsewhere), Policy("rest", SELECTOR4, Action.BYPASS)]
    assert policy_rules(policies[:2]) == ()
    assert policy_rules(policies) == (
        RoutingRule(SELECTOR4.local, SELECTOR4.remote, 6, None, (443, 443), way=Way.TUNNEL),
        RoutingRule(SELECTOR4.local, SELECTOR4.remote, 6, hidden=True, way=Way.TUNNEL),
        RoutingRule(SELECTOR4.local, SELECTOR4.remote),
    )


def test_an_ipv6_fragment_can_hide_its_protocol_too() -> None:
    """Behind options for its destination, which the kernel then takes for the protocol (RFC 7112 §1)."""
    tcp = replace(SELECTOR6, protocol=6)
    assert policy_rules([Policy("tcp", tcp, Action.DISCARD)]) == tuple(
        RoutingRule(SELECTOR6.local, SELECTOR6.remote, protocol, way=Way.TUNNEL) for protocol in (6, 43, 44, 60)
    )
    assert policy_rules([Policy("all", SELECTOR6, Action.DISCARD)]) == (
        RoutingRule(SELECTOR6.local, SELECTOR6.remote, way=Way.TUNNEL),
    )


def test_a_range_is_a_rule_for_each_subnet_of_it_and_ports_are_one() -> None:
    hosts = AddressRange(IPv4Address("10.2.0.1"), IPv4Address("10.2.0.3"))
    selector = replace(SELECTOR4, remote=hosts, protocol=17, local_port=PortRange(5, 7))
    subnets = [ip_network(subnet) for subnet in ("10.2.0.1/32", "10.2.0.2/31")]
    assert policy_rules([Policy("some", selector, Action.DISCARD)]) == (
        *(RoutingRule(SELECTOR4.local, subnet, 17, (5, 7), way=Way.TUNNEL) for subnet in subnets),
        *(RoutingRule(SELECTOR4.local, subnet, 17, hidden=True, way=Way.TUNNEL) for subnet in subnets),
    )


def test_types_of_icmp_are_told_apart_in_the_tunnel_alone() -> None:
    """What is bypassed behind them goes into the tunnel as a whole: it is dropped, and nothing passes that must not."""
    echo = Policy("echo", replace(SELECTOR4, protocol=1, local_port=icmp_messages(8)), Action.DISCARD)
    rest = Policy("rest", replace(SELECTOR4, protocol=1), Action.BYPASS)
    assert policy_rules([echo]) == ()
    assert policy_rules([echo, rest]) == (
        RoutingRule(SELECTOR4.local, SELECTOR4.remote, 1, way=Way.TUNNEL),
        RoutingRule(SELECTOR4.local, SELECTOR4.remote, 1),
    )
