"""Configuration: what a file means, and what every mistake in one says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.headers import DEFAULT_RULES, DontFragment, Ecn, HeaderRules
from esp.policy import Selector
from esp.sa import Aggregation, Confidentiality, Encapsulation, Endpoint, Mode, SecurityProtocol
from esp.suite import DEFAULT_SUITES, SUITES
from kinkvpn import config
from kinkvpn.document import MAXIMUM_FILE_OCTETS, DocumentError
from kinkvpn.proto.settings import Esn, PrfForm, Start, UserToUser
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.wire.ipsec_doi import Group

SOURCE = Path("/etc/kinkvpn/kinkvpn.toml")

SMALL = """\
[host]
principal = "kink/west.example.com@EXAMPLE.COM"
keytab = "/etc/krb5.keytab"

[tun]
addresses = ["10.1.0.1/24", "fd00:1::1/64"]

[[peer]]
name = "east"
principal = "kink/east.example.com@EXAMPLE.COM"
address = "east.example.com"

[[peer.policy]]
local = ["10.1.0.0/24", "fd00:1::/64"]
remote = ["10.2.0.0/24", "fd00:2::/64"]
"""

FULL = """\
[host]
principal = "kink/west.example.com@EXAMPLE.COM"
keytab = "west.keytab"
client_keytab = "/etc/client.keytab"
ccache = "MEMORY:x"
krb5_config = "krb5.conf"
kdc_timeout = 2
replay_cache = "/var/lib/rcache"
[kink]
listen = "192.0.2.1"
port = 1910
over = "910"
[esp]
port = 4501
engine = "portable"
cipher_library = "openssl"
queues = 4
[tun]
name = "tun7"
addresses = "10.1.0.1/24"
mtu = 9000
routes = false
[control]
socket = "west.sock"
[log]
level = "debug"
format = "json"
keys = "keys"
[[peer]]
name = "east"
principal = "kink/east.example.com@EXAMPLE.COM"
address = "2001:DB8::2"
port = 911
esp_port = 4502
prf = "rfc3962-literal"
kink_over = "auto"
user_to_user = "always"
extensions = false
suites = ["aes128-gcm16"]
encapsulation = "raw"
lifetime = 600
lifetime_kilobytes = 2048
lifetime_packets = 100000
start = "boot"
replay_window = 0
delete_grace = 1.5
sas_per_create = 4
probe_after = 0
dead_after = 2.5
pfs = ["x25519", "ecp384"]
pfs_required = true
responder_nonce = true
send_ids = false
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
[[peer.policy]]
name = "web"
pfs = "none"
pfs_required = false
local = "10.1.0.0/24"
remote = "10.3.0.0/24"
protocol = "tcp"
remote_port = 443
suites = ["aes256-cbc-sha1", "aes256-gcm16"]
lifetime = 60
lifetime_kilobytes = 4096
start = "demand"
replay_window = 64
esn = "always"
responder_nonce = false
[[peer.policy]]
name = "both"
together = true
local = "10.1.0.0/24"
remote = ["10.4.0.0/24", "10.5.0.0/24"]
"""


def errors(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        config.parse(text, SOURCE)
    return [line.removeprefix(f"{SOURCE}:") for line in str(caught.value).split("\n")]


def edited(old: str, new: str, text: str = SMALL) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


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


def test_a_gateway_in_fourteen_lines_has_the_right_defaults() -> None:
    found = config.parse(SMALL, SOURCE)
    assert found.host == config.HostSettings("kink/west.example.com@EXAMPLE.COM", keytab=Path("/etc/krb5.keytab"))
    assert (found.kink.listen, found.kink.port) == (("0.0.0.0", "::"), 910)
    assert (found.esp.port, found.esp.engine) == (4500, config.EngineSettings())
    assert (found.tun.name, found.tun.mtu, found.tun.routes) == ("kink0", None, True)
    assert found.tun.addresses == (ip_interface("10.1.0.1/24"), ip_interface("fd00:1::1/64"))
    assert found.control.socket == Path("/run/kinkvpn/kinkvpn.sock")
    (peer,) = found.peers
    assert (peer.address, peer.port, peer.esp_port) == ("east.example.com", 910, 4500)
    assert [(policy.name, policy.selector) for policy in found.policies] == [
        ("east/1", Selector(IPv4Network("10.1.0.0/24"), IPv4Network("10.2.0.0/24"))),
        ("east/2", Selector(IPv6Network("fd00:1::/64"), IPv6Network("fd00:2::/64"))),
    ]
    assert peer.policies[0].suites == DEFAULT_SUITES
    assert peer.policies[0].start is Start.DEMAND
    settings = peer.settings("192.0.2.2")
    assert (settings.kink, settings.esp) == (Endpoint("192.0.2.2", 910), Endpoint("192.0.2.2", 4500))


HOSTS = """\
[[peer.policy]]
mode = "transport"
local = ["192.0.2.1/32", "2001:db8::1/128"]
remote = ["192.0.2.2/32", "2001:db8::2/128"]
"""


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


def test_every_key_arrives() -> None:
    found = config.parse(FULL, SOURCE)
    assert found.host == config.HostSettings(
        principal="kink/west.example.com@EXAMPLE.COM",
        keytab=Path("/etc/kinkvpn/west.keytab"),
        client_keytab=Path("/etc/client.keytab"),
        ccache="MEMORY:x",
        krb5_config=Path("/etc/kinkvpn/krb5.conf"),
        kdc_timeout=2.0,
        replay_cache="file2:/var/lib/rcache",
    )
    assert found.kink == config.KinkSettings(("192.0.2.1",), 1910, KinkOver.KINK_PORT)
    assert found.esp == config.EspSettings(4501, WRITTEN)
    assert found.tun == config.TunSettings("tun7", (ip_interface("10.1.0.1/24"),), 9000, routes=False)
    assert found.control == config.ControlSettings(Path("/etc/kinkvpn/west.sock"))
    assert found.log == config.LogSettings(config.LogLevel.DEBUG, config.LogFormat.JSON, Path("/etc/kinkvpn/keys"))
    (peer,) = found.peers
    assert peer.settings(peer.address).kink == Endpoint("2001:db8::2", 911)
    assert (peer.esp_port, peer.prf, peer.delete_grace) == (4502, PrfForm.RFC3962_LITERAL, 1.5)
    assert peer.kink_over is peer.settings(peer.address).kink_over is KinkOver.AUTO
    assert peer.settings(peer.address).sas_per_create == 4
    assert peer.settings(peer.address).user_to_user is UserToUser.ALWAYS
    assert (peer.settings("").probe_after, peer.settings("").dead_after) == (None, 2.5)
    assert peer.extensions is peer.settings(peer.address).extensions is False
    first, web, *both = peer.policies
    assert [policy.entry for policy in peer.policies] == ["", "", "peer[1].policy[3]", "peer[1].policy[3]"]
    assert [policy.name for policy in (first, web, *both)] == ["east/1", "web", "both/1", "both/2"]
    assert (first.suites, first.lifetime_seconds, first.start) == ((SUITES["aes128-gcm16"],), 600, Start.BOOT)
    assert (first.lifetime_kilobytes, first.lifetime_packets) == (2048, 100_000)
    assert (first.replay_window, first.responder_nonce, first.send_ids) == (0, True, False)
    assert {(policy.mode, policy.encapsulation) for policy in peer.policies} == {(Mode.TUNNEL, Encapsulation.RAW)}
    assert [suite.name for suite in web.suites] == ["aes256-cbc-sha1", "aes256-gcm16"]
    assert (web.lifetime_seconds, web.start, web.replay_window) == (60, Start.DEMAND, 64)
    assert (web.lifetime_kilobytes, web.lifetime_packets) == (4096, 100_000)
    assert (first.esn, web.esn) == (Esn.NEVER, Esn.ALWAYS)
    assert (first.pfs, first.pfs_required) == ((Group.CURVE25519, Group.ECP_384), True)
    assert (web.pfs, web.pfs_required) == ((), False)
    assert (web.responder_nonce, web.send_ids) == (False, False)
    assert (web.selector.protocol, web.selector.local_port, web.selector.remote_port) == (6, 0, 443)


def test_a_peer_without_an_address_is_waited_for_and_inherits_how_it_is_asked() -> None:
    text = edited('address = "east.example.com"\n', "").replace("[tun]", '[kink]\nover = "4500"\n[tun]')
    (peer,) = config.parse(text, SOURCE).peers
    settings = peer.settings("")
    assert (settings.kink, settings.esp) == (Endpoint("", 910), Endpoint("", 4500))
    assert settings.kink_over is KinkOver.ESP_PORT
    other = OTHER.replace('address = "north.example.com"\n', "").replace("10.2.", "10.3.")
    two = text + other.replace("fd00:2:", "fd00:3:")
    assert [peer.address for peer in config.parse(two, SOURCE).peers] == ["", ""], "none is one that others may have"


EAST = "[[peer]]" + SMALL.split("[[peer]]")[1]
OTHER = edited('"east"', '"north"', edited("kink/east", "kink/north", edited('"east.ex', '"north.ex', EAST)))
TWO = SMALL + OTHER.replace("10.2.", "10.3.").replace("fd00:2:", "fd00:3:")

MISTAKES = [
    ("", ["1: host.keytab is missing", "1: host.principal is missing", "1: peer is missing"]),
    (
        edited("keytab =", "keytap ="),
        ["1: host.keytab is missing", "3: host.keytap: unknown key; did you mean keytab?"],
    ),
    (edited("[tun]", "[tunn]"), ["5: tunn: unknown key; did you mean tun?"]),
    (edited('"10.1.0.0/24"', '"10.1.0.1/24"'), ['14: peer[1].policy[1].local[1] = "10.1.0.1/24": expected a subnet']),
    (edited('"10.1.0.1/24",', '\n"10.1.0.1/24",\n"x",'), ['8: tun.addresses[2] = "x": expected an address with']),
    (edited("[tun]", "[tun]\nmtu = 1279"), ['6: tun.mtu = 1279: expected "auto", or an integer']),
    (
        edited("[tun]", "[kink]\nlisten = []\nport = 4500\n[tun]"),
        ["6: kink.listen = []: expected at", "7: kink.port and esp.port are both 4500"],
    ),
    (
        edited("[[peer.policy]]", "[[peer.polcy]]"),
        ["8: peer[1].policy is missing", "13: peer[1].polcy: unknown key; did you"],
    ),
    (edited(', "fd00:2::/64"', ""), ['14: peer[1].policy[1].local = "fd00:1::/64": expected an IPv6 subnet in remote']),
    (edited(', "fd00:1::/64"', ""), ['15: peer[1].policy[1].remote = "fd00:2::/64": expected an IPv6 subnet in local']),
    (SMALL + "local_port = 80\n", ["16: peer[1].policy[1].local_port = 80: expected a protocol that has ports"]),
    (SMALL + 'protocol = "icmp"\nremote_port = 1\n', ["17: peer[1].policy[1].remote_port = 1: expected a protocol"]),
    (
        edited("[[peer.policy]]", 'pfs = "x25518"\n[[peer.policy]]'),
        ['13: peer[1].pfs = "x25518": expected one of modp2048'],
    ),
    (
        edited("[[peer.policy]]", 'pfs = ["none", "ecp256"]\n[[peer.policy]]'),
        ['13: peer[1].pfs = "none": expected no group beside it'],
    ),
    (
        edited("[[peer.policy]]", "dscp = { 46 = 64 }\n[[peer.policy]]"),
        ['13: peer[1].dscp = {"46": 64}: expected "copy", a DSCP from 0 to 63, or a table such as'],
    ),
    (
        edited("[[peer.policy]]", "tfc_octets = 63\n[[peer.policy]]"),
        ["13: peer[1].tfc_octets = 63: expected 0, or an integer from 64 to 65400"],
    ),
    (
        edited("[[peer.policy]]", "tfc_octets = 100.5\n[[peer.policy]]"),
        ["13: peer[1].tfc_octets = 100.5: expected 0, or"],
    ),
    (
        edited("[[peer.policy]]", 'tfc_octets = 100\nmode = "transport"\n[[peer.policy]]\nmode = "tunnel"'),
        ['13: peer[1].tfc_octets = 100: expected mode = "tunnel" beside tfc_octets'],
    ),
    (
        edited("[[peer.policy]]", 'iptfs_rate = 100\n[[peer.policy]]\nipsec = "ah"'),
        ['15: peer[1].policy[1].ipsec = "ah": expected ipsec = "esp" beside iptfs_rate'],
    ),
    (
        edited("[[peer.policy]]", "tfc_dummy_after = 1\n[[peer.policy]]"),
        ["13: peer[1].tfc_dummy_after = 1: expected tfc_octets beside it"],
    ),
    (
        edited("[[peer.policy]]", "tfc_octets = 100\n[[peer.policy]]\niptfs_rate = 5"),
        ["15: peer[1].policy[1].iptfs_rate = 5: expected one of iptfs_rate and tfc_octets"],
    ),
    (
        edited("[[peer.policy]]", "extensions = false\n[[peer.policy]]\niptfs_rate = 5"),
        ["13: peer[1].extensions = false: expected true, for iptfs_rate"],
    ),
    (
        edited("[[peer.policy]]", "pfs_required = true\n[[peer.policy]]"),
        ["13: peer[1].pfs_required = true: expected both"],
    ),
    (
        edited("[[peer.policy]]", "sas_per_create = 0\n[[peer.policy]]"),
        ["13: peer[1].sas_per_create = 0: expected an integer from 1 to 16"],
    ),
    (SMALL + "send_ids = true\n", ["16: peer[1].policy[1].send_ids: unknown key"]),
    (edited('"10.2.0.0/24"', '"10.2.0.0/24", "10.2.0.128/25"'), ["13: peer[1].policy[1]: policy east/2"]),
    (TWO.replace('"north"', '"east"'), ['17: peer[2].name = "east": expected one of its own; peer[1] has']),
    (TWO.replace("kink/north", "kink/east"), ['18: peer[2].principal = "kink/east.example.com@EXAMPLE.COM": expected']),
    (TWO.replace('"north.ex', '"EAST.ex'), ['19: peer[2].address = "east.example.com": expected one of its own']),
    (
        TWO.replace("10.3.", "10.2."),
        ["21: peer[2].policy[1]: policy north/1 (10.1.0.0/24 -> 10.2.0.0/24) overlaps policy east/1"],
    ),
    ("host = 1\n" + SMALL.split("\n\n", 1)[1], ["1: host = 1: expected a table: [host]", "1: host.k", "1: host.p"]),
    ("peer = 1\n" + SMALL.split("[[peer")[0], ["1: peer = 1: expected an array of tables: [[peer]]"]),
    (
        edited('address = "east.example.com"', 'start = "boot"'),
        ['8: peer[1].address is missing: expected one, for start = "boot" sends the first message there'],
    ),
    (edited("name =", "kink_over = 910\nname ="), ['9: peer[1].kink_over = 910: expected "910", in quotes']),
    (
        edited("[tun]", '[kink]\nover = "4500"\n[tun]').replace("name =", 'kink_over = "910"\nname ='),
        ['11: peer[1].kink_over = "910": expected another, for kink.over = "4500" opens no port 910'],
    ),
    (
        edited("name =", 'suites = ["aes256-gmc16", "rot13"]\nname ='),
        [
            '9: peer[1].suites[1] = "aes256-gmc16": expected a suite (did you mean aes256-gcm16 or ',
            '9: peer[1].suites[2] = "rot13": expected a suite: aes{256,192,128}-{gcm16,',
        ],
    ),
    (
        edited("name =", 'suites = ["aes256-gcm16", "3des-cbc-sha1"]\nname ='),
        ['9: peer[1].suites = "3des-cbc-sha1": expected legacy = true beside 3des-cbc-sha1, knowing that 3DES '],
    ),
    (edited("name =", 'start = "now"\nname ='), ['9: peer[1].start = "now": expected one of boot, demand']),
]


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


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, expected: list[str]) -> None:
    found = errors(text)
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_all_mistakes_come_at_once() -> None:
    text = (
        TWO.replace("10.1.0.0/24", "10.1.0.9/24").replace("kink/west.example.com", "").replace("[tun]", "[tun]\nmtu=1")
    )
    assert [line.split(":")[0] for line in errors(text)] == ["2", "6", "15", "23"]


def test_policies_are_bounded_before_they_are_made() -> None:
    nets = ", ".join(f'"10.{number >> 8}.{number & 255}.0/24"' for number in range(2000))
    text = SMALL.split("[[peer.policy]]")[0] + f"[[peer.policy]]\nlocal = [{nets}]\nremote = [{nets}]\n"
    (problem,) = errors(text)
    assert "too many policies: expected at most 4096" in problem


def test_two_policies_may_share_a_subnet_when_ports_or_protocols_tell_them_apart() -> None:
    again = '[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'
    head = SMALL.split("[[peer.policy]]")[0]
    apart = head + again + 'protocol = "tcp"\nremote_port = 80\n' + again + 'protocol = "tcp"\nremote_port = 81\n'
    assert len(config.parse(apart + again + "protocol = 17\n", SOURCE).policies) == 3
    assert len(errors(apart + again + "protocol = 6\n")) == 2


SUBNETS = st.builds(
    lambda bits, length: ip_network((bits >> (8 - length) << (8 - length) << 24, length)),
    st.integers(0, 255),
    st.integers(0, 8),
)


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


WRITTEN = config.EngineSettings(config.EngineChoice.PORTABLE, config.CipherLibrary.OPENSSL, 4)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, WRITTEN),
        ({"ESP_ENGINE": "", "ESP_CIPHER_LIBRARY": ""}, WRITTEN),
        ({"ESP_ENGINE": "native"}, replace(WRITTEN, choice=config.EngineChoice.NATIVE)),
        ({"ESP_CIPHER_LIBRARY": "ipsec-mb"}, replace(WRITTEN, library=config.CipherLibrary.IPSEC_MB)),
    ],
)
def test_the_environment_may_choose_the_engine(environment: dict[str, str], expected: config.EngineSettings) -> None:
    assert config.engine_settings(WRITTEN, environment) == expected


def test_what_the_environment_names_and_there_is_not_is_named_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        config.engine_settings(WRITTEN, {"ESP_ENGINE": "fast", "ESP_CIPHER_LIBRARY": "mine"})
    assert str(caught.value).splitlines() == [
        'environment: ESP_CIPHER_LIBRARY = "mine": expected one of auto, openssl, ipsec-mb',
        'environment: ESP_ENGINE = "fast": expected one of auto, portable, native',
    ]


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"a = 1\n# \xff\n", ":2: not TOML: not UTF-8"),
        (b"#" * (MAXIMUM_FILE_OCTETS + 1), ": more than 1048576 octets: not a configuration"),
        (b"a = \n", ":1: not TOML: Invalid value, at column 5"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, octets: bytes, expected: str) -> None:
    path = tmp_path / "k.toml"
    path.write_bytes(octets)
    with pytest.raises(DocumentError) as caught:
        config.load(path)
    assert str(caught.value) == f"{path}{expected}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        config.load(tmp_path / "k.toml")
    assert str(caught.value) == f"{tmp_path}/k.toml: cannot read the configuration: No such file or directory"
    with pytest.raises(DocumentError, match="cannot read the configuration: Is a directory"):
        config.load(tmp_path)


def test_a_file_on_disk_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "k.toml"
    path.write_text(FULL)
    assert config.load(path).host.keytab == tmp_path / "west.keytab"


@pytest.mark.parametrize(
    ("stores", "keytab"),
    [
        ('keytab = "a"', "a"),
        ('keytab = "a"\nclient_keytab = "c"', "c"),
        ('keytab = "a"\nccache = "KCM:"', None),
        ('client_keytab = "c"\nccache = "KCM:"', "c"),
    ],
)
def test_which_keytab_credentials_are_got_with(stores: str, keytab: str | None) -> None:
    host = config.parse(edited('keytab = "/etc/krb5.keytab"', stores), SOURCE).host
    assert host.initiator_keytab == (SOURCE.parent / keytab if keytab else None)
