"""What check says would come about, as an object and as text."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.configuration import SMALL, SOURCE

from kinkvpn import config
from kinkvpn.prospect import prospect, tables
from kinkvpn.terminal import show_each

MORE = """
[[peer]]
name = "roaming"
principal = "kink/roaming@EXAMPLE.COM"
local = "10.1.0.0/24"
remote = "10.9.0.1/32"
suites = "aes128-gcm16"
pfs = "x25519"
[[policy]]
action = "discard"
remote = "10.8.0.0/24"
[[policy]]
action = "bypass"
protocol = "tcp"
remote_port = 22
order = "after"
"""


def test_everything_that_would_be_is_said() -> None:
    configuration = config.parse(SMALL + MORE, SOURCE)
    tun = replace(configuration.tun, mtu=1400)
    found = prospect(configuration, tun, {"east": "192.0.2.2", "roaming": ""}, "native: it is built")
    assert json.loads(json.dumps(found)) == found
    assert found["device"] == {"name": "kink0", "mtu": 1400, "addresses": ["10.1.0.1/24", "fd00:1::1/64"]}
    assert found["routes"] == dict.fromkeys(("10.2.0.0/24", "fd00:2::/64", "10.9.0.1/32"), "kink0")
    assert [peer["resolved"] for peer in found["peers"]] == ["192.0.2.2", None]
    assert found["peers"][1]["policies"][0]["pfs"] == ["x25519"]
    assert found["before"] == [{"name": "discard/1", "action": "discard", "traffic": ["0.0.0.0/0 -> 10.8.0.0/24"]}]
    assert [policy["name"] for policy in found["after"]] == ["bypass/2"]
    assert prospect(configuration, replace(tun, routes=False), {}, "")["routes"] == {}


CONFIGURATION = """\
[host]
principal = "kink/west.example.com@EXAMPLE.COM"
keytab = "/etc/krb5.keytab"
[tun]
addresses = ["10.1.0.1/24"]
[[peer]]
name = "east"
principal = "kink/east.example.com@EXAMPLE.COM"
address = "east.example.com"
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
[[peer.policy]]
name = "web"
local = "10.1.0.0/24"
remote = "10.3.0.0/24"
protocol = "tcp"
remote_port = 443
start = "boot"
lifetime = 90
suites = ["aes128-cbc-sha1"]
"""

ENGINE = "portable: for the fun of it"

CHECKED = """\
principal  kink/west.example.com@EXAMPLE.COM
device     kink0, MTU auto, 10.1.0.1/24
routes     10.2.0.0/24, 10.3.0.0/24
listens    KINK 0.0.0.0, :: port 910; ESP port 4500
engine     portable: for the fun of it
control    /run/kinkvpn/kinkvpn.sock
log        info and worse, as text, to stderr

peer  address                       principal
east  east.example.com (192.0.2.2)  kink/east.example.com@EXAMPLE.COM

policy  start   lifetime  traffic
east/1  demand     8h 0m  10.1.0.0/24 > 10.2.0.0/24
    suites   aes256-gcm16, aes128-gcm16, aes256-cbc-sha256
    packets  ESP in UDP, tunnel mode, extended sequence numbers if the peer has them too, replay window of 8192
web     boot      1m 30s  10.1.0.0/24 > 10.3.0.0/24 tcp any:443
    suites   aes128-cbc-sha1
    packets  ESP in UDP, tunnel mode, extended sequence numbers if the peer has them too, replay window of 8192
"""


def lines_of(text: str, addresses: dict[str, str] | None = None) -> list[str]:
    """What is shown of a configuration, into a pipe."""
    return shown(text, addresses).splitlines()


def shown(text: str, addresses: dict[str, str] | None = None) -> str:
    out = io.StringIO()
    show_each(tables(config.parse(text, Path("k.toml")), addresses or {}, ENGINE), out)
    return out.getvalue()


def test_what_has_no_address_and_no_port_910() -> None:
    text = CONFIGURATION.replace('address = "east.example.com"\n', "").replace('start = "boot"\n', "")
    lines = lines_of(text.replace("[tun]", '[kink]\nover = "4500"\n[tun]'), {"east": ""})
    assert "listens    KINK and ESP port 4500" in lines
    assert "east  wherever it is heard  kink/east.example.com@EXAMPLE.COM" in lines


def test_check() -> None:
    assert shown(CONFIGURATION, {"east": "192.0.2.2"}) == CHECKED


def checked(*lines: str) -> list[str]:
    """What check shows of the one policy of a peer with these lines."""
    peer, _, rest = CONFIGURATION.partition("[[peer.policy]]")
    text = "\n".join([peer.rstrip("\n"), *lines, "[[peer.policy]]", rest.partition("[[peer.policy]]")[0]])
    return [line.strip() for line in lines_of(text)]


USUAL = "packets  ESP in UDP, tunnel mode, extended sequence numbers if the peer has them too, replay window of 8192"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("lifetime = 90", USUAL),
        (
            'esn = "always"\nreplay_window = 64',
            "packets  ESP in UDP, tunnel mode, extended sequence numbers or no SA, replay window of 64",
        ),
        (
            'esn = "never"\nencapsulation = "raw"',
            "packets  ESP without UDP, tunnel mode, sequence numbers of 32 bits, replay window of 8192",
        ),
        ("replay_window = 0", "packets  ESP in UDP, tunnel mode, REPLAYS ARE NOT NOTICED"),
        (
            'ipsec = "ah"\nextensions = false',
            "packets  AH, tunnel mode, sequence numbers of 32 bits, replay window of 8192",
        ),
        ('pfs = ["x25519", "ecp256"]', "keys     PFS by x25519, ecp256"),
        (
            'pfs = "x25519"\npfs_required = true\nresponder_nonce = true',
            "keys     PFS by x25519 or no SA, a nonce of the responder's",
        ),
        (
            "lifetime_kilobytes = 2048\nlifetime_packets = 5000",
            "keys     for 2.1 MB at most, for 5000 packets at most",
        ),
        (
            'suites = ["null-sha256", "aes256-gmac", "aes256-gcm16"]',
            "suites   null-sha256 (ENCRYPTS NOTHING), aes256-gmac (ENCRYPTS NOTHING), aes256-gcm16",
        ),
        ('legacy = true\nsuites = "3des-cbc-sha1"', "suites   3des-cbc-sha1 (LEGACY)"),
        ('ipsec = "ah"', "suites   null-sha256 (ENCRYPTS NOTHING)"),
        ('ecn = "compatible"\ndscp = 46\ndf = "copy"', "headers  without ECN, DSCP 46, DF as inside"),
        ("dscp = { 46 = 34, other = 0 }", "headers  DSCP 46 > 34, others 0"),
        ("dscp = { 46 = 34, 10 = 0 }", "headers  DSCP 10 > 0, 46 > 34, others as inside"),
        (
            'dscp_inward = true\ndf = "set"\nflow_labels = true',
            "headers  DSCP of what arrives taken from outside, DF set, a flow label for each flow inside",
        ),
        ('df = "clear"', "headers  DF clear"),
        ("tfc_octets = 1280", "hidden   packets are padded to 1280 octets"),
        (
            "tfc_octets = 1280\ntfc_dummy_after = 0.5",
            "hidden   packets are padded to 1280 octets, a dummy follows after 0.5 s without one",
        ),
        ("iptfs_rate = 250", "hidden   IP-TFS, 250 payloads of 1400 octets a second: 2.96 Mbit/s of the path, always"),
    ],
)
def test_check_shows_what_was_chosen(written: str, shown: str) -> None:
    lines = checked(written)
    assert shown in lines
    words = shown.partition(" ")[0]
    assert [line for line in lines if line.startswith(f"{words}  ")] == [shown]


def test_check_says_nothing_of_what_is_as_usual() -> None:
    assert not any(line.startswith(("keys", "headers", "hidden", "KEYS")) for line in checked())


def test_in_transport_mode_the_traffic_class_is_the_packets_own() -> None:
    text = CONFIGURATION.partition("[[peer.policy]]")[0] + 'dscp = 46\ndf = "set"\nmode = "transport"\n'
    hosts = '[[peer.policy]]\nlocal = "192.0.2.1/32"\nremote = "192.0.2.2/32"\n'
    assert "    headers  DF set" in lines_of(text + hosts)


def test_policies_that_are_alike_are_one_block_in_their_order() -> None:
    more = '[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "10.9.0.0/24"\n'
    lines = lines_of(f"{CONFIGURATION}{more}{more.replace('10.9', '10.8')}")
    names = [
        line.split()[0] for line in lines[lines.index(next(line for line in lines if line.startswith("policy"))) :]
    ]
    block = ["suites", "packets"]
    assert names == ["policy", "east/1", *block, "web", *block, "east/3", "east/4", *block]


def test_check_shows_the_rest_of_what_was_chosen() -> None:
    sections = '[log]\nkeys = "/run/keys"\nformat = "json"\nlevel = "debug"\n[esp]\nhop_limit = 64\n[tun]\n'
    written = CONFIGURATION.replace("[tun]\n", f"{sections}clamp_mss = false\n")
    lines = lines_of(written)
    assert "log        debug and worse, as json, to stderr" in lines
    assert "KEYS WILL BE WRITTEN to /run/keys: whoever reads it reads what the tunnels carry" in lines
    assert "device     kink0, MTU auto, 10.1.0.1/24; the MSS of TCP is left as it is" in lines
    assert any(line.endswith("ESP port 4500; outer headers have 64 hops to live") for line in lines)


def test_check_shows_what_is_not_protected_where_it_stands_in_the_list() -> None:
    ports = '[[policy]]\naction = "discard"\nprotocol = "tcp"\nremote_port = [25, "465-587"]\nremote = "10.3.0.0/24"\n'
    rest = '[[policy]]\naction = "bypass"\norder = "after"\nlocal = "10.1.0.0/24"\n'
    lines = lines_of(f"{CONFIGURATION}\n{rest}{ports}", {"east": "192.0.2.2"})
    before, after = (lines.index(next(line for line in lines if line.startswith(word))) for word in ("before", "after"))
    assert lines[before : before + 2] == [
        "before peers  action   traffic",
        "discard/2     discard  0.0.0.0/0 > 10.3.0.0/24 tcp any:25, 1 more",
    ]
    assert lines[after:] == ["after peers  action  traffic", "bypass/1     bypass  10.1.0.0/24 > 0.0.0.0/0"]
    assert before < lines.index(next(line for line in lines if line.startswith("east "))) < after


def test_check_lists_the_rules_for_people() -> None:
    people = """
[people]
addresses = "10.8.0.0/24"
routes = "10.1.0.0/16"
[[people.allow]]
who = ["alice@EXAMPLE.COM", "*-admin@EXAMPLE.COM"]
dns = "10.1.0.53"
[[people.allow]]
groups = "S-1-5-32-544"
except = "mallory@EXAMPLE.COM"
"""
    lines = lines_of(CONFIGURATION + people)
    assert "people     1000 at most, lent 10.8.0.0/24" in lines
    assert lines[-3:] == [
        "people                                  but not              of groups     reach        name servers",
        "alice@EXAMPLE.COM, *-admin@EXAMPLE.COM  -                    -             10.1.0.0/16  10.1.0.53",
        "everybody                               mallory@EXAMPLE.COM  S-1-5-32-544  10.1.0.0/16  -",
    ]
    assert "10.8.0.0/24" in next(line for line in lines if line.startswith("routes "))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('listen = "127.0.0.1:9910"', "metrics    http://127.0.0.1:9910/"),
        ('listen = "[::1]:9910"', "metrics    http://[::1]:9910/"),
        (
            'listen = "0.0.0.0:9910"\nanywhere = true',
            "metrics    http://0.0.0.0:9910/, for whoever reaches that address",
        ),
    ],
)
def test_check_says_where_metrics_are_to_be_had_and_by_whom(written: str, shown: str) -> None:
    assert shown in lines_of(f"[metrics]\n{written}\n{CONFIGURATION}")
