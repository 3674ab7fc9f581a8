"""Rates: what has grown between two looks, and what a new daemon does to them."""

from __future__ import annotations

import pytest

from kinkvpn.top.history import KEPT, History, sparkline


def test_a_rate_is_what_was_counted_between_two_looks() -> None:
    history = History()
    history.add(1.0, {"in": 100})
    assert (history.rate("in"), history.rates("in")) == (0.0, [])
    history.add(3.0, {"in": 300, "out": 50})
    assert (history.rate("in"), history.rate("out")) == (100.0, 0.0), "what is new has counted nothing yet"
    history.add(4.0, {"in": 300, "out": 60})
    assert (history.rates("in"), history.rates("out")) == ([100.0, 0.0], [0.0, 10.0])


def test_what_goes_back_is_another_daemon_s() -> None:
    history = History()
    for now, count in ((1.0, 0), (2.0, 1000), (3.0, 5), (4.0, 6)):
        history.add(now, {"in": count})
    assert history.rates("in") == [1.0]


def test_what_is_not_counted_any_more_is_forgotten() -> None:
    history = History()
    for now in (1.0, 2.0):
        history.add(now, {"east/1 in": 0, "in": 0})
    history.add(3.0, {"in": 0})
    assert (history.rates("east/1 in"), history.rates("in")) == ([], [0.0, 0.0])


def test_a_gap_is_no_rate_and_time_that_stands_still_neither() -> None:
    history = History()
    history.add(1.0, {"in": 0})
    history.add(1.0, {"in": 9})
    history.pause()
    history.add(100.0, {"in": 1_000_000})
    assert history.rates("in") == []


def test_no_more_is_kept_than_can_be_shown() -> None:
    history = History()
    for now in range(3 * KEPT):
        history.add(float(now), {"in": now})
    assert len(history.rates("in")) == KEPT


@pytest.mark.parametrize(
    ("values", "width", "shown"),
    [
        ([], 4, "    "),
        ([0.0, 0.0], 4, "  ▁▁"),
        ([0.0, 5.0, 10.0], 4, " ▁▅█"),
        ([99.0, 0.0, 7.0], 2, "▁█"),
    ],
)
def test_sparklines(values: list[float], width: int, shown: str) -> None:
    assert sparkline(values, width) == shown
