"""What keeps us from starting, in words."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from kinkvpn.service import obstacles
from kinkvpn.service.obstacles import StartRefused, first_leaf


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_has_a_port_is_found(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as taken:
        taken.bind((address, 0))
        port = taken.getsockname()[1]
        (holder,) = obstacles.udp_holders(port)
        assert holder.pid == os.getpid()
        assert holder.command
        explained = obstacles.explain_bind(address, port, errno.EADDRINUSE)
    assert f":{port}/udp is taken by pid {os.getpid()} ({holder.command})" in explained
    assert obstacles.udp_holders(port) == []
    assert "a process that we may not look at" in obstacles.explain_bind(address, port, errno.EADDRINUSE)


@pytest.mark.parametrize(
    ("address", "port", "number", "expected"),
    [
        ("192.0.2.1", 910, errno.EADDRNOTAVAIL, "port 192.0.2.1:910/udp: 192.0.2.1 is no address of this host"),
        ("::1", 4500, errno.EAFNOSUPPORT, "port [::1]:4500/udp: Address family not supported by protocol"),
        ("::1", 65535, errno.EACCES, "port [::1]:65535/udp: Permission denied"),
    ],
)
def test_why_a_port_cannot_be_bound(address: str, port: int, number: int, expected: str) -> None:
    assert obstacles.explain_bind(address, port, number) == expected


@pytest.mark.parametrize(
    ("address", "number", "expected"),
    [
        ("192.0.2.1", errno.EADDRNOTAVAIL, "port 192.0.2.1:9910/tcp: 192.0.2.1 is no address of this host"),
        ("::1", errno.EADDRINUSE, "port [::1]:9910/tcp is taken; root sees by whom with `ss -ltnp`"),
        ("::1", errno.EACCES, "port [::1]:9910/tcp: Permission denied"),
    ],
)
def test_why_nobody_can_listen_there(address: str, number: int, expected: str) -> None:
    assert obstacles.explain_listen(address, 9910, number) == f"metrics.listen, {expected}"


def test_a_low_port_to_listen_on_needs_a_capability() -> None:
    explained = obstacles.explain_listen("127.0.0.1", obstacles.unprivileged_port_start() - 1, errno.EACCES)
    assert "CAP_NET_BIND_SERVICE" in explained


def test_a_low_port_names_the_capability() -> None:
    explained = obstacles.explain_bind("0.0.0.0", obstacles.unprivileged_port_start() - 1, errno.EACCES)
    assert "CAP_NET_BIND_SERVICE" in explained
    assert f"uid {os.geteuid()}" in explained


def test_why_there_is_no_tun() -> None:
    assert obstacles.explain_tun("kink0", errno.ENOENT, "no /dev/net/tun: ...") == "no /dev/net/tun: ..."
    assert "device kink0 is in use by a process" in obstacles.explain_tun("kink0", errno.EBUSY, "busy")
    explained = obstacles.explain_tun("kink0", errno.EPERM, "words of the device")
    if obstacles.has_capability("CAP_NET_ADMIN"):
        assert explained == "words of the device"
    else:
        assert explained.startswith(f"device kink0: uid {os.geteuid()} lacks CAP_NET_ADMIN (CapEff ")


def test_why_there_is_no_raw_esp() -> None:
    for number in (errno.EPERM, errno.EACCES):
        explained = obstacles.explain_raw("192.0.2.1", number)
        assert explained.startswith('encapsulation = "raw": ')
        assert "CAP_NET_RAW" in explained
    assert obstacles.explain_raw("192.0.2.1", errno.EADDRNOTAVAIL) == "raw ESP: 192.0.2.1 is no address of this host"
    assert obstacles.explain_raw("::1", errno.EAFNOSUPPORT).startswith("raw ESP at ::1: Address family not supported")


def test_capabilities_are_those_of_the_kernel() -> None:
    """Against libcap-free arithmetic of our own: CapEff is within CapBnd, and root has it all or is told what not."""
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if line[:3] == "Cap")
    mask = obstacles.effective_capabilities()
    assert mask == int(lines["CapEff"], 16)
    for name, bit in obstacles.CAPABILITIES.items():
        assert obstacles.has_capability(name) is bool(mask & 1 << bit)


def test_the_first_of_several_failures() -> None:
    first = StartRefused("x")
    assert first_leaf(ExceptionGroup("", [ExceptionGroup("", [first]), StartRefused("y")])) is first
