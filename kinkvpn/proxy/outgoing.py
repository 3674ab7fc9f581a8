"""The way into the tunnel for whoever asks here: names, what the policies allow, deadlines, and refusals by kind."""

from __future__ import annotations

import errno
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from itertools import zip_longest
from typing import TYPE_CHECKING

import trio

from esp.sa import Endpoint
from kinkvpn.proxy.names import NameUnknown
from kinkvpn.proxy.stack import StackError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esp.policy import Network
    from kinkvpn.proxy.names import Names
    from kinkvpn.proxy.stack import Connection, Stack, UdpSocket
    from kinkvpn.proxy.target import Target

# Ours. All addresses of a name together: a client waits longer than that for nobody, and half-open ones cost something.
CONNECT_SECONDS = 30.0
# Ours. One address of a name.
ATTEMPT_SECONDS = 10.0
# RFC 8305 §8. Then the next address is tried as well.
DELAY_SECONDS = 0.25
# Ours. Addresses of a name tried at the same time: whoever owns it could name many that do not answer.
MOST_ATTEMPTS = 4


class Refusal(Enum):
    """Why not."""

    NOT_ALLOWED = "no policy protects what goes there"
    UNKNOWN = "no such name"
    REFUSED = "connection refused"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "no answer"
    BUSY = "too many connections"


class Refused(Exception):
    """``kind`` for programs; the message for people."""

    def __init__(self, kind: Refusal, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_KINDS = {
    errno.ECONNREFUSED: Refusal.REFUSED,
    errno.ECONNRESET: Refusal.REFUSED,
    errno.ETIMEDOUT: Refusal.TIMED_OUT,
    errno.ENOBUFS: Refusal.BUSY,
    errno.EMFILE: Refusal.BUSY,
    errno.ENFILE: Refusal.BUSY,
}


class Outgoing:
    """Connections into the tunnel.

    Args:
        stack: that makes them.
        names: that resolves.
        reach: subnets that policies protect; beyond them nothing is sent, for it would be dropped.
    """

    def __init__(self, stack: Stack, names: Names, reach: Sequence[Network]) -> None:
        self._stack = stack
        self._names = names
        self._reach = tuple(reach)

    async def connect(self, target: Target) -> Connection:
        """TCP to ``target``.

        Raises:
            Refused: with the last reason, where there were several addresses.
        """
        with trio.move_on_after(CONNECT_SECONDS):
            return await Race(self._stack, target).run(await self.addresses(target))
        raise Refused(Refusal.TIMED_OUT, f"{target}: no answer within {CONNECT_SECONDS:g} s")

    async def addresses(self, target: Target) -> list[Endpoint]:
        """Where that is, as far as policies lead there. Raises Refused."""
        if isinstance(target.host, IPv4Address | IPv6Address):
            found: tuple[IPv4Address | IPv6Address, ...] = (target.host,)
        else:
            try:
                found = await self._names.resolve(target.host)
            except NameUnknown as unknown:
                raise Refused(Refusal.UNKNOWN, str(unknown)) from unknown
        reached = [Endpoint(str(each), target.port) for each in found if self._reaches(each)]
        if not reached:
            raise Refused(Refusal.NOT_ALLOWED, f"{target}: {Refusal.NOT_ALLOWED.value}")
        return reached

    def _reaches(self, address: IPv4Address | IPv6Address) -> bool:
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False  # zones are links of the client's host (RFC 4007 §6), and a tunnel is none
        return address.version in self._stack.versions and any(
            address.version == subnet.version and address in subnet for subnet in self._reach
        )

    async def open_udp(self, version: int) -> UdpSocket:
        """A socket for datagrams of that IP version. Raises Refused."""
        try:
            return await self._stack.open_udp(Endpoint("::" if version == 6 else "0.0.0.0", 0))  # noqa: S104
        except StackError as error:
            raise Refused(_KINDS.get(error.errno, Refusal.UNREACHABLE), f"UDP: {error}") from error


class Race:
    """Addresses of one target, tried until one answers (RFC 8305 §5): versions in turn, a moment between two.

    Args:
        stack: that makes the connections.
        target: of whom they are, for messages.
    """

    def __init__(self, stack: Stack, target: Target) -> None:
        self._stack = stack
        self._target = target
        self._places = trio.Semaphore(MOST_ATTEMPTS)
        self._refused: Refused
        self._won: Connection | None = None

    async def run(self, remotes: Sequence[Endpoint]) -> Connection:
        """The first connection; the others are given up. Raises Refused: as the last attempt was."""
        try:
            async with trio.open_nursery() as nursery:
                for remote in in_turn(remotes):
                    await self._places.acquire()
                    ended = trio.Event()
                    nursery.start_soon(self._attempt, remote, ended, nursery.cancel_scope)
                    with trio.move_on_after(DELAY_SECONDS):
                        await ended.wait()
        except BaseException:
            if self._won is not None:
                self._won.close()
            raise
        if self._won is None:
            raise self._refused
        return self._won

    async def _attempt(self, remote: Endpoint, ended: trio.Event, all_of_them: trio.CancelScope) -> None:
        try:
            with trio.move_on_after(ATTEMPT_SECONDS) as late:
                self._win(await self._stack.connect(remote))
                all_of_them.cancel()
            if late.cancelled_caught:
                self._lose(Refusal.TIMED_OUT, f"no answer within {ATTEMPT_SECONDS:g} s")
        except StackError as error:
            self._lose(_KINDS.get(error.errno, Refusal.UNREACHABLE), str(error))
        finally:
            ended.set()
            self._places.release()

    def _win(self, connection: Connection) -> None:
        if self._won is None:
            self._won = connection
        else:  # in the same moment
            connection.close()

    def _lose(self, kind: Refusal, reason: str) -> None:
        self._refused = Refused(kind, f"{self._target}: {reason}")


def in_turn(remotes: Sequence[Endpoint]) -> list[Endpoint]:
    """IP versions alternate, beginning with that of the first (RFC 8305 §4)."""
    versions = sorted({":" in each.address for each in remotes}, reverse=":" in remotes[0].address)
    families = [[each for each in remotes if (":" in each.address) is six] for six in versions]
    return [each for some in zip_longest(*families) for each in some if each is not None]
