"""The table and the JSON object of runs that held and that did not."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from kinkvpn.demo.capture import Kind, Traffic
from kinkvpn.demo.journey import Findings
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.report import failure, summary, table
from kinkvpn.demo.transfer import Received

KEYS = {"ok", "ping4_ms", "ping6_ms", "transfer_ok", "gbit_per_s", "suite", "engine", "create_ms", "leaks", "steps"}


def status(me: str, peer: str, spi: str) -> dict[str, Any]:
    policy = {"local": "10.1.0.0/24", "remote": "10.2.0.0/24", "spi_in": spi, "suite": "aes256-gcm16"}
    where = {"principal": f"kink/{peer}@R", "address": "192.0.2.2", "policies": [policy]}
    return {"principal": f"kink/{me}@R", "engine": "portable", "peers": [where]}


def whole() -> Findings:
    return Findings(
        status={"a": status("a", "b", "0x00001234"), "b": status("b", "a", "0x00005678")},
        create_ms=3.25,
        ping_ms={4: 0.5, 6: 0.625},
        received=Received(octets=200_000_000, seconds=2.0, sha256="00", equal=True),
        stopped={"a": 0.125, "b": 0.25},
        traffic=Traffic(packets=Counter({Kind.ESP: 1000, Kind.KINK: 5}), kink=Counter({"CREATE": 2})),
    )


def test_a_run_that_held() -> None:
    result = summary(whole(), {"realm": 0.5})
    assert set(result) == KEYS
    assert result["ok"] is True
    assert result["transfer_ok"] is True
    assert (result["gbit_per_s"], result["create_ms"], result["leaks"]) == (0.8, 3.25, 0)
    assert (result["suite"], result["engine"], result["steps"]) == ("aes256-gcm16", "portable", {"realm": 0.5})
    assert json.loads(json.dumps(result)) == result


def test_a_run_that_ended_early_has_the_same_keys_and_the_error() -> None:
    result = summary(Findings(), {"realm": 0.5}, "hosts: no veth")
    assert set(result) == KEYS | {"error"}
    assert result["ok"] is False
    assert result["transfer_ok"] is False
    assert result["leaks"] is None
    assert json.loads(json.dumps(result)) == result


def test_the_table_has_a_row_for_everything() -> None:
    shown = table(whole())
    for expected in (
        *("kink/a@R", "kink/b@R", "192.0.2.2", "0x00001234", "0x00005678", "aes256-gcm16", "portable", "3.25 ms"),
        *("0.50 ms", "0.62 ms", "200 MB at 0.80 Gbit/s", "1000 esp", "5 kink", "2 CREATE", "a 0.12 s"),
    ):
        assert expected in shown
    assert max(map(len, shown.splitlines())) < 120


def test_a_failure_names_step_host_log_and_what_to_do() -> None:
    shown = failure("ping4", LabFailed("nothing came back", host="b", advice="look there", log=["one", "two"]))
    assert shown.splitlines() == [
        "kinkvpn demo: step ping4 failed on host b: nothing came back",
        "  | one",
        "  | two",
        "  look there",
    ]
    assert failure("realm", LabFailed("no")) == "kinkvpn demo: step realm failed: no"
