"""RawLink and BothLinks on real sockets, in a namespace whose raw ESP is nobody else's."""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from support.namespaces import namespace, run, within

from esp.datagram import Outgoing
from esp.link import BATCH, LinkUnavailable, UdpLink
from esp.raw import ESP_PROTOCOL, BothLinks, RawLink
from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esp.datagram import Incoming
    from esp.link import Link

pytestmark = pytest.mark.root

# ESP by its looks: an SPI, a sequence number and something behind it.
DATAGRAM = bytes.fromhex("0000100000000001") + b"sealed"
HERE = ("127.0.0.1", "::1")
THERE = ("127.0.0.2", "::2")


@pytest.fixture
def net() -> Iterator[str]:
    with namespace() as name:
        run("ip", "-n", name, "addr", "add", "::2/128", "dev", "lo")
        yield name


@pytest.fixture
def link(net: str) -> Iterator[RawLink]:
    link = within(net, lambda: RawLink.open(HERE))
    yield link
    link.close()


@pytest.fixture
def peer(net: str) -> Iterator[RawLink]:
    link = within(net, lambda: RawLink.open(THERE))
    yield link
    link.close()


async def receive(link: Link) -> list[Incoming]:
    with trio.fail_after(10):
        await link.wait_readable()
    return link.receive()


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_datagrams_arrive_without_ip_headers_in_order_and_from_an_address(
    link: RawLink, peer: RawLink, family: int
) -> None:
    payloads = [DATAGRAM + bytes([number]) * number for number in range(20)]
    assert link.send([Outgoing(payload, Endpoint(THERE[family], 0)) for payload in payloads]) == 0
    arrived = await receive(peer)
    assert [(each.datagram, each.source) for each in arrived] == [(p, Endpoint(HERE[family], 0)) for p in payloads]
    assert link.receive() == peer.receive() == []


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_each_datagram_has_its_own_traffic_class(link: RawLink, peer: RawLink, family: int) -> None:
    classes = [0, 3, 0b101110_01, 0]
    remote = Endpoint(THERE[family], 0)
    assert link.send([Outgoing(DATAGRAM, remote, traffic_class) for traffic_class in classes]) == 0
    assert [each.traffic_class for each in await receive(peer)] == classes


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_the_traffic_class_of_the_outer_header_goes_along(link: RawLink, peer: RawLink, family: int) -> None:
    remote = Endpoint(THERE[family], 0)
    classes = [0, 0xB8, 0xBB, 0, 2]
    assert link.send([Outgoing(DATAGRAM, remote, each) for each in classes]) == 0
    assert [each.traffic_class for each in await receive(peer)] == classes


def test_it_listens_on_addresses_without_a_port(link: RawLink, net: str) -> None:
    assert link.local == tuple(Endpoint(address, 0) for address in HERE)
    wide = within(net, RawLink.open)
    assert [each.address for each in wide.local] == ["0.0.0.0", "::"]
    wide.close()


async def test_a_batch_is_bounded_and_neither_family_starves(link: RawLink, peer: RawLink) -> None:
    four, six = (Outgoing(DATAGRAM, Endpoint(address, 0)) for address in THERE)
    link.send([four] * (BATCH + 7))
    link.send([six] * 3)
    assert len(await receive(peer)) == BATCH + 3
    assert len(await receive(peer)) == 7


async def test_options_of_the_ip_header_are_no_part_of_the_datagram(peer: RawLink, net: str) -> None:
    sender = within(net, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, ESP_PROTOCOL))
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 8)
    sender.sendto(DATAGRAM, (THERE[0], 0))
    sender.close()
    assert [each.datagram for each in await receive(peer)] == [DATAGRAM]


async def test_what_goes_to_a_port_or_by_name_is_refused(link: RawLink, peer: RawLink) -> None:
    refused = [Endpoint(THERE[0], 4500), Endpoint("peer.example", 0), Endpoint("", 0), Endpoint("192.0.2.1", 0)]
    sent = [*refused, Endpoint(THERE[0], 0)]
    assert link.send([Outgoing(DATAGRAM, remote) for remote in sent]) == len(refused) == link.refused
    assert [each.datagram for each in await receive(peer)] == [DATAGRAM]


async def test_an_unreachable_peer_is_an_address(link: RawLink) -> None:
    """Nobody has a raw socket there: protocol unreachable, and 127.0.0.3 is still this host."""
    link.send([Outgoing(DATAGRAM, Endpoint("127.0.0.3", 0))])
    assert await receive(link) == []
    assert link.take_unreachable() == {Endpoint("127.0.0.3", 0)}
    assert link.refused == 1


@pytest.mark.parametrize(
    ("open_them", "number", "words"),
    [
        (lambda: RawLink.open(["192.0.2.1"]), errno.EADDRNOTAVAIL, "raw ESP at 192.0.2.1: Cannot assign"),
        (lambda: RawLink.open(["127.0.0.1", "2001:db8::1"]), errno.EADDRNOTAVAIL, "raw ESP at 2001:db8::1: Cannot"),
    ],
)
def test_an_address_of_another_host_is_named(
    net: str, open_them: Callable[[], RawLink], number: int, words: str
) -> None:
    with pytest.raises(LinkUnavailable, match=words) as caught:
        within(net, open_them)
    assert caught.value.errno == number
    assert caught.value.local.port == 0


async def test_both_links_send_by_the_port_and_receive_from_both(link: RawLink, peer: RawLink, net: str) -> None:
    here = BothLinks(within(net, lambda: UdpLink.bind(0, HERE)), link)
    there = BothLinks(within(net, lambda: UdpLink.bind(0, THERE)), peer)
    udp, raw = there.local[0], there.local[2]
    assert (udp.address, raw) == (THERE[0], Endpoint(THERE[0], 0))
    mixed = [Outgoing(DATAGRAM + bytes([n]), remote) for n, remote in enumerate((udp, raw, raw, udp, udp))]
    assert here.send(mixed) == 0
    arrived: list[Incoming] = []
    while len(arrived) < len(mixed):
        arrived += await receive(there)
    by_port = {0: [each.datagram[-1] for each in arrived if not each.source.port]}
    by_port[1] = [each.datagram[-1] for each in arrived if each.source.port]
    assert by_port == {0: [1, 2], 1: [0, 3, 4]}
    assert here.send([Outgoing(b"\xff", arrived[0].source._replace(port=0))]) == 0
    here.send([Outgoing(DATAGRAM, Endpoint("127.0.0.3", 0))])
    with trio.fail_after(10):
        while not here.refused:
            await here.wait_readable()
            here.receive()
    assert here.take_unreachable() == {Endpoint("127.0.0.3", 0)}
    for each in (here, there):
        each.close()


async def test_closing_both_wakes_who_waits(link: RawLink, net: str) -> None:
    both = BothLinks(within(net, lambda: UdpLink.bind(0, HERE)), link)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await both.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        both.close()
        both.close()
    with pytest.raises(trio.ClosedResourceError):
        await both.wait_readable()
    with pytest.raises(trio.ClosedResourceError):
        await link.wait_readable()


def test_without_the_capability_it_says_so(net: str) -> None:
    """A thread of its own may drop the capability, and takes it along when it ends (capabilities(7))."""
    with pytest.raises(LinkUnavailable, match=r"no raw socket for 127\.0\.0\.1: Operation not permitted") as caught:
        within(net, partial(_without_net_raw, lambda: RawLink.open(HERE)))
    assert caught.value.errno == errno.EPERM


def _without_net_raw(act: Callable[[], RawLink]) -> RawLink:
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    words = list(struct.unpack("=6I", sets.raw))
    words[0] &= ~(1 << 13)  # CAP_NET_RAW, effective
    assert libc.capset(header, struct.pack("=6I", *words)) == 0
    return act()
