"""Policies, routes and peers together: their order, who may come beside whom; what happens is in test_reload.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.configuration import SMALL, SOURCE, edited

from esp.policy import Action
from esp.sa import Endpoint
from esp.suite import SUITES
from kinkvpn import config
from kinkvpn.proto.settings import PeerSettings, PolicySettings
from kinkvpn.service.roster import PeerRefused
from kinkvpn.service.tunnels import Exceptions, _check_apart, _difference, policies_of, warn_of_legacy

BEFORE = '[[policy]]\naction = "discard"\nprotocol = "udp"\n'
AFTER = '[[policy]]\naction = "bypass"\norder = "after"\n'


def parts(text: str) -> tuple[Exceptions, list[PeerSettings]]:
    found = config.parse(text, SOURCE)
    return Exceptions(found.before, found.after), [peer.settings("192.0.2.2") for peer in found.peers]


def test_the_list_is_what_comes_before_the_peers_policies_those_and_what_comes_after() -> None:
    listed = policies_of(*parts(f"{SMALL}\n{AFTER}{BEFORE}"))
    assert [policy.name for policy in listed] == ["discard/2", "east/1", "east/2", "bypass/1"]
    assert [policy.rank for policy in listed] == [0, 1, 1, 2]
    assert {policy.peer for policy in listed if policy.action is Action.PROTECT} == {"east"}


def test_only_what_is_another_goes_and_comes_but_exceptions_keep_their_order() -> None:
    before = policies_of(*parts(f"{SMALL}\n{AFTER}{BEFORE}"))
    assert _difference(before, before) == ([], [], [])
    wider = policies_of(*parts(edited("10.2.0.0/24", "10.2.0.0/23", f"{SMALL}\n{AFTER}{BEFORE}")))
    gone, come, told = _difference(before, wider)
    assert (gone, [policy.name for policy in come], told) == (["east/1"], ["east/1"], [])
    more = policies_of(*parts(f"{SMALL}\n{BEFORE.replace('udp', 'tcp')}{BEFORE}{AFTER}"))
    gone, come, told = _difference(before, more)
    assert (gone, told) == (["discard/2", "bypass/1"], [])
    assert [policy.name for policy in come] == ["discard/1", "discard/2", "bypass/3"]
    watched = [replace(policy, answer_within=3.0) if policy.name == "east/2" else policy for policy in before]
    assert _difference(before, watched) == ([], [], [watched[2]]), "its SAs stay"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "east"}, "there is a peer east already"),
        (
            {"principal": "kink/east.example.com@EXAMPLE.COM"},
            "peer north: peer east has principal kink/east.example.com@EXAMPLE.COM already",
        ),
        ({"policy": "east/1"}, "peer north: peer east has a policy east/1 already"),
        (
            {"remote": "10.2.0.0/25"},
            "peer north: policy north/1 (10.1.0.0/24 -> 10.2.0.0/25) overlaps "
            "policy east/1 (10.1.0.0/24 -> 10.2.0.0/24) of peer east",
        ),
    ],
)
def test_nobody_comes_with_what_another_has(changes: dict[str, str], reason: str) -> None:
    _, (east,) = parts(SMALL)
    text = SMALL.replace("10.2.0.0/24", changes.get("remote", "10.9.0.0/24")).replace(', "fd00:1::/64"]', "]")
    _, (north,) = parts(text.replace(', "fd00:2::/64"]', "]").replace("east", "north"))
    north = replace(
        north,
        name=changes.get("name", "north"),
        principal=changes.get("principal", north.principal),
        policies=tuple(replace(policy, name=changes.get("policy", policy.name)) for policy in north.policies),
    )
    with pytest.raises(PeerRefused) as refused:
        _check_apart(north, [east])
    assert str(refused.value) == reason


def test_what_a_legacy_suite_costs_is_logged_once_for_each_peer(caplog: pytest.LogCaptureFixture) -> None:
    suites = tuple(SUITES[name] for name in ("aes256-gcm16", "3des-cbc-sha1", "null-md5"))
    selector = parts(SMALL)[1][0].policies[0].selector
    old = tuple(PolicySettings(name, selector, suites=suites, legacy=True) for name in ("one", "two"))
    nowhere = Endpoint("", 0)
    modern = PeerSettings("modern", "kink/modern@R", nowhere, nowhere, (PolicySettings("three", selector),))
    warn_of_legacy([PeerSettings("old", "kink/old@R", nowhere, nowhere, old), modern])
    assert [(record.message, record.levelname, vars(record)["fields"]) for record in caplog.records] == [
        ("legacy_suite", "WARNING", {"peer": "old", "suite": suite.name, "reason": suite.cost}) for suite in suites[1:]
    ]
