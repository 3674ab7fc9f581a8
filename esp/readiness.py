"""Several sockets as one for whoever waits: Trio waits for one descriptor, and an epoll set is one."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable


class Descriptor(Protocol):
    """What has a file descriptor."""

    def fileno(self) -> int:
        """The number."""


class Readiness:
    """Readable when any of its members is; a member may be another of these.

    Args:
        members: they stay their owner's, and open as long as this.
    """

    def __init__(self, members: Iterable[Descriptor] = ()) -> None:
        self._set = select.epoll()
        for each in members:
            self.add(each)

    def add(self, member: Descriptor) -> None:
        """One more."""
        self._set.register(member.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor that is readable when a member is."""
        return self._set.fileno()

    async def wait(self) -> None:
        """Return when a member is readable or has an error to report.

        Raises:
            trio.ClosedResourceError: this is closed, or was meanwhile.
        """
        if self._set.closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._set.fileno())

    def close(self) -> bool:
        """Wake who waits, and say whether there is something left to close: not the second time."""
        if self._set.closed:
            return False
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._set.fileno())
        self._set.close()
        return True
