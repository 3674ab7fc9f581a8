"""The local API of real daemons: docs/api.md is what happens, and every answer is as the OpenAPI document has it."""

from __future__ import annotations

import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.api import undescribed
from support.lab import START_SECONDS, amend, answers, control_socket, crosswise, events, pinging, start, status, wait

from kinkvpn.api.app import OPERATIONS
from kinkvpn.api.client import Client
from kinkvpn.api.control import CommandRefused, ControlUnavailable, NotRunning, connect
from kinkvpn.api.schema import document

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def established(lab: Lab) -> Host:
    """Host a, whose one peer, b, has SAs with it."""
    a, b = lab.hosts
    amend(a, "[peer]", start="boot")
    start(lab)
    wait(lab, a, lambda: crosswise(a, b), "has no pairs with b")
    return a


def commands() -> list[tuple[str, str]]:
    """Every command of the page and what it is said to print, without what may differ."""
    found: list[tuple[str, list[str]]] = []
    for line in re.findall(r"^    (.*)$", PAGE, re.MULTILINE):
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(printed)) for command, printed in found]


def alike(printed: str) -> str:
    """As a pattern: ``...`` is anything, and so is a number or the version where there is one."""
    pieces = [
        re.escape(re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8}-|\d+(\.\d+)*", "7", piece)) for piece in printed.split("...")
    ]
    return ".*".join(pieces).replace(r"\n.*", ".*")


def plain(printed: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8}-|\d+(\.\d+)*", "7", printed)


def test_every_example_of_the_page_is_what_happens(lab: Lab) -> None:
    a = established(lab)
    found = commands()
    assert len(found) >= 14
    for command, printed in found:
        here = command.replace("/run/kinkvpn/kinkvpn.sock", str(control_socket(a))).replace("/west", "/b")
        done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        expected = alike(printed.replace("west", "b").replace("east", a.name))
        assert re.fullmatch(expected, plain(done.stdout.rstrip("\n")), re.DOTALL), f"{command}\n{done.stdout[:2000]}"
    paths = {re.sub(r".*http://k([^?']*).*", r"\1", command).replace("/west", "/{name}") for command, _ in found}
    assert {one.path for one in OPERATIONS if one.path.startswith("/v1/")} <= paths
    wait(lab, a, lambda: not_running(a), "still answers", START_SECONDS)
    a.stop(None)


def not_running(host: Host) -> bool:
    try:
        status(host)
    except NotRunning:
        return True
    except Exception:  # it ends while it is asked
        return False
    return False


HOSTILE = (
    b"",  # and waits
    b"GET /v1/status HTTP/1.1\r\nHost: ",  # and goes on for ever, octet by octet
    b"GET /v1/status HTTP/1.1\r\nX: " + b"x" * 100_000,
    b"GET /v1/status HTTP/1.1\r\nHost: k\r\n\r\n" * 500,  # and never reads
    b"GET /v1/events HTTP/1.1\r\nHost: k\r\n\r\n",  # likewise
    b"POST /v1/rekey HTTP/1.1\r\nHost: k\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000,
    b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 1000,
)


def crowd(path: Path, rounds: int) -> None:
    """Of every kind some at once, who are gone without a word after a while, the first half of them half closed."""
    for _ in range(rounds):
        clients = []
        for octets in HOSTILE * 8:
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.settimeout(0.05)
            with suppress(OSError):  # it is told that there are too many, or to go
                client.connect(str(path))
                client.sendall(octets)
        for client in clients[::2]:
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
        for client in clients[1::2]:
            with suppress(OSError):
                client.sendall(b"x")
        for client in clients:
            client.close()


def test_hostile_clients_cost_the_tunnel_nothing(lab: Lab) -> None:
    a = established(lab)
    b = lab.hosts[1]
    with pinging(a, b) as lost:
        crowd(control_socket(a), 20)
        wait(lab, a, lambda: answered(a), "does not answer after the crowd")
        wait(lab, a, lambda: carried(a) > 60, "has not carried sixty pings")
    assert lost == [0]
    assert status(a)["pid"] == a.pid
    assert not events(a, "connection_failed")
    assert "defect" not in status(a)["counters"]["kink"]


def answered(host: Host) -> bool:
    """Whether the daemon has got through the crowd: clients are taken in the order in which they came."""
    try:
        with connect(control_socket(host)) as client:
            client.sendall(b"GET /v1/counters HTTP/1.1\r\nHost: k\r\n\r\n")
            return client.recv(12) == b"HTTP/1.1 200"
    except (ControlUnavailable, OSError):
        return False


def carried(host: Host) -> int:
    """Packets; none while the daemon says that too many are there."""
    try:
        return int(status(host)["counters"]["packets_out"])
    except CommandRefused:
        return 0


def test_what_a_daemon_answers_is_what_the_document_says(lab: Lab) -> None:
    a = established(lab)
    assert answers(a)
    described: Any = document(OPERATIONS, "")
    with Client(control_socket(a)) as daemon:
        for one in OPERATIONS:
            if one.method != "GET" or isinstance(one.answer, str):
                continue
            answer = daemon.get(one.path.replace("{name}", "b"))
            msgspec.convert(answer, one.answer)
            operation = described["paths"][one.path]["get"]
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert undescribed(answer, schema, described) == [], one.path
        told = [event.data["event"] for event in daemon.events(follow=False)]
    assert told.count("sa_established") == 2
    assert "started" in told
