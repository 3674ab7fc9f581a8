"""A user, network and mount namespace of one's own, which takes no privilege (user_namespaces(7)).

Whoever makes a user namespace has every capability in it, and none outside. The network namespace that belongs to it
holds nothing but a loopback device, which is down: there is no way out but the one that we put there.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import NetlinkError

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

# linux/sched.h; the os module names them, and unshare(2), from Python 3.12 on.
CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)


class Step(Enum):
    """What may be refused on the way; its value is what was being done."""

    USER = "unshare(CLONE_NEWUSER)"
    MAPS = "writing /proc/self/uid_map"
    NET = "unshare(CLONE_NEWNET)"
    MOUNTS = "unshare(CLONE_NEWNS)"
    OPEN_TUN = "opening /dev/net/tun"
    CREATE_TUN = "TUNSETIFF"
    VETH = "adding a veth pair"
    PACKET = "an AF_PACKET socket"
    NETLINK = "configuring the namespace"
    MOUNT = "mounting resolv.conf"


class StepRefused(KinkvpnError):
    """The kernel refuses ``step``; ``errno`` says how, and :func:`kinkvpn.rootless.obstacles.explain` why."""

    def __init__(self, step: Step, number: int) -> None:
        super().__init__(f"{step.value}: {os.strerror(number)}")
        self.step = step
        self.errno = number


@contextmanager
def attempting(step: Step) -> Iterator[None]:
    """What the kernel says inside is a StepRefused outside."""
    try:
        yield
    except OSError as error:
        raise StepRefused(step, error.errno or 0) from error
    except NetlinkError as error:
        raise StepRefused(step, error.code) from error


def enter() -> None:
    """Move this process, which has one thread, into new namespaces; there is no way back.

    It keeps its numeric user and group, which are the only ones there, and with them its files; it has every
    capability over the namespaces until it executes something.

    Raises:
        StepRefused: at which step, and with what errno. What was entered before stays entered.
    """
    user, group = os.geteuid(), os.getegid()
    with attempting(Step.USER):
        unshare(CLONE_NEWUSER)
    with attempting(Step.MAPS):
        # Without it nobody unprivileged may write gid_map: a group that denies access could be dropped.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    # One after the other, for the kernel does not say which of several it refuses.
    with attempting(Step.NET):
        unshare(CLONE_NEWNET)
    with attempting(Step.MOUNTS):
        # Mounts that were shared get none of ours: those of a less privileged namespace are slaves.
        unshare(CLONE_NEWNS)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError; EINVAL for a user namespace where there is more than one thread."""
    if _libc.unshare(flags):
        _raise()


def mount(source: str, target: str, kind: str, flags: int = 0) -> None:
    """mount(2), without options of the file system. Raises OSError."""
    if _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None):
        _raise()


def die_with_parent(number: int) -> None:
    """Get signal ``number`` when the thread that made this process ends (prctl(2), PR_SET_PDEATHSIG)."""
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0):
        _raise()


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
