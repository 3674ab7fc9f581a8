"""A client that speaks HTTP to a proxy: CONNECT (RFC 9110 §9.3.6), and requests for http:// (RFC 9112 §3.2.2)."""

from __future__ import annotations

import base64
import binascii
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import h11
import trio

from kinkvpn.proxy.outgoing import Refusal, Refused
from kinkvpn.proxy.reader import LARGEST
from kinkvpn.proxy.relay import CHUNK, SILENT_SECONDS, send_all
from kinkvpn.proxy.socks import Password
from kinkvpn.proxy.socks_server import matches
from kinkvpn.proxy.target import MalformedRequest, Target, parse_host, parse_port, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.socket import SocketType

    from kinkvpn.proxy.outgoing import Outgoing
    from kinkvpn.proxy.reader import Reader
    from kinkvpn.proxy.stack import Connection

log = logging.getLogger(__name__)

HTTP_PORT = 80
STATUSES = {
    Refusal.NOT_ALLOWED: HTTPStatus.FORBIDDEN,
    Refusal.UNKNOWN: HTTPStatus.BAD_GATEWAY,
    Refusal.REFUSED: HTTPStatus.BAD_GATEWAY,
    Refusal.UNREACHABLE: HTTPStatus.BAD_GATEWAY,
    Refusal.TIMED_OUT: HTTPStatus.GATEWAY_TIMEOUT,
    Refusal.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
}
# RFC 9110 §7.6.1: about this connection, and not about what is behind it; h11 frames the content itself.
_OF_THIS_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"),
    *(b"te", b"trailer", b"upgrade"),
}


class _Answered(Exception):
    """The client has been told that it will not have what it wanted."""


async def serve_http(
    reader: Reader, outgoing: Outgoing, password: Password | None, asked: Callable[[], object]
) -> None:
    """One request, whatever it leads to. Arguments and errors as :func:`kinkvpn.proxy.socks_server.serve_socks`."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST)
    try:
        request = await _request(http, reader)
        asked()
        if password is not None and not _authorized(request, password):
            headers = [(b"Proxy-Authenticate", b'Basic realm="kinkvpn"')]
            await _answer(reader, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, "a user name and a password", headers)
        if request.method == b"CONNECT":
            await _connect(http, request, reader, outgoing)
        else:
            await _forward(http, request, reader, outgoing)
    except (h11.RemoteProtocolError, MalformedRequest) as error:
        await _refuse(reader, HTTPStatus.BAD_REQUEST, str(error))
        raise MalformedRequest(str(error)) from error
    except _Answered:
        pass


async def _request(http: h11.Connection, reader: Reader) -> h11.Request:
    http.receive_data(reader.rest)
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        reader.rest = b""  # h11 keeps it, and its own bound
        await reader.fill()
        http.receive_data(reader.rest)


def _authorized(request: h11.Request, expected: Password) -> bool:
    """RFC 7617 §2."""
    for name, value in request.headers:
        scheme, _, encoded = value.partition(b" ")
        if name == b"proxy-authorization" and scheme.lower() == b"basic":
            try:
                user, _, secret = base64.b64decode(encoded.strip(), validate=True).partition(b":")
            except binascii.Error:
                return False
            return matches(Password(user, secret), expected)
    return False


async def _connect(http: h11.Connection, request: h11.Request, reader: Reader, outgoing: Outgoing) -> None:
    target = parse_target(request.target.decode("ascii", "replace"))
    connection = await _reach(reader, outgoing, target)
    try:
        await send_all(reader.client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        http.next_event()  # the end of the request; what is behind it is not HTTP
        await connection.relay(reader.client, http.trailing_data[0])
    finally:
        connection.close()


async def _forward(http: h11.Connection, request: h11.Request, reader: Reader, outgoing: Outgoing) -> None:
    """One that is not CONNECT, and the response to it; then the connection ends."""
    target, path = parse_url(request.target.decode("ascii", "replace"))
    connection = await _reach(reader, outgoing, target)
    try:
        stream = await connection.stream()
        there = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST)
        left_out = {*_OF_THIS_HOP, b"host"}
        kept = [(name, value) for name, value in request.headers.raw_items() if name.lower() not in left_out]
        own = [(b"Host", _host(target)), (b"Connection", b"close")]
        begun = h11.Request(method=request.method, target=path, headers=[*own, *kept])
        await send_all(stream, there.send(begun) or b"")
        await _pass_on(http, there, reader, stream)
        await _pass_back(http, there, reader, stream)
    except OSError as error:
        if http.our_state is h11.SEND_RESPONSE:
            await _answer(reader, HTTPStatus.BAD_GATEWAY, f"{target} has ended: {error.strerror}")
    finally:
        connection.close()


def parse_url(url: str) -> tuple[Target, str]:
    """Where ``http://host[:port]/path?query`` is, and what to ask there.

    Raises:
        MalformedRequest: another scheme, or no URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.netloc.rpartition(":")[2] if parts.port is not None else str(HTTP_PORT)
    except ValueError:
        raise MalformedRequest(f"{url[:64]!r} is no URL") from None
    if parts.scheme != "http" or not host or "@" in parts.netloc:
        raise MalformedRequest(f"{url[:64]!r}: expected http://host/, or CONNECT for anything else")
    return Target(parse_host(host), parse_port(port)), (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _host(target: Target) -> bytes:
    """Of the URL, whatever the client has said in Host, or not (RFC 9112 §3.2.2)."""
    text = str(target)
    return (text.rpartition(":")[0] if target.port == HTTP_PORT else text).encode("ascii")


async def _pass_on(http: h11.Connection, there: h11.Connection, reader: Reader, stream: SocketType) -> None:
    """The content of the request, and its end."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.client.recv(CHUNK))
        elif isinstance(event, h11.Data | h11.EndOfMessage):
            await send_all(stream, there.send(event) or b"")
            if isinstance(event, h11.EndOfMessage):
                return
        else:
            raise MalformedRequest("the client has ended within a request")


async def _pass_back(http: h11.Connection, there: h11.Connection, reader: Reader, stream: SocketType) -> None:
    """The response."""
    while True:
        try:
            event = there.next_event()
        except h11.RemoteProtocolError as error:
            if http.our_state is h11.SEND_RESPONSE:
                await _answer(reader, HTTPStatus.BAD_GATEWAY, f"no HTTP comes from there: {error}")
            return
        if event is h11.NEED_DATA:
            with trio.move_on_after(SILENT_SECONDS) as silent:
                there.receive_data(await stream.recv(CHUNK))
            if not silent.cancelled_caught:
                continue
            if http.our_state is h11.SEND_RESPONSE:
                await _answer(reader, HTTPStatus.GATEWAY_TIMEOUT, f"nothing comes from there for {SILENT_SECONDS:g} s")
            return
        if isinstance(event, h11.Response | h11.InformationalResponse):
            kept = [(name, value) for name, value in event.headers.raw_items() if name.lower() not in _OF_THIS_HOP]
            if isinstance(event, h11.Response):
                kept.append((b"Connection", b"close"))
            event = type(event)(status_code=event.status_code, headers=kept, reason=event.reason)
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed | type):
            return
        await send_all(reader.client, http.send(event) or b"")
        if isinstance(event, h11.EndOfMessage):
            return


async def _reach(reader: Reader, outgoing: Outgoing, target: Target) -> Connection:
    try:
        return await outgoing.connect(target)
    except Refused as refused:
        log.info("refused", extra={"fields": {"target": str(target), "reason": str(refused)}})
        await _answer(reader, STATUSES[refused.kind], str(refused))


async def _answer(
    reader: Reader, status: HTTPStatus, reason: str, headers: list[tuple[bytes, bytes]] | None = None
) -> NoReturn:
    """Raises _Answered."""
    await _refuse(reader, status, reason, headers)
    raise _Answered


async def _refuse(
    reader: Reader, status: HTTPStatus, reason: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    text = f"kinkvpn proxy: {reason}\n".encode("ascii", "replace")
    response = h11.Connection(h11.SERVER)
    own = [(b"Content-Type", b"text/plain"), (b"Content-Length", str(len(text)).encode()), (b"Connection", b"close")]
    begun = h11.Response(status_code=status, reason=status.phrase, headers=[*own, *(headers or [])])
    await send_all(reader.client, (response.send(begun) or b"") + text)
