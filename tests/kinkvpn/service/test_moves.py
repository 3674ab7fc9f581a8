"""Two simulated hosts, and news through a pair of sockets; tests/interop/test_people.py has the kernel's own."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from support.host import Tunnel, simulate

from kinkvpn.service import moves
from kinkvpn.service.moves import leaving_addresses, moved, open_news, tell_of_moves

if TYPE_CHECKING:
    from support.host import World

TUNNEL = Tunnel(0, boot=frozenset({"west"}))


def test_who_is_reached_from_elsewhere_has_to_be_told_and_who_is_not_reached_cannot_be() -> None:
    assert moved({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}) == ["b"]


def test_the_kernel_tells_of_addresses() -> None:
    with open_news() as news:
        assert news.getsockname()[1] == moves.RTMGRP


def test_without_news_from_the_kernel_the_daemon_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def refused() -> socket.socket:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    async def scenario(world: World) -> None:
        west, _ = await world.pair([TUNNEL])
        await tell_of_moves(west.keying, refused)

    simulate(scenario, 1)
    assert [record.message for record in caplog.records] == ["moves_not_seen"]


@pytest.mark.parametrize("mover", ["west", "east"], ids=["who has made the SAs", "who has not"])
def test_peers_that_packets_leave_for_from_elsewhere_are_told(
    mover: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    here = ["192.0.2.1"]
    monkeypatch.setattr(moves, "leaving_address", lambda _: here[-1])

    async def scenario(world: World) -> None:
        west, east = await world.pair([TUNNEL])
        await world.wait_at_rest(within=5)
        if mover == "east":
            west, east = east, west
        assert list(leaving_addresses(west.keying.peers).values()) == ["192.0.2.1"]
        heard = east.counters().get("commands_received", 0)
        told, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        told.setblocking(False)
        with kernel:
            world.nursery.start_soon(tell_of_moves, west.keying, lambda: told)
            await trio.testing.wait_all_tasks_blocked()
            kernel.send(b"nothing that matters")
            await trio.sleep(10)
            assert east.counters().get("commands_received", 0) == heard
            here.append("203.0.113.7")
            kernel.send(b"news")
            await world.wait_until(lambda: east.counters().get("commands_received", 0) == heard + 1, within=10)

    simulate(scenario, 2)
    assert [record.message for record in caplog.records].count("moved") == 1
