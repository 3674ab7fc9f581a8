"""A kernel that refuses: what is executed here is told no by it, as in a container or under a module that is not here.

    python -m support.refusing DEED... -- COMMAND ...

A deed is one of

    unshare=EPERM                   a seccomp filter returns that errno for the system call
    socket:0=17=EPERM               and for those alone whose argument 0 is 17
    max_net_namespaces              of the user namespace that is made around the command there may be none of that kind
    nested=33                       so many user namespaces around the command

For whoever has one thread and no privilege: the filter is one that needs none (PR_SET_NO_NEW_PRIVS).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

CLONE_NEWUSER = 0x1000_0000  # linux/sched.h
# linux/prctl.h, linux/seccomp.h, linux/filter.h, linux/audit.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF_0000, 0x0005_0000
NUMBER, ARGUMENTS = 0, 16  # where struct seccomp_data has them
# asm/unistd_64.h, asm-generic/unistd.h
CALLS = {
    "x86_64": {"write": 1, "ioctl": 16, "socket": 41, "mount": 165, "unshare": 272, "clone3": 435},
    "aarch64": {"write": 64, "ioctl": 29, "socket": 198, "mount": 40, "unshare": 97, "clone3": 435},
}[platform.machine()]

_libc = ctypes.CDLL(None, use_errno=True)


def refuse(text: str) -> None:
    """From here on, in this process and in what becomes of it. One more filter on top of those that are there."""
    *what, name = text.split("=")
    call, _, argument = what[0].partition(":")
    tests = [(NUMBER, CALLS[call])]
    if argument:
        tests.append((ARGUMENTS + 8 * int(argument), int(what[1])))
    program = []
    for index, (offset, value) in enumerate(tests):
        behind = 2 * (len(tests) - index - 1) + 1  # past the other tests and what is returned then
        program += [(LOAD, 0, 0, offset), (EQUAL, 0, behind, value)]
    program += [(RETURN, 0, 0, ERRNO | getattr(errno, name)), (RETURN, 0, 0, ALLOW)]
    _install(program)


def _install(program: list[tuple[int, int, int, int]]) -> None:
    octets = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    about = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(octets)))
    zero = ctypes.c_ulong(0)
    _do(_libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero))
    _do(_libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), about, zero, zero))


def nest() -> None:
    """A user namespace in which this user is the only one; whoever made it may lower its limits (namespaces(7))."""
    user, group = os.geteuid(), os.getegid()
    _do(_libc.unshare(CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _do(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def perform(deed: str) -> None:
    """One of those above."""
    name, _, value = deed.partition("=")
    if name == "nested":
        for _ in range(int(value)):
            nest()
    elif name.startswith("max_"):
        nest()
        Path("/proc/sys/user", name).write_text("0")
    else:
        refuse(deed)


def main(arguments: list[str]) -> None:
    end = arguments.index("--")
    for deed in arguments[:end]:
        perform(deed)
    os.execvp(arguments[end + 1], arguments[end + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
