"""The figures follow from what was measured. (The measurement itself needs root: tests/interop/test_many_peers.py.)"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from bench.crowd import Done
from bench.keying import CREATE, IDLE, REKEY, measure, summary


@dataclass
class Steady:
    """A side that takes the same for everything, in every round but the first."""

    name: str
    cpu_seconds: float
    latency: float
    responder_pid: int = field(default_factory=os.getpid)
    rounds: list[tuple[str, int]] = field(default_factory=list)

    def run(self, operation: str, number: int) -> Done:
        self.rounds.append((operation, number))
        slow = 100 if number == 0 else 1
        latencies = (self.latency * slow,) * 10 if operation == IDLE else ()
        return Done(10, 2.0 * slow, 10 * self.cpu_seconds * slow, latencies)


def test_the_warm_up_is_not_in_the_figures() -> None:
    side = Steady("kinkvpn", cpu_seconds=0.001, latency=0.002)
    idle, create, rekey = measure([side], rounds=3)
    assert [number for operation, number in side.rounds if operation == CREATE] == [0, 1, 2, 3]
    assert (idle.ms_p50, idle.ms_p99) == (2.0, 2.0)
    assert create.ms_p50 is None
    assert create.initiator_cpu_ms == 1.0
    assert rekey.per_second == 5.0


def test_rounds_alternate_between_the_sides() -> None:
    rounds: list[tuple[str, int]] = []
    sides = [Steady("kinkvpn", 0.001, 0.001, rounds=rounds), Steady("strongSwan", 0.002, 0.004, rounds=rounds)]
    measure(sides, rounds=2)
    assert rounds == [(operation, n) for n in range(3) for _ in sides for operation in (IDLE, CREATE, REKEY)]


def test_ratios_are_ours_over_theirs() -> None:
    rows = measure([Steady("kinkvpn", 0.001, 0.001), Steady("strongSwan", 0.002, 0.004)], rounds=2)
    figures = summary(rows)
    assert figures["create_latency_vs_strongswan"] == 0.25
    assert figures["initiator_cpu_vs_strongswan"] == 0.5
    assert figures["responder_cpu_vs_strongswan"] == pytest.approx(
        rows[1].responder_cpu_ms / rows[4].responder_cpu_ms, abs=0.001
    )


def test_without_strongswan_ours_is_told_and_the_rest_is_null() -> None:
    figures = summary(measure([Steady("kinkvpn", 0.001, 0.001)], rounds=2))
    assert figures["creates_per_s"] == 5.0
    assert {name for name, figure in figures.items() if figure is None} == {
        "responder_cpu_vs_strongswan",
        "initiator_cpu_vs_strongswan",
        "create_latency_vs_strongswan",
    }
