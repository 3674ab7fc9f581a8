"""Between the process inside a namespace and the one outside: a message at a time, descriptors along with it."""

from __future__ import annotations

import errno
import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours. Both ends are this program; a plan with the most policies that a configuration may have is a tenth of it.
LARGEST_MESSAGE = 1 << 20
# Ours. As many as a device has queues.
MOST_DESCRIPTORS = 16


class Channel:
    """One end. Blocking; whoever sends, sends to its twin in the other process.

    Args:
        end: a Unix socket of SOCK_SEQPACKET, taken over.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends; close one of them on each side of a fork."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (left, right):
            # A message leaves in one piece or not at all; root's limit is not everybody's (net.core.wmem_max).
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_MESSAGE)
        return cls(left), cls(right)

    def fileno(self) -> int:
        """The descriptor, readable when there is a message or the other side has gone."""
        return self._end.fileno()

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send ``message``, JSON-able, with copies of ``descriptors``. Raises OSError: nobody is there any more."""
        socket.send_fds(self._end, [json.dumps(message).encode()], list(descriptors))

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors, which nothing executed inherits; None once the other side has gone.

        Raises:
            OSError: this process may have no more descriptors (EMFILE); the message is lost.
        """
        octets = b""
        descriptors: list[int] = []
        with suppress(ConnectionError):
            octets, descriptors, flags, _ = socket.recv_fds(self._end, LARGEST_MESSAGE, MOST_DESCRIPTORS)
            if flags & socket.MSG_CTRUNC:
                close_all(descriptors)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            for each in descriptors:
                os.set_inheritable(each, False)  # recv_fds passes no flags on (MSG_CMSG_CLOEXEC)
        return (json.loads(octets), descriptors) if octets else None

    def close(self) -> None:
        """The other side hears of it. Closing twice is fine."""
        self._end.close()


def close_all(descriptors: Sequence[int]) -> None:
    """For those that have been sent, or are not wanted."""
    for each in descriptors:
        os.close(each)
