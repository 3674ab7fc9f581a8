"""Namespaces around the whole demo, so that its end, however it comes, leaves nothing behind.

The demo proper is PID 1 of its own PID namespace, with private mounts and a private network. When PID 1 goes, by
itself, by a signal or by a crash, the kernel ends every process of the namespace, and with the last of them go network
namespaces, veth, TUN and tmpfs. There is no cleaning up that could fail or be interrupted.

util-linux does it all: ``setpriv --pdeathsig`` ends ``unshare`` when this process dies, ``unshare --kill-child``
ends PID 1 when ``unshare`` dies.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kinkvpn.demo.namespace import die_with_us
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

TOOLS: Final = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "tcpdump": "tcpdump",
    "krb5kdc": "krb5-kdc",
    "kdb5_util": "krb5-kdc",
    "kadmin.local": "krb5-admin-server",
}
SYSTEM_PATH: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
# Propagation stays as it is, because in a plain chroot there is no mount at / that could be made private. Instead
# --mount-proc makes /proc private before it mounts over it, and nothing is mounted anywhere but there.
UNSHARE: Final = (
    "unshare", "--mount", "--propagation", "unchanged", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"
)  # fmt: skip
TUN_DEVICE: Final = Path("/dev/net/tun")
# Below the /proc that is ours alone, so a mount here reaches nobody, and covers nothing that a program reads.
SCRATCH: Final = Path("/proc/driver")
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 0.05


class CannotRun(KinkvpnError):
    """The machine lacks what the demo needs; the message says what, and how to get it."""


class Interrupted(Exception):
    """A signal asked the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def complete_path() -> None:
    """Adds the administrators' directories to PATH: ``su`` without ``-`` leaves them out, for this process too."""
    known = os.environ.get("PATH", "").split(":")
    os.environ["PATH"] = ":".join([*known, *(path for path in SYSTEM_PATH if path not in known)])


def check_machine() -> None:
    """Raises CannotRun for the first thing that is missing: privilege, tools, TUN."""
    if os.geteuid() != 0:
        raise CannotRun("needs root for namespaces and TUN devices: run it with sudo")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise CannotRun(f"tools are missing: apt-get install {' '.join(missing)}")
    try:
        TUN_DEVICE.open("r+b", buffering=0).close()
    except OSError as error:
        raise CannotRun(f"cannot open {TUN_DEVICE} ({error.strerror}): modprobe tun, or pass the device in") from None
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if probe.returncode:
        raise CannotRun(f"cannot make namespaces ({probe.stderr.strip()}): a container needs CAP_SYS_ADMIN")


def run_inside(command: Sequence[str]) -> int:
    """Runs ``command`` as PID 1 of a sandbox, with our output, and returns its exit code; -N for signal N.

    When this returns or raises, nothing that ran in the sandbox runs any more.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP came.
    """
    before = {number: signal.signal(number, interrupt) for number in ENDING}
    # In a process group of its own: Ctrl-C is for us, and we decide what it means.
    child = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
        [*die_with_us(), *UNSHARE, *command], stdin=subprocess.DEVNULL, process_group=0
    )
    try:
        return child.wait()
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # the end is short; a second Ctrl-C must not cut it
        end(child)
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends the sandbox and waits until the kernel has emptied it.

    SIGTERM goes to the group: unshare ignores it while it waits for PID 1, which leaves at once; its exit ends all
    else in the namespace, and only after that does unshare's wait return. To kill unshare would be quicker to write,
    but then nobody waits for the rest. SIGTERM goes again and again, because the kernel drops it while PID 1 is not
    yet far enough to handle it.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(AGAIN_SECONDS)
    if child.poll() is None:
        child.kill()
        child.wait()


def leave_on_sigterm() -> None:
    """For PID 1, for whom the kernel drops every signal that it does not handle (pid_namespaces(7))."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def mount_scratch() -> Path:
    """Mounts a tmpfs for the demo's files; it goes with the sandbox. Only inside it. Raises CannotRun."""
    command = ["mount", "-t", "tmpfs", "-o", "mode=0700", "kinkvpn-demo", str(SCRATCH)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise CannotRun(f"cannot mount a tmpfs: {done.stderr.strip()}")
    return SCRATCH
