"""What a person sees: whole screens, and the arithmetic of durations and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn import config, view

EMPTY = {"packets_in": 0, "octets_in": 0, "packets_out": 0, "octets_out": 0, "held": 0, "largest": 0}


def policy(name: str, **changes: object) -> dict[str, Any]:
    return {
        "name": name,
        "local": "10.1.0.0/24",
        "remote": "10.2.0.0/24",
        "start": "demand",
        "ipsec": "esp",
        "mode": "tunnel",
        "encapsulation": "udp",
        "state": "down",
        "spi_in": None,
        "spi_out": None,
        "suite": None,
        "pfs": None,
        "esn": None,
        "tfc_octets": 0,
        "tfc_wanted": None,
        "since": None,
        "create_ms": None,
        "failures": 0,
        "last_error": "",
        "next_try": None,
        "engine_in": None,
        "engine_out": None,
        "engine_reason": None,
        **EMPTY,
        **changes,
    }


UP = policy(
    "east/1",
    state="established",
    spi_in=0xABCD,
    spi_out="0x00001000",
    suite="aes256-gcm16",
    esn=True,
    since=200.9,
    create_ms=3.21,
    packets_in=1200,
    octets_in=1_234_567,
    packets_out=4,
    octets_out=400,
    largest=1438,
)
DOWN = policy("north/1", failures=3, last_error="no answer\x1b[2J\nfrom 192.0.2.3", next_try=12.4, held=2)

NOTHING_TOLD = dict.fromkeys(
    ("capabilities", "seen_at", "seen_marked", "behind_nat", "peer_behind_nat", "peer_inner_mtu", "inner_mtu")
)
AT_HOME = {"moved": False, "extensions": NOTHING_TOLD}

ANSWER = {
    "version": "0.1.0",
    "pid": 42,
    "uptime": 11_530,
    "key_log": None,
    "principal": "kink/west.example.com@EXAMPLE.COM",
    "engine": "portable",
    "engine_reason": "the native one is not built",
    "ciphers": "OpenSSL 3.0.19 27 Jan 2026",
    "queues": 1,
    "offloads": {"tso": None, "uso": "not there", "coalesce": None},
    "tun": {"name": "kink0", "mtu": 1400, "addresses": ["10.1.0.1/24", "fd00:1::1/64"]},
    "listeners": {"kink": ["0.0.0.0:910", "[::]:910"], "esp": ["0.0.0.0:4500"]},
    "tickets": {"kept": 2, "first_ends": 18000.0, "not_renewed": 0},
    "peers": [
        {
            "name": "east",
            "principal": "kink/east.example.com@EXAMPLE.COM",
            **AT_HOME,
            "address": "192.0.2.2",
            "last_heard": 3.2,
            "user_to_user": True,
            "state": "established",
            "policies": [UP, policy("east/2", local="fd00:1::/64", remote="fd00:2::/64")],
        },
        {
            "name": "north",
            "principal": "kink/north.example.com@EXAMPLE.COM",
            **AT_HOME,
            "address": "192.0.2.3",
            "last_heard": None,
            "user_to_user": False,
            "state": "down",
            "policies": [DOWN],
        },
    ],
    "counters": {
        "kink": {"commands_sent": 4, "malformed": 0},
        "drops": {"no_policy": 7, "replayed": 1},
        "packets_in": 1200,
        "octets_in": 1_234_567,
        "packets_out": 4,
        "octets_out": 400,
    },
}

SCREEN = """\
kinkvpn 0.1.0, pid 42, up 3h 12m
  principal  kink/west.example.com@EXAMPLE.COM
  tickets    2, the first ends in 5h 0m
  device     kink0, MTU 1400, 10.1.0.1/24, fd00:1::1/64
  engine     portable: the native one is not built
  ciphers    OpenSSL 3.0.19 27 Jan 2026
  offloads   tso, coalesce; no uso: not there
  listening  KINK 0.0.0.0:910, [::]:910; ESP 0.0.0.0:4500

east  ESTABLISHED  192.0.2.2  kink/east.example.com@EXAMPLE.COM
  heard from 3s ago, user-to-user, probe: 2.1 ms
  policy  state        age     in             out        traffic
  east/1  established  3m 20s  1200 (1.2 MB)  4 (400 B)  10.1.0.0/24 > 10.2.0.0/24
      spi in 0x0000abcd out 0x00001000, aes256-gcm16 with ESN, CREATE took 3.2 ms
      ESP in UDP, tunnel mode, packets up to 1400 octets
  east/2  idle         -       0 (0 B)        0 (0 B)    fd00:1::/64 > fd00:2::/64
      waiting for the first packet

north  DOWN  192.0.2.3  kink/north.example.com@EXAMPLE.COM
  never heard from
  policy   state  age  in       out      traffic
  north/1  down   -    0 (0 B)  0 (0 B)  10.1.0.0/24 > 10.2.0.0/24
      failed 3 times, next try in 12s: no answer?[2J?from 192.0.2.3
      2 packets wait for it

traffic  in 1200 (1.2 MB), out 4 (400 B)
dropped  no_policy 7, replayed 1
KINK     commands_sent 4"""


@pytest.mark.parametrize(
    ("kept", "first_ends", "not_renewed", "shown"),
    [
        (3, 90.0, 0, "3, the first ends in 1m 30s"),
        (3, 90.0, 2, "3, the first ends in 1m 30s, 2 could not be renewed"),
        (0, None, 0, "none"),
        (0, None, 1, "none, 1 could not be renewed"),
    ],
)
def test_tickets(kept: int, first_ends: float | None, not_renewed: int, shown: str) -> None:
    assert view.tickets({"kept": kept, "first_ends": first_ends, "not_renewed": not_renewed}) == shown


def test_status() -> None:
    assert view.status(ANSWER, {"east": "2.1 ms"}) == SCREEN


def test_status_of_a_host_where_nothing_has_happened() -> None:
    peer = {**ANSWER["peers"][0], "policies": [policy("east/1", start="boot", failures=1)]}
    counters = {"kink": {}, "drops": {}, **EMPTY}
    shown = view.status({**ANSWER, "peers": [peer], "counters": counters})
    assert "      failed once, next try when a packet asks: no reason given\n" in shown
    assert shown.endswith("dropped  nothing\nKINK     nothing yet")
    starting = {**peer, "policies": [policy("east/1", start="boot")]}
    assert "\n      starting\n" in view.status({**ANSWER, "peers": [starting], "counters": counters})


def test_who_refuses_says_what() -> None:
    refused = {"refusal": "peer offers aes128-gcm16; policy east/1 allows aes256-gcm16", "refused": 17.2}
    peer = {**ANSWER["peers"][0], **refused}
    shown = view.status({**ANSWER, "peers": [peer]})
    assert "\n  what it asked for was refused 17s ago: peer offers aes128-gcm16; policy east/1 allows aes256" in shown


def test_who_negotiates_waits_for_no_packet() -> None:
    counters = {"kink": {}, "drops": {}, **EMPTY}
    policies = [
        policy("east/1", state="negotiating", waits_for="kdc"),
        policy("east/2", state="negotiating", waits_for="peer", failures=2, last_error="no answer in 31.5 s"),
    ]
    peer = {**ANSWER["peers"][0], "policies": policies}
    shown = view.status({**ANSWER, "peers": [peer], "counters": counters})
    assert [line.strip() for line in shown.splitlines() if line.startswith("      ")] == [
        "no ticket yet from the KDC",
        "no answer yet from the peer",
        "failed 2 times, trying again now: no answer in 31.5 s",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "transport"}, "ESP in UDP, transport mode, packets up to 1400 octets"),
        ({"encapsulation": "raw"}, "ESP without UDP, tunnel mode, packets up to 1400 octets"),
        ({"ipsec": "ah", "mode": "transport", "encapsulation": "raw", "largest": 0}, "AH, transport mode"),
        ({"largest": 1250}, "ESP in UDP, tunnel mode, packets up to 1250 octets, for the path carries no more"),
        (
            {"tfc_octets": 900, "tfc_wanted": 900},
            "ESP in UDP, tunnel mode, padded to 900 octets, packets up to 1400 octets",
        ),
        (
            {"tfc_wanted": 900, "largest": 0},
            "ESP in UDP, tunnel mode, NOT PADDED, for the peer has not said that it takes it",
        ),
        ({"esn": False}, "spi in 0x0000abcd out 0x00001000, aes256-gcm16 without ESN, CREATE took 3.2 ms"),
        ({"pfs": "x448", "create_ms": None}, "spi in 0x0000abcd out 0x00001000, aes256-gcm16 with ESN, PFS by x448"),
    ],
)
def test_what_is_in_force_for_a_pair_is_told_in_words(changes: dict[str, object], words: str) -> None:
    counters = {"kink": {}, "drops": {}, **EMPTY}
    peer = {**ANSWER["peers"][0], "policies": [{**UP, **changes}]}
    shown = view.status({**ANSWER, "peers": [peer], "counters": counters})
    assert f"      {words}\n" in shown


def test_a_dead_peer_is_not_idle_and_the_reason_is_there() -> None:
    dead = {"last_error": "the peer is dead: no answer in 31.5 s"}
    policies = [
        policy("east/1", **dead),
        policy("east/2", start="boot", next_try=4.2, **dead),
        policy("east/3", state="negotiating", **dead),
    ]
    peer = {**ANSWER["peers"][0], "policies": policies}
    lines = view.status({**ANSWER, "peers": [peer]}).splitlines()
    assert any(line.startswith("east  PARTLY DOWN  ") for line in lines)
    assert [line.strip() for line in lines if line.startswith("      ")] == [
        "next try when a packet asks: the peer is dead: no answer in 31.5 s",
        "next try in 4s: the peer is dead: no answer in 31.5 s",
        "no answer yet, from the KDC or from the peer",
        "trying again now: the peer is dead: no answer in 31.5 s",
    ]


def test_a_peer_without_an_address_is_waited_for_and_no_packet_is() -> None:
    east = {**ANSWER["peers"][0], "address": "", "policies": [policy("east/1")]}
    lines = view.status({**ANSWER, "peers": [east]}).splitlines()
    assert [line.strip() for line in lines if line.startswith("      ")] == [
        "waiting for the peer: it has no address in the configuration, so the first message has to be its own"
    ]


@pytest.mark.parametrize(
    ("policies", "state"),
    [
        ([], "idle"),
        ([policy("a", last_error="the peer is dead: no answer in 31.5 s")], "down"),
        ([policy("a")], "idle"),
        ([policy("a"), policy("b", state="negotiating")], "negotiating"),
        ([policy("a"), UP], "established"),
        ([policy("a", state="negotiating", failures=2), UP], "established"),
        ([DOWN, UP], "partly down"),
        ([DOWN, policy("a")], "partly down"),
        ([DOWN, DOWN], "down"),
    ],
)
def test_the_state_of_a_peer_is_the_worst_to_know_of(policies: list[dict[str, Any]], state: str) -> None:
    assert view.peer_state({"policies": policies}) == state


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

east  east.example.com (192.0.2.2)  kink/east.example.com@EXAMPLE.COM
  policy  start   lifetime  traffic
  east/1  demand  8h 0m     10.1.0.0/24 > 10.2.0.0/24
    suites   aes256-gcm16, aes128-gcm16, aes256-cbc-sha256
    packets  ESP in UDP, tunnel mode, extended sequence numbers if the peer has them too, replay window of 8192
  policy  start  lifetime  traffic
  web     boot   1m 30s    10.1.0.0/24 > 10.3.0.0/24 tcp any:443
    suites   aes128-cbc-sha1
    packets  ESP in UDP, tunnel mode, extended sequence numbers if the peer has them too, replay window of 8192"""


@pytest.mark.parametrize(
    ("engines", "shown"),
    [
        (("portable", "portable"), "in and out by the portable engine: IP-TFS"),
        (("native", "portable"), "out by the portable engine: IP-TFS"),
    ],
)
def test_what_the_compiled_engine_has_left_to_the_other(engines: tuple[str, str], shown: str) -> None:
    left = {"engine_in": engines[0], "engine_out": engines[1], "engine_reason": "IP-TFS"}
    peer = {**ANSWER["peers"][0], "policies": [UP | left]}
    assert f"\n      {shown}\n" in view.status({**ANSWER, "peers": [peer]})


def test_a_peer_that_moved_and_a_nat_in_between() -> None:
    told = {"behind_nat": True, "seen_at": "203.0.113.1:20000", "inner_mtu": 1300, "peer_inner_mtu": 1300}
    moved = {"moved": True, "esp": "203.0.113.9:4500", "kink": "203.0.113.9:4500", "kink_marked": True}
    peer = {**ANSWER["peers"][0], **moved, "extensions": {**NOTHING_TOLD, **told, "peer_behind_nat": True}}
    lines = view.status({**ANSWER, "peers": [peer]}).splitlines()
    behind = "we are and it is behind a NAT, seen by it at 203.0.113.1:20000"
    assert f"  ESP to 203.0.113.9:4500, KINK to 203.0.113.9:4500, the ESP port; {behind}" in lines
    assert "  MTU 1300, of its device" in lines
    told = {"inner_mtu": 1400, "peer_inner_mtu": 9000}
    peer = {**ANSWER["peers"][0], **moved, "kink_marked": False, "extensions": {**NOTHING_TOLD, **told}}
    text = view.status({**ANSWER, "peers": [peer]})
    assert "\n  ESP to 203.0.113.9:4500, KINK to 203.0.113.9:4500\n" in text
    assert "of its device" not in text


def test_what_has_no_address_and_no_port_910() -> None:
    text = CONFIGURATION.replace('address = "east.example.com"\n', "").replace('start = "boot"\n', "")
    found = config.parse(text.replace("[tun]", '[kink]\nover = "4500"\n[tun]'), Path("k.toml"))
    shown = view.check(found, {"east": ""}, ENGINE)
    assert "listens    KINK and ESP port 4500\n" in shown
    assert "east  wherever it is heard  kink/east" in shown
    east = {**ANSWER["peers"][1], "address": ""}
    answer = {**ANSWER, "peers": [east], "listeners": {"kink": [], "esp": ["0.0.0.0:4500"]}}
    assert "listening  KINK on the ESP port; ESP 0.0.0.0:4500\n" in view.status(answer)
    assert "north  DOWN  nowhere yet  kink/north" in view.status(answer)


def test_check() -> None:
    found = config.parse(CONFIGURATION, Path("k.toml"))
    assert view.check(found, {"east": "192.0.2.2"}, ENGINE) == CHECKED


def checked(*lines: str) -> list[str]:
    """What check shows of the one policy of a peer with these lines."""
    peer, _, rest = CONFIGURATION.partition("[[peer.policy]]")
    text = "\n".join([peer.rstrip("\n"), *lines, "[[peer.policy]]", rest.partition("[[peer.policy]]")[0]])
    found = config.parse(text, Path("k.toml"))
    return [line.strip() for line in view.check(found, {}, ENGINE).splitlines()]


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
    assert "    headers  DF set\n" in view.check(config.parse(text + hosts, Path("k.toml")), {}, ENGINE) + "\n"


def test_policies_that_are_alike_are_one_table_in_their_order() -> None:
    more = '[[peer.policy]]\nlocal = "10.1.0.0/24"\nremote = "10.9.0.0/24"\n'
    lines = view.check(config.parse(f"{CONFIGURATION}{more}{more.replace('10.9', '10.8')}", Path("k.toml")), {}, ENGINE)
    names = [line.split()[0] for line in lines.splitlines() if line.startswith("  ")]
    block = ["suites", "packets"]
    assert names == ["policy", "east/1", *block, "policy", "web", *block, "policy", "east/3", "east/4", *block]


def test_check_shows_the_rest_of_what_was_chosen() -> None:
    sections = '[log]\nkeys = "/run/keys"\nformat = "json"\nlevel = "debug"\n[esp]\nhop_limit = 64\n[tun]\n'
    written = CONFIGURATION.replace("[tun]\n", f"{sections}clamp_mss = false\n")
    lines = view.check(config.parse(written, Path("k.toml")), {}, ENGINE).splitlines()
    assert "log        debug and worse, as json, to stderr" in lines
    assert "KEYS WILL BE WRITTEN to /run/keys: whoever reads it reads what the tunnels carry" in lines
    assert "device     kink0, MTU auto, 10.1.0.1/24; the MSS of TCP is left as it is" in lines
    assert any(line.endswith("ESP port 4500; outer headers have 64 hops to live") for line in lines)


def test_check_shows_what_is_not_protected_where_it_stands_in_the_list() -> None:
    ports = '[[policy]]\naction = "discard"\nprotocol = "tcp"\nremote_port = [25, "465-587"]\nremote = "10.3.0.0/24"\n'
    rest = '[[policy]]\naction = "bypass"\norder = "after"\nlocal = "10.1.0.0/24"\n'
    found = config.parse(f"{CONFIGURATION}\n{rest}{ports}", Path("k.toml"))
    lines = view.check(found, {"east": "192.0.2.2"}, ENGINE).splitlines()
    before, after = lines.index("before the peers' policies"), lines.index("after the peers' policies")
    assert lines[before + 1 : before + 3] == [
        "  policy     action   traffic",
        "  discard/2  discard  0.0.0.0/0 > 10.3.0.0/24 tcp any:25, 1 more",
    ]
    assert lines[after + 1 :] == ["  policy    action  traffic", "  bypass/1  bypass  10.1.0.0/24 > 0.0.0.0/0"]
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
    lines = view.check(config.parse(CONFIGURATION + people, Path("k.toml")), {}, ENGINE).splitlines()
    at = lines.index("people  1000 at most, lent 10.8.0.0/24")
    assert lines[at + 1 :] == [
        "  who                                     but not              of groups     reach        name servers",
        "  alice@EXAMPLE.COM, *-admin@EXAMPLE.COM  -                    -             10.1.0.0/16  10.1.0.53",
        "  everybody                               mallory@EXAMPLE.COM  S-1-5-32-544  10.1.0.0/16  -",
    ]
    assert "10.8.0.0/24" in next(line for line in lines if line.startswith("routes "))


def test_status_says_what_a_constant_rate_has_room_for_and_what_the_path_does_to_it() -> None:
    paced = {"iptfs_rate": 100.0, "iptfs_wanted": 1400, "iptfs_octets": 1400, "iptfs_lost": 0}

    def shown(**changes: object) -> list[str]:
        peer = {**ANSWER["peers"][0], "policies": [{**UP, **paced, **changes}]}
        return [line.strip() for line in view.status({**ANSWER, "peers": [peer]}).splitlines()]

    assert "IP-TFS: 100 payloads a second of 1400 octets; room for 1.12 Mbit/s" in shown()
    narrow = (
        "IP-TFS: 100 payloads a second of 1218 octets and not 1400, for the path carries no more; room for 974 kbit/s"
    )
    assert narrow in shown(iptfs_octets=1218)
    lost = "LOST 300 of 1500 payloads of the peer (20.00%): the path has not the bandwidth"
    assert lost in shown(iptfs_lost=300)
    assert not [line for line in shown(iptfs_octets=0) if "IP-TFS" in line]  # no SA sends yet


@pytest.mark.parametrize(("number", "text"), [(0, "0 bit/s"), (12_345, "12.3 kbit/s"), (2e9, "2 Gbit/s")])
def test_bits(number: float, text: str) -> None:
    assert view.bits(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (90_000, "1d 1h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (10**15, "1000.0 TB")],
)
def test_octets(number: int, text: str) -> None:
    assert view.octets(number) == text


@given(st.text())
def test_nothing_moves_the_cursor(text: str) -> None:
    assert view.printable(text).isprintable()
    assert len(view.printable(text)) == len(text)


def test_status_says_loudly_that_keys_are_written() -> None:
    shown = view.status({**ANSWER, "key_log": "/run/keys"})
    assert "KEYS ARE WRITTEN to /run/keys" in shown
    assert "KEYS" not in view.status(ANSWER)


def test_offloads_in_use_come_first() -> None:
    assert view.offloads({"tso": None, "uso": "not there", "coalesce": None}) == "tso, coalesce; no uso: not there"
    assert view.offloads({"tso": "off"}) == "none; no tso: off"


def test_several_queues_are_told() -> None:
    assert "not built; 4 queues\n" in view.status(ANSWER | {"queues": 4})
    assert "queues" not in view.status(ANSWER)


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
    found = config.parse(f"[metrics]\n{written}\n{CONFIGURATION}", Path("k.toml"))
    assert shown in view.check(found, {}, ENGINE).splitlines()
