"""The send counter, the replay window and the inference of extended numbers, against slow ones made of sets."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esp.errors import DropReason, SequenceExhausted
from esp.seqnum import ReplayWindow, SendCounter

if TYPE_CHECKING:
    from collections.abc import Iterator

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


# --- extended numbers ---

SUBSPACE = 2**32
# Numbers near the ends of a subspace more often than elsewhere, where the high half changes.
ANYWHERE = st.integers(0, 2**64 - 1)
NEAR_ENDS = st.builds(
    lambda high, offset: min(max(0, high * SUBSPACE + offset), 2**64 - 1),
    st.integers(0, 3) | st.integers(2**32 - 2, 2**32),
    st.integers(-70_000, 70_000),
)
SIZES = st.sampled_from((1, 2, 32, 64, 8192, 65_536)) | st.integers(1, 65_536)


def pseudo_code(top: int, size: int, low: int) -> int:
    """RFC 4303 appendix A2.3, line by line, where it determines Seqh."""
    th, tl = divmod(top, SUBSPACE)
    if tl >= size - 1:  # case A
        high = th if low >= tl - size + 1 else th + 1
    else:  # case B, arithmetic mod 2^32
        high = th - 1 if low >= (tl - size + 1) % SUBSPACE else th
    return high * SUBSPACE + low


@example(2**64 - 10, 64, 5, 0, False)
@example(2**64 - 1, 65_536, SUBSPACE - 65_537, 0, False)
@given(ANYWHERE | NEAR_ENDS, SIZES, st.integers(0, SUBSPACE - 1), st.integers(-70_000, 70_000), st.booleans())
def test_the_high_half_is_that_of_the_pseudo_code(top: int, size: int, low: int, offset: int, near: bool) -> None:
    window = ReplayWindow(size)
    window.mark(top)
    low = (top + offset) % SUBSPACE if near else low
    expected, found = pseudo_code(top, size, low), window.extended(low)
    if expected < 0:  # the pseudo-code speaks of the subspace before the first
        assert found == low
    elif expected >= 2**64:  # and of the one after the last
        assert found == 2**64 - SUBSPACE + low
        assert window.check(found) is not None
    else:
        assert found == expected
    assert (window.top, window.extended(low)) == (top, found)


class SlowReceiver:
    """Appendix A2 in numbers of 64 bits: all that were accepted are remembered, and the window is an interval."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.accepted: set[int] = set()
        self.top = 0

    def fate(self, number: int) -> DropReason | None:
        """Of an authentic packet with ``number``, when only its low half arrives."""
        bottom = max(self.top - self.size + 1, 0)
        if number == bottom == 0:
            return DropReason.TOO_OLD
        if not bottom <= number < bottom + SUBSPACE:
            return DropReason.AUTHENTICATION_FAILED  # it is taken for another, under which it is not authentic
        return DropReason.REPLAYED if number in self.accepted else None

    def accept(self, number: int) -> None:
        self.accepted.add(number)
        self.top = max(self.top, number)


def fate(window: ReplayWindow, number: int) -> DropReason | None:
    """What a receiver makes of the packet with ``number``: it sees the low half, and the ICV tells the rest."""
    inferred = window.extended(number % SUBSPACE)
    refused = window.check(inferred)
    if refused is not None:
        return refused
    if inferred != number:
        return DropReason.AUTHENTICATION_FAILED
    window.mark(number)
    return None


def journey(random: Random, size: int) -> Iterator[int]:
    """Numbers as they arrive: in order, over losses of up to 2^31, late by less and by more than the window, again."""
    number, recent = random.choice((1, SUBSPACE - size)), [1]
    yield number
    for step in range(42):
        lost = random.choice((1, 1, 1, 2, size, 70_000, random.randrange(2**31), 2**31))
        if step >= 40:  # so that every journey crosses into another subspace
            lost = 2**31
        number += lost
        yield number
        recent.append(number)
        for late in random.sample((1, size // 2, size - 1, size, size + 1, 3 * size), 2):
            yield max(number - late, 0)
        yield random.choice(recent[-8:])


@given(SIZES, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_receiver_of_extended_numbers_is_the_slow_one(size: int, seed: int) -> None:
    window, slow, random = ReplayWindow(size), SlowReceiver(size), Random(seed)
    for number in journey(random, size):
        for forged in (random.randrange(SUBSPACE), number + SUBSPACE):
            window.check(window.extended(forged % SUBSPACE))  # not authentic: never marked
        expected = slow.fate(number)
        if expected is DropReason.AUTHENTICATION_FAILED:
            # Of a packet that is taken for another, the other's place in the window may speak first.
            assert fate(window, number) is not None
        else:
            assert fate(window, number) is expected
        if expected is None:
            slow.accept(number)
        assert window.top == slow.top
    assert window.top > 2**32  # the journey has crossed into another subspace


@pytest.mark.parametrize("size", [1, 64, 65_536])
def test_both_sides_of_a_crossing_in_any_order(size: int) -> None:
    numbers = list(range(SUBSPACE - size // 2, SUBSPACE + size - size // 2))
    window = ReplayWindow(size)
    window.mark(SUBSPACE - 100_000)
    assert fate(window, numbers[-1]) is None
    order = numbers[:-1]
    Random(size).shuffle(order)
    assert {fate(window, number) for number in order} <= {None}
    assert {fate(window, number) for number in numbers} == {DropReason.REPLAYED}
    assert fate(window, numbers[0] - 1) is DropReason.AUTHENTICATION_FAILED  # it is taken for one to come


def test_a_gap_as_wide_as_can_be_and_one_wider() -> None:
    """RFC 4303 §3.4.3 says 2^32-1 packets; less the window, says appendix A2.2."""
    for gap, expected in ((SUBSPACE - 64, None), (SUBSPACE - 63, DropReason.TOO_OLD)):
        window = ReplayWindow(64)
        window.mark(10_000)
        window.mark(10_000 - 63)
        assert window.extended((10_000 + gap) % SUBSPACE) == (10_000 + gap if expected is None else 10_000 - 63)


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


@given(st.integers(0, 64), st.lists(st.integers(1, 200), max_size=20), st.integers(1, 70), st.integers(1, 90))
def test_a_run_is_marked_as_one_by_one(size: int, before: list[int], gap: int, count: int) -> None:
    runs, ones = ReplayWindow(size), ReplayWindow(size)
    for window in (runs, ones):
        for number in before:
            if window.check(number) is None:
                window.mark(number)
    first = runs.top + gap
    runs.mark_run(first, count)
    for number in range(first, first + count):
        ones.mark(number)
    assert runs.top == ones.top
    probes = range(max(first + count - 2 * size - 2, 0), first + count + 2)
    assert [runs.check(number) for number in probes] == [ones.check(number) for number in probes]


@given(st.integers(0, 2**64), st.integers(1, 100), st.integers(0, 120))
def test_numbers_in_a_row_are_taken_all_or_none(last: int, count: int, left: int) -> None:
    counter = SendCounter(last, last + left)
    if count <= left:
        assert counter.has(count)
        assert counter.take(count) == last + 1
        assert counter.last == last + count
    else:
        assert not counter.has(count)
        with pytest.raises(SequenceExhausted):
            counter.take(count)
        assert counter.last == last
