"""One responder, ``kinkvpn up``, and thousands of principals of a real realm that want it at the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import scale
from bench.crowd import Phase
from bench.laboratory import Laboratory, scratch

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def test_two_thousand_principals_create_at_once_and_all_establish() -> None:
    with scratch() as directory:
        row = scale.measure(Path(directory) / "crowd", 2000)
    assert row.established == 2000
    assert row.kb_beside_sa < 20


def test_what_the_bench_counts_is_what_the_gateway_did(tmp_path: Path) -> None:
    with Laboratory(tmp_path, clients=3, policies=2) as laboratory:
        created = [laboratory.perform(Phase("create", 0, 3, number, in_flight=2)) for number in range(2)]
        rekeyed = laboratory.perform(Phase("rekey", 0, 3, 0, in_flight=3))
        status = laboratory.status()
    assert [done.count for done in created] == [len(done.latencies) for done in created] == [3, 3]
    assert all(0 < latency < done.seconds for done in (*created, rekeyed) for latency in done.latencies)
    # Six CREATEs, and for each of three rekeys another and the DELETE of what it replaces.
    assert status["counters"]["kink"]["commands_received"] == 6 + 2 * 3
    assert [policy["pairs"] for peer in status["peers"] for policy in peer["policies"]] == [1] * 6
