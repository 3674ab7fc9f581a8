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

from kinkvpn.rootless.namespace import Step, StepRefused

if TYPE_CHECKING:
    from collections.abc import Callable

PROC = Path("/proc")

PROXY = "`kinkvpn proxy` needs none"
WITHIN_SECONDS = 20.0  # ours: it takes milliseconds, and what a filter or a file system holds up is not worth more


def explain(refused: StepRefused, proc: Path = PROC) -> str:
    """Why, and what to do about it: one line.

    Args:
        refused: what, and the errno.
        proc: where the kernel says more of itself.
    """
    number, user = refused.errno, os.geteuid()
    match refused.step, number:
        case ((Step.USER | Step.NET | Step.MOUNTS), errno.ENOSPC):
            return _exhausted(refused.step, proc)
        case Step.USER, errno.EPERM | errno.ENOSYS | errno.EACCES:
            return f"uid {user} may make no user namespace: {_forbidden(proc)}"
        case Step.USER, errno.EINVAL:
            return f"this kernel has no user namespaces (CONFIG_USER_NS): {PROXY}"
        case Step.USER, errno.EUSERS:
            return f"user namespaces are nested too deep here (32 is the most): start it further outside; {PROXY}"
        case Step.MAPS, errno.ENOENT:
            return "there is no /proc here to write user and group to: mount one (`mount -t proc proc /proc`)"
        case ((Step.MAPS | Step.NET | Step.MOUNTS | Step.NETLINK), errno.EPERM | errno.EACCES):
            return f"uid {user} has a user namespace and may do nothing in it: {_confined(proc)}"
        case Step.OPEN_TUN, errno.EACCES:
            return f'uid {user} may not open /dev/net/tun: `chmod 666 /dev/net/tun` as root, or [tun] device = "veth"'
        case Step.OPEN_TUN, errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return (
                "no /dev/net/tun: run `modprobe tun`, give the container `--device /dev/net/tun`, "
                'or have [tun] device = "veth"'
            )
        case Step.OPEN_TUN, errno.EPERM:
            return "the container's device rules forbid /dev/net/tun: give it `--device /dev/net/tun`"
        case ((Step.CREATE_TUN | Step.VETH), errno.EPERM):
            return f"uid {user} may make no network device here: {_admin('CAP_NET_ADMIN')}"
        case Step.VETH, errno.EOPNOTSUPP | errno.ENODEV:
            return "this kernel has no veth devices: run `modprobe veth`, or give the container `--device /dev/net/tun`"
        case Step.PACKET, errno.EPERM | errno.EACCES:
            return f"uid {user} may open no AF_PACKET socket: {_admin('CAP_NET_RAW')}"
        case Step.PACKET, errno.EAFNOSUPPORT:
            return (
                "this kernel has no AF_PACKET: run `modprobe af_packet`, or give the container `--device /dev/net/tun`"
            )
        case _:
            return str(refused)


def _exhausted(step: Step, proc: Path) -> str:
    name = {Step.USER: "user", Step.NET: "net", Step.MOUNTS: "mnt"}[step]
    key = f"user.max_{name}_namespaces"
    limit = _read(proc / "sys" / key.replace(".", "/"))
    # In a user namespace each count is also held against those of the namespaces around it, which we cannot read.
    why = f"{key} is {limit}" if limit == "0" else f"{key} is reached, here ({limit or 'unknown'}) or further outside"
    return f"no {name} namespace for uid {os.geteuid()}: {why}: `sysctl -w {key}=10000` as root; {PROXY}"


def _forbidden(proc: Path) -> str:
    if _read(proc / "sys/kernel/unprivileged_userns_clone") == "0":
        return f"`sysctl -w kernel.unprivileged_userns_clone=1` as root; {PROXY}"
    if _chrooted(proc):
        return f"in a chroot the kernel makes none: enter it by pivot_root, as bwrap does; {PROXY}"
    if _status(proc, "Seccomp") == "2":
        return (
            "a seccomp filter forbids it: give the container `--security-opt seccomp=unconfined`, or `--device "
            f"/dev/net/tun --cap-add NET_ADMIN` for `kinkvpn up`; {PROXY}"
        )
    return f"a security module forbids it (see `dmesg`); {PROXY}"


def _confined(proc: Path) -> str:
    key = "kernel.apparmor_restrict_unprivileged_userns"
    if _read(proc / "sys" / key.replace(".", "/")) == "1":
        return f"`sysctl -w {key}=0` as root, or an AppArmor profile with `userns,`; {PROXY}"
    return f"a security module forbids it (see `dmesg`); {PROXY}"


def _admin(capability: str) -> str:
    return (
        f"it lacks {capability}: give the container `--cap-add {capability.removeprefix('CAP_')}`, "
        "or use `kinkvpn run`, which needs none"
    )


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
