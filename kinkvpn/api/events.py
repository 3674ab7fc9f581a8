"""The daemon's newest events, numbered, for whoever follows them as server-sent events (HTML §9.2).

One ring for all: a follower is a place in it, so it costs nothing, and one that reads too slowly loses the oldest and
is told how many.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# Ours. A start with a hundred peers, or an hour of rekeys with them, can be looked at afterwards: half a megabyte.
MAX_EVENTS = 1000
# Ours. So often a follower hears something, and so a connection that nobody holds any more is found out.
HEARTBEAT_SECONDS = 15.0
# Ours. Between two of them the loop does something else, whoever follows whatever.
EVENTS_AT_ONCE = 100

HEARTBEAT = b": still here\n\n"
_ID = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,15})")


class Place(NamedTuple):
    """Behind which event to go on: its number, and the life of the daemon that it is from."""

    life: str
    number: int


class UnknownPlace(ValueError):
    """What a client calls the id of an event is none."""


def place(text: str) -> Place:
    """Of an event id. Raises UnknownPlace."""
    found = _ID.fullmatch(text)
    if found is None:
        raise UnknownPlace(f"{text[:40]!r} is no id of an event")
    return Place(found[1], int(found[2]))


class Events:
    """The ring.

    Args:
        life: distinguishes this daemon from earlier ones, whose events have numbers too: hexadecimal.
    """

    def __init__(self, life: int) -> None:
        self._life = f"{life:x}"
        self._ring: deque[bytes] = deque(maxlen=MAX_EVENTS)
        self._last = 0  # number of the newest
        self._lock = threading.Lock()
        self._more = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None

    def add(self, event: Mapping[str, object]) -> None:
        """From any thread. What is not followed by anybody wakes nobody."""
        data = msgspec.json.encode(event)
        with self._lock:
            self._last += 1
            self._ring.append(b"id: %b-%d\ndata: %b\n\n" % (self._life.encode(), self._last, data))
            token, self._token = self._token, None
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._more.set()
        self._more = trio.Event()

    def after(self, number: int) -> tuple[int, list[bytes]]:
        """Up to EVENTS_AT_ONCE events behind ``number``, and how many before them were lost."""
        with self._lock:
            oldest = self._last - len(self._ring) + 1
            first = max(number + 1, oldest)
            behind = list(self._ring)[first - oldest :][:EVENTS_AT_ONCE]
        return first - number - 1, behind

    async def follow(self, behind: Place | None, *, on: bool = True) -> AsyncIterator[bytes]:
        """As the octets of an event stream.

        Args:
            behind: go on behind that one; None is from the oldest there is. One of an earlier life of the daemon has
                nothing behind it but this life.
            on: wait for more, and never end.
        """
        number = behind.number if behind is not None and behind.life == self._life else None
        if number is None or number > self._last:
            number = self._last - len(self._ring)
        while True:
            lost, found = self.after(number)
            number += lost + len(found)
            if lost:
                yield b'event: lost\ndata: {"lost": %d}\n\n' % lost
            if found:
                yield b"".join(found)
                await trio.lowlevel.checkpoint()
            elif not on:
                return
            elif not await self._another(number):
                yield HEARTBEAT

    async def _another(self, number: int) -> bool:
        """Returns once there is one behind ``number``; False where none has come for HEARTBEAT_SECONDS."""
        with trio.move_on_after(HEARTBEAT_SECONDS):
            more = self._more
            with self._lock:
                self._token = trio.lowlevel.current_trio_token()
                there = self._last > number
            if not there:
                await more.wait()
            return True
        return False
