"""What [[policy]] and [[peer.policy]] say of packets; the rest of a policy, and lines of mistakes: kinkvpn/config."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from esp.policy import Action, AddressRange, PortRange, Selector, icmp_messages
from kinkvpn import config
from kinkvpn.document import DocumentError
from kinkvpn.traffic import MAXIMUM_SETS, show_selector

PEER = """\
[host]
principal = "kink/a@R"
keytab = "k"
[[peer]]
name = "b"
principal = "kink/b@R"
address = "192.0.2.2"
"""
PROTECTED = """\
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
"""
ANY4, ANY6 = ip_network("0.0.0.0/0"), ip_network("::/0")


def parse(text: str, protected: str = PROTECTED) -> config.Configuration:
    return config.parse(PEER + protected + text, Path("/x/k.toml"))


def refused(text: str, protected: str = PROTECTED) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text, protected)
    return [problem.text for problem in caught.value.problems]


def test_the_list_is_in_the_order_of_the_file_around_the_peers() -> None:
    found = parse("""
[[policy]]
action = "discard"
protocol = "tcp"
remote_port = [25, "465-587"]
[[policy]]
action = "bypass"
order = "after"
remote = "10.2.0.0/16"
[[policy]]
name = "web"
action = "bypass"
remote = ["10.2.0.80/32", "10.2.0.90-10.2.0.92"]
""")
    discard, web = found.before
    assert (discard.name, discard.action, web.name, web.action) == ("discard/1", Action.DISCARD, "web", Action.BYPASS)
    assert set(discard.selectors) == {
        Selector(each, each, 6, 0, ports) for each in (ANY4, ANY6) for ports in (PortRange(25, 25), PortRange(465, 587))
    }
    hosts = AddressRange(IPv4Address("10.2.0.90"), IPv4Address("10.2.0.92"))
    assert web.selectors == (Selector(ANY4, ip_network("10.2.0.80/32")), Selector(ANY4, hosts))
    (rest,) = found.after
    assert (rest.name, rest.selectors) == ("bypass/2", (Selector(ANY4, ip_network("10.2.0.0/16")),))
    assert [policy.name for policy in found.policies] == ["b/1"]


def test_icmp_is_discarded_by_type_and_code() -> None:
    text = '[[policy]]\naction = "discard"\nremote = "fd00:2::/64"\nprotocol = "icmpv6"\n'
    (found,) = parse(text + 'icmp_type = [137, "133-134"]').before
    both = ANY6, ip_network("fd00:2::/64"), 58
    assert found.selectors == (
        Selector(*both, icmp_messages(137)),
        Selector(*both, PortRange(133 << 8, 134 << 8 | 255)),
    )
    (found,) = parse(text + 'icmp_type = 1\nicmp_code = "3-4"').before
    assert found.selectors == (Selector(*both, PortRange(0x0103, 0x0104)),)


def test_a_peer_has_ranges_and_a_pair_for_each_port() -> None:
    protected = (
        PROTECTED.replace('"10.2.0.0/24"', '"10.2.0.5-10.2.0.9"') + 'protocol = "tcp"\nremote_port = [80, 443]\n'
    )
    found = parse("", protected).policies
    remote = AddressRange(IPv4Address("10.2.0.5"), IPv4Address("10.2.0.9"))
    assert [(policy.name, policy.selector) for policy in found] == [
        (f"b/{number}", Selector(ip_network("10.1.0.0/24"), remote, 6, 0, port)) for number, port in ((1, 80), (2, 443))
    ]
    (subnet,) = parse("", PROTECTED.replace('"10.2.0.0/24"', '"10.2.0.0-10.2.0.255"')).policies
    assert subnet.selector.remote == ip_network("10.2.0.0/24")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "policy[1].action is missing: expected"),
        ('action = "protect"', 'action = "protect": expected one of bypass, discard'),
        ('action = "bypass"\norder = "first"', 'order = "first": expected one of before, after'),
        ('action = "bypass"\nremote_port = 80', "remote_port = 80: expected a protocol that has ports beside it"),
        ('action = "bypass"\nprotocol = "udp"\nlocal_port = "9-8"', 'local_port = "9-8": expected an integer'),
        ('action = "bypass"\nprotocol = "udp"\nlocal_port = "1-65536"', 'local_port = "1-65536": expected an integer'),
        ('action = "bypass"\nlocal = "10.1.0.0/24"\nremote = "fd00::/64"', "expected an IPv4 subnet in remote too"),
        ('action = "bypass"\nremote = "10.0.0.9-10.0.0.8"', "expected a range of addresses of one family"),
        ('action = "bypass"\nremote = "10.0.0.9-fd00::1"', "expected a range of addresses of one family"),
        ('action = "bypass"\nremote = "10.0.0.1-10.0.0.2-10.0.0.3"', "expected a range of addresses, such as"),
        ('action = "bypass"\nprotocol = "icmp"\nicmp_type = 8', "icmp_type = 8: expected action"),
        ('action = "discard"\nprotocol = "tcp"\nicmp_type = 8', 'icmp_type = 8: expected protocol = "icmp"'),
        (
            'action = "discard"\nprotocol = "icmp"\nicmp_type = 256',
            "icmp_type = 256: expected an integer from 0",
        ),
        ('action = "discard"\nprotocol = "icmp"\nicmp_code = 1', "icmp_code = 1: expected icmp_type beside it"),
        ('action = "discard"\nname = "b/1"', 'name = "b/1": expected 1 to 63 letters'),
        ('action = "discard"\npeer = "b"', "policy[1].peer: unknown key"),
    ],
)
def test_a_mistake_is_named(text: str, expected: str) -> None:
    (problem, *more) = refused(f"[[policy]]\n{text}")
    assert expected in problem
    assert len(more) <= 1, "the other side of a mistaken pair of families, at most"


def test_names_are_one_space_with_those_of_the_peers() -> None:
    named = PROTECTED + 'name = "web"\n'
    (problem,) = refused('[[policy]]\naction = "bypass"\nname = "web"\nprotocol = "udp"', named)
    assert 'name = "web": expected one of its own' in problem


def test_a_policy_that_nothing_is_left_of_is_named() -> None:
    """Whoever wrote it thinks that it protects."""
    text = '[[policy]]\naction = "bypass"\nremote = "10.2.0.0/16"\n'
    (problem,) = refused(text)
    assert problem.startswith("policy[1]: leaves nothing of policy b/1 (10.1.0.0/24 -> 10.2.0.0/24): expected a part")
    assert parse(f'{text}order = "after"').after
    assert parse(text.replace("/16", "/25")).before
    assert parse(f'{text}protocol = "tcp"').before


def test_combinations_are_bounded() -> None:
    ports = ", ".join(str(port) for port in range(1, MAXIMUM_SETS // 2 + 1))
    text = f'[[policy]]\naction = "discard"\nprotocol = "tcp"\nremote_port = [{ports}]'
    assert len(parse(text).before[0].selectors) == MAXIMUM_SETS
    (problem,) = refused(text.replace("[1,", "[9999, 1,"))
    assert "at most 256 combinations" in problem


def test_what_kink_cannot_say_is_refused_for_a_peer() -> None:
    (problem,) = refused("", PROTECTED + 'protocol = "tcp"\nremote_port = "80-90"\n')
    assert 'remote_port = "80-90": expected a port, or a list of them: KINK has no word for a range' in problem
    (problem,) = refused("", PROTECTED + 'protocol = "icmp"\nicmp_type = 8\n')
    assert problem.startswith("peer[1].policy[1].icmp_type: KINK cannot say it")


@pytest.mark.parametrize(
    ("selector", "shown"),
    [
        (Selector(ANY4, ip_network("10.2.0.0/24")), "0.0.0.0/0 -> 10.2.0.0/24"),
        (Selector(ANY4, ANY4, 6, 0, 443), "0.0.0.0/0 -> 0.0.0.0/0 tcp any:443"),
        (Selector(ANY4, ANY4, 17, PortRange(5, 7), PortRange(9, 9)), "0.0.0.0/0 -> 0.0.0.0/0 udp 5-7:9"),
        (Selector(ANY4, ANY4, 1, icmp_messages(8)), "0.0.0.0/0 -> 0.0.0.0/0 icmp type 8"),
        (Selector(ANY6, ANY6, 58, PortRange(0x0103, 0x0104)), "::/0 -> ::/0 icmpv6 type 1 code 3-4"),
        (Selector(ANY4, ANY4, 89), "0.0.0.0/0 -> 0.0.0.0/0 89"),
    ],
)
def test_selectors_as_people_read_them(selector: Selector, shown: str) -> None:
    assert show_selector(selector) == shown
