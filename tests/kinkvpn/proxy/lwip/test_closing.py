"""Connections that a peer will not let end: they have their time, whatever it says meanwhile, and are counted."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import trio
from support.raw_tcp import ACK, FIN, HERE, RST, RawTcp

from kinkvpn.proxy.lwip import why_missing

if why_missing():
    # A mirror of Debian need not have its sources, and an installation without lwIP is a whole one (setup.py).
    pytest.skip(f"lwIP is {why_missing()}", allow_module_level=True)  # its sources are optional

from kinkvpn.proxy.lwip.stack import LwipConnection, LwipStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 0.3


@asynccontextmanager
async def connected(far: RawTcp, patience: float) -> AsyncIterator[tuple[LwipStack, LwipConnection]]:
    """A connection to ``far``, whose window is closed."""
    stack = LwipStack(far.device.fileno(), vnet=True, mtu=1400, addresses=[ip_address(HERE)], patience=patience)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(stack.run)
            connections = []

            async def connect() -> None:
                connections.append(await stack.connect(far.remote))

            far.window = 0
            async with trio.open_nursery() as connecting:
                connecting.start_soon(connect)
                await far.accept()
            far.send()
            yield stack, connections[0]
            connections[0].close()
            nursery.cancel_scope.cancel()


async def answer_probes(far: RawTcp) -> None:
    """For ever, with a window of zero."""
    while True:
        flags, octets = await far.next_segment()
        if flags & RST:
            return
        far.received -= len(octets)  # nothing of it is taken
        far.send(ACK)


@pytest.mark.parametrize("its_end", [0, FIN])
async def test_a_window_of_zero_holds_no_connection_whose_program_has_gone(its_end: int) -> None:
    with RawTcp() as far:
        async with connected(far, PATIENCE) as (stack, connection):
            stream = await connection.stream()
            await stream.send(b"never taken")
            far.send(ACK | its_end)
            far.sent += its_end
            stream.shutdown(socket.SHUT_WR)
            connection.close()
            await answer_probes(far)
            while stack.counters()["closing"] or stack.counters()["flows"]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert stack.counters()["given_up"] == 1


async def test_a_program_that_waits_for_an_answer_is_told_when_none_comes() -> None:
    with RawTcp() as far:
        async with connected(far, PATIENCE) as (stack, connection), trio.open_nursery() as nursery:
            nursery.start_soon(answer_probes, far)
            stream = await connection.stream()
            await stream.send(b"a question")
            stream.shutdown(socket.SHUT_WR)
            assert await stream.recv(1) == b""
            assert stack.counters()["given_up"] == 1
            assert stack.counters()["flows"] == 0


async def test_who_is_patient_waits() -> None:
    with RawTcp() as far:
        async with connected(far, 3600) as (stack, connection):
            stream = await connection.stream()
            await stream.send(b"taken later")
            far.send(ACK | FIN)
            far.sent += 1
            assert await stream.recv(1) == b""
            stream.shutdown(socket.SHUT_WR)
            connection.close()
            while not stack.counters()["closing"]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            far.window = 65_535
            far.send(ACK)
            while not (await far.next_segment())[1]:
                pass
            far.received += 1  # the FIN, in the same segment
            far.send(ACK)
            while stack.counters()["closing"]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert stack.counters()["given_up"] == 0
