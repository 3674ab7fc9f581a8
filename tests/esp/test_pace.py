"""Payloads at equal intervals, whatever waits and whoever looks at the clock late."""

from __future__ import annotations

import pytest
from support.tunnel import ipv4

from esp.pace import LEAST_ROOM, MOST_AT_ONCE, ConstantRate
from esp.sa import Aggregation


def test_the_rate_does_not_depend_on_the_traffic() -> None:
    idle, busy = (ConstantRate(Aggregation(500, 100), 0.0) for _ in range(2))
    seen: dict[ConstantRate, list[int]] = {idle: [], busy: []}
    for tick in range(1000):
        busy.put(ipv4(bytes(100)))  # more than the rate carries
        for rate, counts in seen.items():
            counts.append(rate.due(tick / 1000))
    assert seen[idle] == seen[busy]
    assert sum(seen[idle]) == pytest.approx(100, abs=1)


def test_a_late_clock_is_made_up_for_within_bounds_and_no_debt_stays() -> None:
    rate = ConstantRate(Aggregation(64, 1000), 0.0)
    assert [rate.due(now) for now in (0.0005, 0.0105, 10.0, 10.0)] == [0, 10, MOST_AT_ONCE, 0]
    assert 10.0 < rate.at <= 10.0011


def test_what_would_wait_too_long_is_refused() -> None:
    rate = ConstantRate(Aggregation(100, 1), 0.0)
    took = [rate.put(ipv4(bytes(980))) for _ in range(LEAST_ROOM // 1000 + 1)]
    assert took == [True] * (LEAST_ROOM // 1000) + [False]
    assert len(rate.take_all()) == LEAST_ROOM // 1000


def test_payloads_get_smaller_with_the_path_and_no_larger_than_was_asked_for() -> None:
    rate = ConstantRate(Aggregation(500, 10), 0.0)
    for path, octets in ((300, 300), (9000, 500)):
        rate.narrow(path)
        assert rate.octets == octets
        assert len(rate.next_payload()) == octets
