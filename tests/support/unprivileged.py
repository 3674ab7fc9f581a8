"""Root that becomes an ordinary user, with a number and no account, in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from kinkvpn.rootless.namespace import CLONE_NEWNS, mount, unshare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[2]
USER = 12345
MS_REC, MS_PRIVATE = 0x4000, 1 << 18  # linux/mount.h
PR_SET_DUMPABLE = 4  # linux/prctl.h


def as_user(deed: Callable[[], Any], user: int = USER) -> Any:
    """What ``deed`` returns, JSON-able, in a fork of this process that is ``user`` and has no capability.

    What is imported is there already: the clone may lie where only root can read it.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _perform(deed, user, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    result = json.loads(said)
    if "failed" in result:
        raise AssertionError(result["failed"])
    return result["done"]


def _perform(deed: Callable[[], Any], user: int, writer: int) -> None:
    try:
        try:
            become(user)
            said = {"done": deed()}
        except BaseException:
            said = {"failed": traceback.format_exc()}
        os.write(writer, json.dumps(said).encode())
        sys.stdout.flush()
    finally:
        os._exit(0)


def become(user: int) -> None:
    """This process is ``user`` from here on; the kernel takes the capabilities with it."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # A process that has been root shows nothing of itself in /proc to others; one that was executed afterwards does.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, ctypes.c_ulong(1), 0, 0, 0)


def mount_alone() -> None:
    """A mount namespace for this process, which is root, whose mounts are nobody else's."""
    unshare(CLONE_NEWNS)
    with suppress(OSError):  # in a chroot nothing is mounted at /, and nothing is shared
        mount("none", "/", "none", MS_REC | MS_PRIVATE)


def wrapper(
    directory: Path,
    *,
    user: int = USER,
    capabilities: Sequence[str] = (),
    before: Sequence[str] = (),
) -> list[str]:
    """Put before a command line: it runs as ``user``, without capabilities, and can read this clone wherever it lies.

    What only root may enter on the way there is covered, in a mount namespace, by a directory with nothing else in it.

    Args:
        directory: an empty one for mounts.
        user: its number, without an account.
        capabilities: that it is left, such as ``net_admin``; none, as a rule.
        before: lines for sh(1), to be run as root in the mount namespace.
    """
    needed = dict.fromkeys(map(Path, (sys.base_prefix, sys.prefix, ROOT)))
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        ancestor = next((each for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH), None)
        if ancestor is not None:
            closed.setdefault(ancestor, []).append(path)
    lines = ["set -e"]
    for number, (ancestor, paths) in enumerate(closed.items()):
        for index, path in enumerate(paths):
            held = directory / f"{number}-{index}"
            lines += [f"mkdir -p {held}", f"mount --bind {quote(str(path))} {held}"]
        lines.append(f"mount -t tmpfs -o mode=755 none {quote(str(ancestor))}")
        for index, path in enumerate(paths):
            held = directory / f"{number}-{index}"
            lines += [f"mkdir -p {quote(str(path))}", f"mount --bind {held} {quote(str(path))}"]
    lines += [*before, 'exec "$@"']
    left = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    ambient = ("--ambient-caps", left) if capabilities else ()
    become = ("setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--bounding-set", left)
    return [
        *("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", "\n".join(lines), "sh"),
        *(*become, "--inh-caps", left, *ambient, "--"),
    ]
