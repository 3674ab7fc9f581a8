"""Payloads at equal intervals, whatever waits and whoever looks at the clock late."""

from __future__ import annotations

from contextlib import suppress

import pytest
from support.tunnel import ipv4

from esp.errors import PaceQueueFull
from esp.pace import LEAST_ROOM, MOST_AT_ONCE, ConstantRate
from esp.sa import Aggregation


def test_the_rate_does_not_depend_on_the_traffic() -> None:
    idle, busy = (ConstantRate(Aggregation(500, 100), 0.0) for _ in range(2))
    seen: dict[ConstantRate, list[int]] = {idle: [], busy: []}
    for tick in range(1000):
        with suppress(PaceQueueFull):  # more than the rate carries
            busy.put(ipv4(bytes(100)))
        for rate, counts in seen.items():
            counts.append(len(rate.payloads(tick / 1000)))
    assert seen[idle] == seen[busy]
    assert sum(seen[idle]) == pytest.approx(100, abs=1)


def test_a_late_clock_is_made_up_for_within_bounds_and_no_debt_stays() -> None:
    rate = ConstantRate(Aggregation(64, 1000), 0.0)
    assert rate.payloads(0.0005) == []
    assert len(rate.payloads(0.0105)) == 10
    assert len(rate.payloads(10.0)) == MOST_AT_ONCE
    assert rate.payloads(10.0) == []
    assert 10.0 < rate.at <= 10.0011


def test_what_would_wait_too_long_is_refused() -> None:
    rate = ConstantRate(Aggregation(100, 1), 0.0)
    for _ in range(LEAST_ROOM // 1000):
        rate.put(ipv4(bytes(980)))
    with pytest.raises(PaceQueueFull):
        rate.put(ipv4(bytes(980)))
    assert len(rate.take_all()) == LEAST_ROOM // 1000
