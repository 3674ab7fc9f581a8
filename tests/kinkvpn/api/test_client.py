"""The client, against the real server and against sockets that answer as no daemon does."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.api import served

from kinkvpn.api.client import Client, Event, peer_path
from kinkvpn.api.control import CommandRefused, ControlUnavailable, NotRunning
from kinkvpn.api.events import Events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def saying(path: Path, answer: bytes) -> Iterator[Path]:
    """Somebody at ``path`` who answers the first request of the second client, and leaves; the first only looks."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answers() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                if connection.recv(4096):
                    connection.sendall(answer)

    thread = threading.Thread(target=answers)
    thread.start()
    yield path
    thread.join()
    listener.close()


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "the daemon ended before it answered"),
        (b"x\n", "the daemon ended before it answered"),
        (http("200 OK", b"x"), "the daemon answers in a language of its own"),
        (http("200 OK", b"[]"), "the daemon answers in a language of its own"),
    ],
)
def test_a_daemon_that_answers_badly(tmp_path: Path, answer: bytes, reason: str) -> None:
    with (
        saying(tmp_path / "k.sock", answer) as path,
        Client(path) as client,
        pytest.raises(ControlUnavailable, match=f"^{reason}$"),
    ):
        client.status()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"detail": 1}'])
def test_a_refusal_without_a_reason(tmp_path: Path, body: bytes) -> None:
    with (
        saying(tmp_path / "k.sock", http("431 Too Large", body)) as path,
        Client(path) as client,
        pytest.raises(CommandRefused, match=r"^the daemon answered 431 Too Large$"),
    ):
        client.status()


def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "k.sock"))
        listener.listen()
        with (
            Client(tmp_path / "k.sock", 0.01) as client,
            pytest.raises(ControlUnavailable, match="does not answer: timed out"),
        ):
            client.status()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no daemon is running"):
        Client(tmp_path / "k.sock")


class Silent:
    """A daemon with events and nothing else."""

    def __init__(self) -> None:
        self.events = Events(0xAB)
        for number in range(3):
            self.events.add({"event": "x", "n": number})


def test_events(tmp_path: Path) -> None:
    silent = Silent()
    with served(tmp_path / "k.sock", lambda: silent) as path, Client(path) as client:
        assert list(client.events(follow=False)) == [
            Event(f"ab-{number + 1}", "message", {"event": "x", "n": number}) for number in range(3)
        ]
        assert [event.id for event in client.events("ab-2", follow=False)] == ["ab-3"]
        with pytest.raises(CommandRefused, match="is no id of an event"):
            list(client.events("x"))
        found = client.events("ab-3")
        threading.Timer(0.01, silent.events.add, ({"event": "late"},)).start()
        assert next(found).data == {"event": "late"}


@pytest.mark.parametrize(
    ("name", "path"), [("east", "/v1/peers/east"), ("a/b", "/v1/peers/a%2Fb"), ("?\r\n", "/v1/peers/%3F%0D%0A")]
)
def test_whatever_somebody_types_is_one_peers_name(name: str, path: str) -> None:
    assert peer_path(name) == path
