"""Packets that wait, against a slow model."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from esp.hold import ACQUIRE_SECONDS, HOLD_SECONDS, MAX_HELD_PACKETS, HoldQueue, Holds

STEPS = st.lists(st.tuples(st.sampled_from(["put", "put", "put", "expire", "take"]), st.floats(0, 4)), max_size=120)


@given(STEPS)
def test_the_queue_is_the_slow_one(steps: list[tuple[str, float]]) -> None:
    queue, now = HoldQueue(), 0.0
    waiting: list[tuple[float, bytes]] = []
    for number, (step, wait) in enumerate(steps):
        now += wait
        if step == "put":
            packet = number.to_bytes(2)
            assert queue.put(packet, now) == (len(waiting) == MAX_HELD_PACKETS)
            waiting = [*waiting, (now + HOLD_SECONDS, packet)][-MAX_HELD_PACKETS:]
        elif step == "expire":
            left = [entry for entry in waiting if entry[0] > now]
            assert queue.expire(now) == len(waiting) - len(left)
            waiting = left
        else:
            assert queue.take() == [packet for _, packet in waiting]
            waiting = []
        assert len(queue) == len(waiting)


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=60))
def test_asking_is_paced(waits: list[float]) -> None:
    queue, now = HoldQueue(), 100.0
    asked = []
    for wait in waits:
        now += wait
        queue.put(b"packet", now)
        if queue.ask(now):
            asked.append(now)
    assert asked[0] == 100.0 + waits[0]
    assert all(later >= earlier + ACQUIRE_SECONDS for earlier, later in pairwise(asked))
    # And not slower than its pace by more than one wait.
    assert len(asked) >= (now - asked[0]) / (ACQUIRE_SECONDS + 0.5)


def test_nobody_is_asked_for_an_empty_queue() -> None:
    queue = HoldQueue()
    assert not queue.ask(0.0)
    assert queue.deadline() is None


def test_after_an_sa_came_the_next_packet_asks_at_once() -> None:
    queue = HoldQueue()
    queue.put(b"first", 0.0)
    assert queue.ask(0.0)
    assert queue.take() == [b"first"]
    queue.put(b"second", 0.1)
    assert queue.ask(0.1)


def test_the_deadline_is_when_something_is_due() -> None:
    queue = HoldQueue()
    queue.put(b"first", 0.0)
    queue.ask(0.0)
    assert queue.deadline() == ACQUIRE_SECONDS
    for second in range(1, int(HOLD_SECONDS)):
        assert queue.ask(float(second))
    assert queue.deadline() == HOLD_SECONDS
    assert queue.expire(HOLD_SECONDS) == 1
    assert queue.deadline() is None


def test_each_policy_has_a_queue_of_its_own_until_it_goes() -> None:
    holds = Holds()
    holds.add("a")
    holds.add("b")
    assert "a" in holds
    assert "c" not in holds
    assert holds.deadline() == inf
    assert holds.put("a", b"1", 0.0) == (False, True)
    assert holds.put("a", b"2", 0.0) == (False, False)
    assert holds.put("b", b"3", 5.0) == (False, True)
    assert holds.lengths() == {"a": 2, "b": 1}
    assert (holds.length("a"), holds.length("c")) == (2, 0)
    assert holds.deadline() == ACQUIRE_SECONDS
    assert holds.expire(ACQUIRE_SECONDS) == (0, ["a"])
    assert holds.expire(HOLD_SECONDS) == (2, ["b"]), "nobody is asked for what does not wait any more"
    assert holds.take("a", HOLD_SECONDS) == (0, [])
    assert holds.put("a", b"4", 10.0) == (False, True)
    assert holds.take("b", HOLD_SECONDS) == (0, [b"3"])
    assert holds.take("a", 10.0 + HOLD_SECONDS) == (1, [])
    assert [holds.put("a", b"5", 40.0)[0] for _ in range(MAX_HELD_PACKETS + 1)] == [False] * MAX_HELD_PACKETS + [True]
    assert holds.remove("a") == MAX_HELD_PACKETS
    assert holds.remove("a") == 0
    assert "a" not in holds
    assert holds.deadline() == inf
