"""Tables and lines of what the API answers, and the whole of it as `kinkvpn status` has it."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.api import served
from support.terminal import terminal

from kinkvpn.api.client import Client
from kinkvpn.listing import TABLES, event, offloads, status, tickets
from kinkvpn.terminal import show_each

if TYPE_CHECKING:
    from pathlib import Path

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
        "lifetime": None,
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
    spi_in="0x0000abcd",
    spi_out="0x00001000",
    suite="aes256-gcm16",
    esn=True,
    since=200.9,
    lifetime=3600.0,
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

peer   state        address    heard   up  principal
north  down         192.0.2.3  never  0/1  kink/north.example.com@EXAMPLE.COM
    north/1: no answer?[2J?from 192.0.2.3; failed 3 times, next try in 12s
    north/1: 2 packets wait for it
    $ kinkvpn doctor -c k.toml north
east   established  192.0.2.2     3s  1/2  kink/east.example.com@EXAMPLE.COM (user-to-user)
    probe: 2.1 ms

tunnel   state           age             in        out  traffic
north/1  down              -        0 (0 B)    0 (0 B)  10.1.0.0/24 > 10.2.0.0/24
east/1   established  3m 20s  1200 (1.2 MB)  4 (400 B)  10.1.0.0/24 > 10.2.0.0/24
east/2   idle              -        0 (0 B)    0 (0 B)  fd00:1::/64 > fd00:2::/64
    idle: waiting for the first packet

tunnel  spi in      spi out        left  CREATE  suite                  sent as
east/1  0x0000abcd  0x00001000  56m 39s  3.2 ms  aes256-gcm16 with ESN  ESP in UDP, tunnel mode, up to 1400 octets

traffic  in 1200 (1.2 MB), out 4 (400 B)
dropped  no_policy 7, replayed 1
KINK     commands_sent 4

principal  kink/west.example.com@EXAMPLE.COM
tickets    2, the first ends in 5h 0m
device     kink0, MTU 1400, 10.1.0.1/24, fd00:1::1/64
engine     portable: the native one is not built
ciphers    OpenSSL 3.0.19 27 Jan 2026
offloads   tso, coalesce; no uso: not there
listening  KINK 0.0.0.0:910, [::]:910; ESP 0.0.0.0:4500

down  north; 1 of 3 tunnels up
"""

EAST, NORTH = ANSWER["peers"]


def screen(answer: dict[str, Any], *arguments: Any) -> str:
    """As it is in a pipe."""
    out = io.StringIO()
    show_each(status(answer, *arguments), out)
    return out.getvalue()


def of(*peers: dict[str, Any], **changes: Any) -> str:
    """What is shown of those."""
    return screen(ANSWER | {"peers": list(peers)} | changes)


def notes(text: str) -> list[str]:
    """What stands below rows."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def test_rows_of_a_daemons_real_answers(tmp_path: Path) -> None:
    with served(tmp_path / "k.sock") as path, Client(path) as daemon:
        found = {name: list(table.rows(daemon.get(f"/v1/{name}"))) for name, table in TABLES.items()}
    for name, rows in found.items():
        assert all(len(row) == len(TABLES[name].heading) for row in rows)
    ((peer, state, address, _, up, principal),) = found["peers"]
    assert (peer, state, address, up, principal) == (
        "east",
        "established",
        "192.0.2.2",
        "1/2",
        "kink/a.example.com@EXAMPLE.COM",
    )
    assert [row[:2] for row in found["policies"]] == [("tunnel0", "established"), ("tunnel1", "idle")]
    assert [row[:2] for row in found["sas"]] == [("tunnel0", "in"), ("tunnel0", "out")]
    counted = dict(found["counters"])
    assert counted["kink_labelled.messages_sent.create"] == "1"
    assert "0" not in counted.values()


def test_an_sa_that_stands_no_more_has_no_age() -> None:
    sa = {"policy": "p", "direction": "in", "spi": "0x00000100", "suite": "s", "packets": 1, "octets": 2}
    ((*_, age, left, _, _, _),) = TABLES["sas"].rows({"sas": [sa | {"since": None, "lifetime": None}]})
    assert (age, left) == ("-", "-")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            {"time": "T", "level": "info", "event": "x", "logger": "l", "peer": "a"},
            "T info    x peer=a",
        ),
        ({"time": "T", "level": "warning", "event": "\x1b[2J", "reason": "a\nb"}, "T warning ?[2J reason=a?b"),
    ],
)
def test_an_event_is_a_line_that_moves_no_cursor(data: dict[str, str], line: str) -> None:
    assert event(data) == line


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
    assert tickets({"kept": kept, "first_ends": first_ends, "not_renewed": not_renewed}) == shown


def test_offloads_in_use_come_first() -> None:
    assert offloads({"tso": None, "uso": "not there", "coalesce": None}) == "tso, coalesce; no uso: not there"
    assert offloads({"tso": "off"}) == "none; no tso: off"


def test_status_has_what_is_down_first_and_why() -> None:
    assert screen(ANSWER, {"east": "2.1 ms"}, ["-c", "k.toml"]) == SCREEN


def test_on_eighty_columns_no_name_address_or_spi_is_cut() -> None:
    address, person = "2001:db8:1234:5678:9abc:def0:1234:5678", "bob.the.builder/admin@SUB.EXAMPLE.COM"
    peers = [NORTH, EAST, EAST | {"name": person, "principal": person, "address": address}]
    with terminal(80) as screen:
        with open(os.dup(screen.end), "w") as out:
            show_each(status(ANSWER | {"peers": peers}), out)
        lines = screen.shown()
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    wanted = {address, person, "0x0000abcd", "0x00001000", "fd00:1::/64"} | {peer["principal"] for peer in peers[:2]}
    assert wanted <= words
    assert [line.split()[0] for line in lines if line[:5] in ("north", "east ")][:2] == ["north", "east"]


def test_of_many_that_are_down_the_end_says_how_many() -> None:
    peers = [NORTH | {"name": f"north-{number}"} for number in range(20)]
    assert of(EAST, *peers).splitlines()[-1] == "down  20 of 21 peers, on top; 1 of 22 tunnels up"


def test_status_without_peers() -> None:
    text = of(counters={"kink": {}, "drops": {}, **EMPTY})
    assert "\ndropped  nothing\nKINK     nothing yet\n" in text
    assert text.endswith("\nidle  there is no peer\n")
    assert "principal  " in text
    assert "\npeer " not in text


def test_status_of_a_host_where_nothing_has_happened() -> None:
    failed = EAST | {"policies": [policy("east/1", start="boot", failures=1)]}
    assert notes(of(failed))[0] == "east/1: no reason given; failed once, next try when a packet asks"
    starting = EAST | {"policies": [policy("east/1", start="boot")]}
    assert notes(of(starting)) == ["east/1: starting"]


def test_policies_that_fail_alike_are_named_together() -> None:
    failing = {"failures": 2, "last_error": "no answer", "next_try": 3.0}
    peer = NORTH | {"policies": [policy("north/1", **failing), policy("north/2", **failing), policy("north/3")]}
    assert notes(of(peer))[0] == "north/1, north/2: no answer; failed 2 times, next try in 3s"
    assert "\nnorth  partly down  " in of(peer)


def test_who_refuses_says_what() -> None:
    refused = {"refusal": "peer offers aes128-gcm16; policy east/1 allows aes256-gcm16", "refused": 17.2}
    assert f"what it asked for was refused 17s ago: {refused['refusal']}" in notes(of(EAST | refused))


def test_who_was_taken_down_is_brought_up_by_a_command() -> None:
    peer = NORTH | {"taken_down": True}
    found = notes(screen(ANSWER | {"peers": [peer]}, {}, ["--socket", "/run/my own"]))
    assert found == [
        "taken down by a command: no SAs until it is brought up",
        "$ kinkvpn up --socket '/run/my own' north",
    ]


def test_a_command_is_shown_only_where_it_would_do_what_it_says() -> None:
    """A name may be a principal, which came from somewhere, and a command is what people paste into a shell."""
    hostile = NORTH | {"name": "$(reboot)", "principal": "kink/x@R"}
    assert notes(of(hostile))[-1] == "$ kinkvpn doctor '$(reboot)'"
    assert notes(screen(ANSWER | {"peers": [NORTH]}, {}, ["--socket", "s"]))[-1] == "$ kinkvpn doctor north"
    for name in ("a\x1b[2Jb", "-c"):
        assert not any(note.startswith("$") for note in notes(of(NORTH | {"name": name})))
    guest = NORTH | {"name": "alice@R", "principal": "alice@R"}
    assert not any(note.startswith("$") for note in notes(of(guest)))


def test_who_negotiates_waits_for_no_packet() -> None:
    policies = [
        policy("east/1", state="negotiating", waits_for="kdc"),
        policy("east/2", state="negotiating", waits_for="peer", failures=2, last_error="no answer in 31.5 s"),
    ]
    assert notes(of(EAST | {"policies": policies})) == [
        "east/1: no ticket yet from the KDC",
        "east/2: no answer in 31.5 s; failed 2 times, trying again now",
        "east/2: no answer yet from the peer",
        "$ kinkvpn doctor east",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "transport"}, "ESP in UDP, transport mode, up to 1400 octets"),
        ({"encapsulation": "raw"}, "ESP without UDP, tunnel mode, up to 1400 octets"),
        ({"ipsec": "ah", "mode": "transport", "encapsulation": "raw", "largest": 0}, "AH, transport mode"),
        ({"largest": 1250}, "ESP in UDP, tunnel mode, up to 1250 octets, for the path carries no more"),
        (
            {"tfc_octets": 900, "tfc_wanted": 900},
            "ESP in UDP, tunnel mode, padded to 900 octets, up to 1400 octets",
        ),
        (
            {"tfc_wanted": 900, "largest": 0},
            "ESP in UDP, tunnel mode, NOT PADDED, for the peer has not said that it takes it",
        ),
        ({"esn": False}, "3.2 ms aes256-gcm16 without ESN ESP in UDP, tunnel mode, up to 1400 octets"),
        (
            {"pfs": "x448", "create_ms": None, "largest": 0},
            "east/1 0x0000abcd 0x00001000 56m 39s - aes256-gcm16 with ESN, PFS by x448 ESP in UDP, tunnel mode",
        ),
    ],
)
def test_what_is_in_force_for_a_pair_is_told_in_words(changes: dict[str, object], words: str) -> None:
    lines = [" ".join(line.split()) for line in of(EAST | {"policies": [{**UP, **changes}]}).splitlines()]
    (row,) = [line for line in lines if line.startswith("east/1 0x")]
    assert row.endswith(words)


def test_a_dead_peer_is_not_idle_and_the_reason_is_there() -> None:
    dead = {"last_error": "the peer is dead: no answer in 31.5 s"}
    policies = [
        policy("east/1", **dead),
        policy("east/2", start="boot", next_try=4.2, **dead),
        policy("east/3", state="negotiating", **dead),
    ]
    text = of(EAST | {"policies": policies})
    assert "\neast  partly down  " in text
    assert notes(text) == [
        "east/1: the peer is dead: no answer in 31.5 s; next try when a packet asks",
        "east/2: the peer is dead: no answer in 31.5 s; next try in 4s",
        "east/3: the peer is dead: no answer in 31.5 s; trying again now",
        "east/3: no answer yet, from the KDC or from the peer",
        "$ kinkvpn doctor east",
    ]


def test_a_peer_without_an_address_is_waited_for_and_no_packet_is() -> None:
    text = of(EAST | {"address": "", "policies": [policy("east/1")]}, listeners={"kink": [], "esp": ["0.0.0.0:4500"]})
    waits = "waiting for the peer: it has no address in the configuration, so the first message has to be its own"
    assert notes(text) == [f"east/1: {waits}"]
    assert "\nlistening  KINK on the ESP port; ESP 0.0.0.0:4500\n" in text
    assert text.splitlines()[3].split()[:3] == ["east", "idle", "-"]


@pytest.mark.parametrize(
    ("engines", "shown"),
    [
        (("portable", "portable"), "in and out by the portable engine: IP-TFS"),
        (("native", "portable"), "out by the portable engine: IP-TFS"),
    ],
)
def test_what_the_compiled_engine_has_left_to_the_other(engines: tuple[str, str], shown: str) -> None:
    left = {"engine_in": engines[0], "engine_out": engines[1], "engine_reason": "IP-TFS"}
    assert notes(of(EAST | {"policies": [UP | left]})) == [shown]


def test_a_peer_that_moved_and_a_nat_in_between() -> None:
    told = {"behind_nat": True, "seen_at": "203.0.113.1:20000", "inner_mtu": 1300, "peer_inner_mtu": 1300}
    moved = {"moved": True, "esp": "203.0.113.9:4500", "kink": "203.0.113.9:4500", "kink_marked": True}
    text = of(EAST | moved | {"extensions": {**NOTHING_TOLD, **told, "peer_behind_nat": True}})
    behind = "we are and it is behind a NAT, seen by it at 203.0.113.1:20000"
    assert f"ESP to 203.0.113.9:4500, KINK to 203.0.113.9:4500, the ESP port; {behind}" in notes(text)
    assert "MTU 1300, of its device" in notes(text)
    told = {"inner_mtu": 1400, "peer_inner_mtu": 9000}
    text = of(EAST | moved | {"kink_marked": False, "extensions": {**NOTHING_TOLD, **told}})
    assert "ESP to 203.0.113.9:4500, KINK to 203.0.113.9:4500" in notes(text)
    assert "of its device" not in text


def test_status_says_what_a_constant_rate_has_room_for_and_what_the_path_does_to_it() -> None:
    paced = {"iptfs_rate": 100.0, "iptfs_wanted": 1400, "iptfs_octets": 1400, "iptfs_lost": 0}

    def shown(**changes: object) -> list[str]:
        return notes(of(EAST | {"policies": [{**UP, **paced, **changes}]}))

    assert shown() == ["IP-TFS: 100 payloads a second of 1400 octets; room for 1.12 Mbit/s"]
    assert shown(iptfs_octets=1218) == [
        "IP-TFS: 100 payloads a second of 1218 octets and not 1400, for the path carries no more; room for 974 kbit/s"
    ]
    lost = "LOST 300 of 1500 payloads of the peer (20.00%): the path has not the bandwidth"
    assert lost in shown(iptfs_lost=300)
    assert shown(iptfs_octets=0) == []  # no SA sends yet


def test_status_says_loudly_that_keys_are_written() -> None:
    keys = "KEYS ARE WRITTEN to /run/keys: whoever reads it reads what the tunnels carry"
    assert of(EAST, key_log="/run/keys").splitlines()[2] == keys
    assert "KEYS" not in of(EAST)


def test_several_queues_are_told() -> None:
    assert "not built; 4 queues\n" in of(EAST, queues=4)
    assert "queues" not in of(EAST)
