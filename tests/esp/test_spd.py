"""The policy lists, against one that looks at every entry in turn."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory import kept
from support.selectors import flows, selectors
from support.slow_spd import slow_lookup, slow_match
from support.tunnel import SELECTOR4, flip

from esp.errors import InvalidPolicy
from esp.inner import OPAQUE, Flow
from esp.policy import BOTH, Action, Direction, Policy, PortRange, Selector, icmp_messages
from esp.spd import MAX_FLOWS, SelectorMatcher, Spd

if TYPE_CHECKING:
    from collections.abc import Callable


@st.composite
def policy_lists(draw: st.DrawFn) -> list[Policy]:
    found = []
    for number in range(draw(st.integers(0, 12))):
        action = draw(st.sampled_from(Action))
        sets = draw(st.lists(selectors(), min_size=1, max_size=1 if action is Action.PROTECT else 3))
        directions = BOTH if action is Action.PROTECT else draw(st.sampled_from([BOTH, *map(frozenset, ONE_EACH)]))
        rank = draw(st.integers(0, 2))
        found.append(Policy(str(number), sets[0], action, also=tuple(sets[1:]), directions=directions, rank=rank))
    return found


ONE_EACH = [[Direction.OUTBOUND], [Direction.INBOUND]]


def reverse(flow: Flow) -> Flow:
    protocol, both, ports = flow
    half = len(both) // 2
    turned = ports if ports == OPAQUE else (ports & 0xFFFF) << 16 | ports >> 16
    return protocol, both[half:] + both[:half], turned


@given(selectors(), flows())
def test_matching_is_the_slow_one_both_ways(selector: Selector, flow: Flow) -> None:
    expected = slow_match(selector, flow)
    assert SelectorMatcher(selector, Direction.OUTBOUND).match(flow) is expected
    assert SelectorMatcher(selector, Direction.INBOUND).match(reverse(flow)) is expected
    assert slow_match(selector, reverse(flow), Direction.INBOUND) is expected


@given(policy_lists(), st.lists(flows(), max_size=12), st.sampled_from(Direction), st.data())
def test_lookup_is_the_slow_list(
    policies: list[Policy], asked: list[Flow], direction: Direction, data: st.DataObject
) -> None:
    spd = Spd()
    for policy in policies:
        spd.add(policy)
    looked_up = spd.outbound if direction is Direction.OUTBOUND else spd.inbound
    for flow in [*asked, *asked]:  # the second time from what was kept
        if policies and data.draw(st.integers(0, 5)) == 0:
            spd.remove(policies.pop(data.draw(st.integers(0, len(policies) - 1))).name)
        assert looked_up.lookup(flow) is slow_lookup(sorted(policies, key=lambda each: each.rank), flow, direction)


def many(count: int, random: Random) -> list[Policy]:
    """Such as a gateway of many sites has them: subnets of all sizes, some told apart by ports only."""
    found = []
    for number in range(count):
        subnet = ip_network((random.getrandbits(20) << 12 | 10 << 24, random.choice([16, 24, 28, 32])), strict=False)
        protocol, port = random.choice([(0, 0), (6, random.choice([80, 443, PortRange(8000, 8010)]))])
        selector = Selector(ip_network("10.0.0.0/8"), subnet, protocol, 0, port)
        found.append(Policy(str(number), selector, random.choice(list(Action))))
    return found


def test_many_policies_decide_as_the_slow_list_has_it() -> None:
    random = Random(4301)
    policies = many(800, random)
    spd = Spd()
    for policy in policies:
        spd.add(policy)
    for policy in policies[::2]:
        spd.remove(policy.name)
    for policy in [one for one in policies[1::2] if random.random() < 0.2]:
        inside = policy.selector.remote.network_address  # all of them are subnets
        both = IPv4Address("10.9.9.9").packed + inside.packed
        for flow in ((6, both, 8005), (17, both, 53), (6, both, OPAQUE)):
            assert spd.outbound.lookup(flow) is slow_lookup(policies[1::2], flow)


def calls(act: Callable[[], object]) -> int:
    """Of Python functions and built-in ones, while ``act`` runs: what no machine's load changes."""
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    gc.disable()  # it calls back
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    return counted


@pytest.mark.parametrize("apart", ["remote", "local", "port"])
def test_a_new_flow_costs_the_same_with_few_and_with_many(apart: str) -> None:
    costs = []
    anywhere = ip_network("0.0.0.0/0")
    for count in (10, 1_000):
        spd = Spd()
        for number in range(count):
            one = ip_network((10 << 24 | number << 8, 24))
            selector = {
                "remote": Selector(anywhere, one),
                "local": Selector(one, anywhere),
                "port": Selector(anywhere, anywhere, 6, 0, 1000 + number),
            }[apart]
            spd.add(Policy(str(number), selector))
        number = count - 1
        flow = (6, ip_address((10 << 24) | number << 8 | 1).packed * 2, 1000 + number)
        costs.append(calls(lambda spd=spd, flow=flow: spd.outbound.lookup(flow)))
        assert spd.outbound.lookup(flow) is spd[str(number)]
    assert costs[0] == costs[1] < 100


def test_another_policy_costs_the_same_with_few_and_with_many_to_add_and_to_remove() -> None:
    spd = Spd()

    def add(start: int) -> None:
        for number in range(start, start + 100):
            spd.add(Policy(str(number), Selector(ip_network((number << 8, 24)), SELECTOR4.remote), peer="east"))

    def remove(start: int) -> None:
        for number in range(start, start + 100):
            spd.remove(str(number))
            spd.any_of("east")

    add(0)
    few = calls(lambda: add(100)), calls(lambda: remove(100))
    for start in range(100, 1_000, 100):
        add(start)
    assert (calls(lambda: add(1_000)), calls(lambda: remove(0))) == few


def test_a_fragment_that_may_be_protected_is_not_let_out() -> None:
    spd = Spd()
    spd.add(Policy("web", replace(SELECTOR4, protocol=6, remote_port=80)))
    spd.add(Policy("rest", SELECTOR4, Action.BYPASS))
    both = IPv4Address("10.1.0.1").packed + IPv4Address("10.2.0.1").packed
    assert spd.outbound.lookup((6, both, OPAQUE)) is None
    assert spd.outbound.lookup((6, both, 81)) is spd["rest"]
    assert spd.outbound.lookup((17, both, OPAQUE)) is spd["rest"]
    opaque = Policy("fragments", replace(SELECTOR4, protocol=6, local_port=OPAQUE, remote_port=OPAQUE))
    spd.add(opaque)
    assert spd.outbound.lookup((6, both, OPAQUE)) is opaque
    assert spd.outbound.lookup((6, both, 81)) is spd["rest"]


def test_icmp_is_told_apart_by_type_and_code_either_way() -> None:
    spd = Spd()
    spd.add(Policy("echo", replace(SELECTOR4, protocol=1, local_port=icmp_messages(8))))
    spd.add(Policy("no port", replace(SELECTOR4, protocol=1, local_port=icmp_messages(3, 3)), Action.DISCARD))
    out = IPv4Address("10.1.0.1").packed + IPv4Address("10.2.0.1").packed
    back = out[4:] + out[:4]
    for kind, code, name in ((8, 0, "echo"), (8, 7, "echo"), (3, 3, "no port"), (3, 4, None), (0, 0, None)):
        ports = (kind << 8 | code) * 0x1_0001
        expected = None if name is None else spd[name]
        assert spd.outbound.lookup((1, out, ports)) is expected
        assert spd.inbound.lookup((1, back, ports)) is expected


def test_directions_are_lists_of_their_own() -> None:
    spd = Spd()
    spd.add(Policy("out", SELECTOR4, Action.BYPASS, directions=frozenset({Direction.OUTBOUND})))
    spd.add(Policy("in", SELECTOR4, Action.DISCARD, directions=frozenset({Direction.INBOUND})))
    spd.add(Policy("both", SELECTOR4))
    flow = (17, IPv4Address("10.1.0.1").packed + IPv4Address("10.2.0.1").packed, 7)
    assert spd.outbound.lookup(flow) is spd["out"]
    assert spd.inbound.lookup(reverse(flow)) is spd["in"]
    spd.remove("in")
    spd.remove("out")
    assert spd.outbound.lookup(flow) is spd.inbound.lookup(reverse(flow)) is spd["both"]


def test_a_host_that_scans_fills_a_bounded_cache_and_changes_no_answer() -> None:
    spd = Spd()
    spd.add(Policy("four", SELECTOR4))
    inside = IPv4Address("10.1.0.1").packed + IPv4Address("10.2.0.1").packed
    outside = IPv4Address("10.1.0.1").packed + IPv4Address("10.3.0.1").packed

    def scan(ports: int) -> None:
        policy = spd.outbound.lookup((17, inside if ports % 2 else outside, ports))
        assert (policy is not None) == (ports % 2 == 1)

    full, later = kept(scan, MAX_FLOWS, 2 * MAX_FLOWS)
    assert later < 1.2 * full


def test_names_are_unique_and_what_is_refused_leaves_nothing() -> None:
    spd = Spd()
    spd.add(Policy("four", SELECTOR4, peer="east"))
    with pytest.raises(InvalidPolicy, match="a policy 'four' already"):
        spd.add(Policy("four", flip(SELECTOR4)))
    assert spd["four"] == Policy("four", SELECTOR4, peer="east")
    with pytest.raises(InvalidPolicy, match="protocol 256"):
        spd.add(Policy("bad", replace(SELECTOR4, protocol=256), peer="west"))
    assert "bad" not in spd
    assert (spd.any_of("east"), spd.any_of("west")) == (True, False)
    spd.remove("four")
    assert not spd.any_of("east")
    with pytest.raises(InvalidPolicy, match="no policy 'four'"):
        spd.remove("four")
    spd.add(Policy("four", SELECTOR4))


def test_what_is_replaced_decides_where_it_did_before() -> None:
    spd = Spd()
    wide = Selector(ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8"))
    for name, action in (("first", Action.PROTECT), ("second", Action.DISCARD)):
        spd.add(Policy(name, wide, action))
    flow = (17, ip_address("10.1.0.1").packed + ip_address("10.2.0.1").packed, 5 << 16 | 5)
    watched = Policy("first", wide, answer_within=3.0, large=True)
    assert spd.outbound.lookup(flow) == Policy("first", wide)
    spd.replace(watched)
    assert spd["first"] is spd.outbound.lookup(flow) is spd.inbound.lookup(flow) is watched
    with pytest.raises(InvalidPolicy, match="'second' is about something else"):
        spd.replace(Policy("second", wide))
    spd.remove("first")
    assert spd.outbound.lookup(flow) == Policy("second", wide, Action.DISCARD)
