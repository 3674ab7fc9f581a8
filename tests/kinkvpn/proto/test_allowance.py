from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.proto.allowance import BURST, MAX_SOURCES, PER_SECOND, Allowance


def test_a_burst_then_one_a_second() -> None:
    allowance = Allowance()
    assert [allowance.take("x", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not allowance.take("x", 0.5)
    assert allowance.take("x", 1.0)
    assert not allowance.take("x", 1.5)
    assert allowance.take("y", 1.5)


def test_an_idle_source_saves_up_no_more_than_a_burst() -> None:
    allowance = Allowance()
    allowance.take("x", 0.0)
    assert [allowance.take("x", 1e9) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_the_bucket_holds(gaps: list[float]) -> None:
    allowance, now, taken = Allowance(), 0.0, 0
    for gap in gaps:
        now += gap
        taken += allowance.take("x", now)
    assert taken <= BURST + now * PER_SECOND + 1e-6


def test_few_sources_are_remembered_and_the_longest_silent_is_forgotten() -> None:
    allowance = Allowance()
    for _ in range(6):
        allowance.take("busy", 0.0)
    for number in range(MAX_SOURCES - 1):
        allowance.take(str(number), 0.0)
    assert not allowance.take("busy", 0.0)
    allowance.take("one more", 0.0)
    assert not allowance.take("busy", 0.0)
    for number in range(MAX_SOURCES):
        allowance.take(str(number), 0.0)
    assert allowance.take("busy", 0.0)
