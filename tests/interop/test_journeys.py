"""What a stranger does, from nothing to the first byte through the tunnel, and how long that takes."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from support.lab import start, within
from support.people import laptop, open_gateway

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Lab

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
