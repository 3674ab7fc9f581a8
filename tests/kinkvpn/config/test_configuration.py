"""Configuration: what a file means, and what every mistake in one says."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_interface
from pathlib import Path

import pytest
from support.configuration import SMALL, SOURCE, edited, errors

from esp.policy import Selector
from esp.sa import Encapsulation, Endpoint, Mode
from esp.suite import DEFAULT_SUITES, SUITES
from kinkvpn import config
from kinkvpn.config import host
from kinkvpn.document import MAXIMUM_FILE_OCTETS, DocumentError
from kinkvpn.proto.settings import Esn, PrfForm, Start, UserToUser
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.wire.ipsec_doi import Group

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
    assert [policy.entry for policy in peer.policies] == ["", "", "east.policy[3]", "east.policy[3]"]
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
        ["13: peer[1].pfs_required = true: expected a group beside it"],
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
        ['11: peer[1].kink_over = "910": expected "auto" or "4500", for kink.over = "4500" opens no port 910'],
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


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SYSTEM_KEYTAB", Path("/nowhere/keytab"))
    found = errors(text)
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_all_mistakes_come_at_once() -> None:
    text = (
        TWO.replace("10.1.0.0/24", "10.1.0.9/24").replace("kink/west.example.com", "").replace("[tun]", "[tun]\nmtu=1")
    )
    assert [line.split(":")[0] for line in errors(text)] == ["2", "6", "15", "23"]


WRITTEN = config.EngineSettings(config.EngineChoice.PORTABLE, config.CipherLibrary.OPENSSL, 4)


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
