"""Rows of an answer, of which there may be thousands: made some at a time, so that nothing waits for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

# Ours. A policy takes some 30 microseconds, so whatever else there is to do waits for one millisecond.
ROWS_AT_ONCE = 32

Row = TypeVar("Row")


async def in_turns(rows: Iterable[Row]) -> list[Row]:
    """``rows``, which are made as they are asked for. Behind each ROWS_AT_ONCE of them everybody else has a turn."""
    found: list[Row] = []
    for row in rows:
        found.append(row)
        if len(found) % ROWS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return found
