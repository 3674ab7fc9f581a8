"""Where each of several tunnels of one user has its control socket."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"run-(\d+)\.sock")


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
        status = directory.lstat()
    except OSError as error:
        raise StartRefused(f"{directory}: {error.strerror}: set XDG_RUNTIME_DIR to a directory of yours") from error
    # In a directory that everybody may write to somebody may have been there first.
    if status.st_uid != user or status.st_mode & 0o077 or not directory.is_dir() or directory.is_symlink():
        raise StartRefused(f"{directory} is not a directory of uid {user} alone: set XDG_RUNTIME_DIR to one")
    return directory
