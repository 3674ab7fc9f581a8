"""UdpLink on real sockets of the loopback."""

from __future__ import annotations

import errno
import os
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from support.namespaces import namespace, run, within

from esp.datagram import Incoming, Outgoing, Run
from esp.errors import EspError
from esp.link import BATCH, BUFFER_OCTETS, MAX_FAILURES, UDP_GRO, UDP_SEGMENT, LinkUnavailable, UdpLink, runs
from esp.offload import ALL_OFFLOADS, NO_OFFLOADS, OF_TUN, OF_UDP, Offload
from esp.sa import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACKS = ("127.0.0.1", "::1")


@pytest.fixture
def link() -> Iterator[UdpLink]:
    link = UdpLink.bind(0, LOOPBACKS)
    yield link
    link.close()


@pytest.fixture
def peer() -> Iterator[UdpLink]:
    link = UdpLink.bind(0, LOOPBACKS)
    yield link
    link.close()


def closed_port() -> Endpoint:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        return Endpoint(*udp.getsockname())


@pytest.mark.parametrize("address", LOOPBACKS)
def test_packets_of_an_sa_come_to_one_queue(address: str) -> None:
    """SPI modulo the number of queues, whoever sends it; what is no ESP comes to the first."""
    link = UdpLink.bind(0, LOOPBACKS, queues=4)
    queues = [next(each for each, _ in link.of_queue(number) if each.family == family(address)) for number in range(4)]
    assert {each.getsockname()[:2] for each in queues} == {(address, link.local[0].port)}
    for _ in range(8):  # from eight ports: by those the kernel would sort else
        with socket.socket(family(address), socket.SOCK_DGRAM) as sender:
            for spi in (0x1234, 0x1235, 0xFFFFFFFE, 0xFFFFFFFF, 0):
                datagram = spi.to_bytes(4) + b"rest"
                sender.sendto(datagram, (address, link.local[0].port))
                assert [_taken(each) for each in queues].index(datagram) == spi % 4
            sender.sendto(b"\xff", (address, link.local[0].port))
            assert [_taken(each) for each in queues] == [b"\xff", None, None, None]
    link.close()
    assert [each.fileno() for each in queues] == [-1] * 4


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _taken(source: socket.socket) -> bytes | None:
    try:
        return source.recv(2048)
    except BlockingIOError:
        return None


def test_queues_share_their_port_with_nobody_else() -> None:
    link = UdpLink.bind(0, LOOPBACKS, queues=2)
    for queues in (1, 2):
        with pytest.raises(LinkUnavailable) as refused:
            UdpLink.bind(link.local[0].port, LOOPBACKS, queues=queues)
        assert refused.value.errno == errno.EADDRINUSE
    assert link.sockets == tuple(each for each, receives in link.of_queue(0) if receives)
    for number in range(2):
        for each, _ in link.of_queue(number):
            assert not each.getblocking()
            assert each.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == 1
    link.close()


def test_of_addresses_that_fail_nothing_is_left() -> None:
    with pytest.raises(LinkUnavailable):
        UdpLink.bind(0, ("127.0.0.1", "192.0.2.77"), queues=3)


async def receive(link: UdpLink) -> list[Incoming]:
    with trio.fail_after(30):
        await link.wait_readable()
    return link.receive()


def test_one_port_for_both_families(link: UdpLink) -> None:
    assert [each.address for each in link.local] == list(LOOPBACKS)
    assert link.local[0].port == link.local[1].port != 0


def test_offloads_are_granted_where_the_kernel_has_them(link: UdpLink) -> None:
    assert link.offloads == ALL_OFFLOADS.without(*OF_TUN)
    assert link.grant.refusals == {}
    assert [each.getsockopt(socket.IPPROTO_UDP, UDP_GRO) for each in link.sockets] == [1, 1]
    plain = UdpLink.bind(0, LOOPBACKS, offloads=NO_OFFLOADS)
    assert plain.offloads == NO_OFFLOADS
    assert [each.getsockopt(socket.IPPROTO_UDP, UDP_GRO) for each in plain.sockets] == [0, 0]
    plain.close()


def test_an_offload_that_sockets_do_not_have_is_refused() -> None:
    """A TCP socket stands for UDP of an older kernel: it does not know the options either."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp.bind(("127.0.0.1", 0))
    link = UdpLink([udp])
    assert link.offloads == NO_OFFLOADS
    assert set(link.grant.refusals) == set(OF_UDP)
    link.close()


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_a_run_of_datagrams_comes_as_if_one_by_one(link: UdpLink, peer: UdpLink, family: int) -> None:
    data, remote = os.urandom(1000 * 40 + 77), peer.local[family]
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))]
    link.sockets[family].sendmsg([data], segment, 0, remote)
    received = await receive(peer)
    assert received == [Incoming(data[at : at + 1000], link.local[family]) for at in range(0, len(data), 1000)]


def esp(first: int, count: int, octets: int = 1000, spi: int = 7) -> list[bytes]:
    return [
        struct.pack("!II", spi, number) + bytes((number % 256,)) * (octets - 8)
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_esp_packets_in_a_row_leave_and_come_in_runs(link: UdpLink, peer: UdpLink, family: int) -> None:
    """As many in a call as there may be; a shorter one, and what follows in another call, ends a run."""
    remote, source = peer.local[family], link.local[family]
    burst = esp(1, 100)
    assert link.send([Outgoing(each, remote) for each in [*burst, *esp(101, 1, 500), *esp(102, 3, 60)]]) == 0
    received: list[Incoming | Run] = []
    while len(received) < 4:
        received += await receive(peer)
    assert received == [
        Run(b"".join(burst[:64]), 1000, source, 0),
        Run(b"".join(burst[64:]), 1000, source, 0),
        Incoming(*esp(101, 1, 500), source),
        Run(b"".join(esp(102, 3, 60)), 60, source, 0),
    ]
    assert link.offloads.udp_segment


HEADERS = st.tuples(
    st.sampled_from([("a", 1), ("b", 1)]), st.sampled_from([0, 0, 3]), st.sampled_from([None, None, True])
)


@given(st.lists(st.tuples(HEADERS, st.sampled_from([0, 1, 9, 10, 10, 10, 40_000])), max_size=90))
def test_runs_keep_the_order_and_what_makes_datagrams_differ(drawn: list[Any]) -> None:
    datagrams = [Outgoing(bytes(octets), *header) for header, octets in drawn]
    found = list(runs(datagrams))
    assert [each for together in found for each in together] == datagrams
    for together in found:
        *others, last = together
        assert {each[1:] for each in others} <= {last[1:]}
        assert len({len(each.datagram) for each in others}) <= 1
        assert not others or 0 < len(last.datagram) <= len(others[0].datagram)
        assert len(together) <= 64
        assert sum(len(each.datagram) for each in together) <= 65_507


async def test_without_the_offload_datagrams_leave_one_by_one(peer: UdpLink) -> None:
    link = UdpLink.bind(0, LOOPBACKS, offloads=NO_OFFLOADS)
    burst = esp(1, 40)
    assert link.send([Outgoing(each, peer.local[0]) for each in burst]) == 0
    assert await receive(peer) == [Incoming(each, link.local[0]) for each in burst]
    link.close()


SO_NO_CHECK = 11  # asm-generic/socket.h: with it, the kernel calls every run invalid


async def test_runs_that_the_kernel_refuses_go_one_by_one_and_in_the_end_are_not_tried(
    link: UdpLink, peer: UdpLink
) -> None:
    link.sockets[0].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    for number in range(MAX_FAILURES):
        assert link.offloads.udp_segment
        assert link.send([Outgoing(each, peer.local[0]) for each in esp(3 * number, 3)]) == 0
    assert not link.offloads.udp_segment
    assert link.grant.take_refusals() == [(Offload.UDP_SEGMENT, "sending a run of datagrams: Invalid argument")]
    received: list[Incoming | Run] = []
    while len(received) < 3 * MAX_FAILURES:
        received += await receive(peer)
    assert received == [Incoming(each, link.local[0]) for each in esp(0, 3 * MAX_FAILURES)]


async def test_one_run_that_goes_makes_up_for_those_that_did_not(link: UdpLink, peer: UdpLink) -> None:
    for number in range(2 * MAX_FAILURES):
        link.sockets[0].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, number % MAX_FAILURES != 0)
        assert link.send([Outgoing(each, peer.local[0]) for each in esp(3 * number, 3)]) == 0
        await receive(peer)
    assert link.offloads.udp_segment


async def test_a_run_in_vain_counts_each_of_it(link: UdpLink, peer: UdpLink) -> None:
    nowhere = [Outgoing(each, Endpoint("192.0.2.1", 4500)) for each in esp(1, 3)]  # from the loopback: EINVAL
    assert link.send([*nowhere, Outgoing(b"x", peer.local[0])]) == 3
    assert link.refused == 3
    assert [each.datagram for each in await receive(peer)] == [b"x"]


async def test_a_run_that_meets_an_icmp_error_of_an_earlier_one_leaves_all_the_same(peer: UdpLink) -> None:
    link = UdpLink.bind(0, ["127.0.0.1"])
    link.send([Outgoing(b"x", closed_port())])
    assert link.send([Outgoing(each, peer.local[0]) for each in esp(1, 3)]) == 0
    assert await receive(peer) in (
        [Run(b"".join(esp(1, 3)), 1000, link.local[0], 0)],
        [Incoming(each, link.local[0]) for each in esp(1, 3)],
    )
    assert link.refused == 1
    link.close()


def test_wildcards_leave_ipv4_to_the_ipv4_socket() -> None:
    link = UdpLink.bind(0)
    assert [each.address for each in link.local] == ["0.0.0.0", "::"]
    link.close()


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_datagrams_keep_octets_order_and_source(link: UdpLink, peer: UdpLink, family: int) -> None:
    remote = peer.local[family]
    payloads = [bytes([number]) * number for number in range(20)]
    assert link.send([Outgoing(payload, remote) for payload in payloads]) == 0
    assert await receive(peer) == [Incoming(payload, link.local[family]) for payload in payloads]
    assert peer.receive() == []


async def test_source_is_told_for_each_datagram_of_a_batch(link: UdpLink, peer: UdpLink) -> None:
    third = UdpLink.bind(0, LOOPBACKS)
    for sender in (link, third, link):
        sender.send([Outgoing(b"x", peer.local[0])])
    sources = [each.source for each in await receive(peer)]
    assert sources == [link.local[0], third.local[0], link.local[0]]
    third.close()


async def test_a_batch_is_bounded_and_neither_family_starves(link: UdpLink, peer: UdpLink) -> None:
    link.send([Outgoing(b"4", peer.local[0])] * (BATCH + 7))
    link.send([Outgoing(b"6", peer.local[1])] * 3)
    first = [each.datagram for each in await receive(peer)]
    assert first == [b"4"] * BATCH + [b"6"] * 3
    assert [each.datagram for each in await receive(peer)] == [b"4"] * 7


async def test_longest_datagram_arrives_whole(link: UdpLink, peer: UdpLink) -> None:
    longest = os.urandom(65_507)
    link.send([Outgoing(longest, peer.local[0])])
    assert [each.datagram for each in await receive(peer)] == [longest]


async def test_refused_datagrams_are_counted_and_stop_nothing(link: UdpLink, peer: UdpLink) -> None:
    four, six = peer.local
    refused = [
        Outgoing(b"x" * 70_000, four),  # EMSGSIZE
        Outgoing(b"x", Endpoint("peer.example", 4500)),  # a name: never looked up
        Outgoing(b"x", Endpoint("", 4500)),
        Outgoing(b"x", Endpoint("127.0.0.1", 0)),
        Outgoing(b"x", Endpoint("127.0.0.1", 65_536)),
        Outgoing(b"x", Endpoint("192.0.2.1", 4500)),  # from a socket bound to the loopback: EINVAL
        Outgoing(b"x", Endpoint("::1%no-such-interface", 4500)),
    ]
    good = [Outgoing(b"first", four), Outgoing(b"last", six)]
    assert link.send([good[0], *refused, good[1]]) == len(refused)
    assert link.refused == len(refused)
    assert [each.datagram for each in await receive(peer)] == [b"first", b"last"]


def test_family_without_a_socket_is_refused(peer: UdpLink) -> None:
    link = UdpLink.bind(0, ["127.0.0.1"])
    assert link.send([Outgoing(b"x", peer.local[1])]) == 1
    link.close()


@pytest.mark.root
def test_full_send_buffer_refuses_and_does_not_wait() -> None:
    # Datagrams stay in the send buffer while the kernel asks for a neighbour that is not there (ARP).
    with namespace() as net:
        run("ip", "-n", net, "link", "add", "near", "type", "veth", "peer", "name", "far")
        run("ip", "-n", net, "addr", "add", "10.77.0.1/24", "dev", "near")
        for device in ("near", "far"):
            run("ip", "-n", net, "link", "set", device, "up")
        udp = within(net, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        link = UdpLink([udp])
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        refused = link.send([Outgoing(bytes(1400), Endpoint("10.77.0.2", 4500))] * 100)
        assert 50 < refused < 100
        assert link.refused == refused
        link.close()


async def test_icmp_errors_are_counted_and_never_end_reading(peer: UdpLink) -> None:
    link = UdpLink.bind(0, ["127.0.0.1"])
    nobody = closed_port()
    link.send([Outgoing(b"to nobody", nobody)])
    assert await receive(link) == []
    assert link.refused == 1
    assert link.take_unreachable() == {nobody}
    assert link.take_unreachable() == set()
    peer.send([Outgoing(b"after", link.local[0])])
    assert [each.datagram for each in await receive(link)] == [b"after"]
    link.close()


async def test_an_icmp_error_costs_no_other_datagram(peer: UdpLink) -> None:
    """The kernel gives it to the next send, whoever that is for: that datagram goes all the same."""
    link = UdpLink.bind(0, ["127.0.0.1"])
    nobody = closed_port()
    numbered = [Outgoing(bytes([number]), peer.local[0]) for number in range(50)]
    mixed = [each for out in numbered for each in (Outgoing(b"to nobody", nobody), out)]
    assert link.send(mixed) <= 1, "the last to nobody, which has nothing after it"
    received: list[bytes] = []
    with trio.fail_after(30):
        while len(received) < 50:
            received += [each.datagram for each in await receive(peer)]
    assert received == [out.datagram for out in numbered]
    assert link.refused >= 50
    assert link.take_unreachable() == {nobody}
    # Nothing is left that would wake the reader for ever.
    assert link.receive() == []
    with trio.move_on_after(0.1) as waiting:
        await link.wait_readable()
    assert waiting.cancelled_caught
    link.close()


async def test_icmp_over_ipv6_is_read_too() -> None:
    link = UdpLink.bind(0, ["::1"])
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as closed:
        closed.bind(("::1", 0))
        nobody = Endpoint(*closed.getsockname()[:2])
    link.send([Outgoing(b"to nobody", nobody)])
    await link.wait_readable()
    assert link.receive() == []
    assert link.take_unreachable() == {nobody}
    link.close()


def test_buffers_are_large_and_sockets_do_not_block_or_leak() -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    before = udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    link = UdpLink([udp])
    after = udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert after >= min(before * 2, BUFFER_OCTETS)  # unprivileged: up to net.core.rmem_max
    assert not udp.getblocking()
    assert not udp.get_inheritable()
    link.close()


@pytest.mark.root
def test_buffers_pass_the_limit_of_the_unprivileged() -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link = UdpLink([udp])
    assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * BUFFER_OCTETS
    assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * BUFFER_OCTETS
    link.close()


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_port_taken_names_address_and_port(link: UdpLink, family: int) -> None:
    taken = link.local[family]
    with pytest.raises(LinkUnavailable, match="Address already in use") as caught:
        UdpLink.bind(taken.port, [taken.address])
    assert caught.value.local == taken
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value, EspError)
    spelled = f"[::1]:{taken.port}/udp" if family else f"127.0.0.1:{taken.port}/udp"
    assert spelled in str(caught.value)


def test_second_socket_failing_closes_the_first(link: UdpLink) -> None:
    port = link.local[1].port
    with pytest.raises(LinkUnavailable):
        UdpLink.bind(port, ["127.0.0.2", "::1"])
    UdpLink.bind(port, ["127.0.0.2"]).close()


def test_address_of_another_host() -> None:
    with pytest.raises(LinkUnavailable) as caught:
        UdpLink.bind(0, ["192.0.2.1"])
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("families", [[], [socket.AF_INET, socket.AF_INET], [socket.AF_UNIX]])
def test_sockets_of_other_shapes_are_misuse(families: list[int]) -> None:
    sockets = [socket.socket(family, socket.SOCK_DGRAM) for family in families]
    with pytest.raises(ValueError, match="one socket for each"):
        UdpLink(sockets)
    for each in sockets:
        each.close()


async def test_close_wakes_who_waits(link: UdpLink) -> None:
    woken = False

    async def wait() -> None:
        nonlocal woken
        with pytest.raises(trio.ClosedResourceError):
            await link.wait_readable()
        woken = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        link.close()
        link.close()
    assert woken
    with pytest.raises(trio.ClosedResourceError):
        await link.wait_readable()


@pytest.mark.root
async def test_link_local_peers_keep_their_interface() -> None:
    with namespace() as net:
        run("ip", "-n", net, "link", "add", "left", "type", "veth", "peer", "name", "right")
        for number, device in enumerate(("left", "right"), 1):
            run("ip", "-n", net, "addr", "add", f"fe80::{number}/64", "dev", device, "nodad")
            run("ip", "-n", net, "link", "set", device, "up")
        links = [within(net, lambda: UdpLink.bind(0, ["::"])) for _ in range(2)]
        sender, receiver = links
        index = within(net, lambda: socket.if_nametoindex("left"))
        for scope in ("left", str(index)):
            remote = Endpoint(f"fe80::2%{scope}", receiver.local[0].port)
            assert within(net, partial(sender.send, [Outgoing(b"hello", remote)])) == 0
            arrived = await receive(receiver)
            assert [each.datagram for each in arrived] == [b"hello"]
            assert receiver.send([Outgoing(b"back", arrived[0].source)]) == 0
            assert [each.datagram for each in await receive(sender)] == [b"back"]
        for each in links:
            each.close()


# Outer headers (RFC 4301 §5.1.2).


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
async def test_each_datagram_has_its_own_traffic_class(link: UdpLink, peer: UdpLink, family: int) -> None:
    remote = peer.local[family]
    classes = [0, 3, 3, 0b101110_01, 255, 0, 2]
    assert link.send([Outgoing(b"x", remote, traffic_class) for traffic_class in classes]) == 0
    assert [each.traffic_class for each in await receive(peer)] == classes


async def test_families_wear_different_headers_at_the_same_time(link: UdpLink, peer: UdpLink) -> None:
    four, six = peer.local
    link.send([Outgoing(b"4", four, 1), Outgoing(b"6", six, 2), Outgoing(b"4", four, 1), Outgoing(b"6", six)])
    assert [each.traffic_class for each in await receive(peer)] == [1, 1, 2, 0]


@pytest.fixture
def wire() -> Iterator[tuple[str, socket.socket]]:
    """A namespace with a way to 10.77.0.2 and fd77::2, and a socket that sees what arrives there, headers and all."""
    with namespace() as near, namespace() as far:
        run("ip", "-n", near, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", far)
        for net, device, host in ((near, "near", 1), (far, "far", 2)):
            run("ip", "-n", net, "addr", "add", f"10.77.0.{host}/24", "dev", device)
            run("ip", "-n", net, "addr", "add", f"fd77::{host}/64", "dev", device, "nodad")
            run("ip", "-n", net, "link", "set", device, "up")
        seen = within(far, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)))
        seen.settimeout(10)
        yield near, seen
        seen.close()


ETH_P_ALL = 3
WIRE_PORT = 4577


def datagrams(seen: socket.socket, count: int) -> list[bytes]:
    """UDP in IPv4, then in IPv6, fragments that are not the first too; each family in order, which is all there is."""
    found: list[bytes] = []
    while len(found) < count:
        packet = seen.recv(65_535)
        four = packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP
        six = packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_UDP
        found += [packet] * (four or six)
    return sorted(found, key=lambda packet: packet[0] >> 4)


@pytest.mark.root
def test_traffic_class_and_df_are_on_the_wire_as_asked_for(wire: tuple[str, socket.socket]) -> None:
    near, seen = wire
    link = within(near, lambda: UdpLink.bind(0, ["10.77.0.1", "fd77::1"]))
    four, six = Endpoint("10.77.0.2", WIRE_PORT), Endpoint("fd77::2", WIRE_PORT)
    wishes = [(0xB9, None), (0xB9, True), (0, False), (0xFF, None)]
    link.send([Outgoing(b"x", remote, *wish) for wish in wishes for remote in (four, six)])
    packets = datagrams(seen, 2 * len(wishes))
    fours, sixes = packets[: len(wishes)], packets[len(wishes) :]
    assert [packet[1] for packet in fours] == [traffic_class for traffic_class, _ in wishes]
    assert [int.from_bytes(packet[:2]) >> 4 & 0xFF for packet in sixes] == [each for each, _ in wishes]
    assert [bool(packet[6] & 0x40) for packet in fours] == [True, True, False, True], "None: the kernel's, which is DF"
    assert {packet[8] for packet in fours} | {packet[7] for packet in sixes} == {64}
    link.close()


@pytest.mark.root
def test_what_the_interface_cannot_take_whole_is_refused_with_df_and_fragmented_without(
    wire: tuple[str, socket.socket],
) -> None:
    near, seen = wire
    link = within(near, lambda: UdpLink.bind(0, ["10.77.0.1"]))
    sent = [Outgoing(bytes(2000), Endpoint("10.77.0.2", WIRE_PORT), 0, wish) for wish in (True, None, True, False)]
    assert link.send(sent) == 2
    flags = [int.from_bytes(packet[6:8]) for packet in datagrams(seen, 4)]
    assert [bool(each & 0x2000) for each in flags] == [True, False, True, False], "two datagrams, of two fragments each"
    link.close()


@pytest.mark.root
def test_a_flow_label_goes_into_the_ipv6_header_and_none_leaves_it_to_the_kernel(
    wire: tuple[str, socket.socket],
) -> None:
    near, seen = wire
    link = within(near, lambda: UdpLink.bind(0, ["10.77.0.1", "fd77::1"]))
    four, six = Endpoint("10.77.0.2", WIRE_PORT), Endpoint("fd77::2", WIRE_PORT)
    labels = [0, 0xABCDE, 1, 0]
    link.send([Outgoing(b"x", remote, 0x2E, None, label) for label in labels for remote in (six, four)])
    packets = datagrams(seen, 2 * len(labels))[len(labels) :]
    first, *labelled, last = [int.from_bytes(packet[:4]) & 0xFFFFF for packet in packets]
    assert labelled == [0xABCDE, 1]
    assert first == last, "the kernel's, by the outer flow"
    assert {int.from_bytes(packet[:2]) >> 4 & 0xFF for packet in packets} == {0x2E}
    link.close()


@pytest.mark.root
def test_the_hop_limit_is_as_configured(wire: tuple[str, socket.socket]) -> None:
    near, seen = wire
    link = within(near, lambda: UdpLink.bind(0, ["10.77.0.1", "fd77::1"], hop_limit=7))
    link.send([Outgoing(b"x", Endpoint(address, WIRE_PORT)) for address in ("10.77.0.2", "fd77::2")])
    four, six = datagrams(seen, 2)
    assert (four[8], six[7]) == (7, 7)
    link.close()


@pytest.mark.root
@pytest.mark.parametrize(("address", "header"), [("10.77.0.2", 20), ("fd77::2", 40)])
def test_what_tries_a_path_leaves_whole_or_not_at_all_and_nothing_after_it_does(
    wire: tuple[str, socket.socket], address: str, header: int
) -> None:
    """RFC 8899 §4.1: a probe is not fragmented. What the kernel believes of the path is no limit to it."""
    near, seen = wire
    run("ip", "-n", near, "route", "change", "10.77.0.0/24", "dev", "near", "mtu", "1300")
    link = within(near, lambda: UdpLink.bind(0, ["10.77.0.1", "fd77::1"]))
    remote = Endpoint(address, WIRE_PORT)
    assert link.send_whole(bytes(1500 - header - 8), remote)
    (whole,) = datagrams(seen, 1)
    assert len(whole) == 1500
    assert (link.refused, link.take_too_big()) == (0, [])
    assert not link.send_whole(bytes(1500 - header - 8 + 1), remote)
    ((refused, *said),) = link.take_too_big()
    assert (link.refused, refused.address, *said) == (1, address, 1500, None)
    assert link.send([Outgoing(bytes(3000), remote)]) == 0, "in fragments, as before"
    assert not link.send_whole(b"", Endpoint("vpn.example.com", WIRE_PORT))
    link.close()
