"""The real device, in a namespace of its own; what goes wrong is provoked, not imitated."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from support.namespaces import namespace, open_tap, run, within
from support.packets import checksum

from esp.errors import EspError
from esp.offload import ALL_OFFLOADS, NO_OFFLOADS, OF_TUN, OF_UDP, Offload, Offloads
from esp.tun import BATCH, TunDevice, TunUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
OURS, THEIRS = "10.77.0.1", "10.77.0.2"
ADDRESSES = {4: (OURS, THEIRS), 6: ("fd77::1", "fd77::2")}


@pytest.fixture
def net() -> Iterator[str]:
    with namespace() as name:
        yield name


@pytest.fixture
def tun(net: str) -> Iterator[TunDevice]:
    device = within(net, lambda: TunDevice("kink0", mtu=1300))
    yield device
    device.close()


@pytest.fixture
def host(net: str, tun: TunDevice) -> Iterator[socket.socket]:
    """A UDP socket of the host whose route to THEIRS is the TUN. IPv6 is off so that the host stays silent."""
    run("ip", "netns", "exec", net, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/kink0/disable_ipv6")
    run("ip", "-n", net, "addr", "add", f"{OURS}/24", "dev", "kink0")
    run("ip", "-n", net, "link", "set", "kink0", "up")
    with within(net, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
        udp.bind((OURS, 0))
        udp.settimeout(30)
        yield udp


def udp4(source: tuple[str, int], destination: tuple[str, int], payload: bytes) -> bytes:
    """An IPv4 UDP packet (RFC 791 §3.1, RFC 768; UDP checksum 0: none), header checksum included."""
    length = 28 + len(payload)
    header = bytearray(b"\x45\x00" + length.to_bytes(2, "big") + bytes(4) + b"\x40\x11" + bytes(2))
    header += socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    return bytes(header) + ports + (length - 20).to_bytes(2, "big") + bytes(2) + payload


def test_device_is_what_was_asked_for(net: str, tun: TunDevice) -> None:
    assert tun.name == "kink0"
    assert "mtu 1300" in run("ip", "-n", net, "link", "show", "kink0")
    assert within(net, lambda: tun.mtu) == 1300
    assert not os.get_blocking(tun.fileno())
    assert not os.get_inheritable(tun.fileno())
    assert tun.receive() == []


def test_kernel_numbers_the_name(net: str) -> None:
    device = within(net, lambda: TunDevice("kink%d"))
    assert device.name == "kink0"
    device.close()


async def test_receives_batches_in_order(tun: TunDevice, host: socket.socket) -> None:
    for number in range(BATCH + 5):
        host.sendto(bytes([number]), (THEIRS, 9))
    with trio.fail_after(30):
        await tun.wait_readable()
    first, second = tun.receive(), tun.receive()
    assert [packet[-1] for packet in first] == list(range(BATCH))
    assert [packet[-1] for packet in second] == list(range(BATCH, BATCH + 5))
    assert first[0][12:20] == socket.inet_aton(OURS) + socket.inet_aton(THEIRS)
    assert tun.receive() == []


def test_sends_to_the_host_and_counts_what_is_refused(tun: TunDevice, host: socket.socket) -> None:
    packet = udp4((THEIRS, 9), host.getsockname(), b"from inside")
    assert tun.send([packet, b"\xff" * 30, b"", packet]) == 2
    assert [host.recvfrom(100) for _ in range(2)] == [(b"from inside", (THEIRS, 9))] * 2


def test_packets_to_an_interface_that_is_down_are_refused(tun: TunDevice) -> None:
    assert tun.send([udp4((THEIRS, 9), (OURS, 9), b"x")]) == 1


async def test_deleted_interface_is_reported_not_spun_on(net: str, tun: TunDevice) -> None:
    run("ip", "-n", net, "link", "del", "kink0")
    with trio.fail_after(30):
        await tun.wait_readable()
    with pytest.raises(TunUnavailable, match="kink0 is gone"):
        tun.receive()
    with pytest.raises(TunUnavailable, match="kink0 is gone"):
        tun.send([udp4((THEIRS, 9), (OURS, 9), b"x")])


async def test_close_removes_the_interface_and_wakes_who_waits(net: str, tun: TunDevice) -> None:
    woken = False

    async def wait() -> None:
        nonlocal woken
        with pytest.raises(trio.ClosedResourceError):
            await tun.wait_readable()
        woken = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        tun.close()
        tun.close()
    assert woken
    with pytest.raises(trio.ClosedResourceError):
        await tun.wait_readable()
    assert tun.fileno() == -1
    assert "kink0" not in run("ip", "-n", net, "link", "show")


async def test_a_descriptor_of_somebody_else_s_is_adopted(net: str) -> None:
    opened = within(net, lambda: TunDevice("kink0", mtu=1300))
    device = TunDevice.adopt([os.dup(opened.fileno())])
    opened.close()
    assert device.name == "kink0"
    assert device.vnet
    assert device.offloads == ALL_OFFLOADS.without(*OF_UDP)
    assert not os.get_inheritable(device.fileno())
    routed(net, device, f"{OURS}/24")
    assert device.send([udp4((THEIRS, 9), (OURS, 9), b"x")]) == 0
    device.close()
    assert "kink0" not in run("ip", "-n", net, "link", "show")


def test_one_without_vnet_headers_has_no_offloads(net: str) -> None:
    opened = within(net, lambda: TunDevice("kink0", offloads=NO_OFFLOADS))
    with closing(TunDevice.adopt([os.dup(opened.fileno())])) as device:
        assert device.offloads == NO_OFFLOADS
        assert "without vnet headers" in device.grant.refusals[Offload.TSO]
    opened.close()


def test_what_is_no_tun_is_not_adopted(net: str) -> None:
    descriptor = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(TunUnavailable, match=f"descriptor {descriptor} is no TUN device"):
        TunDevice.adopt([descriptor])
    os.close(descriptor)
    tap = within(net, lambda: open_tap("tap0"))
    with pytest.raises(TunUnavailable, match="tap0: expected a device with IFF_TUN and IFF_NO_PI"):
        TunDevice.adopt([tap])
    os.close(tap)


@pytest.fixture
def plain(net: str) -> Iterator[TunDevice]:
    device = within(net, lambda: TunDevice("kink1", mtu=1300, offloads=NO_OFFLOADS))
    yield device
    device.close()


def routed(net: str, device: TunDevice, subnet: str) -> None:
    """What goes to ``subnet`` leaves by ``device``, and nothing else does."""
    run("ip", "netns", "exec", net, "sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{device.name}/router_solicitations")
    run("ip", "-n", net, "addr", "add", subnet, "dev", device.name, *(["nodad"] if ":" in subnet else []))
    run("ip", "-n", net, "link", "set", device.name, "up")


def test_offloads_are_granted_where_the_kernel_has_them(tun: TunDevice, plain: TunDevice) -> None:
    assert tun.vnet
    assert tun.offloads == ALL_OFFLOADS.without(*OF_UDP)
    assert tun.grant.refusals == {}
    assert not plain.vnet
    assert plain.offloads == NO_OFFLOADS


def test_each_offload_can_be_had_alone(net: str) -> None:
    for each in OF_TUN:
        wanted = replace(NO_OFFLOADS, **{each.value: True})
        with closing(within(net, partial(TunDevice, "kink0", offloads=wanted))) as device:
            assert device.vnet
            assert device.offloads == wanted
            assert device.grant.refusals == {}


UDP_SEGMENT = 103  # linux/udp.h


@pytest.mark.parametrize("version", [4, 6])
async def test_a_run_of_datagrams_that_the_host_leaves_to_us_is_what_it_would_have_sent(net: str, version: int) -> None:
    """The kernel's own segmentation is the oracle: the same send through a device with USO and through one without."""
    family, (here, there) = socket.AF_INET6 if version == 6 else socket.AF_INET, ADDRESSES[version]
    data = os.urandom(1000 * 40 + 77)
    seen = []
    for offloads in (ALL_OFFLOADS, ALL_OFFLOADS.without(Offload.TSO, Offload.USO), NO_OFFLOADS):
        with (
            closing(within(net, partial(TunDevice, "kink0", mtu=1300, offloads=offloads))) as device,
            within(net, lambda: socket.socket(family, socket.SOCK_DGRAM)) as udp,
        ):
            routed(net, device, f"{here}/{24 if version == 4 else 64}")
            udp.bind((here, 7007))
            udp.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))], 0, (there, 9))
            packets: list[bytes] = []
            with trio.fail_after(30):
                while len(packets) < 41:
                    await device.wait_readable()
                    packets += [each for each in device.receive() if is_udp(each)]
            seen.append(packets)
    with_uso, whole, without = ([without_identification(packet) for packet in packets] for packets in seen)
    assert with_uso == whole == without
    assert b"".join(packet[-1000:] for packet in with_uso[:-1]) + with_uso[-1][-77:] == data


def is_udp(packet: bytes) -> bool:
    return packet[9 if packet[0] >> 4 == 4 else 6] == 17


def without_identification(packet: bytes) -> bytes:
    """The kernel chooses the first; the header checksum goes with it, and has to be right. IPv6 has a flow label."""
    if packet[0] >> 4 == 6:
        return packet[:1] + packet[4:]
    assert checksum(packet[:20]) == 0
    return packet[:4] + packet[6:10] + packet[12:]


def segments_of_a_burst(version: int, port: int, count: int = 4) -> list[bytes]:
    """TCP segments of one flow to a port of the host's where nobody listens."""
    here, there = ADDRESSES[version]
    network = (IPv6 if version == 6 else IP)(src=there, dst=here)
    segments = (TCP(sport=port, dport=9, flags="A", seq=number * 100, ack=5) for number in range(count))
    return [bytes(network / segment / Raw(bytes((number,)) * 100)) for number, segment in enumerate(segments)]


def resets(device: TunDevice) -> list[int]:
    """Where they go that wait now."""
    packets = [(IPv6 if packet[0] >> 4 == 6 else IP)(packet) for packet in device.receive()]
    return [packet[TCP].dport for packet in packets if TCP in packet and "R" in packet[TCP].flags]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("local", [True, False])
async def test_the_host_takes_segments_put_together_where_all_are_right(net: str, version: int, local: bool) -> None:
    """It answers each write that it finds right with a reset. One octet wrong, and where the host itself verifies what
    is for it, all that was put together is lost; what is not known to be for it is not put together.
    """
    here, _ = ADDRESSES[version]
    packed = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, here)
    with closing(within(net, partial(TunDevice, "kink0", local=[packed] if local else []))) as device:
        routed(net, device, f"{here}/{64 if version == 6 else 24}")
        spoilt = segments_of_a_burst(version, 2)
        spoilt[2] = spoilt[2][:-1] + b"\xff"
        batch = [*segments_of_a_burst(version, 1), *spoilt, *segments_of_a_burst(version, 3, count=1)]
        assert device.send(batch) == 0
        answered: list[int] = []
        with trio.fail_after(30):
            while 3 not in answered:
                await device.wait_readable()
                answered += resets(device)
        assert answered == ([1, 3] if local else [1, 1, 1, 1, 2, 2, 2, 3])
        assert device.offloads.coalesce


def test_segments_for_an_interface_that_is_down_are_refused_one_by_one(tun: TunDevice) -> None:
    assert tun.send(segments_of_a_burst(4, 1)) == 4
    assert tun.offloads.coalesce, "the device is not to blame"


def test_a_kernel_without_vnet_headers_or_with_some_offloads_only(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags and requests that this kernel does not know stand for those that an older one does not."""
    monkeypatch.setattr("esp.tun.TUN_F_USO", 1 << 20)
    with closing(within(net, lambda: TunDevice("kink0"))) as device:
        assert device.vnet
        assert device.offloads == ALL_OFFLOADS.without(*OF_UDP, Offload.USO)
        assert list(device.grant.refusals) == [Offload.USO]
    monkeypatch.setattr("esp.tun.IFF_VNET_HDR", 0x0020)  # IFF_NAPI_FRAGS, which TUN devices have not
    with closing(within(net, lambda: TunDevice("kink0"))) as device:
        assert not device.vnet
        assert device.offloads == NO_OFFLOADS
        assert set(device.grant.refusals) == set(OF_TUN)
        assert device.receive() == []


@pytest.mark.parametrize("offloads", [ALL_OFFLOADS, NO_OFFLOADS], ids=["offloads", "without"])
def test_flows_are_spread_over_queues(net: str, offloads: Offloads) -> None:
    device = within(net, lambda: TunDevice("kink0", mtu=1300, offloads=offloads, queues=4))
    queues = [device.of_queue(number) for number in range(4)]
    assert queues[0] == device.fileno()
    assert not any(map(os.get_blocking, queues))
    assert not any(map(os.get_inheritable, queues))
    run("ip", "-n", net, "addr", "add", f"{OURS}/24", "dev", "kink0")
    run("ip", "-n", net, "link", "set", "kink0", "up")
    seen: set[int] = set()
    deadline = time.monotonic() + 30
    while len(seen) < 4 and time.monotonic() < deadline:
        with within(net, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:  # another port each time
            udp.sendto(b"flow", (THEIRS, 9))
        for number, each in enumerate(queues):
            with suppress(BlockingIOError):
                assert os.read(each, 2048)
                seen.add(number)
    assert seen == {0, 1, 2, 3}
    with pytest.raises(TunUnavailable, match="in use by another process"):  # which would have a part of the packets
        within(net, lambda: TunDevice("kink0", queues=2))
    device.close()
    for each in queues:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.get_blocking(each)
    within(net, lambda: TunDevice("kink0")).close()


def test_name_in_use(net: str, tun: TunDevice) -> None:
    with pytest.raises(TunUnavailable, match="kink0 is in use by another process") as caught:
        within(net, lambda: TunDevice("kink0"))
    assert caught.value.errno == errno.EBUSY
    assert isinstance(caught.value, EspError)


@pytest.mark.parametrize("name", ["lo", "a/b"])
def test_name_of_something_else(net: str, name: str) -> None:
    with pytest.raises(TunUnavailable, match="is no name for a TUN interface"):
        within(net, lambda: TunDevice(name))


def test_name_too_long(net: str) -> None:
    with pytest.raises(TunUnavailable, match="too long"):
        within(net, lambda: TunDevice("k" * 16))


def test_mtu_the_kernel_refuses_leaves_no_device(net: str) -> None:
    with pytest.raises(TunUnavailable, match="refuses an MTU of 20"):
        within(net, lambda: TunDevice("kink0", mtu=20))
    assert "kink0" not in run("ip", "-n", net, "link", "show")


# The user changes once everything is imported: the clone may lie where only root can read it.
TRY = """
import os, sys
from esp.tun import TunDevice, TunUnavailable
os.setuid(int(sys.argv[1]))
try:
    TunDevice("kink0")
except TunUnavailable as error:
    print(error.errno, error)
"""


def attempt(*prefix: str, uid: int = 0) -> str:
    """What opening a TUN says to ``uid`` in a process started behind ``prefix``, in namespaces of its own."""
    command = ["unshare", "--net", "--mount", *prefix, sys.executable, "-c", TRY, str(uid)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_device_node() -> None:
    said = attempt("sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
    assert said.startswith(f"{errno.ENOENT} no /dev/net/tun: run `modprobe tun`")


def test_no_right_to_open_it() -> None:
    hidden = 'mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200 && exec "$@"'
    said = attempt("sh", "-c", hidden, "sh", uid=12345)
    assert said.startswith(f"{errno.EACCES} uid 12345 may not open /dev/net/tun")


def test_no_right_to_create_interfaces() -> None:
    assert shutil.which("setpriv"), "util-linux brings setpriv"
    said = attempt("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    assert said.startswith(f"{errno.EPERM} uid 0 opened /dev/net/tun but may not create kink0: it needs CAP_NET_ADMIN")
