"""Connections that a peer will not let end: they have their time, whatever it says meanwhile, and are counted."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from copy import copy
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import trio
from support.raw_tcp import ACK, FIN, HERE, RST, RawTcp

from kinkvpn.proxy.lwip import stack as module
from kinkvpn.proxy.lwip.stack import LwipConnection, LwipStack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 0.3


@asynccontextmanager
async def stack_on(far: RawTcp, patience: float) -> AsyncIterator[LwipStack]:
    stack = LwipStack(far.device.fileno(), vnet=True, mtu=1400, addresses=[ip_address(HERE)], patience=patience)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(stack.run)
            yield stack
            nursery.cancel_scope.cancel()


async def connect(stack: LwipStack, far: RawTcp, window: int = 0) -> LwipConnection:
    """To ``far``, whose window is that, and no more."""
    connections = []

    async def ask() -> None:
        connections.append(await stack.connect(far.remote))

    far.window = window
    async with trio.open_nursery() as connecting:
        connecting.start_soon(ask)
        await far.accept()
    far.send()
    return connections[0]


@asynccontextmanager
async def connected(far: RawTcp, patience: float) -> AsyncIterator[tuple[LwipStack, LwipConnection]]:
    """A connection to ``far``, whose window is closed."""
    async with stack_on(far, patience) as stack:
        connection = await connect(stack, far)
        yield stack, connection
        connection.close()


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


async def test_a_peer_that_has_ended_and_whose_program_does_not_is_given_up() -> None:
    with RawTcp() as far:
        async with connected(far, PATIENCE) as (stack, connection):
            stream = await connection.stream()
            far.send(ACK | FIN)
            assert await stream.recv(1) == b""
            while stack.counters()["flows"]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert stack.counters()["given_up"] == 1


async def reset_of(far: RawTcp) -> int:
    """The port of who is the next to be reset."""
    while not (await far.next_segment())[0] & RST:
        pass
    return far.port


async def test_of_those_that_only_want_to_end_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLOWS", 3)
    ports = []
    with RawTcp() as far:
        async with stack_on(far, 3600) as stack:
            for number in range(5):
                connection = await connect(stack, far)
                ports.append(far.port)
                stream = await connection.stream()
                await stream.send(b"never taken")
                stream.shutdown(socket.SHUT_WR)
                connection.close()
                if number >= module.FLOWS:
                    assert await reset_of(far) == ports[number - module.FLOWS]
                while stack.counters()["flows"]:  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
            assert stack.counters()["given_up"] == 5 - module.FLOWS
            assert stack.counters()["closing"] == module.FLOWS


async def end(far: RawTcp, connection: LwipConnection) -> RawTcp:
    """The program first, and so it waits. What its peer knew at its end."""
    stream = await connection.stream()
    stream.shutdown(socket.SHUT_WR)
    while not (await far.next_segment())[0] & FIN:
        pass
    far.received += 1
    far.send(ACK | FIN)
    assert await stream.recv(1) == b""
    connection.close()
    known = copy(far)
    far.sent += 1
    return known


async def answer_to(far: RawTcp) -> int:
    """The flags of what is said to an end that comes again."""
    port = far.port
    far.send(ACK | FIN)
    while True:
        flags, _ = await far.next_segment()
        if far.port == port:
            return flags
        far.port = port


async def test_of_those_that_wait_for_what_may_come_late_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FLOWS", 1)
    with RawTcp() as far:
        async with stack_on(far, PATIENCE) as stack:
            waiting = [await end(far, await connect(stack, far, 1_000)) for _ in range(6)]  # four for each flow
            while not await answer_to(copy(waiting[1])) & RST:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            assert await answer_to(copy(waiting[0])) & RST
            assert not await answer_to(waiting[2]) & RST
            assert not await answer_to(waiting[5]) & RST
