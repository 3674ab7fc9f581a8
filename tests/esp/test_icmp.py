from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING

import pytest

from esp import icmp
from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture(params=LOOPBACK, ids=["ipv4", "ipv6"])
def asking(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK[request.param], 0))
        sock.setblocking(False)
        icmp.ask(sock)
        yield sock


def nobody(family: int) -> Endpoint:
    """Where nobody listens."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK[socket.AddressFamily(family)], 0))
        return Endpoint(*sock.getsockname()[:2])


def wait_for_error(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(5000)


def test_there_is_nothing_to_take(asking: socket.socket) -> None:
    assert icmp.take_errors(asking) == icmp.Errors()


def test_whoever_asks_is_told_which_remote_it_was_and_once(asking: socket.socket) -> None:
    there = nobody(asking.family)
    asking.sendto(b"anybody?", there)
    wait_for_error(asking)
    assert icmp.take_errors(asking) == icmp.Errors(1, {there})
    assert icmp.take_errors(asking) == icmp.Errors()


def test_one_look_takes_a_bounded_number(asking: socket.socket) -> None:
    there = nobody(asking.family)
    sent = 0
    while sent < 2 * icmp.MAX_ERRORS:
        try:
            asking.sendto(b"anybody?", there)
            sent += 1
        except ConnectionRefusedError:
            continue
    wait_for_error(asking)
    errors = icmp.take_errors(asking)
    assert (0 < errors.count <= icmp.MAX_ERRORS, errors.unreachable) == (True, {there})


def test_what_failed_for_another_datagrams_sake_is_sent_again(asking: socket.socket) -> None:
    there = nobody(asking.family)
    asking.sendto(b"anybody?", there)
    wait_for_error(asking)
    with socket.socket(asking.family, socket.SOCK_DGRAM) as living:
        living.bind((LOOPBACK[socket.AddressFamily(asking.family)], 0))
        living.settimeout(30)

        def send() -> None:
            asking.sendto(b"hello", living.getsockname())

        with pytest.raises(ConnectionRefusedError) as refused:
            send()
        went, errors = icmp.sent_again(refused.value, asking, send)
        assert (went, errors.unreachable) == (True, {there})
        assert living.recv(100) == b"hello"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE, errno.ENETUNREACH])
def test_what_failed_for_its_own_sake_is_not(asking: socket.socket, number: int) -> None:
    again: list[int] = []
    went, errors = icmp.sent_again(OSError(number, ""), asking, lambda: again.append(1))
    assert (went, errors.unreachable) == (False, set())
    assert again == []


def test_a_second_failure_leaves_no_error_behind(asking: socket.socket) -> None:
    there = nobody(asking.family)
    asking.sendto(b"anybody?", there)
    wait_for_error(asking)

    def send() -> None:
        asking.sendto(bytes(70_000), there)

    went, errors = icmp.sent_again(ConnectionRefusedError(errno.ECONNREFUSED, ""), asking, send)
    assert (went, errors.unreachable) == (False, {there})
    assert icmp.take_errors(asking) == icmp.Errors()
