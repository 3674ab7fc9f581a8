"""The replay window in C, against that of Python and against one that remembers every number."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from esp.native._core import Window
from esp.native.sa import REASONS, NativeWindow
from esp.seqnum import ReplayWindow

LAST = 2**64 - 1
SUBSPACE = 2**32
SIZES = st.sampled_from([0, 1, 2, 31, 63, 64, 65, 127, 128, 129, 1000, 1024, 8192, 65_535, 65_536])
STEPS = st.integers(-70, 70) | st.sampled_from([-65_537, -65_536, -8192, -64, 64, 128, 300, 9000, 65_536, 131_072])
STARTS = st.sampled_from([1, 2**31, SUBSPACE - 40, 2**63, LAST - 40]) | st.integers(1, LAST)


def checked(window: Window, number: int) -> object:
    position = window.check(number)
    return None if position < 0 else REASONS[position]


@given(SIZES, STARTS, st.lists(STEPS | st.integers(0, 2**40), max_size=120))
def test_it_is_the_portable_one(size: int, start: int, steps: list[int]) -> None:
    native, portable = Window(size), ReplayWindow(size)
    top = start
    for step in [0, *steps]:
        number = min(max(0, top + step), LAST)
        refused = portable.check(number)
        assert checked(native, number) is refused
        if refused is None:
            native.mark(number)
            portable.mark(number)
            top = max(top, number)
        assert native.top == portable.top


@pytest.mark.parametrize("size", [1, 64, 1000, 8192, 65_536])
def test_it_remembers_what_a_set_remembers(size: int) -> None:
    random = Random(size)
    window, accepted, top = Window(size), set[int](), 0
    for _ in range(4000):
        ahead = random.choice([1, 1, 1, 2, -1, -3, -size // 2, 1 - size, -size, random.randrange(1, 2 * size + 2)])
        number = max(0, top + ahead)
        fresh = number > top or (number not in accepted and 0 < number > top - size)
        assert (checked(window, number) is None) is fresh
        if fresh:
            window.mark(number)
            accepted.add(number)
            top = max(top, number)
            assert window.seen(number)
    assert NativeWindow.copy_of(_native(window, size)).marked() == sorted(n for n in accepted if n > top - size)


def _native(core: Window, size: int) -> NativeWindow:
    made = NativeWindow(size)
    made.core = core
    return made


def test_every_size_has_room_for_every_number_of_it() -> None:
    """The newest, the oldest, and both again after all places have been used."""
    for size in range(1, 65_537):
        window = Window(size)
        for top in (size, size + 1, 3 * size + 63):
            window.mark(top)
            oldest = top - size + 1
            assert window.check(top) >= 0
            assert window.check(oldest - 1) >= 0 or oldest == 1
            if window.check(oldest) < 0:
                window.mark(oldest)
                assert window.check(oldest) >= 0


@given(
    st.integers(0, LAST)
    | st.builds(
        lambda high, low: min(max(0, high * SUBSPACE + low), LAST),
        st.sampled_from([0, 1, 2, 2**31, 2**32 - 2, 2**32 - 1, 2**32]),
        st.integers(-70_000, 70_000),
    ),
    SIZES,
    st.integers(0, SUBSPACE - 1),
    st.integers(-70_000, 70_000),
    st.booleans(),
)
@example(LAST, 0, 0, 0, False)
@example(LAST, 65_536, SUBSPACE - 65_537, 0, False)
@example(LAST - SUBSPACE, 0, 0, 0, False)
@example(LAST - SUBSPACE + 1, 1, 0, 0, False)
@example(0, 1, SUBSPACE - 1, 0, False)
def test_extended_numbers_are_those_of_the_portable_one(top: int, size: int, low: int, offset: int, near: bool) -> None:
    native, portable = Window(size), ReplayWindow(size)
    native.mark(top)
    portable.mark(top)
    low = (top + offset) % SUBSPACE if near else low
    assert native.extended(low) == portable.extended(low)
    assert checked(native, native.extended(low)) is portable.check(portable.extended(low))


@pytest.mark.parametrize("size", [65_537, 2**31, 2**32 - 64, 2**32 - 1])
def test_there_is_none_of_a_size_that_no_sa_has(size: int) -> None:
    with pytest.raises(MemoryError):
        Window(size)
