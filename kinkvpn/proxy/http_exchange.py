"""A request for http:// as it is passed on, and the response to it: both at once, for a server may answer early."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from kinkvpn.proxy.reader import LARGEST
from kinkvpn.proxy.relay import CHUNK, SILENT_SECONDS, send_all

if TYPE_CHECKING:
    from trio.socket import SocketType

# RFC 9110 §7.6.1: about this connection, and not about what is behind it.
_OF_THIS_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"),
    *(b"te", b"trailer", b"upgrade"),
}
_FRAMING = {b"content-length", b"transfer-encoding"}
_CLOSE = (b"Connection", b"close")


def forwarded(request: h11.Request, path: str, host: bytes) -> h11.Request | None:
    """``request`` as it goes on, with ``path`` and ``host`` in it; None where it may not (RFC 9110 §7.6.2)."""
    kept = [(name, value) for name, value in kept_headers(request) if name.lower() != b"host"]
    if request.method in (b"OPTIONS", b"TRACE"):
        most = dict(request.headers).get(b"max-forwards", b"")
        if most.isdigit() and not int(most[:9]):
            return None
        kept = [(name, _less(value) if name.lower() == b"max-forwards" else value) for name, value in kept]
    return h11.Request(method=request.method, target=path, headers=[(b"Host", host), _CLOSE, *kept])


def _less(value: bytes) -> bytes:
    return str(int(value[:9]) - 1).encode() if value.isdigit() else value


def kept_headers(message: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    """Those that go further, and where it has come through (RFC 9110 §7.6.1, §7.6.3)."""
    headers = list(message.headers)
    named = {each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")}
    left_out = _OF_THIS_HOP | (named - _FRAMING)
    if any(name == b"transfer-encoding" for name, _ in headers):
        left_out |= {b"content-length"}  # RFC 9112 §6.3: two readings of one message are somebody's attack
    kept = [(name, value) for name, value in message.headers.raw_items() if name.lower() not in left_out]
    return [*kept, (b"Via", message.http_version + b" kinkvpn")]


class Exchange:
    """One request, to the end of its response.

    Args:
        http: with the client, which has sent its request.
        client: its content is still to come from there.
        stream: to the server.

    Attributes:
        failure: what the client has to be told instead of a response.
    """

    def __init__(self, http: h11.Connection, client: SocketType, stream: SocketType) -> None:
        self._http = http
        self._client = client
        self._stream = stream
        self._there = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST)
        self._scope = trio.CancelScope()
        self.failure: tuple[HTTPStatus, str] | None = None

    async def run(self, request: h11.Request) -> None:
        """Until the response has ended, or there will be none. A group of OSErrors: the client has gone."""
        self._go_on()
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, request)
                await self._pass_back()
                nursery.cancel_scope.cancel()
        if self._scope.cancelled_caught and self.failure is None:
            late = self._http.their_state is h11.SEND_BODY
            status = HTTPStatus.REQUEST_TIMEOUT if late else HTTPStatus.GATEWAY_TIMEOUT
            self.failure = status, f"nothing comes for {SILENT_SECONDS:g} s"

    def _go_on(self) -> None:
        self._scope.deadline = trio.current_time() + SILENT_SECONDS

    def _fail(self, status: HTTPStatus, reason: str) -> None:
        self.failure = status, reason
        self._scope.cancel()

    async def _pass_on(self, request: h11.Request) -> None:
        """The request and its content. A server that takes no more says why in its response."""
        event: h11.Event = request
        while True:
            with suppress(OSError):
                await send_all(self._stream, self._there.send(event) or b"")
            self._go_on()
            if isinstance(event, h11.EndOfMessage):
                return
            try:
                event = await self._content()
            except h11.RemoteProtocolError as error:
                self._fail(HTTPStatus(error.error_status_hint), "the content of the request cannot be read")
                return

    async def _content(self) -> h11.Data | h11.EndOfMessage:
        """A piece, or its end, without trailers. Raises h11.RemoteProtocolError."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._client.recv(CHUNK))
        return event if isinstance(event, h11.Data) else h11.EndOfMessage()

    async def _pass_back(self) -> None:
        """The response."""
        while True:
            try:
                event = self._there.next_event()
                if event is h11.NEED_DATA:
                    self._there.receive_data(await self._stream.recv(CHUNK))
                    self._go_on()
                    continue
            except h11.RemoteProtocolError:
                self._fail(HTTPStatus.BAD_GATEWAY, "what comes from there is no HTTP")
                return
            except OSError as error:
                self._fail(HTTPStatus.BAD_GATEWAY, f"it has ended there: {error.strerror}")
                return
            if isinstance(event, h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage):
                await self._say(event)
            if not isinstance(event, h11.Response | h11.InformationalResponse | h11.Data):
                return

    async def _say(self, event: h11.Response | h11.InformationalResponse | h11.Data | h11.EndOfMessage) -> None:
        if isinstance(event, h11.InformationalResponse):
            if self._http.their_http_version == b"1.0":
                return  # RFC 9110 §15.2
            event = h11.InformationalResponse(
                status_code=event.status_code, headers=kept_headers(event), reason=event.reason
            )
        elif isinstance(event, h11.Response):
            headers = [*kept_headers(event), _CLOSE]
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        elif isinstance(event, h11.EndOfMessage):
            event = h11.EndOfMessage()  # trailers may be left out (RFC 9110 §6.5.1)
        await send_all(self._client, self._http.send(event) or b"")
        self._go_on()
