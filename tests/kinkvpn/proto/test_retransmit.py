from __future__ import annotations

import itertools

from kinkvpn.proto.retransmit import FULL_CYCLE, LONGEST_INTERVAL, TRANSMISSIONS, Retransmission


def schedule() -> list[float]:
    """When each transmission leaves, and last when the sender gives up."""
    time, times, state = 0.0, [0.0], Retransmission()
    while not state.exhausted:
        time += state.interval
        times.append(time)
        state = state.next()
    return [*times, time + state.interval]


def test_the_schedule() -> None:
    assert schedule() == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5, 31.5]
    assert len(schedule()) == TRANSMISSIONS + 1
    assert schedule()[-1] == FULL_CYCLE


def test_back_off_is_exponential_and_truncated() -> None:
    gaps = [later - earlier for earlier, later in itertools.pairwise(schedule())]
    for shorter, longer in itertools.pairwise(gaps):
        assert longer == min(2 * shorter, LONGEST_INTERVAL)
