"""Each refusal is provoked, in a fork that is nobody, and explained in a line with the way out."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from support.unprivileged import USER, as_user, become, mount_alone

from kinkvpn.rootless.namespace import CLONE_NEWUSER, Step, StepRefused, enter, mount, unshare
from kinkvpn.rootless.obstacles import attempt, explain

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.root
@pytest.mark.parametrize("kind", ["user", "net", "mnt"])
def test_a_limit_of_none(kind: str) -> None:
    def deed() -> str:
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{USER} {USER} 1")
        Path("/proc/self/gid_map").write_text(f"{USER} {USER} 1")
        Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        return explained()

    key = f"user.max_{kind}_namespaces"
    assert as_user(deed) == (
        f"no {kind} namespace for uid {USER}: {key} is 0: `sysctl -w {key}=10000` as root; `kinkvpn proxy` needs none"
    )


@pytest.mark.root
def test_in_a_chroot() -> None:
    with TemporaryDirectory() as directory:
        Path(directory, "proc").mkdir()
        Path(directory).chmod(0o755)

        def deed() -> str:
            mount_alone()
            mount("none", f"{directory}/proc", "proc")
            os.chroot(directory)
            os.chdir("/")
            become(USER)
            return explained()

        said = as_user(deed, user=0)
    assert said == (
        f"uid {USER} may make no user namespace: in a chroot the kernel makes none: enter it by pivot_root, as bwrap "
        "does; `kinkvpn proxy` needs none"
    )


def forbid_unshare() -> None:
    """As the seccomp profile of a container: unshare(2) is EPERM (linux/seccomp.h, linux/filter.h)."""
    number = X86_UNSHARE if os.uname().machine == "x86_64" else GENERIC_UNSHARE
    program = (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x0005_0000 | errno.EPERM),
        (0x06, 0, 0, 0x7FFF_0000),
    )
    octets = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    about = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(octets)))
    libc = ctypes.CDLL(None)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) == 0
    assert libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), about, zero, zero) == 0


@pytest.mark.root
def test_a_seccomp_filter() -> None:
    def deed() -> str:
        forbid_unshare()
        return explained()

    assert as_user(deed) == (
        f"uid {USER} may make no user namespace: a seccomp filter forbids it: give the container "
        "`--security-opt seccomp=unconfined`, or `--device /dev/net/tun --cap-add NET_ADMIN` for `kinkvpn up`; "
        "`kinkvpn proxy` needs none"
    )


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
        (Step.USER, errno.EPERM, {"self/status": "Seccomp:\t0\n"}, "a security module forbids it"),
        (Step.USER, errno.ENOSPC, {"sys/user/max_user_namespaces": "5"}, "is reached, here (5) or further outside"),
        (Step.USER, errno.EINVAL, {}, "this kernel has no user namespaces (CONFIG_USER_NS)"),
        (Step.USER, errno.EUSERS, {}, "nested too deep"),
        (Step.MAPS, errno.ENOENT, {}, "`mount -t proc proc /proc`"),
        (Step.OPEN_TUN, errno.EACCES, {}, "`chmod 666 /dev/net/tun` as root"),
        (Step.OPEN_TUN, errno.ENOENT, {}, "`--device /dev/net/tun`"),
        (Step.OPEN_TUN, errno.EPERM, {}, "the container's device rules forbid /dev/net/tun"),
        (Step.CREATE_TUN, errno.EPERM, {}, "it lacks CAP_NET_ADMIN: give the container `--cap-add NET_ADMIN`"),
        (Step.VETH, errno.EPERM, {}, "it lacks CAP_NET_ADMIN"),
        (Step.VETH, errno.EOPNOTSUPP, {}, "`modprobe veth`"),
        (Step.PACKET, errno.EPERM, {}, "it lacks CAP_NET_RAW: give the container `--cap-add NET_RAW`"),
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
