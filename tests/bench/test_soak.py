"""A short run of each kind, whole: whatever it takes and however busy the machine is, nothing may be wrong."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from bench.relay import Odds
from bench.soak import Settings, soak, table
from kinkvpn.demo.progress import Progress
from kinkvpn.demo.sandbox import complete_path

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

FAULTS = Odds(lost=0.01, held=0.01, repeated=0.01)
RUNS = {
    "whole": Settings(octets=200_000_000, whole=True, rekey=0.25, engine="native"),
    "split-IPv6": Settings(octets=100_000_000, whole=False, rekey=0.25, outer=6, engine="native", queues=3),
    "faults": Settings(octets=50_000_000, whole=False, rekey=0.5, odds=FAULTS, engine="native"),
    "portable": Settings(octets=10_000_000, whole=False, rekey=0.5, odds=FAULTS, engine="portable"),
}


@pytest.mark.parametrize("name", RUNS)
def test_all_arrives_as_it_was_sent(name: str, tmp_path: Path) -> None:
    settings = RUNS[name]
    complete_path()
    outcome = soak(settings, tmp_path, Progress(io.StringIO()))
    print("\n".join(table(outcome)))
    assert outcome.faults(odds=settings.odds, rekeyed=True) == []
    assert [flow.octets_received for flow in outcome.flows] == [settings.octets // 2] * 4
    assert all(flow.datagrams_received for flow in outcome.flows)
    assert [gateway.engines for gateway in outcome.gateways] == [(settings.engine,)] * 2
    if outcome.passed:
        assert all(way.lost and way.held and way.repeated for way in outcome.passed)
        assert all(gateway.drops.get("replayed") for gateway in outcome.gateways)
