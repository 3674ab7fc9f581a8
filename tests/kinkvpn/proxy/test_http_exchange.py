"""What is passed on of a request for http://, and of the response: through the port, to servers of every kind."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.here import LOOPBACK, front, serving

from kinkvpn.proxy import http_exchange
from kinkvpn.proxy.http_exchange import forwarded, kept_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def request(method: str = "GET", **headers: str) -> h11.Request:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return h11.Request(method=method, target="http://web.test/", headers=[("Host", "elsewhere.test"), *named])


def passed_on(method: str = "GET", **headers: str) -> dict[bytes, bytes]:
    found = forwarded(request(method, **headers), "/", b"web.test")
    assert found is not None
    assert found.method == method.encode()
    return dict(found.headers)


def test_what_is_about_this_hop_stays_here_whatever_it_is_called() -> None:
    found = passed_on(
        Connection="close, X-Own , content-length, host",
        X_Own="1",
        X_Other="2",
        Proxy_Authorization="Basic eDp5",
        Upgrade="websocket",
        Content_Length="3",
    )
    assert found == {
        b"host": b"web.test",
        b"connection": b"close",
        b"x-other": b"2",
        b"content-length": b"3",
        b"via": b"1.1 kinkvpn",
    }


def test_of_two_lengths_one_goes_on() -> None:
    found = passed_on("POST", Content_Length="3", Transfer_Encoding="chunked")
    assert b"content-length" not in found
    assert found[b"transfer-encoding"] == b"chunked"


@pytest.mark.parametrize(
    ("method", "before", "after"), [("TRACE", "2", b"1"), ("OPTIONS", "1", b"0"), ("GET", "0", b"0")]
)
def test_forwards_are_counted_where_they_count(method: str, before: str, after: bytes) -> None:
    assert passed_on(method, Max_Forwards=before)[b"max-forwards"] == after


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_the_last_forward_is_none(method: str) -> None:
    assert forwarded(request(method, Max_Forwards="0"), "/", b"web.test") is None


@given(st.text(max_size=12))
def test_any_number_of_forwards_is_read(value: str) -> None:
    try:
        asked = request("TRACE", Max_Forwards=value)
    except (h11.LocalProtocolError, UnicodeEncodeError):
        return
    forwarded(asked, "/", b"web.test")


def test_what_a_response_has_been_through() -> None:
    response = h11.Response(status_code=200, headers=[("Via", "1.0 fred"), ("Keep-Alive", "5")], http_version="1.0")
    assert kept_headers(response) == [(b"Via", b"1.0 fred"), (b"Via", b"1.0 kinkvpn")]


async def talk(target: int, port: int, sent: bytes, method: str = "GET", version: str = "1.1") -> bytes:
    """Until the proxy ends."""
    with trio.fail_after(15):
        async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
            line = f"{method} http://{LOOPBACK}:{target}/ HTTP/{version}\r\nHost: x\r\n"
            await stream.send_all(line.encode() + sent)
            return b"".join([chunk async for chunk in stream])


def saying(answer: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):  # given up before all of it was said
            await stream.send_all(answer)

    return server


async def test_an_answer_that_comes_early_is_the_answer() -> None:
    """The client has content without end, and the server does not read it."""
    async with serving(saying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")) as target, front() as port:
        said = await talk(target, port, f"Content-Length: {1 << 30}\r\n\r\n".encode() + bytes(500_000), "POST")
    assert said.startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_waits_for_continue_hears_it() -> None:
    async def patient(stream: trio.SocketStream) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await stream.receive_some() == b"all"
        await stream.send_all(b"HTTP/1.1 204 None\r\n\r\n")

    async with serving(patient) as target, front() as port:
        with trio.fail_after(15):
            async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
                line = f"POST http://{LOOPBACK}:{target}/ HTTP/1.1\r\nHost: x\r\n"
                await stream.send_all(line.encode() + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
                await stream.send_all(b"all")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 204 ")


async def test_an_old_client_gets_neither_hints_nor_chunks_nor_trailers() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"
    async with serving(saying(hints + answer)) as target, front() as port:
        said = await talk(target, port, b"\r\n", version="1.0")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in said


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"220 mail.example ESMTP\r\n", 502),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000, 502),
        (b"HTTP/1.1 200 OK\r\n", 502),
        (b"", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 200),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nhello", 304),
    ],
)
async def test_whatever_a_server_says(answer: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(saying(answer)) as target, front() as port:
        assert (await talk(target, port, b"\r\n")).startswith(f"HTTP/1.1 {status} ".encode())
    assert "client_failed" not in caplog.messages


@pytest.mark.parametrize("sent", [b"zz\r\n", b"5\r\nhelloworld\r\n", b"-1\r\n\r\n"])
async def test_content_that_cannot_be_read(sent: bytes) -> None:
    async with serving(_silent) as target, front() as port:
        said = await talk(target, port, b"Transfer-Encoding: chunked\r\n\r\n" + sent, "POST")
    assert said.startswith(b"HTTP/1.1 400 ")


async def _silent(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize(("method", "sent", "status"), [("GET", b"", 504), ("POST", b"Content-Length: 1\r\n", 408)])
async def test_who_is_silent_is_given_up(
    method: str, sent: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_exchange, "SILENT_SECONDS", 0.1)
    async with serving(_silent) as target, front() as port:
        assert (await talk(target, port, sent + b"\r\n", method)).startswith(f"HTTP/1.1 {status} ".encode())
