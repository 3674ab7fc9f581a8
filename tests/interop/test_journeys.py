"""What a stranger does, from nothing to the first byte through the tunnel, and how long that takes."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from support.lab import start, wait, within
from support.people import GATEWAY, PASSWORD, Walker, laptop, open_gateway
from support.proxy import proxy, wait_until
from support.traveller import Traveller

from kinkvpn.api.client import Client
from kinkvpn.api.control import NotRunning
from kinkvpn.demo.lab import START_SECONDS, kinkvpn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]

FIRST_BYTE_SECONDS = 60.0


def first_byte(lab: Lab, address: str) -> bytes:
    """Of a server behind host b, read on host a, which tries until there is a way."""
    source, target = lab.hosts
    deadline = time.monotonic() + FIRST_BYTE_SECONDS
    with within(target.namespace, lambda: socket.create_server((address, 0))) as server:
        while True:
            asked = within(source.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            with asked:
                asked.settimeout(1.0)
                try:
                    asked.connect(server.getsockname()[:2])
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                    continue
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"!")
                    return asked.recv(1)


def at(host: Host, lab: Lab, *arguments: str) -> subprocess.Popen[str]:
    """``kinkvpn`` on the host, which knows both by their names and has a /run/kinkvpn of its own."""
    directory = host.configuration.parent
    (directory / "run").mkdir(exist_ok=True)
    names = "".join(f"{each.site.wire} {each.name}.kinkvpn.test\n" for each in lab.hosts)
    (directory / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
    mounts = {"hosts": "/etc/hosts", "run": "/run/kinkvpn"}
    lines = ["set -e", "mkdir -p /run/kinkvpn"]
    lines += [f"mount --bind {directory / name} {place}" for name, place in mounts.items()]
    script = "; ".join([*lines, f"exec {shlex.join([*kinkvpn(), *arguments])}"])
    with host.log.open("a") as log:
        return host.namespace.spawn(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdout=log,
            stderr=log,
            environment=lab.realm.environment | {"PYTHONUNBUFFERED": "1"},
        )


def is_up(host: Host) -> bool:
    """Whether the daemon that :func:`at` has started answers."""
    try:
        with Client(host.configuration.parent / "run" / "kinkvpn.sock") as daemon:
            return bool(daemon.status())
    except NotRunning:
        return False


def test_two_gateways_from_kinkvpn_init(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = lab.hosts
    began = time.monotonic()
    daemons = []
    try:
        for here, there in ((a, b), (b, a)):
            subnets = [str(here.site.subnets[0]), "--remote", str(there.site.subnets[0])]
            options = ["--peer", f"{there.name}.kinkvpn.test", "--local", *subnets, "--address", here.site.inner[0]]
            path = str(here.configuration.with_name("gateway.toml"))
            assert at(here, lab, "init", *options, "-o", path, "--force").wait(60) == 0
            daemons.append(at(here, lab, "up", "-c", path))
        for host in lab.hosts:
            wait(lab, host, lambda host=host: is_up(host), "does not answer", START_SECONDS)
        assert first_byte(lab, b.site.inner_address(4)) == b"!"
        took = time.monotonic() - began
        for host in lab.hosts:
            assert at(host, lab, "check", "-c", str(host.configuration.with_name("gateway.toml"))).wait(60) == 0
    finally:
        for daemon in daemons:
            daemon.terminate()
        codes = [daemon.wait(60) for daemon in daemons]
    assert codes == [0, 0]
    with capsys.disabled():
        print(f"\ntwo gateways: kinkvpn init and up on both, first byte after {took:.2f} s")


def test_alice_with_kinit_and_kinkvpn_up(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        began = time.monotonic()
        alice.kinit()
        alice.up()
        assert first_byte(lab, gateway.site.inner_address(4)) == b"!"
        took = time.monotonic() - began
    with capsys.disabled():
        print(f"\nalice: kinit, kinkvpn up, first byte after {took:.2f} s")


def test_kinkvpn_proxy_with_curl_through_socks(lab: Lab, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user without any privilege, who has a keytab and a configuration."""
    traveller = Traveller(lab, directory)
    there = traveller.gateway.site.inner_address(4)
    serve = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=80, bind=sys.argv[1])"
    server = [*traveller.gateway.namespace.prefix, sys.executable, "-c", serve, there]
    url = f"http://{there}/"
    wait_until(lambda: there in traveller.gateway.namespace.run(["ip", "address"]))
    with subprocess.Popen(server, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as web:
        wait_until(lambda: curl(traveller, url, at=traveller.gateway))
        began = time.monotonic()
        with proxy(traveller):
            assert curl(traveller, "--socks5-hostname", "127.0.0.1:1080", url)
            took = time.monotonic() - began
        web.kill()
    with capsys.disabled():
        print(f"\nkinkvpn proxy, curl through SOCKS, first byte after {took:.2f} s")


def curl(traveller: Traveller, *arguments: str, at: Host | None = None) -> bytes:
    command = [*(at or traveller.host).namespace.prefix, "curl", "--silent", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, check=False).stdout


@contextmanager
def page(lab: Lab) -> Iterator[str]:
    """The address of a web page behind the gateway, which says where it was asked from."""
    gateway = lab.hosts[1]
    server = within(gateway.namespace, lambda: socket.create_server((gateway.site.inner_address(4), 0)))
    server.settimeout(FIRST_BYTE_SECONDS)

    def answer() -> None:
        connection, (source, _) = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{source}".encode())

    thread = threading.Thread(target=answer)
    with server:
        thread.start()
        address, port = server.getsockname()[:2]
        yield f"http://{address}:{port}/"
        thread.join()


def test_an_unprivileged_kinkvpn_run_curl(lab: Lab, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user with a number and no account, no capability, and nothing but what kinit gets."""
    open_gateway(lab.hosts[1])
    start(lab, lab.hosts[1])
    with laptop(lab) as alice:
        alice.exists()
    (walk := directory / "without-root").mkdir()
    walker = Walker(lab, walk)
    with page(lab) as address:
        began = time.monotonic()
        walker.types("kinit", alice.principal, stdin=f"{PASSWORD}\n")
        shown = walker.types(*kinkvpn(), "run", "--gateway", GATEWAY, "--", "curl", "--silent", address)
        took = time.monotonic() - began
    assert shown.startswith("10.8.0.")
    with capsys.disabled():
        print(f"\nwithout root: kinit, kinkvpn run -- curl, first byte after {took:.2f} s")


def test_alice_with_kinit_and_kinkvpn_proxy(lab: Lab, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the gateway lends is all that it needs: address, routes and a name server."""
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    there = gateway.site.inner_address(4)
    serve = "import http.server, sys; http.server.test(http.server.SimpleHTTPRequestHandler, port=80, bind=sys.argv[1])"
    log = directory / "proxy.log"
    with ExitStack() as held:
        web = held.enter_context(
            subprocess.Popen(
                [*gateway.namespace.prefix, sys.executable, "-c", serve, there],
                cwd=directory,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        held.callback(web.kill)
        alice = held.enter_context(laptop(lab))
        alice.exists()
        began = time.monotonic()
        alice.kinit()
        process = alice.host.namespace.spawn(
            alice.command("proxy", "--gateway", GATEWAY),
            stderr=held.enter_context(log.open("w")),
            environment=alice.environment | {"XDG_RUNTIME_DIR": str(alice.directory), "HOME": str(alice.directory)},
        )
        held.callback(process.wait)
        held.callback(process.kill)
        wait_until(lambda: process.poll() is not None or " proxy " in log.read_text())
        assert process.poll() is None, log.read_text()
        command = ["curl", "--silent", "--max-time", "30", "--socks5-hostname", "127.0.0.1:1080", f"http://{there}/"]
        assert alice.host.namespace.run(command, timeout=60), log.read_text()
        took = time.monotonic() - began
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    with capsys.disabled():
        print(f"\nalice: kinit, kinkvpn proxy, curl through SOCKS, first byte after {took:.2f} s")
