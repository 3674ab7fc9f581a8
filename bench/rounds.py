"""Rounds in which the contestants alternate, so that a noisy moment of the machine falls on all of them alike.

First, for each kind of load, every contestant is tried with each end on a core of its own and without: it runs the
rounds as it was better.
"""

from __future__ import annotations

import statistics
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.realm import RealmFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cases import Case
    from bench.contestants.contestant import Setting
    from bench.load import Figures, Load


LOSS: Final = "loss"


@dataclass(frozen=True, slots=True)
class Effort:
    """``trials`` of each placement, then ``rounds``, of ``seconds`` each."""

    rounds: int
    seconds: int
    trials: int


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one contestant in one case; ``noise`` as :func:`noise` has it.

    Args:
        suite: what it ran.
        samples: of each round.
        pinned: whether each end ran on a core of its own.
    """

    contestant: str
    setting: Setting
    suite: str
    case: str
    figure: str
    median: float
    noise: float
    samples: tuple[float, ...]
    pinned: bool


@dataclass
class Findings:
    """What has been measured.

    Args:
        left_out: who could not be measured, and why.
        descriptions: of the programs.
        pinned: for contestant and kind of load, whether it is faster with each end on a core of its own.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    pinned: dict[tuple[str, str], bool] = field(default_factory=dict)

    @contextmanager
    def blaming(self, name: str) -> Iterator[None]:
        """Who fails in the block is left out from there on."""
        try:
            yield
        except (LabFailed, RealmFailed) as error:
            self.left_out[name] = "; ".join((str(error), *getattr(error, "log", ())[-2:]))


class Rounds:
    """Measurements of one setting.

    Args:
        loads: of every contestant.
        findings: are added to.
        progress: is told what share is done.
    """

    def __init__(
        self,
        loads: Mapping[str, Load],
        setting: Setting,
        *,
        effort: Effort,
        findings: Findings,
        progress: Callable[[float], None],
    ) -> None:
        self._loads, self._setting, self._effort = loads, setting, effort
        self._findings, self._progress = findings, progress
        self._done, self._steps = 0, 1

    def measure(self, cases: Sequence[Case]) -> None:
        """Chooses placements that are not chosen yet, then goes round and round."""
        kinds = {case.kind: case for case in reversed(cases)}
        untried = sum((name, kind) not in self._findings.pinned for name in self._able() for kind in kinds)
        measured = self._effort.rounds * len(cases) * len(self._able())
        self._done, self._steps = 0, 2 * self._effort.trials * untried + measured
        for case in kinds.values():
            self._choose_placement(case)
        samples = self._rounds(cases)
        for name in self._able():
            for case in cases:
                about = (name, self._setting, self._loads[name].tunnel.suite, case.name)
                self._findings.rows += rows(samples[name, case], about, pinned=self._pinned(name, case))

    def _choose_placement(self, case: Case) -> None:
        untried = [name for name in self._able() if (name, case.kind) not in self._findings.pinned]
        tried: dict[tuple[str, bool], list[float]] = {}
        for _ in range(self._effort.trials):
            for pinned in (False, True):
                for name in [name for name in untried if name in self._able()]:
                    with self._findings.blaming(name):
                        figures = self._measured(name, case, pinned=pinned)
                        tried.setdefault((name, pinned), []).append(figures[case.figure])
        for name in {name for name, pinned in tried if pinned}:
            free, bound = (statistics.median(tried[name, pinned]) for pinned in (False, True))
            self._findings.pinned[name, case.kind] = bound > free if case.more else bound < free

    def _rounds(self, cases: Sequence[Case]) -> dict[tuple[str, Case], list[Figures]]:
        samples: dict[tuple[str, Case], list[Figures]] = {}
        for _ in range(self._effort.rounds):
            for case in cases:
                for name in self._able():
                    with self._findings.blaming(name):
                        figures = self._measured(name, case, pinned=self._pinned(name, case))
                        samples.setdefault((name, case), []).append(figures)
        return samples

    def _measured(self, name: str, case: Case, *, pinned: bool) -> Figures:
        load = self._loads[name]
        load.place(pinned=pinned)
        figures = case.measure(load, self._effort.seconds)
        self._done += 1
        self._progress(self._done / self._steps)
        return figures

    def _pinned(self, name: str, case: Case) -> bool:
        return self._findings.pinned.get((name, case.kind), False)

    def _able(self) -> list[str]:
        return [name for name in self._loads if name not in self._findings.left_out]


def rows(figures: Sequence[Figures], about: tuple[str, Setting, str, str], *, pinned: bool) -> list[Row]:
    """A row for each figure; ``about``: contestant, setting, suite, case."""
    found = []
    for name in figures[0]:
        samples = tuple(float(f"{sample[name]:.5g}") for sample in figures)
        found.append(Row(*about, name, statistics.median(samples), noise(samples, name), samples, pinned))
    return found


def noise(samples: Sequence[float], figure: str = "") -> float:
    """Interquartile range over median; of a loss, that is a share already and may be 0, the range itself.

    Args:
        samples: a single one has no noise.
        figure: what they are of.
    """
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return round((high - low) / (1.0 if figure == LOSS or not middle else middle), 5)
