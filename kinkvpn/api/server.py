"""Serves the API by hypercorn's Trio worker, a connection at a time: how many there are, and how long each may take.

Hypercorn would wait for ever for a client that does not read, even while everything else is cancelled, and what goes
wrong in one connection would end all: neither may be in a daemon that carries other people's packets.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from kinkvpn.api.app import problem
from kinkvpn.api.control import credentials

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hypercorn.typing import ASGIFramework
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

# Ours. The longest request is a path and some headers of curl's; whoever sends more is no client of ours.
LONGEST_REQUEST = 8192
# Ours. People, a page in a browser, a monitoring agent; more are told to come back, so that a loop gone wild cannot
# hold descriptors.
MAX_CLIENTS = 32
# Ours. A client that neither asks, nor reads, nor leaves gives its place up.
IDLE_SECONDS = 30.0
# Ours. HTTP/2 is there because hypercorn has it; nobody needs more of it at once than of HTTP/1.1.
MAX_STREAMS = 4


class Connection(trio.abc.HalfCloseableStream):
    """A client's, with an end to waiting for it: sending gives up after IDLE_SECONDS, as if the client had left."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket
        self.closed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BrokenResourceError."""
        try:
            with trio.fail_after(IDLE_SECONDS):
                await self._stream.send_all(data)
        except (trio.TooSlowError, trio.BusyResourceError) as error:  # the client does not read; or it is being left
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """As the stream's."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As the stream's. With its end the client has left: hypercorn would keep its place until it is idle enough."""
        received = b""
        try:
            received = await self._stream.receive_some(max_bytes)
        finally:
            if not received:
                self.closed.set()
        return received

    async def send_eof(self) -> None:
        """As the stream's."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Whatever is still sent to it or expected from it ends."""
        self.closed.set()
        await self._stream.aclose()


async def serve(
    listener: socket.socket,
    app: ASGIApp,
    *,
    may_change: Callable[[trio.SocketStream], bool],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled; closes ``listener`` then.

    Args:
        listener: bound and listening.
        app: what answers.
        may_change: whether a client may do more than look.
        task_status: told when clients are served.
    """
    places = trio.CapacityLimiter(MAX_CLIENTS)

    async def receive(stream: trio.SocketStream) -> None:
        try:
            places.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await _turn_away(stream)
            return
        try:
            await converse(stream, app, may_change(stream))
        finally:
            places.release_on_behalf_of(stream)

    async with trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as clients:
        task_status.started()
        await trio.serve_listeners(receive, [clients])


async def converse(stream: trio.SocketStream, app: ASGIApp, may_change: bool) -> None:
    """One connection to its end. What is left of it ends with it, and no defect of it goes further."""
    connection = Connection(stream)

    async def hang_up(scope: trio.CancelScope) -> None:
        try:
            await connection.closed.wait()
        finally:
            # Hypercorn sends behind a shield: only this reaches it.
            connection.socket.close()
        scope.cancel()

    # Types say that hypercorn has TLS streams only, and that an application names every message that ASGI has.
    wrapped, plain = ASGIWrapper(cast("ASGIFramework", app)), cast("trio.SSLStream[trio.SocketStream]", connection)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up, nursery.cancel_scope)
            await TCPServer(wrapped, _configuration(), WorkerContext(None), {"may_change": may_change}, plain)
            nursery.cancel_scope.cancel()
    except* Exception:
        log.exception("connection_failed")


async def _turn_away(stream: trio.SocketStream) -> None:
    """The one answer that needs no place."""
    reason = f"{MAX_CLIENTS} clients are here already: try again"
    body = problem(HTTPStatus.SERVICE_UNAVAILABLE, reason)
    lines = [b"HTTP/1.1 503 Service Unavailable", b"connection: close"]
    lines += [b"%b: %b" % header for header in body.raw_headers]
    with suppress(trio.BrokenResourceError):  # it has left: nobody is to be told
        await stream.send_all(b"\r\n".join([*lines, b"", bytes(body.body)]))


def _configuration() -> Config:
    config = Config()
    config.h11_max_incomplete_size = config.h2_max_header_list_size = LONGEST_REQUEST
    config.h2_max_concurrent_streams = MAX_STREAMS
    config.keep_alive_timeout = IDLE_SECONDS
    config.include_server_header = False
    config.errorlog = log
    return config


def local_client_may_change(stream: trio.SocketStream, *, others: bool = False) -> bool:
    """Whoever runs the daemon, and root; ``others`` whom the socket's file lets in may look, or change things too."""
    return others or credentials(stream.socket).uid in (0, os.geteuid())


def nobody_may_change(_stream: trio.SocketStream) -> bool:
    """Where nobody can be told from anybody."""
    return False
