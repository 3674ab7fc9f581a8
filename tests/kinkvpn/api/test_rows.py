"""Rows by the thousand leave everybody else their turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from kinkvpn.api.rows import ROWS_AT_ONCE, in_turns

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("number", [0, 1, ROWS_AT_ONCE, 10 * ROWS_AT_ONCE + 1])
async def test_no_more_rows_are_made_than_that_without_a_turn_for_others(number: int) -> None:
    made, most = 0, 0

    def rows() -> Iterator[int]:
        nonlocal made, most
        for row in range(number):
            made += 1
            most = max(most, made)
            yield row

    async def take_turns() -> None:
        nonlocal made
        while True:
            made = 0
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        assert await in_turns(rows()) == list(range(number))
        nursery.cancel_scope.cancel()
    assert most <= 2 * ROWS_AT_ONCE, "in one round of Trio's either of two may be first"
