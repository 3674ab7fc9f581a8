"""What a service manager hears, on the socket that it would listen on."""

from __future__ import annotations

import os
import re
import socket
import time
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio

from kinkvpn.service.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Heard:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0"))
        self.socket.settimeout(20)

    def next(self) -> str:
        return self.socket.recv(4096).decode()


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Heard]:
    made = Heard(str(tmp_path / "notify") if request.param == "path" else f"@kinkvpn-test-{os.getpid()}")
    with made.socket:
        yield made


def test_it_is_told_what_happens(heard: Heard) -> None:
    notifier = Notifier(heard.environment)
    notifier.ready()
    assert heard.next() == "READY=1"
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", heard.next())
    assert found is not None
    assert before <= int(found[1]) <= time.monotonic_ns() // 1000
    for text in ("1 of 2 peers", "1 of 2 peers", "2 of 2 peers"):
        notifier.status(text)
    assert [heard.next(), heard.next()] == ["STATUS=1 of 2 peers", "STATUS=2 of 2 peers"]
    notifier.stopping()
    assert heard.next() == "STOPPING=1\nSTATUS=stopping"


async def test_signs_of_life_come_while_the_packet_loop_has_its_turns_and_then_no_more(heard: Heard) -> None:
    notifier = Notifier(heard.environment | {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": str(os.getpid())})
    turns, stuck = iter(range(3)), trio.Event()

    async def wait_turn() -> None:
        if next(turns, None) is None:
            stuck.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run, lambda: "all is well", wait_turn)
        said = [await trio.to_thread.run_sync(heard.next) for _ in range(4)]
        assert said == ["WATCHDOG=1", "STATUS=all is well", "WATCHDOG=1", "WATCHDOG=1"]
        await stuck.wait()
        heard.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.socket.recv(4096)
        nursery.cancel_scope.cancel()


async def test_without_a_watchdog_there_is_the_status_alone(heard: Heard) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Notifier(heard.environment).run, lambda: "fine", trio.lowlevel.checkpoint)
        assert await trio.to_thread.run_sync(heard.next) == "STATUS=fine"
        nursery.cancel_scope.cancel()


async def test_who_was_started_by_hand_tells_nobody() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000"}):
        notifier = Notifier(environment)
        notifier.ready()
        assert notifier.watchdog == inf
        await notifier.run(lambda: "", trio.sleep_forever)


def test_a_manager_that_has_gone_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    (record,) = caplog.records
    assert (record.message, record.fields["reason"]) == ("service_manager_deaf", "No such file or directory")


@pytest.mark.parametrize("other", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_of_somebody_else_or_of_no_time_is_none(heard: Heard, other: dict[str, str]) -> None:
    assert Notifier(heard.environment | {"WATCHDOG_USEC": "30000000"}).watchdog == 30.0
    assert Notifier(heard.environment | {"WATCHDOG_USEC": "30000000"} | other).watchdog == inf
