"""What is had of a namespace from outside, by a user without any privilege."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest
from support.unprivileged import as_user

from kinkvpn.rootless.namespace import CLONE_NEWUSER, Step, StepRefused, unshare
from kinkvpn.rootless.outside import keep

pytestmark = pytest.mark.root


def test_sockets_are_of_the_network_inside() -> None:
    def deed() -> object:
        with keep() as space:
            listening = space.socket(socket.AF_INET, socket.SOCK_STREAM)
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            said = []
            for make in (space.socket, socket.socket):
                with make(socket.AF_INET, socket.SOCK_STREAM) as sock:
                    said.append(sock.connect_ex(listening.getsockname()))
            with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                said.append(sock.connect_ex(("192.0.2.1", 9)))
            return said

    assert as_user(deed) == [0, errno.ECONNREFUSED, errno.ENETUNREACH]


def test_a_kind_of_socket_that_there_is_not_is_the_same_error_as_here() -> None:
    def deed() -> object:
        with keep() as space:
            try:
                space.socket(socket.AF_INET, 77)
            except OSError as error:
                return error.errno

    assert as_user(deed) in (errno.EINVAL, errno.ESOCKTNOSUPPORT)


def test_a_refusal_is_raised_outside_as_it_was_inside() -> None:
    def deed() -> object:
        unshare(CLONE_NEWUSER)
        Path("/proc/sys/user/max_net_namespaces").write_text("0")
        try:
            with keep():
                return "kept"
        except StepRefused as refused:
            return refused.step.name, refused.errno

    assert as_user(deed) == [Step.USER.name, errno.EPERM]


@pytest.mark.parametrize("end", ["close", "kill"])
def test_whoever_keeps_it_goes_with_us(end: str) -> None:
    """By an orderly end, and when the parent is killed: then there is nobody left to wait for it but us."""

    def deed() -> object:
        reader, writer = os.pipe()  # its last writer is the keeper
        parent = os.fork()
        if parent == 0:
            with keep():
                os.write(writer, b"kept")
                os.close(reader)
                if end == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as ended:
            said = ended.read().decode()
        return said, os.WTERMSIG(os.waitpid(parent, 0)[1])

    assert as_user(deed) == ["kept", signal.SIGKILL if end == "kill" else 0]
