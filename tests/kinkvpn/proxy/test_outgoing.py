"""Where a client may go, and which of a name's addresses it gets: real connections on loopback."""

from __future__ import annotations

import math
import socket
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from support.here import LOOPBACK, echo, outgoing, serving, stack

from esp.sa import Endpoint
from kinkvpn.proxy import outgoing as module
from kinkvpn.proxy.outgoing import MOST_ATTEMPTS, Race, Refusal, Refused, in_turn
from kinkvpn.proxy.target import Target, parse_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.proxy.stack import Connection

NOBODY = Target(parse_host("web.test"), 80)


@contextmanager
def mute(port: int = 0, address: str = "127.0.0.2") -> Iterator[int]:
    """A port that answers nobody: its queue is full, and nobody accepts."""
    with socket.socket() as listening, socket.socket() as first:
        listening.bind((address, port))
        listening.listen(0)
        first.connect(listening.getsockname())
        yield listening.getsockname()[1]


async def peer_of(connection: Connection) -> str:
    address: str = (await connection.stream()).getpeername()[0]
    connection.close()
    return address


def test_versions_alternate_and_each_keeps_its_order() -> None:
    ends = [Endpoint(each, 80) for each in ("::1", "::2", "::3", "192.0.2.1", "192.0.2.2")]
    assert [each.address for each in in_turn(ends)] == ["::1", "192.0.2.1", "::2", "192.0.2.2", "::3"]
    assert [each.address for each in in_turn(ends[::-1])] == ["192.0.2.2", "::3", "192.0.2.1", "::2", "::1"]
    assert in_turn(ends[:2]) == ends[:2]


async def test_an_address_that_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPT_SECONDS", math.inf)
    with trio.fail_after(15):
        async with serving(echo) as port:
            with mute(port):
                ends = [Endpoint("127.0.0.2", port), Endpoint(LOOPBACK, port)]
                assert await peer_of(await Race(stack(), NOBODY).run(ends)) == LOOPBACK


async def test_one_that_refuses_costs_no_wait_and_the_last_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", math.inf)
    with trio.fail_after(15):
        async with serving(echo) as port:
            ends = [Endpoint("127.0.0.3", port), Endpoint(LOOPBACK, port)]
            assert await peer_of(await Race(stack(), NOBODY).run(ends)) == LOOPBACK
            with pytest.raises(Refused, match=r"web\.test:80: Connection refused") as refused:
                await Race(stack(), NOBODY).run(ends[:1])
    assert refused.value.kind is Refusal.REFUSED


async def test_when_all_places_are_taken_the_next_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)
    with mute() as port, trio.fail_after(15):
        monkeypatch.setattr(module, "ATTEMPT_SECONDS", 0.05)
        async with serving(echo) as answers:  # its turn comes as soon as one has had its time
            ends = [Endpoint("127.0.0.2", port)] * MOST_ATTEMPTS + [Endpoint(LOOPBACK, answers)]
            assert await peer_of(await Race(stack(), NOBODY).run(ends)) == LOOPBACK
        with pytest.raises(Refused, match="no answer within") as refused:
            await Race(stack(), NOBODY).run([Endpoint("127.0.0.2", port)])
    assert refused.value.kind is Refusal.TIMED_OUT


async def test_no_more_than_so_many_are_tried_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(module, "ATTEMPT_SECONDS", math.inf)
    with mute() as port, socket.socket() as answers, trio.fail_after(15):
        answers.bind((LOOPBACK, 0))
        answers.listen()
        answers.setblocking(False)
        ends = [Endpoint("127.0.0.2", port)] * MOST_ATTEMPTS + [Endpoint(*answers.getsockname())]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Race(stack(), NOBODY).run, ends)
            await trio.testing.wait_all_tasks_blocked(0.1)
            with pytest.raises(BlockingIOError):
                answers.accept()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Race(stack(), NOBODY).run, ends[1:])
            await trio.lowlevel.wait_readable(answers)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::1%lo"])
async def test_what_no_policy_leads_to_is_not_tried(host: str) -> None:
    with pytest.raises(Refused, match="no policy protects") as refused:
        await outgoing().connect(Target(IPv6Address(host) if ":" in host else ip_address(host), 80))
    assert refused.value.kind is Refusal.NOT_ALLOWED


async def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(Refused) as refused:
        await outgoing().connect(NOBODY)
    assert refused.value.kind is Refusal.UNKNOWN


async def test_all_of_it_takes_no_longer_than_a_client_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.05)
    with mute() as port, trio.fail_after(15), pytest.raises(Refused, match=r"no answer within 0\.05 s"):
        await outgoing().connect(Target(ip_address("127.0.0.2"), port))


@pytest.mark.parametrize("version", [4, 6])
async def test_datagrams(version: int) -> None:
    loopback = {4: "127.0.0.1", 6: "::1"}[version]
    there = await stack().open_udp(Endpoint(loopback, 0))
    here = await outgoing().open_udp(version)
    port = there._socket.getsockname()[1]
    with trio.fail_after(15):
        await here.send(b"one", Endpoint(loopback, port))
        assert (await there.receive())[0] == b"one"
    here.close()
    there.close()
