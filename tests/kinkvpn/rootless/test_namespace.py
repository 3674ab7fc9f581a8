"""Namespaces that a user without any privilege makes, and where the kernel says no."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from support.unprivileged import USER, as_user

from kinkvpn.rootless.namespace import CLONE_NEWUSER, Step, StepRefused, attempting, enter, unshare

pytestmark = pytest.mark.root


def spaces() -> list[str]:
    return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("user", "net", "mnt")]


def test_a_user_keeps_its_number_and_has_a_network_of_its_own() -> None:
    def deed() -> object:
        before = spaces()
        enter()
        devices = [line.split(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]]
        return before, spaces(), [os.getuid(), os.getgid(), os.geteuid()], devices

    before, after, numbers, devices = as_user(deed)
    assert not set(before) & set(after)
    assert numbers == [USER] * 3
    assert devices == ["lo"]


def test_what_is_executed_inside_has_no_capability() -> None:
    def deed() -> object:
        enter()
        return os.popen("grep CapEff /proc/self/status").read()

    assert int(as_user(deed).split()[1], 16) == 0


def test_a_second_thread_is_a_refusal() -> None:
    def deed() -> object:
        ended = threading.Event()
        thread = threading.Thread(target=ended.wait)
        thread.start()
        try:
            enter()
        except StepRefused as refused:
            return refused.step.name, refused.errno
        finally:
            ended.set()

    assert as_user(deed) == [Step.USER.name, errno.EINVAL]


@pytest.mark.parametrize(("kind", "step"), [("user", Step.USER), ("net", Step.NET), ("mnt", Step.MOUNTS)])
def test_an_exhausted_number_of_namespaces_is_told_by_step(kind: str, step: Step) -> None:
    """The limit is that of a user namespace around it, which its maker may lower."""

    def deed() -> object:
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{USER} {USER} 1")
        Path("/proc/self/gid_map").write_text(f"{USER} {USER} 1")
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        try:
            enter()
        except StepRefused as refused:
            return refused.step.name, refused.errno

    assert as_user(deed) == [step.name, errno.ENOSPC]


def test_a_step_carries_its_errno() -> None:
    with (
        pytest.raises(StepRefused, match="opening /dev/net/tun: Permission denied") as caught,
        attempting(Step.OPEN_TUN),
    ):
        raise PermissionError(errno.EACCES, "no")
    assert (caught.value.step, caught.value.errno) == (Step.OPEN_TUN, errno.EACCES)
