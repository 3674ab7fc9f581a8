"""One descriptor for several sockets: ready, waited for, closed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from esp.readiness import Readiness

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for each in pair:
            each.close()


@pytest.mark.parametrize("speaker", range(3))
def test_any_of_them_is_enough(pairs: list[tuple[socket.socket, socket.socket]], speaker: int) -> None:
    """Also of one that was added later, and of one behind another set."""

    async def main() -> None:
        inner = Readiness([pairs[0][0]])
        readiness = Readiness([inner, pairs[1][0]])
        readiness.add(pairs[2][0])
        with trio.move_on_after(0) as nothing:
            await readiness.wait()
        assert nothing.cancelled_caught
        pairs[speaker][1].send(b"x")
        with trio.fail_after(10):
            await readiness.wait()
            await readiness.wait()  # it is so until somebody reads
        assert [readiness.close(), inner.close()] == [True, True]

    trio.run(main)


def test_who_waits_is_woken_and_who_comes_late_is_told(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    async def main() -> None:
        readiness = Readiness([pairs[0][0]])

        async def wait(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            with pytest.raises(trio.ClosedResourceError):
                await readiness.wait()

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                await nursery.start(wait)
                await trio.testing.wait_all_tasks_blocked()
                assert readiness.close()
        with pytest.raises(trio.ClosedResourceError):
            await readiness.wait()
        assert not readiness.close()

    trio.run(main)


def test_it_is_closed_where_no_loop_runs(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    readiness = Readiness([pairs[0][0]])
    assert readiness.fileno() >= 0
    assert [readiness.close(), readiness.close()] == [True, False]
