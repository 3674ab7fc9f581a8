"""What is done in the namespaces for one outside."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from support.unprivileged import as_user

from kinkvpn.rootless.channel import Channel
from kinkvpn.rootless.inside import serve, settle
from kinkvpn.rootless.outside import Namespace, keep
from kinkvpn.service.netconf import NetworkPlan, NetworkRefused


@pytest.mark.root
def test_addresses_and_routes_are_configured_from_outside() -> None:
    plan = NetworkPlan(
        "lo", 1400, (ip_interface("10.9.0.1/24"), ip_interface("fd09::1/64")), (ip_network("10.8.0.0/16"),)
    )

    def deed() -> object:
        with keep() as space:
            space.configure(plan)
            found = []
            for family, address in ((socket.AF_INET, "10.9.0.1"), (socket.AF_INET6, "fd09::1")):
                with space.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.bind((address, 0))
                    found.append(sock.getsockname()[0])
            with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(("10.8.1.1", 9))
                found.append(sock.getsockname()[0])
            try:
                space.configure(NetworkPlan("absent", 1400))
            except NetworkRefused as refused:
                found.append(str(refused))
            return found

    assert as_user(deed) == ["10.9.0.1", "fd09::1", "10.9.0.1", "there is no device absent"]


@pytest.mark.root
def test_loopback_is_up_and_our_group_may_ping() -> None:
    def deed() -> object:
        settle()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as ping:
            ping.settimeout(15)
            ping.sendto(b"\x08\0\0\0\0\0\0\x01", ("127.0.0.1", 0))
            answer = ping.recv(100)[0]
        return answer, Path("/proc/sys/net/ipv4/ping_group_range").read_text().split()

    assert as_user(deed) == [0, [str(12345)] * 2]


@pytest.mark.parametrize("last", [None, {"environment": {"A": "b"}}])
def test_it_serves_until_it_may_leave_or_is_left(last: dict[str, object] | None) -> None:
    ours, theirs = Channel.pair()
    child = os.fork()
    if child == 0:
        ours.close()
        os._exit(serve(theirs) == last)
    theirs.close()
    space = Namespace(ours)
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert sock.family == socket.AF_INET
    if last is not None:
        space.leave(last)
    space.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
