from __future__ import annotations

import os

import pytest
from support.terminal import terminal

from kinkvpn.commands.person import Person

JOURNEY = [
    {"event": "tickets_used", "principal": "alice@EXAMPLE.COM", "ccache": "KCM:1000"},
    {"event": "gateway_asked", "gateway": "gateway.example.com", "address": "192.0.2.1"},
    {
        "event": "lent",
        "addresses": ["10.8.0.42", "fd00:8::5fab:a21b:cbbb:7fc0"],
        "routes": ["10.1.0.0/16", "fd00:1::/48"],
        "servers": ["10.1.0.53"],
    },
    {"event": "started", "pid": 7},
    {"event": "sa_established", "policy": "gateway.example.com/1"},
    {"event": "sa_established", "policy": "gateway.example.com/2"},
    {"event": "peer_dead", "peer": "gateway.example.com"},
    {"event": "slept", "seconds": 3600.0},
    {"event": "moved", "to": "203.0.113.7"},
    {"event": "sa_established", "policy": "gateway.example.com/1"},
    {"event": "stopping"},
]
SEEN = """\
alice@EXAMPLE.COM, by the tickets in KCM:1000
asking gateway.example.com (192.0.2.1) for an address ...
it lends 10.8.0.42, fd00:8::5fab:a21b:cbbb:7fc0, and leads to 10.1.0.0/16,
    fd00:1::/48; names are asked of 10.1.0.53
in its network: Ctrl-C ends that, kinkvpn status shows more
asleep for 3600.0 s
in another network, at 203.0.113.7
in its network again
leaving ..."""


def seen(*events: dict[str, object]) -> list[str]:
    with terminal(80) as shown:
        with os.fdopen(os.dup(shown.end), "w") as out:
            person = Person(out)
            for event in events:
                person.take(event)
        return shown.shown()


def test_a_journey_in_a_few_lines() -> None:
    lines = seen(*JOURNEY)
    assert lines == SEEN.splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("event", [{"event": "mtu_limited"}, {"event": "peer_restarted"}, {"event": "hook_said"}])
def test_most_of_the_log_is_nobody_s_at_a_terminal(event: dict[str, object]) -> None:
    assert seen(event) == []


def test_without_name_servers_nothing_is_said_of_names_and_no_word_moves_the_cursor() -> None:
    lent = {"event": "lent", "addresses": ["10.8.0.42"], "routes": ["10.1.0.0/16"], "servers": []}
    assert seen(lent) == ["it lends 10.8.0.42, and leads to 10.1.0.0/16"]
    assert seen({"event": "moved", "to": "\x1b[2J"}) == ["in another network, at ?[2J"]
