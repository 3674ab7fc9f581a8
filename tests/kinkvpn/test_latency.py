"""Classes of latency: each in the first that holds it."""

from __future__ import annotations

from kinkvpn.latency import BOUNDS, Latencies


def test_each_counts_in_the_classes_that_hold_it() -> None:
    took = Latencies()
    for seconds in (*BOUNDS, 0.0, 10.5):
        took.add(seconds)
    found = took.status()
    assert list(found["le"].values()) == [number + 2 for number in range(len(BOUNDS))], "the bound itself belongs to it"
    assert found["count"] == len(BOUNDS) + 2
    assert found["sum"] == round(sum(BOUNDS) + 10.5, 6)


def test_nothing_yet() -> None:
    found = Latencies().status()
    assert {*found["le"].values(), found["count"], found["sum"]} == {0}
