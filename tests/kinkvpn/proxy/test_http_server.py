"""HTTP to a proxy: a client of somebody else's, and requests that are none."""

from __future__ import annotations

import logging

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.here import LOOPBACK, echo, front, serving

from kinkvpn.proxy.http_server import parse_url
from kinkvpn.proxy.socks import Password
from kinkvpn.proxy.target import MalformedRequest, Target, parse_host
from kinkvpn.service.log import fields_of

ALICE = Password(b"alice", b"sesame")


async def web(stream: trio.SocketStream) -> None:
    """Says what it has been asked, in chunks, after a hint."""
    asked = b""
    while not asked.endswith(b"the end" if asked.startswith(b"POST") else b"\r\n\r\n"):
        asked += await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await stream.send_all(f"{len(asked):x}\r\n".encode() + asked + b"\r\n0\r\n\r\n")


async def talk(port: int, sent: bytes) -> bytes:
    with trio.fail_after(15):
        async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            return b"".join([chunk async for chunk in stream])


async def test_requests_of_a_client_of_somebody_elses() -> None:
    async with (
        serving(web) as target,
        front() as port,
        httpx.AsyncClient(proxy=f"http://{LOOPBACK}:{port}") as client,
    ):
        got = (await client.get(f"http://{LOOPBACK}:{target}/a?b=c", headers={"X-Kept": "yes", "TE": "gzip"})).text
        assert got.startswith("GET /a?b=c HTTP/1.1\r\n")
        assert "X-Kept: yes" in got
        assert "gzip\r\nconnection" not in got.lower()
        posted = (await client.post(f"http://{LOOPBACK}:{target}/", content=b"x" * 100_000 + b"the end")).text
        assert posted.endswith("x" * 100 + "the end")


@pytest.mark.parametrize("begins", ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: elsewhere.test\r\n"])
async def test_what_is_asked_there_has_the_host_of_the_url(begins: str) -> None:
    async with serving(web) as target, front() as port:
        said = await talk(port, f"GET http://{LOOPBACK}:{target}/ {begins}\r\n".encode())
    assert [line for line in said.splitlines() if line.lower().startswith(b"host:")] == [
        f"Host: {LOOPBACK}:{target}".encode()
    ]


async def test_connect_and_what_comes_with_it() -> None:
    async with serving(echo) as target, front() as port:
        said = await talk(port, f"CONNECT {LOOPBACK}:{target} HTTP/1.1\r\nHost: x\r\n\r\nearly".encode())
    assert said == b"HTTP/1.1 200 Connection established\r\n\r\nearly"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"CONNECT nobody.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", 502),
        (b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET https://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://a@127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT alice:sesame@127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"TRACE http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", 501),
        (b"POST http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"HELO example.com\r\n\r\n", 400),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\n" + b"a: b\r\n" * 10_000, 431),
    ],
)
async def test_refusals(sent: bytes, status: int) -> None:
    async with front() as port:
        assert (await talk(port, sent)).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 407),
        ("Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n", 200),
        ("Proxy-Authorization: Basic YWxpY2U6b3RoZXI=\r\n", 407),
        ("Proxy-Authorization: Basic %%%\r\n", 407),
        ("Proxy-Authorization: Bearer YWxpY2U6c2VzYW1l\r\n", 407),
    ],
)
async def test_a_password_is_asked_for_and_compared(header: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(echo) as target, front(ALICE) as port:
        said = await talk(port, f"CONNECT {LOOPBACK}:{target} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert ("wrong_password" in caplog.messages) is (status == 407 and bool(header))


async def test_what_answers_no_http_is_said_to() -> None:
    async def banner(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example ESMTP\r\n")

    async with serving(banner) as target, front() as port:
        said = await talk(port, f"GET http://{LOOPBACK}:{target}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("url", "target", "path"),
    [
        ("http://web.test", "web.test:80", "/"),
        ("http://web.test:8080/a/b?c=d", "web.test:8080", "/a/b?c=d"),
        ("http://[fd00::1]/", "[fd00::1]:80", "/"),
        ("HTTP://web.test:/a?#b", "web.test:80", "/a?"),
        ("http://web.test?c=d", "web.test:80", "/?c=d"),
        ("http://web.test/a;b//c/../d%2f", "web.test:80", "/a;b//c/../d%2f"),
    ],
)
def test_urls(url: str, target: str, path: str) -> None:
    host, _, port = target.rpartition(":")
    assert parse_url(url) == (Target(parse_host(host), int(port)), path)


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic YWxpY2U6c2VzYW1l\x00\r\n\r\n",
        b"GET http://alice:sesame@127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET https://alice:sesame@127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT alice:sesame@127.0.0.1:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT alice:sesame HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://alice:sesame@127.0.0.1/ HTTP/1.\r\n\r\n",
    ],
)
async def test_no_password_is_told_to_the_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with front() as port:
        assert (await talk(port, sent)).startswith(b"HTTP/1.1 400 ")
    told = [fields_of(record) for record in caplog.records]
    assert told
    assert "sesame" not in str(told)
    assert "YWxpY2U6c2VzYW1l" not in str(told)


async def test_a_client_that_is_refused_hears_so_even_while_it_sends() -> None:
    request = f"POST http://{LOOPBACK}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n\r\n".encode()
    async with front(ALICE) as port:
        with trio.fail_after(15):
            async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
                await stream.send_all(request)
                await stream.send_all(bytes(10_000_000))
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 407 ")


async def test_an_answer_to_head_has_no_content() -> None:
    async with front() as port:
        said = await talk(port, b"HEAD http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 ")
    assert said.endswith(b"\r\n\r\n")


@given(st.text(max_size=60).map("http://{}".format))
def test_any_text_is_a_url_or_the_one_error(url: str) -> None:
    try:
        assert parse_url(url)[1].startswith("/")
    except MalformedRequest:
        return
