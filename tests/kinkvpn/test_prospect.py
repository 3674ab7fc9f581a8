"""What check says would come about, as an object and as rows."""

from __future__ import annotations

import json
from dataclasses import replace

from support.configuration import SMALL, SOURCE

from kinkvpn import config
from kinkvpn.prospect import PEERS, POLICIES, peer_rows, policy_rows, prospect

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


def test_a_row_for_each_peer_and_each_policy() -> None:
    configuration = config.parse(SMALL + MORE, SOURCE)
    found = prospect(configuration, configuration.tun, {"east": "192.0.2.2"}, "")
    assert peer_rows(found) == [
        ("east", "192.0.2.2", "kink/east.example.com@EXAMPLE.COM"),
        ("roaming", "wherever it comes from", "kink/roaming@EXAMPLE.COM"),
    ]
    assert policy_rows(found)[2] == ("roaming/1", "10.1.0.0/24", "10.9.0.1/32", "aes128-gcm16", "demand")
    assert {len(row) for row in peer_rows(found)} == {len(PEERS)}
    assert {len(row) for row in policy_rows(found)} == {len(POLICIES)}
