"""Sockets of a service manager, in a process that was started with them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kinkvpn.service.inherited import inherited

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.programs

SCRIPT = """
import json, sys
from kinkvpn.service.devices import open_link
from kinkvpn.service.daemon import open_transport
from kinkvpn.service.obstacles import StartRefused
try:
    link, transport = open_link(("127.0.0.1",), 0), open_transport(("127.0.0.1",), 0)
    print(json.dumps([link.local[0].port, transport.local[0].port]))
except StartRefused as refused:
    print(json.dumps(str(refused)))
"""


def started(sockets: Sequence[socket.socket], names: str, script: str = SCRIPT) -> object:
    """What ``script`` prints that finds ``sockets`` from descriptor 3 on, as systemd hands them over."""
    moves = " ".join(f"{3 + index}<&{sock.fileno()}" for index, sock in enumerate(sockets))
    shell = f'export LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names}; exec "$@" {moves}'
    done = subprocess.run(
        ["bash", "-c", shell, "sh", sys.executable, "-c", script],
        pass_fds=[sock.fileno() for sock in sockets],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bound(kind: int = socket.SOCK_DGRAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    return sock


def test_esp_and_kink_are_where_they_were_bound() -> None:
    with bound() as esp, bound() as kink:
        assert started([esp, kink], "esp:kink") == [esp.getsockname()[1], kink.getsockname()[1]]


def test_what_is_no_udp_socket_is_refused() -> None:
    with bound(socket.SOCK_STREAM) as stream:
        assert started([stream], "esp") == 'descriptor 3, "esp": expected a UDP socket (ListenDatagram=)'


def test_two_of_a_family_are_refused() -> None:
    with bound() as one, bound() as other:
        assert started([one, other], "esp:esp") == (
            'the sockets called "esp" are 2: expected one of IPv4 and one of IPv6'
        )


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "esp:kink"}])
def test_those_of_others_are_not_ours(environment: dict[str, str]) -> None:
    assert inherited("esp", environment) == []
