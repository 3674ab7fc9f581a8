"""What a client has sent, in whatever pieces, over a real socket pair."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from kinkvpn.proxy.reader import LARGEST, Reader
from kinkvpn.proxy.relay import send_all
from kinkvpn.proxy.socks import parse_greeting
from kinkvpn.proxy.target import MalformedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reader() -> Iterator[tuple[Reader, trio.socket.SocketType]]:
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield Reader(ours), theirs


async def test_a_message_in_pieces_and_what_is_behind_it() -> None:
    with reader() as (reading, client):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for octet in b"\x05\x02\x00\x02":
                    await client.send(bytes([octet]))
                    await trio.testing.wait_all_tasks_blocked()
                await client.send(b"next")

            nursery.start_soon(send)
            assert await reading.parse(parse_greeting) == frozenset({0, 2})
        await reading.fill()
        assert reading.rest == b"next"


async def test_two_messages_at_once() -> None:
    with reader() as (reading, client):
        await client.send(b"\x05\x01\x00\x05\x01\x02rest")
        assert await reading.parse(parse_greeting) == frozenset({0})
        assert await reading.parse(parse_greeting) == frozenset({2})
        assert reading.rest == b"rest"


async def test_an_end_within_a_message() -> None:
    with reader() as (reading, client):
        await client.send(b"\x05\x02\x00")
        client.close()
        with pytest.raises(MalformedRequest, match="ended within a request"):
            await reading.parse(parse_greeting)


async def test_a_message_without_end() -> None:
    with reader() as (reading, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, client, bytes(LARGEST + 1))
            with pytest.raises(MalformedRequest, match=f"more than {LARGEST} octets"):
                await reading.parse(lambda _: None)
        assert len(reading.rest) == LARGEST
