"""The ring of events: numbers, bounds, followers that are slow, early or from another life."""

from __future__ import annotations

import json
import threading
from contextlib import aclosing

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.api.events import HEARTBEAT, HEARTBEAT_SECONDS, MAX_EVENTS, Events, Place, UnknownPlace, place


def ring(events: int) -> Events:
    found = Events(0xAB)
    for number in range(1, events + 1):
        found.add({"event": "x", "n": number})
    return found


async def said(events: Events, behind: Place | None = None) -> list[str]:
    """The lines of a stream that does not wait, without empty ones."""
    octets = b"".join([piece async for piece in events.follow(behind, on=False)])
    return [line for line in octets.decode().split("\n") if line]


async def test_each_has_a_number_and_its_data_in_one_line() -> None:
    events = ring(1)
    events.add({"event": "a\nb\u2028", "reason": "\x1b[2J"})
    lines = await said(events)
    assert lines[::2] == ["id: ab-1", "id: ab-2"]
    assert json.loads(lines[3].removeprefix("data: ")) == {"event": "a\nb\u2028", "reason": "\x1b[2J"}


async def test_whoever_comes_late_has_the_newest_thousand() -> None:
    events = ring(MAX_EVENTS + 7)
    lines = await said(events)
    assert (lines[0], len(lines)) == ("id: ab-8", 2 * MAX_EVENTS), "nobody has lost what it never asked for"


@pytest.mark.parametrize(
    ("behind", "first"),
    [
        (Place("ab", 3), "id: ab-4"),
        (Place("ab", 5), ""),
        (Place("ab", 99), "id: ab-1"),
        (Place("aa", 3), "id: ab-1"),
        (None, "id: ab-1"),
    ],
)
async def test_where_it_goes_on(behind: Place | None, first: str) -> None:
    """A number that there has not been, and one of another life of the daemon, tell nothing of this one."""
    lines = await said(ring(5), behind)
    assert "".join(lines[:1]) == first


async def test_who_was_away_too_long_is_told_how_many_it_has_lost() -> None:
    lines = await said(ring(MAX_EVENTS + 7), Place("ab", 3))
    assert lines[:3] == ["event: lost", 'data: {"lost": 4}', "id: ab-8"]


async def test_a_slow_follower_loses_the_oldest_and_is_told_how_many() -> None:
    events = ring(1)
    async with aclosing(events.follow(None)) as followed:
        assert (await anext(followed)).startswith(b"id: ab-1\n")
        for number in range(MAX_EVENTS + 5):
            events.add({"n": number})
        assert await anext(followed) == b'event: lost\ndata: {"lost": 5}\n\n'
        assert (await anext(followed)).startswith(b"id: ab-7\n")


async def test_followers_are_woken_from_any_thread(nursery: trio.Nursery) -> None:
    events = ring(0)
    found: list[bytes] = []

    async def follow() -> None:
        async with aclosing(events.follow(None)) as followed:
            found.append(await anext(followed))

    async with trio.open_nursery() as followers:
        for _ in range(3):
            followers.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        thread = threading.Thread(target=events.add, args=({"event": "x"},))
        thread.start()
    thread.join()
    assert found == [b'id: ab-1\ndata: {"event":"x"}\n\n'] * 3


async def test_a_follower_hears_something_now_and_then(autojump_clock: trio.testing.MockClock) -> None:
    before = trio.current_time()
    async with aclosing(ring(0).follow(None)) as followed:
        assert await anext(followed) == HEARTBEAT
    assert trio.current_time() - before == pytest.approx(HEARTBEAT_SECONDS)


def test_a_loop_that_is_gone_is_woken_no_more() -> None:
    events = ring(0)

    async def follow() -> None:
        with trio.move_on_after(0.01):
            async with aclosing(events.follow(None)) as followed:
                await anext(followed)

    trio.run(follow)
    events.add({"event": "stopped"})
    assert events.after(0) == (0, [b'id: ab-1\ndata: {"event":"stopped"}\n\n'])


@given(st.text(max_size=60))
def test_what_is_no_id_is_refused(text: str) -> None:
    try:
        found = place(text)
    except UnknownPlace:
        return
    assert f"{found.life}-" in text


@given(st.integers(0, 2**40), st.integers(0, 10**14))
def test_an_id_is_read_as_it_was_written(life: int, number: int) -> None:
    assert place(f"{life:x}-{number}") == (f"{life:x}", number)
