"""Nothing repeats among the packets of some SAs; a hundred million are for who has the time."""

from __future__ import annotations

from bench.queues import BATCH, QUEUES, measure


def test_nothing_repeats() -> None:
    result = measure(200_000)
    assert result.packets == 200_000 + result.by_python
    assert result.by_python == BATCH * result.sas
    assert result.sas > QUEUES
    assert (result.repeated_numbers, result.repeated_ivs) == (0, 0)
