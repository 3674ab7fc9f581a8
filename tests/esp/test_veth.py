"""A real veth pair in a namespace of its own, both engines, and what TUNs give as the oracle of what it gives."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing
from functools import partial
from hashlib import sha256
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import trio
from support.namespaces import namespace, run, wait_for_address, within
from support.sites import FAMILIES, key_sites, sites, veth

from esp.errors import DropReason
from esp.offload import ALL_OFFLOADS, NO_OFFLOADS, OF_UDP, Offload
from esp.tun import BATCH, TunDevice, TunUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esp.tun import PacketDevice
    from esp.veth import VethDevice

pytestmark = pytest.mark.root

ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
UDP_SEGMENT = 103  # linux/udp.h
OCTETS = 3_000_000


@pytest.fixture
def net() -> Iterator[str]:
    with namespace() as name:
        yield name


@pytest.fixture
def device(net: str) -> Iterator[VethDevice]:
    with closing(within(net, partial(veth, "kink0"))) as made:
        yield made


def routed(net: str, version: int) -> None:
    here, _ = ADDRESSES[version]
    run("ip", "-n", net, "addr", "add", f"{here}/{24 if version == 4 else 64}", "dev", "kink0", *_nodad(version))
    run("ip", "-n", net, "link", "set", "kink0", "up")
    wait_for_address(net, here)


def _nodad(version: int) -> list[str]:
    return ["nodad"] if version == 6 else []


def family_of(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def udp_socket(net: str, version: int) -> socket.socket:
    udp = within(net, lambda: socket.socket(family_of(version), socket.SOCK_DGRAM))
    udp.bind((ADDRESSES[version][0], 7007))
    udp.settimeout(30)
    return udp


def is_udp(packet: bytes) -> bool:
    return packet[9 if packet[0] >> 4 == 4 else 6] == 17


async def packets_of(device: PacketDevice, number: int) -> list[bytes]:
    """The next ``number`` UDP packets of the host."""
    packets: list[bytes] = []
    with trio.fail_after(30):
        while len(packets) < number:
            await device.wait_readable()
            packets += [each for each in device.receive() if is_udp(each)]
    return packets


def answer_to(packet: bytes) -> bytes:
    """The same datagram back: addresses and ports change places, which changes no checksum."""
    octets, front = (4, 20) if packet[0] >> 4 == 4 else (16, 40)
    first = front - 2 * octets
    source, destination = packet[first : first + octets], packet[first + octets : front]
    return (
        packet[:first] + destination + source + packet[front + 2 : front + 4] + packet[front : front + 2]
        + packet[front + 4 :]
    )  # fmt: skip


@pytest.mark.parametrize("offloads", [ALL_OFFLOADS, NO_OFFLOADS, ALL_OFFLOADS.without(Offload.USO)])
@pytest.mark.parametrize("version", [4, 6])
async def test_datagrams_go_both_ways(net: str, version: int, offloads: object) -> None:
    with closing(within(net, partial(veth, "kink0", offloads))) as device:
        routed(net, version)
        with udp_socket(net, version) as udp:
            for number in range(BATCH + 5):
                udp.sendto(bytes([number]), (ADDRESSES[version][1], 9))
            packets = await packets_of(device, BATCH + 5)
            assert [each[-1] for each in packets] == list(range(BATCH + 5))
            assert device.send([answer_to(each) for each in packets]) == 0
            assert [udp.recv(10)[0] for _ in packets] == list(range(BATCH + 5))
        assert device.take_lost() == 0


async def cut(net: str, device: PacketDevice, version: int, data: bytes) -> list[bytes]:
    routed(net, version)
    with udp_socket(net, version) as udp:
        udp.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))], 0, (ADDRESSES[version][1], 9))
        return await packets_of(device, 41)


@pytest.mark.parametrize("version", [4, 6])
async def test_a_run_of_datagrams_is_cut_as_that_of_a_tun_is(net: str, version: int) -> None:
    data = os.urandom(1000 * 40 + 77)
    seen = []
    for make in (partial(TunDevice, mtu=1300), partial(veth, mtu=1300), partial(veth, mtu=1300, offloads=NO_OFFLOADS)):
        with namespace() as name, closing(within(name, partial(make, "kink0"))) as device:
            seen.append(
                [
                    each[6:10] + each[12:] if version == 4 else each[4:]
                    for each in await cut(name, device, version, data)
                ]
            )
    of_tun, of_veth, whole = seen
    assert of_tun == of_veth == whole


def test_offloads_are_those_of_a_tun(net: str, device: VethDevice) -> None:
    assert device.vnet
    assert device.offloads == ALL_OFFLOADS.without(*OF_UDP)
    assert "mtu 1400" in run("ip", "-n", net, "link", "show", "kink0")
    assert within(net, lambda: device.mtu) == 1400


def test_one_kind_of_large_packets_without_the_other_is_neither(net: str) -> None:
    with closing(within(net, partial(veth, "kink0", ALL_OFFLOADS.without(Offload.TSO)))) as device:
        assert not device.offloads.uso
        assert "both kinds" in device.grant.refusals[Offload.USO]


def test_what_the_host_sends_while_nobody_reads_is_counted_once(net: str, device: VethDevice) -> None:
    routed(net, 4)
    with udp_socket(net, 4) as udp:
        for _ in range(40_000):
            udp.sendto(bytes(1000), (ADDRESSES[4][1], 9))
    lost = device.take_lost()
    assert 0 < lost < 40_000
    assert device.take_lost() == 0


async def test_a_pair_that_is_deleted_is_reported(net: str, device: VethDevice) -> None:
    run("ip", "-n", net, "link", "set", "kink0", "up")
    run("ip", "-n", net, "link", "del", "kink0")
    with trio.fail_after(30):
        await device.wait_readable()
    with pytest.raises(TunUnavailable, match="kink0 is gone"):
        device.receive()
    with pytest.raises(TunUnavailable, match="kink0 is gone"):
        device.send([bytes([0x45]) + bytes(19)])


@pytest.mark.parametrize(("engine", "queues"), [("portable", 1), ("native", 1), ("native", 2)])
async def test_streams_of_both_families_arrive_whole(engine: str, queues: int) -> None:
    """Large packets out of the host, segments put together again into it: every octet, and no packet refused."""
    with sites(engine, queues, "veth") as (left, right), trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for site in (left, right):
                await nursery.start(site.dataplane.run)
            key_sites(left, right, 0)
            key_sites(right, left, 1)
            for family in FAMILIES:
                await stream(left.net, right.net, str(ip_network(FAMILIES[family][1])[1]))
            nursery.cancel_scope.cancel()
        for site in (left, right):
            drops = site.dataplane.statistics().drops
            assert {reason for reason, count in drops.items() if count} <= {DropReason.NO_POLICY}
        assert right.tun.grant.refusals == {}


async def stream(sender: str, receiver: str, address: str) -> None:
    """A random stream through the tunnel, and back."""
    family = family_of(6 if ":" in address else 4)
    listening = within(receiver, lambda: socket.create_server((address, 0), family=family))
    client = within(sender, lambda: socket.socket(family, socket.SOCK_STREAM))
    data = os.urandom(OCTETS)

    async def echo() -> None:
        server, _ = await trio.socket.from_stdlib_socket(listening).accept()
        with server:
            while received := await server.recv(1 << 16):
                view = memoryview(received)
                while view:
                    view = view[await server.send(view) :]

    with listening, client:
        client.setblocking(False)
        sock = trio.socket.from_stdlib_socket(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            await sock.connect((address, listening.getsockname()[1]))
            digest, left = sha256(), len(data)

            async def send() -> None:
                view = memoryview(data)
                while view:
                    view = view[await sock.send(view) :]
                sock.shutdown(socket.SHUT_WR)

            nursery.start_soon(send)
            while received := await sock.recv(1 << 16):
                digest.update(received)
                left -= len(received)
    assert left == 0
    assert digest.digest() == sha256(data).digest()
