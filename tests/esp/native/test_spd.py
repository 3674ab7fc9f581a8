"""Which policy decides, in C: as the portable list has it, and as the slow one has it."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from support.selectors import flows, selectors
from support.slow_spd import slow_lookup

from esp.inner import OPAQUE, Flow
from esp.native._core import Rules
from esp.policy import Direction, Policy, PortRange, Selector
from esp.spd import PolicyList, SelectorMatcher

if TYPE_CHECKING:
    from esp.native._core import Intervals


def rule(selector: Selector) -> tuple[int, Intervals, bool]:
    matcher = SelectorMatcher(selector, Direction.OUTBOUND)
    return selector.version, matcher.intervals, matcher.names_opaque


def decided(number: int | None) -> str | None:
    return None if number is None else str(number)


@given(st.lists(selectors(), max_size=12), st.lists(flows(), max_size=30))
def test_the_first_that_matches_decides(asked: list[Selector], seen: list[Flow]) -> None:
    policies = [Policy(str(number), selector) for number, selector in enumerate(asked)]
    portable = PolicyList(Direction.OUTBOUND)
    for policy in policies:
        portable.add(policy)
    native = Rules([rule(selector) for selector in asked])
    for flow in [*seen, *seen]:  # the second time from what was kept
        expected = slow_lookup(policies, flow)
        assert portable.lookup(flow) is expected
        name = None if expected is None else expected.name
        assert decided(native.search(flow)) == decided(native.lookup(flow)) == name


def test_what_was_decided_is_forgotten_when_the_policies_change() -> None:
    near, far = (
        Selector(ip_network("10.0.0.0/8"), ip_network("10.2.0.0/16")),
        Selector(ip_network("10.0.0.0/8"), ip_network("10.3.0.0/16")),
    )
    flow = 17, bytes([10, 1, 0, 1, 10, 2, 0, 1]), 0
    rules = Rules([rule(far), rule(near)])
    assert rules.lookup(flow) == 1
    rules.set([rule(near)])
    assert rules.lookup(flow) == 0
    rules.set([rule(far)])
    assert rules.lookup(flow) is None
    rules.set([])
    assert rules.lookup(flow) is None


def test_more_flows_than_there_is_room_for_are_decided_as_the_first() -> None:
    """Whatever takes another's place; and those that differ in one bit, or in nothing but protocol or version."""
    random = Random(4301)
    selectors_ = [
        Selector(ip_network("0.0.0.0/0"), ip_network("0.0.0.0/0"), 17, 0, PortRange(0, 32_767)),
        Selector(ip_network("0.0.0.0/1"), ip_network("0.0.0.0/0"), 17),
        Selector(ip_network("::/0"), ip_network("::/1"), 17),
        Selector(ip_network("0.0.0.0/0"), ip_network("0.0.0.0/0"), 6),
    ]
    rules = Rules([rule(selector) for selector in selectors_])
    seen: list[Flow] = []
    for _ in range(9_000):
        octets = random.choice([8, 8, 32])
        ports = random.choice([OPAQUE, random.getrandbits(32)])
        seen.append((random.choice([6, 17, 47, OPAQUE]), random.randbytes(octets), ports))
        protocol, addresses, ports = seen[-1]
        bit = 1 << random.randrange(8 * octets)
        seen.append((protocol, (int.from_bytes(addresses) ^ bit).to_bytes(octets), ports))
    seen += [(17, bytes(8), 0), (17, bytes(32), 0), (6, bytes(8), 0)]
    for flow in [*seen, *reversed(seen)]:
        assert rules.lookup(flow) == rules.search(flow)
