"""What the kernel meant: sockets and descriptors of real processes are found, and every errno gets its line."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
import trio

from kinkvpn import config
from kinkvpn.service import preflight
from kinkvpn.service.preflight import StartRefused

CONFIGURATION = """\
[host]
principal = "kink/a@R"
keytab = "/k"
[kink]
listen = ["{listen}"]
[[peer]]
name = "b"
principal = "kink/b@R"
address = "{first}"
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
[[peer]]
name = "c"
principal = "kink/c@R"
address = "{second}"
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.3.0.0/24"
"""


def configuration(first: str, second: str, listen: str = "0.0.0.0") -> config.Configuration:
    return config.parse(CONFIGURATION.format(first=first, second=second, listen=listen), Path("k.toml"))


async def test_addresses_and_names_become_endpoints() -> None:
    first, second = await preflight.resolve_peers(configuration("localhost", "127.0.0.3"))
    assert (first.kink, first.esp) == (("127.0.0.1", 910), ("127.0.0.1", 4500))
    assert second.kink.address == "127.0.0.3"
    (policy,) = second.policies
    assert policy.name == "c/1"


async def test_a_peer_without_an_address_has_none() -> None:
    text = CONFIGURATION.format(first="", second="127.0.0.3", listen="0.0.0.0").replace('address = ""\n', "")
    first, second = await preflight.resolve_peers(config.parse(text, Path("k.toml")))
    assert (first.kink, first.esp) == (("", 910), ("", 4500))
    assert second.kink.address == "127.0.0.3"


async def test_every_address_of_the_wrong_family_is_named() -> None:
    with pytest.raises(StartRefused) as caught:
        await preflight.resolve_peers(configuration("127.0.0.2", "127.0.0.3", listen="::1"))
    assert caught.value.reasons == (
        "peer b: 127.0.0.2 is 127.0.0.2, but kink.listen has IPv6 addresses only",
        "peer c: 127.0.0.3 is 127.0.0.3, but kink.listen has IPv6 addresses only",
    )


class SilentResolver(trio.abc.HostnameResolver):
    """Trio's own seam for resolvers (trio.socket.set_custom_hostname_resolver): this one never answers."""

    async def getaddrinfo(self, *_arguments: object) -> list[tuple[object, ...]]:  # type: ignore[override] # takes whatever is asked
        await trio.sleep_forever()
        raise AssertionError

    async def getnameinfo(self, *_arguments: object) -> tuple[str, str]:
        raise AssertionError


class DenyingResolver(SilentResolver):
    async def getaddrinfo(self, *_arguments: object) -> list[tuple[object, ...]]:  # type: ignore[override] # takes whatever is asked
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_resolver_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(SilentResolver())
    with pytest.raises(StartRefused, match=r"^b.example does not resolve: no answer within 10 s$"):
        await preflight.resolve_address("b.example", {4, 6})
    assert trio.current_time() == pytest.approx(preflight.RESOLVE_SECONDS)


async def test_all_names_are_asked_at_once_and_all_failures_told() -> None:
    trio.socket.set_custom_hostname_resolver(DenyingResolver())
    with pytest.raises(StartRefused) as caught:
        await preflight.resolve_peers(configuration("b.example", "c.example"))
    assert str(caught.value).splitlines() == [
        "peer b: b.example does not resolve: Name or service not known",
        "peer c: c.example does not resolve: Name or service not known",
    ]


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_has_a_port_is_found(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as taken:
        taken.bind((address, 0))
        port = taken.getsockname()[1]
        (holder,) = preflight.udp_holders(port)
        assert holder.pid == os.getpid()
        assert holder.command
        explained = preflight.explain_bind(address, port, errno.EADDRINUSE)
    assert f":{port}/udp is taken by pid {os.getpid()} ({holder.command})" in explained
    assert preflight.udp_holders(port) == []
    assert "a process that we may not look at" in preflight.explain_bind(address, port, errno.EADDRINUSE)


@pytest.mark.parametrize(
    ("address", "port", "number", "expected"),
    [
        ("192.0.2.1", 910, errno.EADDRNOTAVAIL, "port 192.0.2.1:910/udp: 192.0.2.1 is no address of this host"),
        ("::1", 4500, errno.EAFNOSUPPORT, "port [::1]:4500/udp: Address family not supported by protocol"),
        ("::1", 65535, errno.EACCES, "port [::1]:65535/udp: Permission denied"),
    ],
)
def test_why_a_port_cannot_be_bound(address: str, port: int, number: int, expected: str) -> None:
    assert preflight.explain_bind(address, port, number) == expected


def test_a_low_port_names_the_capability() -> None:
    explained = preflight.explain_bind("0.0.0.0", preflight.unprivileged_port_start() - 1, errno.EACCES)
    assert "CAP_NET_BIND_SERVICE" in explained
    assert f"uid {os.geteuid()}" in explained


def test_why_there_is_no_tun() -> None:
    assert preflight.explain_tun("kink0", errno.ENOENT, "no /dev/net/tun: ...") == "no /dev/net/tun: ..."
    assert "device kink0 is in use by a process" in preflight.explain_tun("kink0", errno.EBUSY, "busy")
    explained = preflight.explain_tun("kink0", errno.EPERM, "words of the device")
    if preflight.has_capability("CAP_NET_ADMIN"):
        assert explained == "words of the device"
    else:
        assert explained.startswith(f"device kink0: uid {os.geteuid()} lacks CAP_NET_ADMIN (CapEff ")


def test_why_there_is_no_raw_esp() -> None:
    for number in (errno.EPERM, errno.EACCES):
        explained = preflight.explain_raw("192.0.2.1", number)
        assert explained.startswith('encapsulation = "raw": ')
        assert "CAP_NET_RAW" in explained
    assert preflight.explain_raw("192.0.2.1", errno.EADDRNOTAVAIL) == "raw ESP: 192.0.2.1 is no address of this host"
    assert preflight.explain_raw("::1", errno.EAFNOSUPPORT).startswith("raw ESP at ::1: Address family not supported")


def test_packets_leave_from_the_address_that_the_routes_choose() -> None:
    assert preflight.leaving_address("127.0.0.9") == "127.0.0.1"
    assert preflight.leaving_address("::1") == "::1"
    with pytest.raises(OSError, match=r"."):
        preflight.leaving_address("2001:db8::ffff:ffff%nowhere")


def test_capabilities_are_those_of_the_kernel() -> None:
    """Against libcap-free arithmetic of our own: CapEff is within CapBnd, and root has it all or is told what not."""
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if line[:3] == "Cap")
    mask = preflight.effective_capabilities()
    assert mask == int(lines["CapEff"], 16)
    for name, bit in preflight.CAPABILITIES.items():
        assert preflight.has_capability(name) is bool(mask & 1 << bit)
