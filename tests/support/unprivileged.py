"""Root that becomes an ordinary user, with a number and no account, in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

USER = 12345
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
