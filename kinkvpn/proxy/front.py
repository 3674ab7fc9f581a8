"""The port that programs use: SOCKS 5 and HTTP on the same one, told apart by the first octet."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import trio

from kinkvpn.proxy import socks
from kinkvpn.proxy.http_server import serve_http
from kinkvpn.proxy.reader import Reader
from kinkvpn.proxy.relay import CHUNK, prepare
from kinkvpn.proxy.socks_server import serve_socks
from kinkvpn.proxy.target import MalformedRequest
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.socket import SocketType

    from esp.sa import Endpoint
    from kinkvpn.proxy.outgoing import Outgoing
    from kinkvpn.proxy.socks import Password

log = logging.getLogger(__name__)

# Ours. Clients at a time, of all ports; each costs up to four descriptors (run.py has them).
MAX_CLIENTS = 256
# Ours. Until a client has said what it wants.
ASKING_SECONDS = 30.0
# Ours. Between two tries to accept, where there is no descriptor left for it.
PAUSE_SECONDS = 0.1
# Ours. For a client to hear why it is refused; RFC 1928 §6 gives us ten.
PARTING_SECONDS = 2.0
# accept(2): all others are about who has come, or pass.
_NO_LISTENER = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
BACKLOG = 128


async def open_listener(local: Endpoint) -> SocketType:
    """TCP at this host. Raises StartRefused."""
    family = trio.socket.AF_INET6 if ":" in local.address else trio.socket.AF_INET
    listening = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        listening.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await listening.bind(tuple(local))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise StartRefused(f"{local.address} port {local.port}: {error.strerror}: choose another") from error
    return listening


class Clients:
    """Those that there are, of every port, and a bound for them.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self._most = most
        self._count = 0

    def enter(self) -> bool:
        """Whether there was a place for one more; :meth:`leave` gives it up."""
        if self._count >= self._most:
            log.warning("too_many_clients", extra={"fields": {"limit": self._most}})
            return False
        self._count += 1
        return True

    def leave(self) -> None:
        """One has gone."""
        self._count -= 1

    async def serve(self, listening: SocketType, each: Callable[[SocketType], Awaitable[None]]) -> None:
        """Have ``each`` do with every client; one that raises OSError has gone. For ever, and closes it all."""
        with listening:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        client, _ = await listening.accept()
                    except OSError as error:
                        if error.errno in _NO_LISTENER:
                            raise
                        await trio.sleep(PAUSE_SECONDS)
                        continue
                    if self.enter():
                        nursery.start_soon(self._one, client, each)
                    else:
                        client.close()

    async def _one(self, client: SocketType, each: Callable[[SocketType], Awaitable[None]]) -> None:
        """To its end. No defect of it goes further: there are others, and a tunnel."""
        try:
            with client:
                prepare(client)
                await each(client)
        except* (OSError, trio.ClosedResourceError):
            pass  # it has gone; alone, or in a group from a nursery of its own
        except* Exception:
            log.exception("client_failed")
        finally:
            self.leave()


class Front:
    """What a client of the port is answered.

    Args:
        outgoing: the way into the tunnel.
        password: that clients have to know, or None.
    """

    def __init__(self, outgoing: Outgoing, password: Password | None) -> None:
        self._outgoing = outgoing
        self._password = password

    async def serve(self, client: SocketType) -> None:
        """Until it is done. Raises OSError: it has gone."""
        reader = Reader(client)
        with trio.CancelScope(deadline=trio.current_time() + ASKING_SECONDS) as asking:

            def asked() -> None:
                asking.deadline = float("inf")

            try:
                await reader.fill()
                speak = serve_socks if reader.rest[0] <= socks.VERSION else serve_http
                await speak(reader, self._outgoing, self._password, asked)
            except MalformedRequest as malformed:
                log.info("malformed_request", extra={"fields": {"reason": str(malformed)}})
        await part(client)


async def part(client: SocketType) -> None:
    """So that what it was told last arrives: a reset, which closing is while it still sends, would overtake that.

    RFC 9112 §9.6. A client whose socket has been given to somebody has parted already. Raises OSError: it has gone.
    """
    if client.fileno() < 0:
        return
    client.shutdown(trio.socket.SHUT_WR)
    with trio.move_on_after(PARTING_SECONDS):
        while await client.recv(CHUNK):
            pass
