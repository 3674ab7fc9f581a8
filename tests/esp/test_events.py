"""The queue of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.tunnel import ELSEWHERE, LEFT

from esp.events import MAX_EVENTS, Acquired, EndpointMoved, EventQueue, HardExpired, SoftExpired
from esp.sa import Endpoint

EVENTS = st.one_of(
    st.builds(Acquired, st.sampled_from("ab")),
    st.builds(SoftExpired, st.sampled_from("ab"), st.integers(300, 301), st.booleans()),
    st.builds(HardExpired, st.sampled_from("ab"), st.integers(300, 301), st.booleans()),
)


@given(st.lists(EVENTS))
def test_each_once_in_the_order_of_their_first(events: list[Acquired]) -> None:
    queue = EventQueue()
    for event in events:
        queue.put(event)
    assert queue.take() == list(dict.fromkeys(events))
    assert queue.take() == []


def test_what_was_taken_may_come_again() -> None:
    queue = EventQueue()
    for _ in range(2):
        queue.put(Acquired("a"))
        assert queue.take() == [Acquired("a")]


def test_of_the_moves_of_one_sa_the_last_counts() -> None:
    queue = EventQueue()
    queue.put(EndpointMoved("a", 300, ELSEWHERE))
    queue.put(EndpointMoved("a", 301, ELSEWHERE))
    queue.put(EndpointMoved("a", 300, LEFT))
    assert queue.take() == [EndpointMoved("a", 300, LEFT), EndpointMoved("a", 301, ELSEWHERE)]


def test_a_peer_that_never_rests_fills_nothing() -> None:
    queue = EventQueue()
    for port in range(2 * MAX_EVENTS):
        queue.put(EndpointMoved("a", 300, Endpoint("192.0.2.1", port)))
    assert queue.take() == [EndpointMoved("a", 300, Endpoint("192.0.2.1", 2 * MAX_EVENTS - 1))]
    assert queue.lost == 0


def test_a_full_queue_loses_the_oldest_and_counts_it() -> None:
    queue = EventQueue()
    for number in range(MAX_EVENTS + 3):
        queue.put(Acquired(str(number)))
    assert queue.take() == [Acquired(str(number)) for number in range(3, MAX_EVENTS + 3)]
    assert queue.lost == 3
