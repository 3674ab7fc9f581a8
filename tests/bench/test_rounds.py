"""Contestants alternate, each as it is better, and a failure costs the one who failed and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cases import Case
from bench.contestants.contestant import Setting, Tunnel
from bench.load import Figures, Load
from bench.rounds import Effort, Findings, Rounds, noise
from kinkvpn.demo.namespace import LabFailed


class Steady(Load):
    """A load that gives the same at each go: ``free`` or, with each end on a core of its own, ``pinned``."""

    def __init__(self, free: float, pinned: float, *, fails_after: int = 1000) -> None:
        self.tunnel = Tunnel(ends=(None, None), suite="steady", daemons=(), description="")
        self._gives, self._left = (free, pinned), fails_after

    def place(self, *, pinned: bool) -> None:
        self.pinned = pinned

    def go(self, seconds: float) -> Figures:
        self._left -= 1
        if self._left < 0:
            raise LabFailed("nothing got through", log=("one", "two", "three"))
        return {"gbit": self._gives[self.pinned]}


def case(order: list[Any], *, more: bool = True, kind: str = "tcp", name: str = "tcp1") -> Case:
    def measure(load: Load, seconds: float) -> Figures:
        assert isinstance(load, Steady)
        order.append(load)
        return load.go(seconds)

    return Case(name, kind, "gbit", more, measure)


def measured(loads: dict[str, Steady], cases: list[Case], effort: Effort) -> tuple[Findings, list[float]]:
    findings, shares = Findings(), list[float]()
    Rounds(loads, Setting(), effort=effort, findings=findings, progress=shares.append).measure(cases)
    return findings, shares


def test_contestants_alternate_inside_each_case_of_each_round() -> None:
    order: list[Any] = []
    loads = {"one": Steady(1, 1), "two": Steady(2, 2)}
    findings, shares = measured(loads, [case(order)], Effort(rounds=3, seconds=1, trials=0))
    assert order == [*loads.values()] * 3
    assert [(row.contestant, row.median, row.samples, row.pinned) for row in findings.rows] == [
        ("one", 1, (1, 1, 1), False),
        ("two", 2, (2, 2, 2), False),
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("more", [True, False])
def test_each_runs_as_it_is_better(more: bool) -> None:
    loads = {"one": Steady(free=1, pinned=2), "two": Steady(free=2, pinned=1)}
    findings, shares = measured(loads, [case([], more=more)], Effort(rounds=2, seconds=1, trials=2))
    best = max if more else min
    assert [row.median for row in findings.rows] == [best(1, 2)] * 2
    assert [row.pinned for row in findings.rows] == [more, not more]
    assert shares[-1] == 1


def test_cases_of_a_kind_are_placed_as_the_first_of_them_was() -> None:
    order: list[Any] = []
    cases = [case(order, name="tcp1"), case(order, name="tcp4"), case(order, name="pps64", kind="flood")]
    findings, _ = measured({"one": Steady(1, 2)}, cases, Effort(rounds=1, seconds=1, trials=1))
    assert findings.pinned == {("one", "tcp"): True, ("one", "flood"): True}
    assert len(order) == 2 * 2 + 3
    assert [(row.case, row.pinned) for row in findings.rows] == [("tcp1", True), ("tcp4", True), ("pps64", True)]


@pytest.mark.parametrize("fails_after", range(6))
def test_who_fails_is_left_out_with_the_reason(fails_after: int) -> None:
    loads = {"good": Steady(1, 2), "bad": Steady(1, 2, fails_after=fails_after)}
    findings, _ = measured(loads, [case([])], Effort(rounds=4, seconds=1, trials=1))
    assert findings.left_out == {"bad": "nothing got through; two; three"}
    assert [row.contestant for row in findings.rows] == ["good"]
    assert len(findings.rows[0].samples) == 4


def test_noise_is_the_interquartile_range_over_the_median() -> None:
    assert noise([1, 2, 3, 4, 5]) == pytest.approx(2 / 3, abs=0.001)
    assert noise([7]) == 0
    assert noise([0, 0, 0]) == 0


def test_noise_of_a_loss_is_the_range_itself() -> None:
    assert noise([0, 0.01, 0.02, 0.03, 0.04], "loss") == pytest.approx(0.02)
    assert noise([0, 0, 0, 0.01], "loss") < 0.01
