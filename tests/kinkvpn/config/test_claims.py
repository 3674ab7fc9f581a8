"""What one peer or policy alone may have."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

from hypothesis import given
from hypothesis import strategies as st
from support.configuration import SMALL, SOURCE, errors

from kinkvpn import config

SUBNETS = st.builds(
    lambda bits, length: ip_network((bits >> (8 - length) << (8 - length) << 24, length)),
    st.integers(0, 255),
    st.integers(0, 8),
)


def test_two_policies_may_share_a_subnet_when_ports_or_protocols_tell_them_apart() -> None:
    again = '[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'
    head = SMALL.split("[[peer.policy]]")[0]
    apart = head + again + 'protocol = "tcp"\nremote_port = 80\n' + again + 'protocol = "tcp"\nremote_port = 81\n'
    assert len(config.parse(apart + again + "protocol = 17\n", SOURCE).policies) == 3
    assert len(errors(apart + again + "protocol = 6\n")) == 2


PEOPLE = '[people]\naddresses = "10.8.0.0/24"\nroutes = "10.1.0.0/16"\n[[people.allow]]\nwho = "*@A.COM"\n'


def test_what_people_are_lent_is_no_peer_s() -> None:
    head = SMALL.split("[[peer.policy]]")[0]
    policy = '[[peer.policy]]\nlocal = "{}"\nremote = "10.0.0.0/8"\n'
    assert errors(head + policy.format("10.1.5.0/24") + PEOPLE) == [
        "13: peer[1].policy[1]: policy east/1 (10.1.5.0/24 -> 10.0.0.0/8) overlaps what people are lent "
        "(10.1.0.0/16 -> 10.8.0.0/24): expected traffic that one of them has"
    ]
    assert config.parse(head + policy.format("10.2.5.0/24") + PEOPLE, SOURCE).people.rules
    assert config.parse(SMALL + PEOPLE, SOURCE).people.rules


@given(
    st.lists(
        st.tuples(SUBNETS, SUBNETS, st.sampled_from(["", "protocol = 6", "protocol = 17"])), min_size=1, max_size=8
    )
)
def test_overlaps_are_found_exactly(policies: list[tuple[IPv4Network, IPv4Network, str]]) -> None:
    """Against the slow way: every pair, by definition."""
    head = SMALL.split("[[peer.policy]]")[0]
    text = head + "".join(f'[[peer.policy]]\nlocal = "{a}"\nremote = "{b}"\n{c}\n' for a, b, c in policies)
    pairs = {
        (f"east/{j + 1} ", f"east/{i + 1} ")
        for j, (a, b, c) in enumerate(policies)
        for i, (d, e, f) in enumerate(policies[:j])
        if a.overlaps(d) and b.overlaps(e) and (c == f or "" in (c, f))
    }
    found = errors(text) if pairs else []
    assert {
        (later, earlier)
        for later, earlier in pairs
        if any(f"policy {later}" in x and f"policy {earlier}" in x for x in found)
    } == pairs
    assert len(found) == len(pairs)
    if not pairs:
        config.parse(text, SOURCE)
