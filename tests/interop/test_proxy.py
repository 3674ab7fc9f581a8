"""``kinkvpn proxy`` of a user without any privilege: curl and others through it, by the kernel's stack and by lwIP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dns.message
import pytest
from support.behind import servers
from support.proxy import PORT, proxy
from support.traveller import Traveller

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, Lab
from kinkvpn.proxy import socks
from kinkvpn.proxy.lwip import why_missing
from kinkvpn.proxy.target import Target, parse_host

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

ROOT = Path(__file__).parents[2]
THERE, THERE6 = "10.2.0.1", "fd00:2::1"
LOCKED = (
    "bwrap",
    "--bind",
    "/",
    "/",
    "--dev-bind",
    "/dev",
    "/dev",
    "--proc",
    "/proc",
    "--unshare-user",
    "--disable-userns",
    "--die-with-parent",
    "--",
)

# A mirror of Debian need not have its sources, and an installation without lwIP is a whole one (setup.py).
lwip = pytest.mark.skipif(bool(why_missing()), reason=f"lwIP is {why_missing()}")  # installs without it are whole
STACKS = ["kernel", pytest.param("lwip", marks=lwip)]


class EverySpi(frozenset[int]):
    """Whatever is in the shape of ESP is no leak."""

    def __contains__(self, _: object) -> bool:
        return True


@pytest.fixture
def traveller(lab: Lab, directory: Path) -> Traveller:
    return Traveller(lab, directory)


@pytest.fixture(autouse=True)
def behind(traveller: Traveller) -> Iterator[None]:
    """Servers at the gateway's inner addresses."""
    with servers(traveller.gateway, THERE, THERE6):
        yield


@pytest.mark.parametrize("stack", STACKS)
def test_curl_by_socks_and_by_http_and_nothing_in_the_clear(
    traveller: Traveller, lab: Lab, directory: Path, stack: str
) -> None:
    with (
        Capture(traveller.host.namespace, WIRE, directory / "wire.pcap") as capture,
        proxy(traveller, "--stack", stack, "--dns", THERE) as running,
    ):
        for way in (
            ("--socks5-hostname", f"127.0.0.1:{PORT}"),
            ("--proxytunnel", "--proxy", f"http://127.0.0.1:{PORT}"),
            ("--proxy", f"http://127.0.0.1:{PORT}"),
        ):
            for name in ("web.test", THERE, f"[{THERE6}]"):
                done = running.curl(*way, f"http://{name}/hello")
                assert "/hello for " in done.stdout, (way, name, done.stderr)
            done = running.curl(
                *way, "--output", "/dev/null", "--write-out", "%{size_download}", f"http://{THERE}/octets/3000000"
            )
            assert done.stdout == "3000000", done.stderr
            done = running.curl(*way, "--data-binary", "x" * 100_000, f"http://{THERE}/")
            assert done.stdout == "100000", done.stderr
        assert (
            f"for {traveller.host.site.inner_address(4)}"
            in running.curl("--socks5", f"127.0.0.1:{PORT}", f"http://{THERE}/").stdout
        )
        assert capture.stop() == 0
    traffic = capture.classify({host.site.wire: EverySpi() for host in lab.hosts})
    assert not traffic.leaks


@pytest.mark.parametrize("stack", STACKS)
def test_a_query_of_dns_by_udp_associate(traveller: Traveller, stack: str) -> None:
    with proxy(traveller, "--stack", stack) as running, running.connected() as control, running.udp() as udp:
        control.sendall(b"\x05\x01\x00")
        assert control.recv(2) == b"\x05\x00"
        control.sendall(b"\x05\x03\x00\x01" + bytes(6))
        found = socks.parse_request(control.recv(100))  # of a reply, which has the same form
        assert found is not None
        assert found[0].command == socks.ReplyCode.SUCCEEDED
        query = dns.message.make_query("web.test", "A")
        here = str(found[0].target.host), found[0].target.port
        for server in (THERE, THERE6):
            udp.sendto(socks.build_datagram(Target(parse_host(server), 53), query.to_wire()), here)
            source, wire = socks.parse_datagram(udp.recv(65_535))
            assert str(source.host) == server
            assert THERE in str(dns.message.from_wire(wire).answer[0])


@pytest.mark.parametrize("stack", STACKS)
def test_forwards_of_both_directions(traveller: Traveller, stack: str) -> None:
    forwards = ("-L", f"8080:{THERE}:80", "-L", f"udp/5353:{THERE}:53", "-R", "9000:127.0.0.1:8080")
    with proxy(traveller, "--stack", stack, *forwards) as running:
        assert "/local for " in running.curl("http://127.0.0.1:8080/local").stdout
        with running.udp() as udp:
            udp.sendto(dns.message.make_query("web.test", "A").to_wire(), ("127.0.0.1", 5353))
            assert THERE in str(dns.message.from_wire(udp.recv(65_535)).answer[0])
        # Out of the tunnel here, and by -L into it again.
        own = traveller.host.site.inner_address(4)
        back = ["curl", "--silent", "--max-time", "60", f"http://{own}:9000/remote"]
        assert "/remote for " in traveller.gateway.namespace.run(back)


def test_what_cannot_be_is_refused_in_the_words_of_the_protocol(traveller: Traveller) -> None:
    with proxy(traveller, "--stack", "kernel", "--dns", THERE) as running:
        done = running.curl("--socks5-hostname", f"127.0.0.1:{PORT}", "http://large.test/")  # asked for by TCP
        assert "/ for " in done.stdout, done.stderr
        for target, code in (
            (f"{THERE}:9", "5"),
            ("198.51.100.1:80", "2"),
            ("nowhere.example:80", "4"),
            ("web.test:9", "5"),
        ):
            done = running.curl("--socks5-hostname", f"127.0.0.1:{PORT}", f"http://{target}/")
            assert done.returncode == 97, (target, done.stderr)
            assert f"({code})" in done.stderr, (target, done.stderr)
        for target, status in ((f"{THERE}:9", "502"), ("198.51.100.1:80", "403"), ("nowhere.example:80", "502")):
            done = running.curl(
                "--write-out", "%{http_code}", "--proxy", f"http://127.0.0.1:{PORT}", f"http://{target}/"
            )
            assert done.stdout.endswith(status), (target, done.stdout)


def test_who_does_not_know_the_password(traveller: Traveller) -> None:
    secret = traveller.directory / "password"
    secret.write_text("alice:sesame\n")
    secret.chmod(0o600)
    os.chown(secret, *(traveller.directory.stat().st_uid,) * 2)
    url = f"http://{THERE}/"
    with proxy(traveller, "--stack", "kernel", "--password-file", str(secret)) as running:
        for user, known in (("alice:sesame", True), ("alice:sesam", False)):
            for scheme in ("socks5h", "http"):
                done = running.curl("--proxy", f"{scheme}://{user}@127.0.0.1:{PORT}", url)
                assert ("/ for " in done.stdout) == known, (user, scheme, done.stdout, done.stderr)
        assert "/ for " not in running.curl("--socks5", f"127.0.0.1:{PORT}", url).stdout
        assert "sesame" not in running.log.read_text()


@lwip
def test_where_there_can_be_no_namespace_lwip_does_it(traveller: Traveller) -> None:
    """In bubblewrap, which imitates a locked container; nobody has said which stack."""
    with proxy(traveller, before=LOCKED) as running:
        assert "stack=lwip" in running.log.read_text()
        done = running.curl("--socks5-hostname", f"127.0.0.1:{PORT}", f"http://{THERE}/locked")
        assert "/locked for " in done.stdout, done.stderr
