from __future__ import annotations

import itertools

from kinkvpn.proto.retransmit import FULL_CYCLE, LONGEST_INTERVAL, SAMPLES, TRANSMISSIONS, Retransmission, RoundTrip


def schedule(skipped: int = 0) -> list[float]:
    """When each transmission leaves, and last when the sender gives up."""
    time, times, state = 0.0, [0.0], Retransmission(skipped=skipped)
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


def test_on_a_long_path_the_first_steps_are_left_out_and_the_cycle_is_no_longer() -> None:
    assert schedule(1) == [0.0, 1.0, 3.0, 7.0, 15.0, 23.0, 31.0]
    assert schedule(2) == [0.0, 2.0, 6.0, 14.0, 22.0, 30.0]


def test_the_round_trip_says_how_many() -> None:
    assert RoundTrip().skipped == 0
    for seconds, skipped in ((0.01, 0), (0.25, 0), (0.26, 1), (0.5, 1), (0.6, 2), (5.0, 2)):
        trip = RoundTrip()
        trip.measured(seconds)
        assert trip.skipped == skipped


def test_the_least_of_the_newest_counts() -> None:
    trip = RoundTrip()
    trip.measured(0.1)
    for _ in range(SAMPLES - 1):
        trip.measured(3.0)
    assert trip.skipped == 0
    trip.measured(3.0)
    assert trip.skipped == 2
