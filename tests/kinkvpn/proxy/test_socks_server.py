"""SOCKS clients that are not ours, and some that are nobody's, at a real port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from support.here import LOOPBACK, echo, front, serving

from kinkvpn.proxy.socks import Password
from kinkvpn.service.log import fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

ALICE = Password(b"alice", b"sesame")
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


async def web(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(HELLO)


def connect(port: int, host: str = LOOPBACK, command: int = 1) -> bytes:
    address = bytes(map(int, host.split(".")))
    return bytes([5, command, 0, 1]) + address + port.to_bytes(2)


async def talk(port: int, sent: Sequence[bytes], *, end: bool = True) -> bytes:
    """All that the proxy answers."""
    with trio.fail_after(15):
        async with await trio.open_tcp_stream(LOOPBACK, port) as stream:
            for octets in sent:
                await stream.send_all(octets)
            if end:
                await stream.send_eof()
            return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("user", ["", "alice:sesame@"])
async def test_a_client_of_somebody_elses(user: str) -> None:
    async with (
        serving(web) as target,
        front(ALICE if user else None) as port,
        httpx.AsyncClient(proxy=f"socks5://{user}{LOOPBACK}:{port}") as client,
    ):
        assert (await client.get(f"http://{LOOPBACK}:{target}/")).text == "hello"


async def test_octets_that_come_with_the_request_are_not_lost_and_each_end_is_passed_on() -> None:
    async with serving(echo) as target, front() as port:
        said = await talk(port, [b"\x05\x01\x00" + connect(target) + b"early", b" and late"])
    assert said == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6) + b"early and late"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"\x05\x01\x00" + connect(9, command=2), b"\x05\x00\x05\x07"),
        (b"\x05\x01\x00" + connect(9, command=9), b"\x05\x00\x05\x07"),
        (b"\x05\x01\x00" + connect(9, "192.0.2.1"), b"\x05\x00\x05\x02"),
        (b"\x05\x01\x00\x05\x01\x00\x03\x54::1%" + b"a" * 80 + b"\x00\x50", b"\x05\x00\x05\x02"),
        (b"\x05\x01\x00\x05\x01\x00\x05", b"\x05\x00\x05\x08"),
        (b"\x05\x01\x00\x05\x01\x00\x03\x04name\x00\x50", b"\x05\x00\x05\x04"),
        (b"\x05\x01\x00\x05\x01\x00\x03\x03a b\x00\x50", b"\x05\x00\x05\x01"),
        (b"\x05\x01\x01", b"\x05\xff"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b""),
        (b"\x05\x01\x00\x05\x01", b"\x05\x00"),
    ],
)
async def test_refusals(sent: bytes, answered: bytes) -> None:
    async with front() as port:
        assert (await talk(port, [sent])).startswith(answered)


async def test_a_port_where_nobody_listens() -> None:
    closed = trio.socket.socket()
    with closed:
        await closed.bind((LOOPBACK, 0))
        async with front() as port:
            said = await talk(port, [b"\x05\x01\x00" + connect(closed.getsockname()[1])])
    assert said[2:4] == b"\x05\x05"


async def test_a_password_is_asked_for_and_compared(caplog: pytest.LogCaptureFixture) -> None:
    known, unknown = b"\x01\x05alice\x06sesame", b"\x01\x05alice\x05wrong"
    async with serving(echo) as target, front(ALICE) as port:
        assert await talk(port, [b"\x05\x01\x00"]) == b"\x05\xff"
        assert await talk(port, [b"\x05\x02\x00\x02" + unknown + connect(target)]) == b"\x05\x02\x01\x01"
        said = await talk(port, [b"\x05\x02\x00\x02" + known + connect(target)])
        assert said.startswith(b"\x05\x02\x01\x00\x05\x00")
    told = [(record.message, fields_of(record)) for record in caplog.records]
    assert told == [("wrong_password", {"client": LOOPBACK})]
