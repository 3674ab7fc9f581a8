"""The queue between two threads: nothing lost, nothing twice, nothing torn, and full when it is full."""

from __future__ import annotations

from collections import deque
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.native._core import Ring

CAPACITY = 1024
RECORD = 64  # octets of a record that nothing follows, or more


@given(st.lists(st.integers(0, 400) | st.just(None), max_size=200))
def test_it_is_a_queue(steps: list[int | None]) -> None:
    """A number puts so many octets, None takes: as a deque has it, or there was no room for it."""
    ring, model = Ring(CAPACITY), deque[tuple[int, int, bytes]]()
    for number, step in enumerate(steps):
        if step is None:
            assert ring.take() == (model.popleft() if model else None)
        elif ring.put(number % 7, number, bytes([number % 256]) * step):
            model.append((number % 7, number, bytes([number % 256]) * step))
        else:  # a record that did not fit before the end has left that free, once
            sizes = [RECORD + 7 + len(octets) for _, _, octets in model]
            assert sum(sizes) + max([*sizes, RECORD + 7 + step]) + RECORD + 7 + step > CAPACITY
    while model:
        assert ring.take() == model.popleft()
    assert ring.take() is None


def test_what_finds_no_room_changes_nothing() -> None:
    ring = Ring(CAPACITY)
    number = 0
    while ring.put(1, number, bytes(number)):
        number += 1
    assert number > 10
    assert not ring.put(1, 999, bytes(number))
    assert [ring.take() for _ in range(number)] == [(1, each, bytes(each)) for each in range(number)]
    assert ring.take() is None
    assert ring.put(1, 7, bytes(number))
    assert ring.take() == (1, 7, bytes(number))


@pytest.mark.parametrize("octets", range(0, 400, 13))
def test_it_never_gets_stuck_wherever_its_end_comes(octets: int) -> None:
    ring = Ring(CAPACITY)
    for number in range(200):
        assert ring.put(2, number, bytes([number]) * octets)
        assert ring.take() == (2, number, bytes([number]) * octets)


def test_octets_of_a_whole_datagram_and_none() -> None:
    ring = Ring(1 << 18)
    for octets in (b"", bytes(65_531), b"x"):
        assert ring.put(3, len(octets), octets)
    assert [ring.take() for _ in range(3)] == [(3, 0, b""), (3, 65_531, bytes(65_531)), (3, 1, b"x")]


def test_two_threads() -> None:
    """The one writes where the other has read: no order of loads and stores may show a record that is not there yet."""
    ring = Ring(1 << 14)
    writer = Thread(target=ring.pour, args=(50_000,))
    writer.start()
    assert ring.drain(50_000) == 50_000
    writer.join()
    assert ring.take() is None
