"""The local control socket: one JSON object a line each way, file permissions as the lock.

-> {"command": "probe", "peer": "west"}
<- {"ok": true, "result": {"peer": "west", "seconds": 0.0021}}
<- {"ok": false, "error": "no peer 'wset'; there are west, north"}
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import struct
from contextlib import suppress
from stat import S_ISSOCK
from typing import TYPE_CHECKING, Any

import trio

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    Commands = Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Mapping[str, object]]]]

log = logging.getLogger(__name__)

# Ours. The longest request is a command and a name; whoever sends more is no client of ours.
LONGEST_REQUEST = 4096
# Ours. Status of 4,096 policies is 3 MB.
LONGEST_ANSWER = 16 << 20
# Ours. People and a monitoring agent; more are told to come back, so that a loop gone wild cannot hold descriptors.
MAX_CLIENTS = 16
# Ours. A client that neither asks nor leaves gives its place up.
IDLE_SECONDS = 30.0

# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED).
_UCRED = struct.Struct("3i")


class ControlUnavailable(KinkvpnError):
    """The control socket cannot be opened: somebody has it, or the path is no good."""


class AlreadyRunning(ControlUnavailable):
    """A daemon answers at this socket; the message has its pid."""


class NotRunning(KinkvpnError):
    """Nobody answers at the control socket."""


class CommandRefused(KinkvpnError):
    """The daemon would not do it; the message is its own."""


class ControlSocket:
    """The listening socket, claimed before anything else is done to the host, served once the rest is up.

    What a crash left behind is found out by connecting: nobody listens, so it is replaced. The socket is 0600: who may
    open it is root, or whoever runs the daemon.

    Raises:
        AlreadyRunning: with the pid.
        ControlUnavailable: the path cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _remove_stale(path)
            self._listener = _listening(path)
            self._identity = _identity(path)
        except OSError as error:
            raise ControlUnavailable(f"control socket {path}: {error.strerror}") from error

    async def serve(
        self,
        commands: Commands,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer until cancelled. A command gets the whole request and raises KinkvpnError to refuse."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener.dup()))
        places = trio.CapacityLimiter(MAX_CLIENTS)

        async def receive(stream: trio.SocketStream) -> None:
            # A client that breaks off, or does not take its answer, is nobody's trouble but its own.
            with suppress(trio.BrokenResourceError, trio.TooSlowError):
                try:
                    places.acquire_on_behalf_of_nowait(stream)
                except trio.WouldBlock:
                    busy = f"{MAX_CLIENTS} clients are here already: try again"
                    await _answer(stream, {"ok": False, "error": busy})
                    return
                try:
                    await converse(stream, commands)
                finally:
                    places.release_on_behalf_of(stream)

        async with listener:
            task_status.started()
            await trio.serve_listeners(receive, [listener])

    def close(self) -> None:
        """Stop listening and remove the socket, unless another daemon has put its own there since."""
        self._listener.close()
        try:
            if _identity(self._path) == self._identity:
                self._path.unlink()
        except OSError as error:
            # The directory went away with the machine's /run: there is nothing to remove.
            log.debug("control_socket_gone", extra={"fields": {"path": str(self._path), "reason": error.strerror}})


async def converse(
    stream: trio.SocketStream,
    commands: Commands,
) -> None:
    """Requests and answers until the client leaves, asks too much or falls silent."""
    buffered = bytearray()
    while True:
        with trio.fail_after(IDLE_SECONDS):
            line = await _receive_line(stream, buffered)
        if line is None:
            return
        await _answer(stream, await _obey(line, commands))


async def _receive_line(stream: trio.SocketStream, buffered: bytearray) -> bytes | None:
    """The next line without its end; None when the client has left, or sends more than any request has."""
    while (end := buffered.find(b"\n")) < 0:
        received = await stream.receive_some(LONGEST_REQUEST)
        buffered += received
        if not received or len(buffered) > LONGEST_REQUEST:
            return None
    line = bytes(buffered[:end])
    del buffered[: end + 1]
    return line


async def _obey(line: bytes, commands: Commands) -> dict[str, object]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {"ok": False, "error": "a request is one JSON object on one line"}
    name = request.get("command") if isinstance(request, dict) else None
    if not isinstance(name, str) or name not in commands:
        return {"ok": False, "error": f"no such command; there are {', '.join(sorted(commands))}"}
    try:
        return {"ok": True, "result": dict(await commands[name](request))}
    except KinkvpnError as error:
        return {"ok": False, "error": str(error)}
    except Exception:
        # A defect in what only tells or asks must not take the tunnels down with it.
        log.exception("command_failed", extra={"fields": {"command": name}})
        return {"ok": False, "error": f"{name} failed; the daemon's log has the reason"}


async def _answer(stream: trio.SocketStream, answer: Mapping[str, object]) -> None:
    with trio.fail_after(IDLE_SECONDS):
        await stream.send_all(json.dumps(answer).encode() + b"\n")


def _remove_stale(path: Path) -> None:
    """Make room at ``path`` if what is there is a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not S_ISSOCK(mode):
        raise ControlUnavailable(f"control socket {path}: there is something else at this path")
    try:
        with connect(path) as running:
            raise AlreadyRunning(f"already running, pid {peer_pid(running)} (control socket {path})")
    except NotRunning:
        path.unlink(missing_ok=True)


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The inode that bind makes takes the socket's mode (unix(7)): at no moment is it open to others.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(MAX_CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


# The client's side: blocking, for the command line.


def connect(path: Path, timeout: float = 5.0) -> socket.socket:
    """A connection to the daemon at ``path``; ``timeout`` is in seconds and stays with the socket.

    Raises:
        NotRunning: there is no socket, or a crash left it.
        ControlUnavailable: there is one and we may not use it, or it is too busy.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            raise NotRunning(f"no daemon is running (control socket {path})") from None
        reason = error.strerror or str(error)
        advice = ": run this as the daemon's user, which is root mostly" if error.errno == errno.EACCES else ""
        raise ControlUnavailable(f"control socket {path}: {reason}{advice}") from None
    return connection


def peer_pid(connection: socket.socket) -> int:
    """Whoever listens at the other end."""
    pid: int = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return pid


def request(connection: socket.socket, command: str, **arguments: object) -> dict[str, Any]:
    """The result of ``command``.

    Raises:
        CommandRefused: the daemon said no.
        ControlUnavailable: it did not answer in time, or not in our language.
    """
    try:
        connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        with connection.makefile("rb") as answers:
            line = answers.readline(LONGEST_ANSWER)
        answer = json.loads(line) if line.endswith(b"\n") else None
    except OSError as error:
        raise ControlUnavailable(f"the daemon does not answer: {error.strerror or error}") from None
    except ValueError:
        answer = None
    match answer:
        case {"ok": True, "result": dict() as result}:
            return result
        case {"ok": False, "error": str() as reason}:
            raise CommandRefused(reason)
        case _:
            raise ControlUnavailable("the daemon ended before it answered")
