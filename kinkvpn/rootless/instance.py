"""What tells several tunnels of one user apart: a control socket each, and which machine they are to a gateway."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING

from kinkvpn.people.identity import machine_of
from kinkvpn.proto.extensions import MACHINE_OCTETS
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"run-(\d+)\.sock")
# Ours. More than a gateway lets in of one principal, as a rule (people.machines).
MOST_MACHINES = 64


def control_path(pid: int, environment: Mapping[str, str] = os.environ) -> Path:
    """Of the command with that ``pid``; those that were killed are removed on the way.

    Raises:
        StartRefused: the directory is somebody else's.
    """
    directory = runtime_directory(environment)
    for each in directory.iterdir():
        found = _NAME.fullmatch(each.name)
        if found and not Path("/proc", found[1]).exists():
            with suppress(OSError):  # another instance may be at it too
                each.unlink()
    return directory / f"run-{pid}.sock"


def runtime_directory(environment: Mapping[str, str]) -> Path:
    """In XDG_RUNTIME_DIR (XDG Base Directory Specification); without one, where temporary files are.

    Raises:
        StartRefused: the directory is somebody else's.
    """
    user = os.geteuid()
    given = environment.get("XDG_RUNTIME_DIR", "")
    directory = Path(given, "kinkvpn") if given else Path(tempfile.gettempdir(), f"kinkvpn-{user}")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        ours = _is_ours(directory)
    except OSError as error:
        raise StartRefused(f"{directory}: {error.strerror}: set XDG_RUNTIME_DIR to a directory of yours") from error
    if not ours:
        raise StartRefused(f"{directory} is not a directory of uid {user} alone: set XDG_RUNTIME_DIR to one")
    return directory


def _is_ours(directory: Path) -> bool:
    """Nobody else may enter: in a directory that everybody may write to somebody may have been there first."""
    status = directory.lstat()
    return S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def machine_at(gateway: str, environment: Mapping[str, str] = os.environ, most: int = MOST_MACHINES) -> bytes:
    """Which machine of its user's this process is to ``gateway`` until it ends: the first that no other process is.

    So whoever comes again has the same address, and several at once have one each. Sixteen octets of a file that is
    locked meanwhile, and of this host.

    Args:
        gateway: as it was typed.
        environment: of this process.
        most: that are remembered; whoever comes then is another one each time.

    Raises:
        StartRefused: there is no place for such files that is not somebody else's.
    """
    directory = _state_directory(environment)
    name = hashlib.sha256(gateway.encode()).hexdigest()[:16]
    for number in range(most):
        try:
            descriptor = os.open(directory / f"{name}.{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = _kept(descriptor)
        except BlockingIOError:
            os.close(descriptor)
        except OSError:
            break  # a disk that is full, or a file system without locks
        else:
            return machine_of(kept)  # the descriptor stays open, and so the lock is ours
    return secrets.token_bytes(MACHINE_OCTETS)


def _kept(descriptor: int) -> bytes:
    """What an earlier process has drawn by lot, or this one."""
    kept = os.pread(descriptor, MACHINE_OCTETS, 0)
    if len(kept) != MACHINE_OCTETS:
        kept = secrets.token_bytes(MACHINE_OCTETS)
        os.pwrite(descriptor, kept, 0)
    return kept


def _state_directory(environment: Mapping[str, str]) -> Path:
    """What outlasts a restart (XDG_STATE_HOME), where this user has a home; without one, :func:`runtime_directory`."""
    given = environment.get("XDG_STATE_HOME", "") or os.path.join(environment.get("HOME", ""), ".local/state")
    directory = Path(given, "kinkvpn")
    with suppress(OSError):
        nearest = next(each for each in (directory, *directory.parents) if each.exists())
        if directory.is_absolute() and nearest.stat().st_uid == os.geteuid():  # under sudo it may be somebody else's
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_ours(directory):
                return directory
    return runtime_directory(environment)
