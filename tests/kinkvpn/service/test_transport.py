from __future__ import annotations

import errno
import resource
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from esp.sa import Endpoint
from kinkvpn.proto.events import Path
from kinkvpn.service.transport import (
    BATCH,
    LARGEST_DATAGRAM,
    OWN_ADDRESSES_KEPT,
    RECEIVE_BUFFER,
    KinkTransport,
    OwnAddresses,
    is_own_address,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LOOPBACKS = ["127.0.0.1", "::1"]


@asynccontextmanager
async def running(
    *listen: str, unreachable: Callable[[Endpoint], None] = lambda remote: None
) -> AsyncIterator[KinkTransport]:
    transport = KinkTransport(listen, port=0)
    try:
        transport.report_unreachable_to(unreachable)
        yield transport
    finally:
        transport.close()


@pytest.mark.parametrize("address", LOOPBACKS)
async def test_there_and_back_again(address: str) -> None:
    async with running(address) as one, running(address) as two:
        (here,), (there,) = one.local, two.local
        assert here.address == address
        one.send(b"CREATE", Path(there))
        ((datagram, path),) = await two.receive()
        assert (datagram, path) == (b"CREATE", Path(here, local=address))
        assert isinstance(path.remote, Endpoint)
        two.send(b"REPLY", path)
        assert await one.receive() == [(b"REPLY", Path(there, local=address))]


async def test_each_family_has_its_socket() -> None:
    async with running(*LOOPBACKS) as both, running("::1") as six, running("127.0.0.1") as four:
        for other in (six, four):
            both.send(b"x", Path(other.local[0]))
            ((_, path),) = await other.receive()
            assert path.remote in both.local
            other.send(b"y", path)
            assert await both.receive() == [(b"y", Path(other.local[0], local=path.remote.address))]


@pytest.mark.parametrize("listen", [["0.0.0.0"], ["127.0.0.3", "127.0.0.2"]])
async def test_a_reply_leaves_from_the_address_that_was_asked(listen: list[str]) -> None:
    """Neither the first address nor the one that the routes would choose: a firewall lets no other back in."""
    async with running(*listen) as host, running("127.0.0.1") as stranger:
        port = next(local.port for local in host.local if local.address in ("0.0.0.0", "127.0.0.2"))
        stranger.send(b"CREATE", Path(Endpoint("127.0.0.2", port)))
        ((_, path),) = await host.receive()
        host.send(b"REPLY", path)
        assert await stranger.receive() == [(b"REPLY", Path(Endpoint("127.0.0.2", port), local="127.0.0.1"))]


async def test_closing_ends_the_wait() -> None:
    async with running(*LOOPBACKS) as transport, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        transport.close()


async def test_a_family_without_a_socket_is_an_error() -> None:
    async with running("127.0.0.1") as four:
        with pytest.raises(OSError, match="not supported") as error:
            four.send(b"x", Path(Endpoint("::1", 910)))
        assert error.value.errno == errno.EAFNOSUPPORT


def test_which_addresses_are_ours() -> None:
    assert all(map(is_own_address, [*LOOPBACKS, "127.0.0.7"]))
    assert not any(map(is_own_address, ["192.0.2.1", "2001:db8::1", "not an address"]))


def test_own_addresses_are_looked_for_once_a_second() -> None:
    """What changed meanwhile, in either direction, is found a second later."""
    ours, looked, now = {"192.0.2.1"}, list[str](), 5.0

    def look(address: str) -> bool:
        looked.append(address)
        return address in ours

    owns = OwnAddresses(look, lambda: now)
    assert [owns("192.0.2.1"), owns("192.0.2.2"), owns("192.0.2.1"), owns("192.0.2.2")] == [True, False, True, False]
    assert looked == ["192.0.2.1", "192.0.2.2"]
    ours = {"192.0.2.2"}
    now += OWN_ADDRESSES_KEPT
    assert [owns("192.0.2.1"), owns("192.0.2.2")] == [False, True]
    assert OwnAddresses()("127.0.0.7")


async def test_without_a_socket_it_waits_for_nobody() -> None:
    async with running() as none:
        assert none.local == []
        with pytest.raises(OSError, match="not supported"):
            none.send(b"x", Path(Endpoint("127.0.0.1", 910)))


async def test_large_and_empty_datagrams() -> None:
    async with running("127.0.0.1") as one, running("127.0.0.1") as two:
        for datagram in (b"", bytes(LARGEST_DATAGRAM - 28)):  # less the IPv4 and UDP headers
            one.send(datagram, Path(two.local[0]))
            assert [each for each, _ in await two.receive()] == [datagram]
        with pytest.raises(OSError, match="too long"):
            one.send(bytes(LARGEST_DATAGRAM + 1), Path(two.local[0]))


async def test_an_icmp_error_is_counted_and_read_over() -> None:
    """The kernel reports what an earlier datagram met with (RFC 1122 §4.1.3.3); whoever wants to know is told."""
    told: list[Endpoint] = []
    async with running("127.0.0.1", unreachable=told.append) as one, running("127.0.0.1") as two:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        one.send(b"anybody?", Path(Endpoint("127.0.0.1", port)))
        two.send(b"still there?", Path(one.local[0]))
        assert [each for each, _ in await one.receive()] == [b"still there?"]
        assert one.receive_errors == 1
    assert told == [Endpoint("127.0.0.1", port)]


async def test_an_icmp_error_costs_no_other_datagram() -> None:
    """The kernel gives it to the next send, whoever that is for."""
    async with running("127.0.0.1") as two:
        one = KinkTransport(["127.0.0.1"], port=0)  # nobody reads, so that the send meets the error
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = Endpoint(*closed.getsockname())
        for number in range(20):
            one.send(b"anybody?", Path(nobody))
            one.send(bytes([number]), Path(two.local[0]))
        received: list[bytes] = []
        with trio.fail_after(30):
            while len(received) < 20:
                received += [each for each, _ in await two.receive()]
        assert received == [bytes([number]) for number in range(20)]
        assert one.receive_errors >= 20
        one.close()


async def test_many_datagrams_wait_their_turn_and_come_a_bounded_number_at_a_time() -> None:
    async with running("127.0.0.1") as one, running("127.0.0.1") as two:
        for number in range(200):
            one.send(number.to_bytes(2, "big"), Path(two.local[0]))
        batches: list[list[int]] = []
        while sum(map(len, batches)) < 200:
            batches.append([int.from_bytes(datagram, "big") for datagram, _ in await two.receive()])
        assert [number for batch in batches for number in batch] == list(range(200))
        assert max(map(len, batches)) == BATCH


def test_a_taken_port_says_so_and_leaves_nothing_open() -> None:
    taken = KinkTransport(["127.0.0.1"], port=0)
    port = taken.local[0].port
    try:
        with pytest.raises(OSError, match="in use") as error:
            KinkTransport(["127.0.0.2", "127.0.0.1"], port)
        assert error.value.errno == errno.EADDRINUSE
        assert error.value.filename == f"127.0.0.1 port {port}"
        # The first of the two was let go.
        KinkTransport(["127.0.0.2"], port).close()
    finally:
        taken.close()


def test_an_address_that_is_not_here() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1 port 910") as error:
        KinkTransport(["192.0.2.1"])
    assert error.value.errno == errno.EADDRNOTAVAIL


def test_the_wildcards_go_together() -> None:
    """IPV6_V6ONLY, or :: would take the port of 0.0.0.0 as well."""
    probe = KinkTransport(["0.0.0.0"], port=0)
    port = probe.local[0].port
    probe.close()
    both = KinkTransport(["0.0.0.0", "::"], port)
    assert both.local == [Endpoint("0.0.0.0", port), Endpoint("::", port)]
    both.close()


def test_a_burst_finds_room() -> None:
    with open("/proc/sys/net/core/rmem_max") as limit:
        most = int(limit.read())
    transport = KinkTransport(["127.0.0.1"], port=0)
    (sock,) = transport._sockets
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    transport.close()
    # The kernel doubles what it is given (socket(7)), and gives an ordinary user no more than rmem_max.
    assert size in (2 * RECEIVE_BUFFER, 2 * min(most, RECEIVE_BUFFER))


def test_where_no_socket_is_to_be_had_no_address_is_known_to_be_ours() -> None:
    """A kernel without IPv6 has none for the IPv6 address that a peer says it sees us at: no reason to end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        known = is_own_address("::1"), is_own_address("127.0.0.1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert known == (False, False)
