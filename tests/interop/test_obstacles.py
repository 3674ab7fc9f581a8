"""What a host or a container refuses somebody without privilege: each row provoked, and told in one line that names the
way out, by the command that a person types, at a terminal of 80 columns.

Two switches are of other kernels (Debian's and Ubuntu's patches). Their files are mounted where they would be, and a
filter refuses what the kernel would refuse for them. The device rules of a container are a BPF program at a cgroup,
which is the machine's: they are an errno in tests/kinkvpn/rootless/test_obstacles.py, and so is EUSERS, which kernels
before Linux 4.9 gave.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import pytest
from support.keytabs import write_keytab
from support.terminal import terminal
from support.unprivileged import ROOT, USER, as_user, wrapper

from esp.link import BUFFER_OCTETS, SO_RCVBUFFORCE, SO_SNDBUFFORCE, UdpLink
from kinkvpn.demo.lab import kinkvpn
from kinkvpn.proxy import lwip

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.root

COLUMNS = 80
WAIT_SECONDS = 120.0
CONFIGURATION = """\
[host]
principal = "kink/a.kinkvpn.test@KINKVPN.TEST"
keytab = "{directory}/keytab"
krb5_config = "{directory}/krb5.conf"
[kink]
over = "4500"
[tun]
addresses = ["10.1.0.1/24"]
device = "{device}"
[control]
socket = "{directory}/control"
[[peer]]
name = "b"
principal = "kink/b.kinkvpn.test@KINKVPN.TEST"
address = "192.0.2.2"
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
"""
RUN, RUN_TUN = ("run", "--device", "auto"), ("run", "--device", "tun")
UP, PROXY, PROXY_KERNEL, DOCTOR = ("up",), ("proxy",), ("proxy", "--stack", "kernel"), ("doctor", "-v")

NO_DEVICE = "mount -t tmpfs none /dev/net"
CLOSED = (NO_DEVICE, "mknod -m 600 /dev/net/tun c 10 200")
NODEV = ("mount -t tmpfs -o nodev none /dev/net", "mknod -m 666 /dev/net/tun c 10 200")
TUNSETIFF = 0x4004_54CA  # linux/if_tun.h
# Docker's profile; where others say EPERM, this says of clone3 that there is none, so that the C library calls clone.
DOCKER = ("unshare=EPERM", "clone3=ENOSYS", "mount=EPERM")
AS_ROOT = "as root; `kinkvpn proxy` needs none"
SECCOMP = (
    "a seccomp filter forbids it: give the container `--security-opt seccomp=unconfined`, or `--device /dev/net/tun "
    "--cap-add NET_ADMIN` for `kinkvpn up`"
)
APPARMOR = (
    "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root, or an AppArmor profile with `userns,`; "
    "`kinkvpn proxy --stack lwip` needs none"
)
LACKS = "(CapEff {:016x}): run as root, or with AmbientCapabilities={}; `kinkvpn run` needs none"


def switch(name: str, value: int) -> tuple[str, ...]:
    """A sysctl of ``kernel``, which hides the others."""
    return "mount -t tmpfs -o mode=755 none /proc/sys/kernel", f"echo {value} >/proc/sys/kernel/{name}"


# In a directory that is no mount, with what is needed mounted into it.
CHROOT = (
    *(
        f"if [ -L /{each} ]; then cp -a /{each} {{root}}/{each}; elif [ -e /{each} ]; then "
        f"mkdir {{root}}/{each}; mount --rbind /{each} {{root}}/{each}; fi"
        for each in ("bin", "sbin", "lib", "lib64", "usr", "etc", "dev", "proc")
    ),
    "for each in {needed}; do mkdir -p {root}$each; mount --bind $each {root}$each; done",
    'set -- chroot {root} "$@"',
)
CHROOT_OF_A_MOUNT = ("mount --rbind / {root}", 'set -- chroot {root} "$@"')
# lwIP's module is no file, where there is one.
_MODULES = list(Path(lwip.__file__).parent.glob("_stack.*.so"))
WITHOUT_LWIP = [f"mount --bind /dev/null {quote(str(each))}" for each in _MODULES]
NO_LWIP = lwip.why_missing() or f"not built for this Python (there is {_MODULES[0].name})"


@dataclass(frozen=True, slots=True)
class Row:
    """One.

    Args:
        name: what is refused.
        command: that is typed.
        line: that is said.
        deeds: of support.refusing, done by the user.
        before: lines for sh(1), done by root in a mount namespace.
        capabilities: that the user has.
        device: as it is configured.
    """

    name: str
    command: Sequence[str]
    line: str
    deeds: Sequence[str] = ()
    before: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    device: str = "auto"


def limit(kind: str) -> str:
    key = f"user.max_{kind}_namespaces"
    return f"no {kind} namespace for uid {USER}: {key} is 0: `sysctl -w {key}=10000` {AS_ROOT}"


OWN = f"uid {USER} may make no user namespace: "
IN_IT = f"uid {USER} may do nothing in a user namespace of its own "
DEVICE_IN_IT = f"uid {USER} may make no device in a namespace of its own "
ROWS = (
    # The device.
    Row(
        "/dev/net/tun with mode 0600",
        RUN_TUN,
        f'uid {USER} may not open /dev/net/tun: `chmod 666 /dev/net/tun` as root, or [tun] device = "veth"',
        before=CLOSED,
    ),
    Row(
        "/dev/net/tun with mode 0600",
        UP,
        f"uid {USER} may not open /dev/net/tun: run as root, or let the device's group in",
        before=CLOSED,
        capabilities=["net_admin"],
    ),
    Row(
        "/dev/net/tun below nodev",
        RUN_TUN,
        "/dev/net/tun is on a file system with nodev: mount it without, as `bwrap --dev-bind /dev /dev` does, "
        'or have [tun] device = "veth"',
        before=NODEV,
    ),
    Row(
        "no /dev/net/tun",
        RUN_TUN,
        "no /dev/net/tun: run `modprobe tun`, give the container `--device /dev/net/tun`, "
        'or have [tun] device = "veth"',
        before=[NO_DEVICE],
    ),
    Row(
        "no /dev/net/tun, no NET_RAW",
        UP,
        "no /dev/net/tun: run `modprobe tun`, or give the container `--device /dev/net/tun`",
        before=[NO_DEVICE],
        capabilities=["net_admin"],
    ),
    Row(
        "no NET_ADMIN",
        UP,
        f"device kink0: uid {USER} lacks CAP_NET_ADMIN {LACKS.format(0, 'CAP_NET_ADMIN')}",
    ),
    Row(
        "no NET_RAW",
        UP,
        f"device kink0, a veth pair: uid {USER} lacks CAP_NET_RAW {LACKS.format(1 << 12, 'CAP_NET_RAW')}",
        capabilities=["net_admin"],
        device="veth",
    ),
    Row(
        "TUNSETIFF",
        RUN_TUN,
        f"{DEVICE_IN_IT}(TUNSETIFF): {SECCOMP}; `kinkvpn proxy --stack lwip` needs none",
        deeds=[f"ioctl:1={TUNSETIFF}=EPERM"],
    ),
    Row(
        "AF_PACKET",
        RUN,
        f"{DEVICE_IN_IT}(an AF_PACKET socket): {SECCOMP}; `kinkvpn proxy --stack lwip` needs none",
        deeds=[f"socket:0={socket.AF_PACKET}=EPERM"],
        before=[NO_DEVICE],
    ),
    # The namespaces.
    *(
        Row(f"user.max_{kind}_namespaces = 0", RUN, limit(kind), deeds=[f"max_{kind}_namespaces"])
        for kind in ("user", "net", "mnt")
    ),
    Row(
        "nested too deep",
        RUN,
        f"no user namespace for uid {USER}: user.max_user_namespaces is reached, here (2147483647) or further outside, "
        f"or 32 of them are nested: `sysctl -w user.max_user_namespaces=10000` {AS_ROOT}",
        deeds=["nested=33"],
    ),
    Row(
        "a chroot",
        RUN,
        f"{OWN}in a chroot the kernel makes none: enter it by pivot_root, as bwrap does; `kinkvpn proxy` needs none",
        before=CHROOT,
    ),
    Row(
        "a chroot that is a mount",
        RUN,
        f"{OWN}a chroot, which is to be entered by pivot_root as bwrap does, or a security module forbids it "
        "(see `dmesg`); `kinkvpn proxy` needs none",
        before=CHROOT_OF_A_MOUNT,
    ),
    Row("seccomp, as Docker has it", RUN, f"{OWN}{SECCOMP}; `kinkvpn proxy` needs none", deeds=DOCKER),
    Row("seccomp that knows no unshare", RUN, f"{OWN}{SECCOMP}; `kinkvpn proxy` needs none", deeds=["unshare=ENOSYS"]),
    Row(
        "a kernel without user namespaces",  # create_user_ns is a stub (linux/user_namespace.h)
        RUN,
        "this kernel has no user namespaces (CONFIG_USER_NS): one that has is needed; `kinkvpn proxy` needs none",
        deeds=["unshare=EINVAL"],
    ),
    Row(
        "kernel.unprivileged_userns_clone = 0",
        RUN,
        f"{OWN}`sysctl -w kernel.unprivileged_userns_clone=1` {AS_ROOT}",
        deeds=["unshare=EPERM"],
        before=switch("unprivileged_userns_clone", 0),
    ),
    Row(
        "kernel.apparmor_restrict_unprivileged_userns = 1, told by the maps",
        RUN,
        f"{IN_IT}(writing /proc/self/uid_map): {APPARMOR}",
        deeds=["write:2=4=EPERM"],  # of `deny`
        before=switch("apparmor_restrict_unprivileged_userns", 1),
    ),
    Row(
        "kernel.apparmor_restrict_unprivileged_userns = 1, told by netlink",
        RUN,
        f"{IN_IT}(configuring the namespace): {APPARMOR}",
        deeds=[f"socket:0={socket.AF_NETLINK}=EPERM"],
        before=switch("apparmor_restrict_unprivileged_userns", 1),
    ),
    Row(
        "/proc that is read-only",
        RUN,
        "user and group can be written to no /proc here: mount one (`mount -t proc proc /proc`); "
        "`kinkvpn proxy` needs none",
        before=["mount -o remount,bind,ro /proc"],
    ),
    # The proxy, which has two ways.
    Row(
        "user.max_user_namespaces = 0, and no lwIP",
        PROXY,
        f"{limit('user').removesuffix('; `kinkvpn proxy` needs none')}; and lwIP, which would do without, is {NO_LWIP}",
        deeds=["max_user_namespaces"],
        before=WITHOUT_LWIP,
    ),
    Row(
        "AF_PACKET, and no lwIP",
        PROXY,
        f"{DEVICE_IN_IT}(an AF_PACKET socket): {SECCOMP}; and lwIP, which would do without, is {NO_LWIP}",
        deeds=[f"socket:0={socket.AF_PACKET}=EPERM"],
        before=[NO_DEVICE, *WITHOUT_LWIP],
    ),
    Row("seccomp, as Docker has it", PROXY_KERNEL, f"{OWN}{SECCOMP}", deeds=DOCKER),
    # The doctor, among other things.
    Row("user.max_net_namespaces = 0", DOCTOR, limit("net"), deeds=["max_net_namespaces"]),
    Row(
        "no /dev/net/tun",
        DOCTOR,
        "with a veth pair (no /dev/net/tun: run `modprobe tun`, give the container `--device /dev/net/tun`, "
        'or have [tun] device = "veth")',
        before=[NO_DEVICE],
    ),
)


class User:
    """Who has a keytab, a configuration, and a directory of their own below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._mounts, self._root, self._own = directory / "mounts", directory / "root", directory / "own"
        for each in (self._mounts, self._root, self._own):
            each.mkdir()
        write_keytab(self._own / "keytab", "kink/a.kinkvpn.test@KINKVPN.TEST")
        (self._own / "krb5.conf").write_text("[libdefaults]\ndefault_realm = KINKVPN.TEST\n")
        for each in (self._own, *self._own.iterdir()):
            os.chown(each, USER, USER)

    def types(self, row: Row) -> tuple[int, list[str]]:
        """The command of a row, with nobody's network around it: its exit code, and what the terminal shows."""
        configuration = self._own / "kinkvpn.toml"
        configuration.write_text(CONFIGURATION.format(directory=self._own, device=row.device))
        needed = dict.fromkeys((ROOT, Path(sys.prefix), Path(sys.base_prefix), self._own))
        paths = " ".join(quote(str(each)) for each in needed)
        before = [line.format(root=self._root, needed=paths) for line in row.before]
        command = [
            *("unshare", "--net", "--", *wrapper(self._mounts, capabilities=row.capabilities, before=before)),
            *((sys.executable, "-m", "support.refusing", *row.deeds, "--") if row.deeds else ()),
            *(*kinkvpn(), *row.command, "-c", str(configuration)),
            *(("--", "true") if "run" in row.command else ()),
        ]
        environment = os.environ | {"XDG_RUNTIME_DIR": str(self._own), "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
        with terminal(COLUMNS) as screen:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=screen.end, stderr=screen.end
            )
            shown = screen.shown()
            return process.wait(WAIT_SECONDS), shown


@pytest.fixture(scope="module")
def user(directory: Path) -> User:
    return User(directory)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.command[0]}: {row.name}")
def test_one_line_says_what_is_refused_and_the_way_out(user: User, row: Row) -> None:
    code, shown = user.types(row)
    assert code == 2
    said = " ".join(line.strip() for line in shown)
    if row.command is DOCTOR:
        assert row.line in said
    else:
        assert said == f"kinkvpn: {row.line}"
        assert all(line.startswith("    ") for line in shown[1:])
        assert all(len(line) <= COLUMNS or " " not in line.strip() for line in shown)


def test_what_only_root_may_ask_of_a_socket_is_done_without() -> None:
    """Of both the kernel refuses nothing that is needed: the buffers are as large as it lets anybody have them."""

    def deed() -> object:
        refused = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE, socket.SO_MARK):
                try:
                    sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
                except OSError as error:
                    refused.append(error.errno)
        UdpLink.bind(0, ["127.0.0.1"]).close()
        return refused

    assert as_user(deed) == [errno.EPERM] * 3
