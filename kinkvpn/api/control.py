"""The control socket: claimed by a daemon before it does anything else, found by its clients. No HTTP yet."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import struct
from stat import S_ISSOCK
from typing import TYPE_CHECKING, NamedTuple

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from pathlib import Path

    import trio

log = logging.getLogger(__name__)

# Ours. Whoever connects while the daemon is busy waits here (listen(2)), a crowd too: it is told that it is one.
BACKLOG = 128

# struct ucred (unix(7), SO_PEERCRED).
_UCRED = struct.Struct("3i")


class ControlUnavailable(KinkvpnError):
    """The control socket cannot be opened: somebody has it, or the path is no good."""


class AlreadyRunning(ControlUnavailable):
    """A daemon answers at this socket; the message has its pid."""


class NotRunning(KinkvpnError):
    """Nobody answers at the control socket."""


class CommandRefused(KinkvpnError):
    """The daemon would not do it; the message is its own."""


class Credentials(NamedTuple):
    """Who is at the other end of a connection (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class ControlSocket:
    """The listening socket, claimed before anything else is done to the host, served once the rest is up.

    What a crash left behind is found out by connecting: nobody listens, so it is replaced. The socket is 0600: who may
    open it is root, or whoever runs the daemon.

    Args:
        path: where.
        group: whose members may open it too: 0660 then; empty for nobody's.

    Raises:
        AlreadyRunning: with the pid.
        ControlUnavailable: the path cannot be used.
    """

    def __init__(self, path: Path, group: str = "") -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _remove_stale(path)
            self._listener = _listening(path)
            self._identity = _identity(path)
            if group:
                self._admit(group)
        except OSError as error:
            raise ControlUnavailable(f"control socket {path}: {error.strerror}") from error

    def _admit(self, group: str) -> None:
        try:
            shutil.chown(self._path, group=group)
        except (LookupError, PermissionError) as error:
            self.close()
            reason = "this host has no such group" if isinstance(error, LookupError) else error.strerror
            raise ControlUnavailable(f'control.group = "{group}": {reason}') from error
        self._path.chmod(0o660)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    def listener(self) -> socket.socket:
        """For the server, which closes it; the claim stays ours until :meth:`close`."""
        return self._listener.dup()

    def close(self) -> None:
        """Stop listening and remove the socket, unless another daemon has put its own there since."""
        self._listener.close()
        try:
            if _identity(self._path) == self._identity:
                self._path.unlink()
        except OSError as error:
            # The directory went away with the machine's /run: there is nothing to remove.
            log.debug("control_socket_gone", extra={"fields": {"path": str(self._path), "reason": error.strerror}})


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
            raise AlreadyRunning(f"already running, pid {credentials(running).pid} (control socket {path})")
    except NotRunning:
        path.unlink(missing_ok=True)


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The inode that bind makes takes the socket's mode (unix(7)): at no moment is it open to others.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


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


def credentials(connection: socket.socket | trio.socket.SocketType) -> Credentials:
    """Whoever is at the other end."""
    return Credentials(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
