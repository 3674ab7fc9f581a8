"""The send counter, and the replay window against a slow one made of a set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import DropReason, SequenceExhausted
from esp.seqnum import ReplayWindow, SendCounter

NUMBER_MAX = 2**32 - 1


class SlowWindow:
    """RFC 4303 §3.4.3 word for word: remember every number, look at the last ``size``."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.accepted: set[int] = set()

    def check(self, number: int) -> DropReason | None:
        top = max(self.accepted, default=0)
        if not self.size or number > top:
            return None
        if number == 0 or number <= top - self.size:
            return DropReason.TOO_OLD
        return DropReason.REPLAYED if number in self.accepted else None


@st.composite
def numbers(draw: st.DrawFn) -> list[int]:
    """Numbers as a bad path delivers them: forward in steps and leaps, back, and again."""
    top, sent = draw(st.integers(1, 2**31)), []
    for step in draw(st.lists(st.integers(-70, 70) | st.sampled_from((-5000, 300, 9000)), max_size=80)):
        number = max(0, top + step)
        sent.append(number)
        top = max(top, number)
    return sent


@given(st.sampled_from((0, 1, 2, 31, 32, 33, 64, 8192)), numbers())
def test_the_window_is_the_slow_one(size: int, sent: list[int]) -> None:
    window, slow = ReplayWindow(size), SlowWindow(size)
    for number in sent:
        assert window.check(number) is slow.check(number)
        if window.check(number) is None:
            window.mark(number)
            slow.accepted.add(number)
            assert window.top == max(slow.accepted)


@given(st.sampled_from((1, 64, 100)), st.integers(1, 1000), st.permutations(range(40)))
def test_a_window_that_covers_the_disorder_takes_everything_once(size: int, start: int, order: list[int]) -> None:
    window = ReplayWindow(max(size, 40))
    for offset in order:
        assert window.check(start + offset) is None
        window.mark(start + offset)
        assert window.check(start + offset) is DropReason.REPLAYED


@given(st.lists(st.integers(0, NUMBER_MAX), max_size=20), numbers())
def test_check_changes_nothing(probes: list[int], sent: list[int]) -> None:
    probed, plain = ReplayWindow(64), ReplayWindow(64)
    for number in sent:
        for probe in probes:
            probed.check(probe)
        assert probed.check(number) is plain.check(number)
        if plain.check(number) is None:
            probed.mark(number)
            plain.mark(number)


def test_zero_is_never_a_first_number() -> None:
    assert ReplayWindow(64).check(0) is DropReason.TOO_OLD


def test_the_first_packet_may_be_the_last_number() -> None:
    window = ReplayWindow(8192)
    window.mark(NUMBER_MAX)
    assert window.check(NUMBER_MAX) is DropReason.REPLAYED
    assert window.check(NUMBER_MAX - 8191) is None
    assert window.check(NUMBER_MAX - 8192) is DropReason.TOO_OLD


def test_without_a_window_everything_passes_and_the_top_is_known() -> None:
    window = ReplayWindow(0)
    for number in (9, 9, 3):
        assert window.check(number) is None
        window.mark(number)
    assert window.top == 9


@given(st.integers(0, 2**64 - 200), st.integers(1, 100))
def test_the_counter_gives_each_number_once(last: int, count: int) -> None:
    counter = SendCounter(last, 2**64 - 1)
    assert [counter.next() for _ in range(count)] == list(range(last + 1, last + count + 1))
    assert counter.last == last + count


@pytest.mark.parametrize("limit", [2**32 - 1, 2**64 - 1])
def test_the_counter_never_wraps(limit: int) -> None:
    counter = SendCounter(limit - 1, limit)
    assert counter.next() == limit
    for _ in range(3):
        with pytest.raises(SequenceExhausted):
            counter.next()
    assert counter.last == limit
