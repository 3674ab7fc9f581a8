"""A client that speaks HTTP to a proxy: CONNECT (RFC 9110 §9.3.6), and requests for http:// (RFC 9112 §3.2.2).

What cannot be read is not quoted, neither in an answer nor in the log: it may be a password with a slip in it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from kinkvpn.proxy.http_exchange import Exchange, forwarded
from kinkvpn.proxy.outgoing import Refusal, Refused
from kinkvpn.proxy.reader import LARGEST
from kinkvpn.proxy.relay import send_all
from kinkvpn.proxy.socks import Password
from kinkvpn.proxy.socks_server import matches, tell_of_wrong_password
from kinkvpn.proxy.target import MalformedRequest, Target, parse_host, parse_port, parse_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proxy.outgoing import Outgoing
    from kinkvpn.proxy.reader import Reader

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
_URL = re.compile(r"http://(\[[^\[\]/?#@]*\]|[^\[\]:/?#@]+)(?::([0-9]*))?([/?][^#]*)?(?:#.*)?", re.IGNORECASE)


async def serve_http(
    reader: Reader, outgoing: Outgoing, password: Password | None, asked: Callable[[], object]
) -> None:
    """One request, whatever it leads to. Arguments and errors as :func:`kinkvpn.proxy.socks_server.serve_socks`."""
    client = _Client(reader, outgoing)
    try:
        request = await client.request()
        asked()
        if password is None or _authorized(request, password):
            await (client.connect if request.method == b"CONNECT" else client.forward)(request)
        else:
            if any(name == b"proxy-authorization" for name, _ in request.headers):
                tell_of_wrong_password(reader)
            headers = [(b"Proxy-Authenticate", b'Basic realm="kinkvpn"')]
            await client.refuse(HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, "a user name and a password", headers)
    except h11.RemoteProtocolError as error:
        status = HTTPStatus(error.error_status_hint)
        await client.refuse(status, status.phrase)
        raise MalformedRequest(f"no HTTP that can be read: {status.phrase}") from None
    except MalformedRequest as malformed:
        await client.refuse(HTTPStatus.BAD_REQUEST, str(malformed))
        raise
    except Refused as refused:
        log.info("refused", extra={"fields": {"reason": str(refused)}})
        await client.refuse(STATUSES[refused.kind], str(refused))


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


def parse_url(url: str, *, empty: str = "/") -> tuple[Target, str]:
    """Where ``http://host[:port]/path?query`` is, and what to ask there: to the letter (RFC 9110 §7.7).

    Args:
        url: what the client has written.
        empty: stands for a path and query that are not there.

    Raises:
        MalformedRequest: another scheme, or no URL.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise MalformedRequest("expected http://host/, without user information, or CONNECT for anything else")
    host, port, path = found.groups()
    rooted = f"/{path}" if path and path.startswith("?") else path
    return Target(parse_host(host), parse_port(port or str(HTTP_PORT))), rooted or empty


class _Client:
    """What one of them asks, and is answered."""

    def __init__(self, reader: Reader, outgoing: Outgoing) -> None:
        self._reader = reader
        self._outgoing = outgoing
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST)
        self._method = b""

    async def request(self) -> h11.Request:
        """Its only one. Raises MalformedRequest, h11.RemoteProtocolError."""
        reader, http = self._reader, self._http
        http.receive_data(reader.rest)
        while not isinstance(event := http.next_event(), h11.Request):
            reader.rest = b""  # h11 keeps it, and its own bound
            await reader.fill()
            http.receive_data(reader.rest)
        self._method = event.method
        return event

    async def connect(self, request: h11.Request) -> None:
        """CONNECT. Raises MalformedRequest, Refused."""
        try:
            target = parse_target(request.target.decode("ascii", "replace"))
        except MalformedRequest:
            raise MalformedRequest("expected CONNECT host:port, without user information") from None
        # Whoever believed in its content would take the first octets of the tunnel for that (RFC 9110 §9.3.6).
        chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        if chunked or not isinstance(self._http.next_event(), h11.EndOfMessage):
            raise MalformedRequest("CONNECT has no content")
        connection = await self._outgoing.connect(target)
        try:
            await send_all(self._reader.client, b"HTTP/1.1 200 Connection established\r\n\r\n")
            await connection.relay(self._reader.client, self._http.trailing_data[0])
        finally:
            connection.close()

    async def forward(self, request: h11.Request) -> None:
        """One that is not CONNECT, and the response to it. Raises MalformedRequest, Refused."""
        empty = "*" if request.method == b"OPTIONS" else "/"  # RFC 9112 §3.2.4
        target, path = parse_url(request.target.decode("ascii", "replace"), empty=empty)
        passed_on = forwarded(request, path, _host(target))
        if passed_on is None:
            await self.refuse(HTTPStatus.NOT_IMPLEMENTED, "Max-Forwards has come to its end here")
            return
        connection = await self._outgoing.connect(target)
        try:
            try:
                stream = await connection.stream()
            except OSError as error:
                raise Refused(Refusal.REFUSED, f"{target}: {error.strerror}") from error
            exchange = Exchange(self._http, self._reader.client, stream)
            await exchange.run(passed_on)
            if exchange.failure is not None:
                await self.refuse(*exchange.failure)
        finally:
            connection.close()

    async def refuse(self, status: HTTPStatus, reason: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Why it will not have what it wanted; nothing where it has the beginning of a response already."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        text = f"kinkvpn proxy: {reason}\n".encode("ascii", "replace")
        kind = [(b"Content-Type", b"text/plain"), (b"Content-Length", str(len(text)).encode())]
        own = [*kind, (b"Connection", b"close"), *(headers or [])]
        begun = h11.Connection(h11.SERVER).send(h11.Response(status_code=status, reason=status.phrase, headers=own))
        await send_all(self._reader.client, (begun or b"") + (b"" if self._method == b"HEAD" else text))


def _host(target: Target) -> bytes:
    """Of the URL, whatever the client has said in Host, or not (RFC 9112 §3.2.2)."""
    text = str(target)
    return (text.rpartition(":")[0] if target.port == HTTP_PORT else text).encode("ascii")
