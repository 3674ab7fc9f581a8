"""What the kernel meant: sockets and descriptors of real processes are found, and every errno gets its line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from kinkvpn import config
from kinkvpn.service import preflight
from kinkvpn.service.obstacles import StartRefused

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

    async def getaddrinfo(self, *_arguments: object) -> list[tuple[object, ...]]:
        await trio.sleep_forever()
        raise AssertionError

    async def getnameinfo(self, *_arguments: object) -> tuple[str, str]:
        raise AssertionError


class DenyingResolver(SilentResolver):
    async def getaddrinfo(self, *_arguments: object) -> list[tuple[object, ...]]:
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


def test_packets_leave_from_the_address_that_the_routes_choose() -> None:
    assert preflight.leaving_address("127.0.0.9") == "127.0.0.1"
    assert preflight.leaving_address("::1") == "::1"
    with pytest.raises(OSError, match=r"."):
        preflight.leaving_address("2001:db8::ffff:ffff%nowhere")
