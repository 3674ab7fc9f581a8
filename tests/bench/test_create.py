"""The steps add up, and every one of them is met in a CREATE of a real realm."""

from __future__ import annotations

import pytest

from bench.create import REST, STEPS, Stopwatch, measure


def test_a_step_is_timed_without_the_steps_inside_it() -> None:
    watch = Stopwatch()
    inner = watch.timed("inner", lambda: sum(range(200_000)))
    watch.timed("outer", inner)()
    assert watch.spent["inner"] > 10 * watch.spent["outer"] >= 0


@pytest.mark.kdc
def test_every_step_is_met() -> None:
    figures = measure(rounds=1)
    assert list(figures) == [*(step for step, _ in STEPS), REST, "total"]
    assert all(figures[step] > 0 for step, _ in STEPS)
