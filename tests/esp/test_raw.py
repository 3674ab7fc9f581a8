"""RawLink, AhLink and Links on real sockets, in a namespace whose raw ESP is nobody else's."""

from __future__ import annotations

import errno
import socket
import struct
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw
from support.namespaces import namespace, run, within

from esp.ah import AH, make_ah_opener, make_ah_sealer, presented
from esp.datagram import ESP_PROTOCOL, Outgoing
from esp.link import BATCH, LinkUnavailable, UdpLink
from esp.offload import NO_OFFLOADS
from esp.raw import AhLink, Links, RawLink
from esp.sa import Endpoint
from esp.suite import SUITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esp.datagram import Incoming
    from esp.icmp import TooBig
    from esp.link import Link

pytestmark = pytest.mark.root

# ESP by its looks: an SPI, a sequence number and something behind it.
DATAGRAM = bytes.fromhex("0000100000000001") + b"sealed"
HERE = ("127.0.0.1", "::1")
THERE = ("127.0.0.2", "::2")


@pytest.fixture
def net() -> Iterator[str]:
    with namespace() as name:
        run("ip", "-n", name, "addr", "add", "::2/128", "dev", "lo", "nodad")
        # The kernel has the address at once, and the route to it as soon as a worker of its own comes to that.
        deadline = time.monotonic() + 10
        while "local ::2" not in run("ip", "-n", name, "-6", "route", "show", "table", "local"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
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
        (lambda: RawLink.open(["192.0.2.1"]), errno.EADDRNOTAVAIL, "protocol 50 at 192.0.2.1: Cannot assign"),
        (lambda: RawLink.open(["127.0.0.1", "2001:db8::1"]), errno.EADDRNOTAVAIL, "protocol 50 at 2001:db8::1: Cannot"),
    ],
)
def test_an_address_of_another_host_is_named(
    net: str, open_them: Callable[[], RawLink], number: int, words: str
) -> None:
    with pytest.raises(LinkUnavailable, match=words) as caught:
        within(net, open_them)
    assert caught.value.errno == number
    assert caught.value.local.port == 0


def ah(here: str, there: str, octets: int = 6) -> tuple[bytes, bytes]:
    """A packet of AH that leaves, and what the other end makes of it."""
    suite = SUITES["null-sha256"]
    sealed = make_ah_sealer(suite, 0x1000, bytes(32), here, there).seal(7, bytes(octets) + b"\x00\x11")
    arrived = presented(sealed)
    assert arrived is not None
    return sealed, arrived


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_ah_arrives_with_all_that_it_covers(net: str, family: int) -> None:
    """The header that arrives is the one that left, but for what no ICV covers."""
    sender, receiver = (within(net, partial(AhLink.open, addresses)) for addresses in (HERE, THERE))
    remote = Endpoint(THERE[family], 0)
    packets = [ah(HERE[family], THERE[family], octets)[0] for octets in (0, 5, 1000)]
    assert sender.send([Outgoing(each, remote, 0xB9, True, 0, AH) for each in packets]) == 0
    opener = make_ah_opener(SUITES["null-sha256"], bytes(32))
    arrived = await receive(receiver)
    assert [opener.open(each.datagram, 7) for each in arrived] == [bytes(n) + b"\x00\x11" for n in (0, 5, 1000)]
    assert {(each.source, each.traffic_class) for each in arrived} == {(Endpoint(HERE[family], 0), 0xB9)}
    if family == 0:
        assert arrived[0].datagram[8:][8] == 64
    for each in (sender, receiver):
        each.close()


async def test_ah_that_is_none_is_nothing(net: str) -> None:
    receiver = within(net, lambda: AhLink.open(THERE))
    for family, address in ((socket.AF_INET, THERE[0]), (socket.AF_INET6, THERE[1])):
        sender = within(net, partial(socket.socket, family, socket.SOCK_RAW, AH))
        sender.sendto(b"short", (address, 0))
        sender.close()
    arrived: list[Incoming] = []
    while len(arrived) < 2:
        arrived += await receive(receiver)
    assert [each.datagram for each in arrived] == [b"", b""]
    receiver.close()


async def test_ah_too_long_for_the_wire_is_refused(net: str) -> None:
    """A packet that is whole when it leaves is not fragmented (RFC 4302 §3.3.4 would have it after AH)."""
    run("ip", "-n", net, "link", "set", "lo", "mtu", "1500")
    sender = within(net, lambda: AhLink.open(HERE))
    for here, there in zip(HERE, THERE, strict=True):
        sealed, _ = ah(here, there, 1500)
        assert sender.send([Outgoing(sealed, Endpoint(there, 0), protocol=AH)]) == 1
    assert sender.refused == 2
    sender.close()


async def test_both_links_send_by_the_port_and_receive_from_both(link: RawLink, peer: RawLink, net: str) -> None:
    here = Links(within(net, lambda: UdpLink.bind(0, HERE)), link)
    there = Links(within(net, lambda: UdpLink.bind(0, THERE)), peer)
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
    assert here.send([Outgoing(DATAGRAM, raw, protocol=AH)]) == here.refused == 1, "no link of its"
    here.send([Outgoing(DATAGRAM, Endpoint("127.0.0.3", 0))])
    with trio.fail_after(10):
        while here.refused < 2:
            await here.wait_readable()
            here.receive()
    assert here.take_unreachable() == {Endpoint("127.0.0.3", 0)}
    for each in (here, there):
        each.close()


def test_the_sockets_of_both_are_theirs_and_the_offloads_are_those_of_udp(link: RawLink, net: str) -> None:
    udp = within(net, lambda: UdpLink.bind(0, HERE))
    both = Links(udp, link)
    assert both.sockets == (*udp.sockets, *link.sockets)
    assert [each.family for each in link.sockets] == [socket.AF_INET, socket.AF_INET6]
    assert both.grant is udp.grant
    assert both.offloads == udp.offloads != NO_OFFLOADS
    assert link.offloads == NO_OFFLOADS
    both.close()


async def test_ah_goes_beside_the_others(link: RawLink, peer: RawLink, net: str) -> None:
    here, there = (
        Links(within(net, partial(UdpLink.bind, 0, addresses)), raw, within(net, partial(AhLink.open, addresses)))
        for addresses, raw in ((HERE, link), (THERE, peer))
    )
    remote = Endpoint(THERE[0], 0)
    sealed, arrived = ah(HERE[0], THERE[0])
    assert here.send([Outgoing(sealed, remote, protocol=AH), Outgoing(DATAGRAM, remote)]) == 0
    found: list[bytes] = []
    while len(found) < 2:
        found += [each.datagram for each in await receive(there)]
    assert found[0] == DATAGRAM
    assert found[1][:8] == arrived[:8]
    for each in (here, there):
        each.close()


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_what_comes_in_udp_from_port_0_is_not_taken_for_what_comes_without(
    link: RawLink, net: str, family: int
) -> None:
    """Else whoever keeps a packet of AH back could send it from any address, not that which its ICV covers."""
    there = Links(within(net, lambda: UdpLink.bind(0, HERE)), link)
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    with within(net, lambda: socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_UDP)) as forger:
        # Source port, destination port, length, and no checksum, which IPv6 wants: the kernel makes it there.
        header = struct.pack("!4H", 0, there.local[family].port, 8 + len(DATAGRAM), 0)
        if kind == socket.AF_INET6:
            forger.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
        forger.sendto(header + DATAGRAM, (HERE[family], 0))
    assert [each.datagram for each in await receive(there)] == [b""]
    there.close()


@pytest.mark.parametrize("port", [4500, 0], ids=["udp", "raw"])
def test_icmp_that_anybody_can_forge_is_nothing_that_the_kernel_says_itself(net: str, port: int) -> None:
    """It quotes addresses and ports; the engine, which knows what was sent, has to see it."""
    with namespace() as wire:
        run("ip", "-n", net, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", wire)
        for name, device, address in ((net, "near", "192.0.2.1/24"), (wire, "far", "192.0.2.2/24")):
            run("ip", "-n", name, "addr", "add", address, "dev", device)
            run("ip", "-n", name, "link", "set", device, "up")
        run("ip", "-n", net, "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
        link = within(net, (lambda: UdpLink.bind(port)) if port else RawLink.open)
        about = IP(src="192.0.2.1", dst="198.51.100.7", proto=17 if port else 50, len=1228)
        quoted = Raw((struct.pack("!4H", port, port, 1208, 0) if port else b"") + bytes(8))
        forged = IP(src="203.0.113.6", dst="192.0.2.1") / ICMP(type=3, code=4, nexthopmtu=552) / about / quoted
        with within(wire, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as forger:
            forger.sendto(bytes(forged), ("192.0.2.1", 0))
        errors: list[TooBig] = []
        deadline = time.monotonic() + 10
        while not errors:
            assert time.monotonic() < deadline
            link.receive()
            errors = link.take_too_big()
        assert [(each.octets, each.quoted) for each in errors] == [(552, bytes(8))]
        large = Outgoing(bytes(1200), Endpoint("198.51.100.7", port), dont_fragment=True)
        assert link.send([large, large]) == 0
        assert link.send([large._replace(datagram=bytes(1500))]) == 1
        assert [(each.octets, each.quoted) for each in link.take_too_big()] == [(1500, None)], "that is its own"
        link.close()


async def test_closing_both_wakes_who_waits(link: RawLink, net: str) -> None:
    both = Links(within(net, lambda: UdpLink.bind(0, HERE)), link)

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
