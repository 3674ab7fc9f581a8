"""Names asked of a real server on loopback: addresses, aliases, what is cut, what is forged, what does not come."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
from support.here import stack

from kinkvpn.proxy import names
from kinkvpn.proxy.names import Names, NameUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HERE = ip_address("127.0.0.1")
ZONE = {
    ("web.test.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("web.test.", "AAAA"): ["2001:db8::1"],
    ("short.inside.test.", "A"): ["192.0.2.3"],
}


class Server:
    """Counts what it is asked."""

    def __init__(self, change: Callable[[dns.message.Message], dns.message.Message] = lambda reply: reply) -> None:
        self.asked: list[str] = []
        self.change = change
        self.udp = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        self.forger: trio.socket.SocketType | None = None
        self.tcp = trio.socket.socket()

    async def bind(self) -> int:
        self.tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)  # what others had may be in TIME-WAIT
        await self.tcp.bind((str(HERE), 0))
        port: int = self.tcp.getsockname()[1]
        await self.udp.bind((str(HERE), port))
        self.tcp.listen()
        return port

    def answer(self, wire: bytes) -> dns.message.Message:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name, kind = str(question.name), question.rdtype.name
        self.asked.append(f"{name} {kind}")
        reply = dns.message.make_response(query)
        if name == "alias.test.":
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "web.test."))
            name = "web.test."
        if found := ZONE.get((name, kind)):
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *found))
        elif not any(known == name for known, _ in ZONE):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply

    async def serve_udp(self) -> None:
        while True:
            wire, source = await self.udp.recvfrom(4096)
            await self.udp.sendto(b"noise", source)
            await self.udp.sendto(dns.message.make_response(dns.message.make_query("x.", "A")).to_wire(), source)
            if self.forger is not None:
                forged = dns.message.make_response(dns.message.from_wire(wire))
                if (question := forged.question[0]).rdtype.name == "A":
                    forged.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", "198.51.100.9"))
                await self.forger.sendto(forged.to_wire(), source)
            await self.udp.sendto(self.change(self.answer(wire)).to_wire(), source)

    async def serve_tcp(self) -> None:
        while True:
            connection, _ = await self.tcp.accept()
            with connection:
                wire = self.answer((await connection.recv(4096))[2:]).to_wire()
                await connection.send(len(wire).to_bytes(2) + wire)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    made = Server()
    monkeypatch.setattr(names, "DNS_PORT", await made.bind())
    with made.udp, made.tcp:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.serve_udp)
            nursery.start_soon(made.serve_tcp)
            yield made
            nursery.cancel_scope.cancel()


async def test_addresses_of_both_versions_and_asked_for_once(server: Server) -> None:
    asking = Names(stack(), [HERE])
    for _ in range(2):
        found = await asking.resolve("web.test")
        assert str(found[0]) == "2001:db8::1"
        assert set(map(str, found[1:])) == {"192.0.2.1", "192.0.2.2"}
    assert sorted(server.asked) == ["web.test. A", "web.test. AAAA"]


async def test_aliases_are_followed(server: Server) -> None:
    assert ip_address("192.0.2.1") in await Names(stack(), [HERE]).resolve("alias.test")
    assert server.asked


async def test_a_short_name_is_completed(server: Server) -> None:
    asking = Names(stack(), [HERE], ["inside.test"])
    assert await asking.resolve("short") == (ip_address("192.0.2.3"),)
    assert "short.inside.test. A" in server.asked


async def test_a_short_name_that_is_too_long_with_its_domain_is_none(server: Server) -> None:
    with pytest.raises(NameUnknown, match="no such name"):
        await Names(stack(), [HERE], [".".join(["inside"] * 32)]).resolve("short" * 10)
    assert set(server.asked) == {"short" * 10 + ". A", "short" * 10 + ". AAAA"}


async def test_of_many_addresses_some_are_kept(server: Server) -> None:
    def crowd(reply: dns.message.Message) -> dns.message.Message:
        if reply.question[0].rdtype.name == "A":
            addresses = [f"192.0.2.{number}" for number in range(250)]
            reply.answer = [dns.rrset.from_text("web.test.", 60, "IN", "A", *addresses)]
        return reply

    server.change = crowd
    assert len(await Names(stack(), [HERE]).resolve("web.test")) == 1 + names.MOST_ADDRESSES


async def test_an_answer_that_is_cut_is_asked_for_by_tcp(server: Server) -> None:
    def cut(reply: dns.message.Message) -> dns.message.Message:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply

    server.change = cut
    assert len(await Names(stack(), [HERE]).resolve("web.test")) == 3
    assert len(server.asked) == 4


async def test_no_such_name(server: Server) -> None:
    with pytest.raises(NameUnknown, match="no such name"):
        await Names(stack(), [HERE]).resolve("nowhere.test")
    assert server.asked


async def test_a_name_that_is_not_known_is_asked_for_once_in_a_while(server: Server) -> None:
    asking = Names(stack(), [HERE])
    for _ in range(2):
        with pytest.raises(NameUnknown, match="no such name"):
            await asking.resolve("nowhere.test")
    assert sorted(server.asked) == ["nowhere.test. A", "nowhere.test. AAAA"]


async def test_an_answer_from_another_port_is_none(server: Server) -> None:
    """RFC 5452 §9.1: whoever shares the server's address could say it, and does so first."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as other:
        await other.bind((str(HERE), 0))
        server.forger = other
        assert set(map(str, await Names(stack(), [HERE]).resolve("short.inside.test"))) == {"192.0.2.3"}
    assert server.asked


async def test_no_server() -> None:
    with pytest.raises(NameUnknown, match="--dns"):
        await Names(stack(), []).resolve("web.test")


async def test_a_server_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as silent:
        await silent.bind((str(HERE), 0))
        before = trio.current_time()
        with pytest.raises(NameUnknown):
            await Names(stack(), [HERE]).resolve("web.test")
        assert trio.current_time() - before <= names.ROUNDS * names.ANSWER_SECONDS + 1
