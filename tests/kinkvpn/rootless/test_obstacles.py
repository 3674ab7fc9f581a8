"""What is refused is tried in a fork and explained; each row is provoked in tests/interop/test_obstacles.py."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest
from support.unprivileged import as_user

from kinkvpn.rootless.namespace import Step, StepRefused, enter
from kinkvpn.rootless.obstacles import attempt, explain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
X86_UNSHARE, GENERIC_UNSHARE = 272, 97  # its number, by architecture


def explained(deed: Callable[[], object] = enter) -> str:
    """What is said of what this process is refused."""
    refused = attempt(deed)
    return explain(refused) if refused else ""


def test_where_nothing_is_refused_nothing_is_said() -> None:
    assert explained(lambda: None) == ""


@pytest.mark.root
def test_a_user_with_namespaces() -> None:
    assert as_user(explained) == ""


@pytest.mark.parametrize(
    ("step", "number", "files", "said"),
    [
        (
            Step.USER,
            errno.EPERM,
            {"sys/kernel/unprivileged_userns_clone": "0"},
            "`sysctl -w kernel.unprivileged_userns_clone=1` as root",
        ),
        (
            Step.MAPS,
            errno.EPERM,
            {"sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, or an AppArmor profile with `userns,`",
        ),
        (
            Step.NETLINK,
            errno.EPERM,
            {"sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root",
        ),
        (Step.USER, errno.EPERM, {"self/status": "Seccomp:\t0\n"}, "or a security module forbids it (see `dmesg`)"),
        (Step.USER, errno.ENOSYS, {"self/status": "Seccomp:\t0\n"}, "this kernel has no user namespaces"),
        (Step.USER, errno.ENOSYS, {"self/status": "Seccomp:\t2\n"}, "a seccomp filter forbids it"),
        (Step.NET, errno.EINVAL, {}, "this kernel has no network namespaces (CONFIG_NET_NS)"),
        (Step.MAPS, errno.EPERM, {"self/status": "Seccomp:\t0\n"}, "(writing /proc/self/uid_map): a security module"),
        (Step.USER, errno.ENOSPC, {"sys/user/max_user_namespaces": "5"}, "is reached, here (5) or further outside"),
        (Step.USER, errno.EINVAL, {}, "this kernel has no user namespaces (CONFIG_USER_NS)"),
        (Step.USER, errno.EUSERS, {}, "nested too deep"),
        (Step.MAPS, errno.ENOENT, {}, "`mount -t proc proc /proc`"),
        (Step.OPEN_TUN, errno.ENOENT, {}, "`--device /dev/net/tun`"),
        (Step.OPEN_TUN, errno.EPERM, {}, "the container's device rules forbid /dev/net/tun"),
        (Step.VETH, errno.EPERM, {}, "(adding a veth pair): a security module forbids it"),
        (Step.VETH, errno.EOPNOTSUPP, {}, "`modprobe veth`"),
        (Step.MOUNT, errno.EPERM, {}, "(mounting resolv.conf): a security module forbids it"),
        (Step.PACKET, errno.EAFNOSUPPORT, {}, "`modprobe af_packet`"),
        (Step.MOUNT, errno.EROFS, {}, "mounting resolv.conf: Read-only file system"),
    ],
)
def test_what_files_say_is_told(tmp_path: Path, step: Step, number: int, files: dict[str, str], said: str) -> None:
    """Rows for kernels and modules that this machine does not have: the errno, and what /proc says there."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    line = explain(StepRefused(step, number), tmp_path)
    assert said in line
    assert "\n" not in line


def test_what_ends_halfway_is_not_taken_for_good() -> None:
    with pytest.raises(ChildProcessError):
        attempt(lambda: os._exit(0))


def test_what_does_not_end_is_ended() -> None:
    with pytest.raises(ChildProcessError):
        attempt(signal.pause, within=0.05)
