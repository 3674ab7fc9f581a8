"""What of a host or a container refuses us a namespace or a packet device, in a line each that has the way out.

What can be done is found out by trying it, in a process of its own, for no file says it; /proc is read to explain.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from esp.tun import DEVICE
from kinkvpn.rootless.namespace import Step, StepRefused

if TYPE_CHECKING:
    from collections.abc import Callable

PROC = Path("/proc")

PROXY = "`kinkvpn proxy` needs none"
# Where the namespace is to be had and something in it is not: the proxy would take the namespace, too.
LWIP = "`kinkvpn proxy --stack lwip` needs none"
WITHIN_SECONDS = 20.0  # ours: it takes milliseconds, and what a filter or a file system holds up is not worth more

_SPACES = {Step.USER: "user", Step.NET: "net", Step.MOUNTS: "mnt"}
_KERNELS = {Step.USER: "user namespaces (CONFIG_USER_NS)", Step.NET: "network namespaces (CONFIG_NET_NS)"}


def explain(refused: StepRefused, proc: Path = PROC) -> str:
    """Why, and what to do about it: one line. To be asked in the namespaces around, for that is where limits are.

    Args:
        refused: what, and the errno.
        proc: where the kernel says more of itself.
    """
    step, number, user = refused.step, refused.errno, os.geteuid()
    match step, number:
        case ((Step.USER | Step.NET | Step.MOUNTS), errno.ENOSPC):
            return _exhausted(step, proc)
        case ((Step.USER | Step.NET), errno.ENOSYS) if _filtered(proc):
            return f"uid {user} may make no {_SPACES[step]} namespace: {_SECCOMP}; {PROXY}"
        case ((Step.USER | Step.NET), errno.EINVAL | errno.ENOSYS):
            return f"this kernel has no {_KERNELS[step]}: one that has is needed; {PROXY}"
        case Step.USER, errno.EPERM | errno.EACCES:
            return f"uid {user} may make no user namespace: {_forbidden(proc)}; {PROXY}"
        case Step.USER, errno.EUSERS:  # until Linux 4.9; since then it is ENOSPC
            return f"user namespaces are nested too deep here (32 is the most): start it further outside; {PROXY}"
        case Step.MAPS, errno.ENOENT | errno.EROFS:
            return f"user and group can be written to no /proc here: mount one (`mount -t proc proc /proc`); {PROXY}"
        case ((Step.OPEN_TUN | Step.CREATE_TUN | Step.VETH | Step.PACKET), _):
            return _no_device(step, number, proc) or str(refused)
        case _, errno.EPERM | errno.EACCES:
            return f"uid {user} may do nothing in a user namespace of its own ({step.value}): {_confined(proc)}; {LWIP}"
        case _:
            return str(refused)


def _no_device(step: Step, number: int, proc: Path) -> str:
    """Likewise, of what is in the namespaces; empty where there is nothing to add."""
    user = os.geteuid()
    match step, number:
        case Step.OPEN_TUN, errno.EACCES if _for_all(Path(DEVICE)):
            return (
                f"{DEVICE} is on a file system with nodev: mount it without, as `bwrap --dev-bind /dev /dev` does, "
                'or have [tun] device = "veth"'
            )
        case Step.OPEN_TUN, errno.EACCES:
            return f'uid {user} may not open {DEVICE}: `chmod 666 {DEVICE}` as root, or [tun] device = "veth"'
        case Step.OPEN_TUN, errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return (
                f"no {DEVICE}: run `modprobe tun`, give the container `--device {DEVICE}`, "
                'or have [tun] device = "veth"'
            )
        case Step.OPEN_TUN, errno.EPERM:
            return (
                f"the container's device rules forbid {DEVICE}: give it `--device {DEVICE}`, "
                'or have [tun] device = "veth"'
            )
        case ((Step.CREATE_TUN | Step.VETH | Step.PACKET), errno.EPERM | errno.EACCES):
            return f"uid {user} may make no device in a namespace of its own ({step.value}): {_confined(proc)}; {LWIP}"
        case Step.VETH, errno.EOPNOTSUPP | errno.ENODEV:
            return f"this kernel has no veth devices: run `modprobe veth`, or give the container `--device {DEVICE}`"
        case Step.PACKET, errno.EAFNOSUPPORT:
            return f"this kernel has no AF_PACKET: run `modprobe af_packet`, or give the container `--device {DEVICE}`"
        case _:
            return ""


def _exhausted(step: Step, proc: Path) -> str:
    key = f"user.max_{_SPACES[step]}_namespaces"
    limit = _read(proc / "sys" / key.replace(".", "/"))
    # In a user namespace each count is also held against those of the namespaces around it, which we cannot read.
    why = f"{key} is {limit}" if limit == "0" else f"{key} is reached, here ({limit or 'unknown'}) or further outside"
    deep = ", or 32 of them are nested" if step is Step.USER and limit != "0" else ""
    return f"no {_SPACES[step]} namespace for uid {os.geteuid()}: {why}{deep}: `sysctl -w {key}=10000` as root; {PROXY}"


_SECCOMP = (
    "a seccomp filter forbids it: give the container `--security-opt seccomp=unconfined`, or `--device /dev/net/tun "
    "--cap-add NET_ADMIN` for `kinkvpn up`"
)


def _forbidden(proc: Path) -> str:
    if _read(proc / "sys/kernel/unprivileged_userns_clone") == "0":
        return "`sysctl -w kernel.unprivileged_userns_clone=1` as root"
    if _chrooted(proc):
        return "in a chroot the kernel makes none: enter it by pivot_root, as bwrap does"
    if _filtered(proc):
        return _SECCOMP
    # A chroot whose root is a mount of its own looks from inside like a host.
    return "a chroot, which is to be entered by pivot_root as bwrap does, or a security module forbids it (see `dmesg`)"


def _confined(proc: Path) -> str:
    key = "kernel.apparmor_restrict_unprivileged_userns"
    if _read(proc / "sys" / key.replace(".", "/")) == "1":
        return f"`sysctl -w {key}=0` as root, or an AppArmor profile with `userns,`"
    return _SECCOMP if _filtered(proc) else "a security module forbids it (see `dmesg`)"


def _for_all(device: Path) -> bool:
    """Its mode lets everybody read and write."""
    try:
        return device.stat().st_mode & 0o006 == 0o006
    except OSError:
        return False


def _filtered(proc: Path) -> bool:
    return _status(proc, "Seccomp") == "2"


def _chrooted(proc: Path) -> bool:
    """No mount is at / for who has been given another one (proc(5), mountinfo: the fifth field)."""
    lines = _read(proc / "self/mountinfo").splitlines()
    return bool(lines) and all(line.split()[4] != "/" for line in lines)


def _status(proc: Path, name: str) -> str:
    found = re.search(rf"^{name}:\s*(\S+)$", _read(proc / "self/status"), re.MULTILINE)
    return found[1] if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def attempt(deed: Callable[[], object], within: float = WITHIN_SECONDS) -> StepRefused | None:
    """What ``deed`` is refused, in a process of its own that ends with it; None if nothing.

    Args:
        deed: raises StepRefused, or does something that is gone with its process.
        within: seconds that it may take.

    Raises:
        ChildProcessError: it did not come to an end.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _attempt(deed, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        answered, _, _ = select.select([answer], [], [], within)
        if not answered:
            os.kill(child, signal.SIGKILL)
        said = answer.read().decode()
    os.waitpid(child, 0)
    if not said:
        raise ChildProcessError("what was to be tried ended halfway")
    step, number = json.loads(said)
    return StepRefused(Step[step], number) if step else None


def _attempt(deed: Callable[[], object], writer: int) -> None:
    said: tuple[str, int] = "", 0
    try:
        try:
            deed()
        except StepRefused as refused:
            said = refused.step.name, refused.errno
        os.write(writer, json.dumps(said).encode())
    finally:
        os._exit(0)
