"""Peers and their policies."""

from __future__ import annotations

import pytest
from support.configuration import SMALL, SOURCE, edited, errors

from esp.headers import DEFAULT_RULES, DontFragment, Ecn, HeaderRules
from esp.sa import Aggregation, Confidentiality, Encapsulation, Mode, SecurityProtocol
from esp.suite import DEFAULT_SUITES, SUITES
from kinkvpn import config
from kinkvpn.proto.settings import Esn, Start

HOSTS = """\
[[peer.policy]]
mode = "transport"
local = ["192.0.2.1/32", "2001:db8::1/128"]
remote = ["192.0.2.2/32", "2001:db8::2/128"]
"""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", Esn.AUTO),
        ("extensions = false", Esn.NEVER),  # attribute 11 is none of RFC 4430
        ('extensions = false\nesn = "auto"', Esn.AUTO),
        ("replay_window = 0", Esn.NEVER),  # which a receiver SHOULD NOT negotiate without a window (RFC 4303 §3.3.3)
        ('replay_window = 0\nesn = "auto"', Esn.NEVER),
        ('esn = "never"', Esn.NEVER),
        ('esn = "always"', Esn.ALWAYS),
    ],
)
def test_extended_numbers_go_with_extensions_and_a_window(lines: str, expected: Esn) -> None:
    parsed = config.parse(edited("[[peer.policy]]", f"{lines}\n[[peer.policy]]"), SOURCE)
    assert {policy.esn for policy in parsed.policies} == {expected}


def test_extended_numbers_are_not_for_a_policy_without_a_window() -> None:
    text = edited("[[peer.policy]]", 'esn = "always"\n[[peer.policy]]\nreplay_window = 0')
    assert errors(text) == ['15: peer[1].policy[1].replay_window = 0: expected a replay_window beside esn = "always"']
    text = edited("[[peer.policy]]", 'replay_window = 0\nesn = "always"\n[[peer.policy]]')
    assert errors(text) == ['14: peer[1].esn = "always": expected a replay_window beside esn = "always"']


def test_the_shape_of_traffic_is_inherited_and_turned_off_by_zero() -> None:
    text = edited("[[peer.policy]]", "tfc_octets = 1300\niptfs_octets = 700\n[[peer.policy]]\ntfc_dummy_after = 0.5")
    text += "\n[[peer.policy]]\nlocal = '10.9.1.0/24'\nremote = '10.9.2.0/24'\ntfc_octets = 0"
    text += "\niptfs_rate = 20\niptfs_reorder = 9"
    first, *_, last = config.parse(text, SOURCE).peers[0].policies
    assert (first.confidentiality, first.aggregation) == (Confidentiality(1300, 0.5), None)
    assert (last.confidentiality, last.aggregation) == (None, Aggregation(700, 20, 9))


def test_header_rules_are_inherited_key_by_key() -> None:
    text = edited("[[peer.policy]]", 'dscp = { 46 = 34, other = 0 }\necn = "compatible"\n[[peer.policy]]\ndf = "copy"')
    text += "\n[[peer.policy]]\nlocal = '10.9.1.0/24'\nremote = '10.9.2.0/24'\ndscp = 'copy'\ndscp_inward = true"
    first, *_, last = config.parse(text, SOURCE).peers[0].policies
    mapped = bytes([*[0] * 46, 34, *[0] * 17])
    assert first.headers == HeaderRules(Ecn.COMPATIBLE, mapped, dscp_inward=False, df=DontFragment.COPY)
    assert last.headers == HeaderRules(Ecn.COMPATIBLE, dscp_inward=True)
    assert config.parse(SMALL, SOURCE).policies[0].headers == DEFAULT_RULES
    assert config.parse("[esp]\nhop_limit = 9\n" + SMALL, SOURCE).esp.hop_limit == 9


def test_transport_mode_is_between_hosts() -> None:
    peer = SMALL.partition("[[peer.policy]]")[0]
    found = config.parse(peer + HOSTS, SOURCE)
    assert {policy.mode for policy in found.policies} == {Mode.TRANSPORT}
    assert {policy.encapsulation for policy in found.policies} == {Encapsulation.UDP}
    (wrong,) = errors(peer + HOSTS.replace("192.0.2.2/32", "192.0.2.0/24"))
    assert wrong.endswith(
        'remote = "192.0.2.0/24": expected one address, for mode = "transport" is between two hosts'
    ), wrong
    wide = HOSTS.replace("2001:db8::1/128", "2001:db8::/64").replace("192.0.2.1/32", "192.0.2.0/24")
    assert len(errors(peer + wide)) == 2
    # A policy undoes what its peer says.
    inherited = peer + 'mode = "transport"\n' + HOSTS.replace('"transport"', '"tunnel"')
    assert {policy.mode for policy in config.parse(inherited, SOURCE).policies} == {Mode.TUNNEL}
    assert len(errors(peer + 'mode = "transport"\n' + SMALL[len(peer) :])) == 4


def test_ah_goes_raw_and_encrypts_nothing() -> None:
    peer, policy = SMALL.split("[[peer.policy]]")
    found = config.parse(f'{peer}ipsec = "ah"\n[[peer.policy]]{policy}', SOURCE)
    assert {(each.protocol, each.encapsulation) for each in found.policies} == {
        (SecurityProtocol.AH, Encapsulation.RAW)
    }
    assert [suite.name for suite in found.policies[0].suites] == ["null-sha256"]
    back = config.parse(f'{peer}ipsec = "ah"\n[[peer.policy]]\nipsec = "esp"{policy}', SOURCE)
    assert (back.policies[0].protocol, back.policies[0].suites) == (SecurityProtocol.ESP, DEFAULT_SUITES)
    for line, complaint in (
        ('suites = "aes256-gcm16"', 'expected one that encrypts nothing, such as null-sha256, for ipsec = "ah"'),
        ('encapsulation = "udp"', 'expected "raw", for ipsec = "ah" covers the addresses outside'),
        ("tfc_octets = 1000", 'tfc_octets = 1000: expected ipsec = "esp" beside tfc_octets'),
    ):
        (said, *_) = errors(f'{peer}ipsec = "ah"\n{line}\n[[peer.policy]]{policy}')
        assert complaint in said
    (said,) = errors(f'{peer}ipsec = "ah"\n[[peer.policy]]{policy}'.replace('address = "east.example.com"\n', ""))
    assert 'address is missing: expected one, for ipsec = "ah"' in said


def test_a_legacy_suite_needs_the_switch_and_a_policy_has_that_of_its_peer() -> None:
    suites = 'suites = ["3des-cbc-md5"]\n'
    peer = config.parse(edited("name =", f"legacy = true\n{suites}name ="), SOURCE).peers[0]
    assert {(policy.suites, policy.legacy) for policy in peer.policies} == {((SUITES["3des-cbc-md5"],), True)}
    below = SMALL.replace("[[peer.policy]]\n", "[[peer.policy]]\n" + suites)
    (problem,) = errors(below)
    assert "expected legacy = true beside 3des-cbc-md5, knowing that 3DES has blocks" in problem
    assert "MD5 is broken" in problem
    assert config.parse(below.replace(suites, suites + "legacy = true\n"), SOURCE).policies[0].legacy
    assert config.parse(below.replace("name =", "legacy = true\nname ="), SOURCE).policies[0].legacy
    undone = below.replace("name =", "legacy = true\nname =").replace(suites, "legacy = false\n")
    assert not config.parse(undone, SOURCE).policies[0].legacy
    inherited = undone.replace("name =", f"{suites}name =")
    (problem,) = errors(inherited)
    assert "legacy = false: expected legacy = true beside 3des-cbc-md5" in problem


def test_policies_are_bounded_before_they_are_made() -> None:
    nets = ", ".join(f'"10.{number >> 8}.{number & 255}.0/24"' for number in range(2000))
    text = SMALL.split("[[peer.policy]]")[0] + f"[[peer.policy]]\nlocal = [{nets}]\nremote = [{nets}]\n"
    (problem,) = errors(text)
    assert "too many policies: expected at most 4096" in problem


HEAD = SMALL.partition("[[peer]]")[0]


@pytest.mark.parametrize(
    ("lines", "name", "principal"),
    [
        ('address = "east.example.com"', "east", "kink/east.example.com@EXAMPLE.COM"),
        ('address = "East.Example.COM."', "east", "kink/east.example.com@EXAMPLE.COM"),
        ('address = "192.0.2.2"\nprincipal = "kink/south.x@R"', "south", "kink/south.x@R"),
        ('principal = "kink/south.x@R"', "south", "kink/south.x@R"),
        ('address = "east"\nname = "E"', "E", "kink/east@EXAMPLE.COM"),
    ],
)
def test_a_peer_is_called_as_its_host_is(lines: str, name: str, principal: str) -> None:
    text = f'{HEAD}[[peer]]\n{lines}\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'
    (peer,) = config.parse(text, SOURCE).peers
    assert (peer.name, peer.principal, peer.policies[0].name) == (name, principal, f"{name}/1")


def test_what_has_no_name_of_a_host_is_to_be_named() -> None:
    text = f'{HEAD}[[peer]]\naddress = "2001:db8::1"\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'
    assert [line.partition(": ")[2] for line in errors(text)] == [
        'peer[1].name is missing: expected a short name for this peer, such as name = "gw"',
        "peer[1].principal is missing: expected one such as kink/gw.example.com@EXAMPLE.COM",
    ]
    with_policy = text.replace("2001:db8::1", "east.example.com") + "[[peer.policy]]\n"
    assert "peer[1].local" in errors(with_policy)[0], "in one place or in the other"


def test_a_peer_with_one_policy_says_itself_what_it_is_about() -> None:
    text = (
        HEAD
        + """[[peer]]
address = "east.example.com"
local = "10.1.0.0/24"
remote = ["10.2.0.0/24", "10.3.0.0/24"]
protocol = "tcp"
remote_port = 443
lifetime = 60
start = "boot"
"""
    )
    (peer,) = config.parse(text, SOURCE).peers
    assert [policy.name for policy in peer.policies] == ["east/1", "east/2"]
    assert {(each.selector.remote_port, each.lifetime_seconds, each.start) for each in peer.policies} == {
        (443, 60, Start.BOOT)
    }
