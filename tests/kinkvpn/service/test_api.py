"""The control socket: real sockets, a real client in a thread; what stale, live, foreign and hostile things get."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kinkvpn.errors import KinkvpnError
from kinkvpn.service import api

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


async def echo(request: Mapping[str, Any]) -> Mapping[str, object]:
    return {"got": request.get("value")}


async def refuse(_request: Mapping[str, Any]) -> Mapping[str, object]:
    raise KinkvpnError("no peer 'x'")


async def fail(_request: Mapping[str, Any]) -> Mapping[str, object]:
    raise ZeroDivisionError


COMMANDS = {"echo": echo, "refuse": refuse, "fail": fail}


def ask(path: Path, command: str, **arguments: object) -> dict[str, Any]:
    with api.connect(path) as connection:
        return api.request(connection, command, **arguments)


async def test_a_round_trip(tmp_path: Path, nursery: trio.Nursery) -> None:
    control = api.ControlSocket(tmp_path / "deep" / "k.sock")
    await nursery.start(control.serve, COMMANDS)
    path = tmp_path / "deep" / "k.sock"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert await trio.to_thread.run_sync(lambda: ask(path, "echo", value=[1, "é"])) == {"got": [1, "é"]}
    with pytest.raises(api.CommandRefused, match="no peer 'x'"):
        await trio.to_thread.run_sync(ask, path, "refuse")
    with pytest.raises(api.CommandRefused, match="no such command; there are echo, fail, refuse"):
        await trio.to_thread.run_sync(ask, path, "nonsense")
    nursery.cancel_scope.cancel()
    control.close()
    assert not path.exists()


@pytest.mark.root
async def test_who_may_not_use_the_socket_is_told_who_may(tmp_path: Path, nursery: trio.Nursery) -> None:
    control = api.ControlSocket(tmp_path / "k.sock")
    await nursery.start(control.serve, COMMANDS)
    os.seteuid(65534)
    try:
        with pytest.raises(api.ControlUnavailable, match="Permission denied: run this as the daemon's user"):
            api.connect(tmp_path / "k.sock")
    finally:
        os.seteuid(0)
    nursery.cancel_scope.cancel()
    control.close()


async def test_a_defect_in_a_command_ends_neither_the_daemon_nor_the_conversation(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    control = api.ControlSocket(tmp_path / "k.sock")
    await nursery.start(control.serve, COMMANDS)

    def twice() -> dict[str, Any]:
        with api.connect(tmp_path / "k.sock") as connection:
            with pytest.raises(api.CommandRefused, match="fail failed; the daemon's log has the reason"):
                api.request(connection, "fail")
            return api.request(connection, "echo", value=1)

    assert await trio.to_thread.run_sync(twice) == {"got": 1}
    (logged,) = caplog.records
    assert logged.message == "command_failed"
    assert logged.exc_info is not None
    nursery.cancel_scope.cancel()
    control.close()


def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "k.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
        crashed.listen()
    assert path.exists()
    with pytest.raises(api.NotRunning, match="no daemon is running"):
        api.connect(path)
    control = api.ControlSocket(path)
    with api.connect(path) as connection:
        assert api.peer_pid(connection) == os.getpid()
    control.close()


def test_a_second_daemon_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    first = api.ControlSocket(tmp_path / "k.sock")
    with pytest.raises(api.AlreadyRunning, match=f"already running, pid {os.getpid()} "):
        api.ControlSocket(tmp_path / "k.sock")
    assert (tmp_path / "k.sock").exists()
    first.close()


def test_something_else_at_the_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "k.sock"
    path.write_text("mine")
    with pytest.raises(api.ControlUnavailable, match="something else at this path"):
        api.ControlSocket(path)
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in (("file/k.sock", "File exists"), ("x" * 200, "")):
        with pytest.raises(api.ControlUnavailable, match=f"control socket .*{path}: {reason}"):
            api.ControlSocket(tmp_path / path)


def test_a_socket_that_another_daemon_put_there_since_stays(tmp_path: Path) -> None:
    path = tmp_path / "k.sock"
    first = api.ControlSocket(path)
    path.unlink()
    second = api.ControlSocket(path)
    first.close()
    with api.connect(path):
        second.close()
    assert not path.exists()


def test_nobody_there(tmp_path: Path) -> None:
    for name in ("k.sock", "no/k.sock"):
        with pytest.raises(api.NotRunning, match="no daemon is running"):
            api.connect(tmp_path / name)


@pytest.mark.parametrize("answer", [b"", b"x\n", b'{"ok": true}\n', b'{"ok": true, "result": {}}', b"[]\n"])
def test_a_daemon_that_answers_badly(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(answer)
        with pytest.raises(api.ControlUnavailable):
            api.request(ours, "status")


def test_a_daemon_that_does_not_answer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        with pytest.raises(api.ControlUnavailable, match="does not answer"):
            api.request(ours, "status")


async def served(tmp_path: Path, nursery: trio.Nursery) -> tuple[api.ControlSocket, trio.SocketStream]:
    control = api.ControlSocket(tmp_path / "k.sock")
    await nursery.start(control.serve, COMMANDS)
    return control, await trio.open_unix_socket(str(tmp_path / "k.sock"))


async def ended(stream: trio.SocketStream) -> bool:
    """Whether the other end hung up without a word. It may reset: what we sent was never read."""
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


async def test_a_client_that_says_too_much_is_left(tmp_path: Path, nursery: trio.Nursery) -> None:
    control, stream = await served(tmp_path, nursery)
    async with stream:
        await stream.send_all(b"x" * (api.LONGEST_REQUEST + 1))
        assert await ended(stream)
    nursery.cancel_scope.cancel()
    control.close()


async def test_a_silent_client_loses_its_place(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    control, stream = await served(tmp_path, nursery)
    async with stream:
        before = trio.current_time()
        assert await stream.receive_some() == b""
        assert trio.current_time() - before == pytest.approx(api.IDLE_SECONDS)
    nursery.cancel_scope.cancel()
    control.close()


async def test_one_client_too_many_is_told_so(tmp_path: Path, nursery: trio.Nursery) -> None:
    control, first = await served(tmp_path, nursery)
    crowd = [first] + [await trio.open_unix_socket(str(tmp_path / "k.sock")) for _ in range(api.MAX_CLIENTS)]
    answer = await crowd[-1].receive_some()
    assert json.loads(answer) == {"ok": False, "error": "16 clients are here already: try again"}
    await first.aclose()
    for stream in crowd:
        await stream.aclose()
    nursery.cancel_scope.cancel()
    control.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=80).map(lambda octets: octets.replace(b"\n", b" ") + b"\n"), max_size=5))
async def test_any_lines_are_answered_and_the_next_request_too(lines: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    server = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    client = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    async with trio.open_nursery() as nursery, client, server:
        nursery.start_soon(api.converse, server, COMMANDS)
        await client.send_all(b"".join(lines) + b'{"command": "echo", "value": 1}\n')
        received = b""
        while received.count(b"\n") <= len(lines):
            received += await client.receive_some()
        *refused, last = received.splitlines()
        assert json.loads(last) == {"ok": True, "result": {"got": 1}}
        assert all(json.loads(answer)["ok"] is False for answer in refused)
        nursery.cancel_scope.cancel()


def test_the_socket_is_never_open_to_others(tmp_path: Path) -> None:
    """Not even before a chmod: with an umask of nothing, the inode is born 0600."""
    seen: set[int] = set()
    path = tmp_path / "k.sock"
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if path.exists():
                seen.add(stat.S_IMODE(path.lstat().st_mode))

    before = os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    control = api.ControlSocket(path)
    while not seen:
        pass
    stop.set()
    watcher.join()
    os.umask(before)
    control.close()
    assert seen == {0o600}
