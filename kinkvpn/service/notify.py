"""What a service manager is told of the daemon, and how it learns that the daemon is stuck: sd_notify(3).

A datagram of NAME=VALUE lines to the socket that NOTIFY_SOCKET names. Whoever starts the daemon by hand has set none,
and then all of this does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from math import inf
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

log = logging.getLogger(__name__)

# sd_watchdog_enabled(3) recommends half of the time; a third leaves room for a machine that is busy.
SIGNS_OF_LIFE = 3
# Ours. How often the line that `systemctl status` shows is looked at.
STATUS_SECONDS = 5.0
# systemd(1), sd_listen_fds(3): for this process alone, and not for the commands that it runs.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class Notifier:
    """The service manager that has started this process, or nobody.

    Args:
        environment: of the process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the octet 0 of an abstract name (unix(7)); others than these two are no sockets of this host's.
        self._address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""
        self.watchdog = _watchdog(environment) if self._address else inf
        self._status = ""

    def tell(self, *lines: str) -> None:
        """One datagram. A manager that does not listen takes no tunnel down."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as asked:
                asked.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("service_manager_deaf", extra={"fields": {"socket": self._address, "reason": error.strerror}})

    def ready(self) -> None:
        """It is started, or has been reloaded."""
        self.tell("READY=1")

    def reloading(self) -> None:
        """It reads its configuration again; :meth:`ready` ends that."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """It has been told to end."""
        self.tell("STOPPING=1", "STATUS=stopping")

    def status(self, text: str) -> None:
        """A line for people; told where it is another than before."""
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")

    async def run(self, describe: Callable[[], str], wait_turn: Callable[[], Awaitable[None]]) -> None:
        """Keep the status right and the watchdog quiet, until cancelled.

        Args:
            describe: the status of the moment.
            wait_turn: returns once the packet loop has had a turn. As long as it does not, nobody says that we live.
        """
        if not self._address:
            return
        while True:
            await wait_turn()
            if self.watchdog < inf:
                self.tell("WATCHDOG=1")
            self.status(describe())
            await trio.sleep(min(STATUS_SECONDS, self.watchdog / SIGNS_OF_LIFE))


def _watchdog(environment: Mapping[str, str]) -> float:
    """Seconds without a sign of life after which we are killed; infinite without a watchdog, or with another's."""
    microseconds, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or not int(microseconds) or (pid and pid != str(os.getpid())):
        return inf
    return int(microseconds) / 1e6
