"""The TUN device: inner packets out of this host's stack, and back into it, a batch at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Protocol

import pytun
import trio

from esp.coalesce import coalesce
from esp.errors import EspError
from esp.offload import ALL_OFFLOADS, OF_TUN, Grant, Offload, Offloads
from esp.segment import VNET, segments

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from esp.coalesce import Joined

DEVICE = "/dev/net/tun"

# linux/if_tun.h; pytun does not name them.
IFF_VNET_HDR = 0x4000
TUNSETOFFLOAD = 0x4004_54D0
TUNGETIFF = 0x8004_54D2
TUNSETVNETHDRSZ = 0x4004_54D8
TUN_F_CSUM = 0x01
TUN_F_TSO = 0x02 | 0x04 | 0x08  # TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN
TUN_F_USO = 0x20 | 0x40  # TUN_F_USO4, TUN_F_USO6: the kernel has both or none

_IFREQ = struct.Struct("16sH22x")  # linux/if.h, struct ifreq: a name, and flags or an MTU among others
SIOCGIFMTU = 0x8921  # linux/sockios.h
# Ethernet (IEEE 802.3): destination 6 | source 6 | type 2. The types of what we carry.
_TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
ETHERNET = 14

# Longest IPv4 packet (RFC 791 §3.1), and more than any MTU the device accepts: a read never cuts a packet.
LONGEST_PACKET = 65_535

# Packets a call takes at most. 64 of 1,400 octets are some 0.4 ms of work: long enough that the one checkpoint a batch
# costs nothing, short enough that everything else in the loop still runs two thousand times a second.
BATCH = 64


class TunUnavailable(EspError):
    """There is no TUN device to work with; the message says which step failed and what to do about it.

    ``errno`` is what the kernel said, None when it never got that far.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


class Tun(Protocol):
    """Where inner packets come from and go to: a :class:`PacketDevice`, or an :class:`esp.testing.MemoryTun`."""

    @property
    def name(self) -> str:
        """The interface's name."""

    @property
    def mtu(self) -> int:
        """Largest packet the host puts in, in octets."""

    @property
    def grant(self) -> Grant:
        """Which offloads are in use."""

    def receive(self) -> list[bytes]:
        """Packets that wait now, a bounded number, oldest first; empty when there are none. Never blocks."""

    def send(self, packets: Sequence[bytes]) -> int:
        """Hand ``packets`` to the host, in order; the number it would not take. Never blocks."""

    def take_lost(self) -> int:
        """Packets that the host has put in and we were too slow for, since this was asked; 0 where nobody counts."""

    async def wait_readable(self) -> None:
        """Return when :meth:`receive` may have something."""

    def close(self) -> None:
        """Give the device up. Closing twice is fine."""


class PacketDevice:
    """A device of the kernel that packets are read from and written to, by descriptors that are open.

    Args:
        name: of the interface that is the host's side.
        descriptors: one for each queue, taken over. Here the first one's packets are read, the others' by the threads
            of the compiled engine.
        vnet: whether what is read and written starts with a struct virtio_net_hdr of ten octets.
        hardware: destination and source of the Ethernet header between that and the packet; empty where there is none.
        grant: offloads in use.
        local: addresses that this host will have, packed: as for :func:`esp.coalesce.coalesce`.
    """

    def __init__(
        self,
        name: str,
        descriptors: Sequence[int],
        *,
        vnet: bool,
        hardware: bytes = b"",
        grant: Grant,
        local: Collection[bytes] = (),
    ) -> None:
        self.grant = grant
        self.vnet = vnet
        self.hardware = hardware
        self._name = name
        self._local = frozenset(local)
        self._descriptors = list(descriptors)
        for each in self._descriptors:
            os.set_blocking(each, False)
            os.set_inheritable(each, False)
        self._fd = self._descriptors[0]
        self._left_to_us = vnet and (self.offloads.tso or self.offloads.uso)

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._name

    @property
    def mtu(self) -> int:
        """As the kernel has it now. Ask in the namespace the device lives in."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked, SIOCGIFMTU, _IFREQ.pack(self._name.encode(), 0))
        return int.from_bytes(answer[16:20], sys.byteorder)

    @property
    def offloads(self) -> Offloads:
        """Those in use."""
        return self.grant.offloads

    @property
    def descriptors(self) -> Sequence[int]:
        """Of all queues; empty when closed."""
        return self._descriptors

    def fileno(self) -> int:
        """The first descriptor, -1 when closed."""
        return self._fd

    def of_queue(self, number: int) -> int:
        """The descriptor of that queue; :meth:`fileno` has the first one's."""
        return self._descriptors[number]

    def receive(self) -> list[bytes]:
        """Up to :data:`BATCH` packets, oldest first; one that the host has left to us to cut counts once.

        Raises:
            TunUnavailable: somebody deleted the interface, or it is closed.
        """
        vnet = VNET.size if self.vnet else 0
        front = vnet + (ETHERNET if self.hardware else 0)
        read = self._read(front + LONGEST_PACKET)
        if not self._left_to_us:
            return [each[front:] for each in read] if front else read  # nothing is left to us, not even a checksum
        packets: list[bytes] = []
        for each in read:
            header = each[:vnet] if front == vnet else _counted_from_packet(each[:vnet])
            packets += segments(header, each[front:])
        return packets

    def _read(self, longest: int) -> list[bytes]:
        packets: list[bytes] = []
        keep, read, fd = packets.append, os.read, self._fd
        try:
            for _ in range(BATCH):
                keep(read(fd, longest))
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._lost(error) from error
        return packets

    def send(self, packets: Sequence[bytes]) -> int:
        """Hand ``packets`` to the kernel; the number it would not take: not IP, or the interface is down.

        Raises:
            TunUnavailable: somebody deleted the interface, or it is closed.
        """
        try:
            if self.grant.offloads.coalesce and len(packets) > 1 and not self.hardware:
                return sum(map(self._write_joined, coalesce(packets, self._local)))
            header = _PLAIN if self.vnet else b""
            if self.hardware:
                return sum([not self._write(header + self._ethernet(packet) + packet) for packet in packets])
            return sum([not self._write(header + packet) for packet in packets])
        except OSError as error:
            raise self._lost(error) from error

    def _ethernet(self, packet: bytes) -> bytes:
        return self.hardware + _TYPES.get(packet[0] >> 4 if packet else 0, b"\0\0")

    def _write_joined(self, joined: Joined) -> int:
        if len(joined.packets) == 1:
            return not self._write(b"".join(joined.buffers))
        try:
            os.writev(self._fd, joined.buffers)
        except OSError as error:
            if error.errno in _GONE:
                raise
            refused = sum([not self._write(_PLAIN + packet) for packet in joined.packets])
            if not refused:
                self.grant.refuse(f"writing segments put together: {error.strerror}", Offload.COALESCE)
            return refused
        return 0

    def _write(self, octets: bytes) -> bool:
        """Whether the kernel has taken it."""
        try:
            os.write(self._fd, octets)
        except OSError as error:
            if error.errno in _GONE:
                raise
            return False
        return True

    def take_lost(self) -> int:
        """As :meth:`Tun.take_lost`: a TUN counts its own (``ip -s link``)."""
        return 0

    async def wait_readable(self) -> None:
        """Return when the kernel has a packet for us, or the interface is gone."""
        if self._fd < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Let go of it. Who waits on it gets :class:`trio.ClosedResourceError`."""
        if self._fd < 0:
            return
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._fd)
        self._fd = -1
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _lost(self, error: OSError) -> TunUnavailable:
        return TunUnavailable(f"{self._name} is gone: the interface was deleted while in use", error.errno)


def _counted_from_packet(vnet: bytes) -> bytes:
    """A header of an Ethernet frame as one of the packet in it."""
    flags, kind, headers, size, start, offset = VNET.unpack(vnet)
    return VNET.pack(flags, kind, max(headers - ETHERNET, 0), size, max(start - ETHERNET, 0), offset)


class TunDevice(PacketDevice):
    """A Linux TUN interface without packet information headers, gone when it is closed.

    It is created down, in the network namespace of the calling thread, and stays in it: addresses, routes and "up"
    belong to whoever configures the host.

    Args:
        name: interface name, at most 15 octets; a ``%d`` in it lets the kernel choose a number.
        mtu: octets, or None to leave what the kernel chose (1,500).
        offloads: wanted; which of them there are is in ``grant``.
        local: as for :class:`PacketDevice`.
        queues: descriptors, among which the kernel spreads flows (IFF_MULTI_QUEUE).

    Raises:
        TunUnavailable: no device node, no permission, name taken, or a value the kernel refuses.
    """

    def __init__(
        self,
        name: str,
        *,
        mtu: int | None = None,
        offloads: Offloads = ALL_OFFLOADS,
        local: Collection[bytes] = (),
        queues: int = 1,
    ) -> None:
        grant = Grant(offloads, OF_TUN)
        # Any process that may do so could open one more queue of such a device; so this one is to be new (EXCL).
        several = pytun.IFF_MULTI_QUEUE | pytun.IFF_TUN_EXCL if queues > 1 else 0
        device, vnet = _open(name, grant, several)
        opened: list[pytun.TunTapDevice] = [device]
        try:
            opened.extend(_another(device, vnet=vnet) for _ in range(queues - 1))
            if mtu is not None:
                device.mtu = mtu
            # pytun's own are open across exec; these are not.
            descriptors = [os.dup(each.fileno()) for each in opened]
        except OSError as error:
            what = f"an MTU of {mtu}" if len(opened) == queues else f"{queues} queues"
            raise TunUnavailable(f"{name}: the kernel refuses {what}", error.errno) from error
        finally:
            name = device.name
            for each in opened:
                each.close()
        self._made_of(name, descriptors, vnet=vnet, grant=grant, local=local)

    def _made_of(
        self, name: str, descriptors: Sequence[int], *, vnet: bool, grant: Grant, local: Collection[bytes]
    ) -> None:
        if vnet:
            _leave_segments_to_us(descriptors[0], grant)
        super().__init__(name, descriptors, vnet=vnet, grant=grant, local=local)

    @classmethod
    def adopt(
        cls, descriptors: Sequence[int], *, offloads: Offloads = ALL_OFFLOADS, local: Collection[bytes] = ()
    ) -> TunDevice:
        """One that somebody else has opened, maybe in another namespace.

        Args:
            descriptors: of all its queues, taken over.
            offloads, local: as for a new one.

        Raises:
            TunUnavailable: that is no TUN, or one with packet information headers; ``descriptors`` stay open.
        """
        grant = Grant(offloads, OF_TUN)
        name, flags = _identify(descriptors[0])
        vnet = bool(flags & IFF_VNET_HDR)
        if vnet:
            fcntl.ioctl(descriptors[0], TUNSETVNETHDRSZ, struct.pack("=i", VNET.size))
        else:
            grant.refuse("whoever opened the device did so without vnet headers", *OF_TUN)
        device = cls.__new__(cls)
        device._made_of(name, descriptors, vnet=vnet, grant=grant, local=local)
        return device


def _identify(descriptor: int) -> tuple[str, int]:
    """Name and flags of the TUN behind ``descriptor``. Raises TunUnavailable."""
    try:
        name, flags = _IFREQ.unpack(fcntl.ioctl(descriptor, TUNGETIFF, bytes(_IFREQ.size)))
    except OSError as error:
        text = f"descriptor {descriptor} is no TUN device: {error.strerror}"
        raise TunUnavailable(text, error.errno) from error
    shown = name.rstrip(b"\0").decode()
    if not flags & pytun.IFF_TUN or not flags & pytun.IFF_NO_PI:
        raise TunUnavailable(f"descriptor {descriptor}, {shown}: expected a device with IFF_TUN and IFF_NO_PI")
    return shown, flags


# Ahead of a packet that is whole.
_PLAIN = bytes(VNET.size)

# What a read or write says once the interface is deleted, and once our own descriptor is closed.
_GONE = frozenset({errno.EBADFD, errno.EBADF, errno.ENXIO})


def _open(name: str, grant: Grant, more: int) -> tuple[pytun.TunTapDevice, bool]:
    """The device, and whether packets have a vnet header: only where one of the ``grant`` needs it. more: flags."""
    flags = pytun.IFF_TUN | pytun.IFF_NO_PI | more
    try:
        if any(map(grant.offloads.has, OF_TUN)):
            try:
                return pytun.TunTapDevice(name=name, flags=flags | IFF_VNET_HDR), True
            except OSError as error:
                # A name that is none is refused with the same number: the second try tells.
                if error.errno != errno.EINVAL:
                    raise
            device = pytun.TunTapDevice(name=name, flags=flags)
            grant.refuse("the kernel's TUN devices have no vnet headers", *OF_TUN)
            return device, False
        return pytun.TunTapDevice(name=name, flags=flags), False
    except OSError as error:
        raise _explain(name, error) from error


def _another(device: pytun.TunTapDevice, *, vnet: bool) -> pytun.TunTapDevice:
    """One more queue of ``device``, which was opened for that."""
    flags = pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_MULTI_QUEUE | (IFF_VNET_HDR if vnet else 0)
    return pytun.TunTapDevice(name=device.name, flags=flags)


def _leave_segments_to_us(fd: int, grant: Grant) -> None:
    """Ask the kernel for packets that nobody has cut yet, as far as ``grant`` goes; USO is the younger one."""
    for youngest in (Offload.USO, Offload.TSO):
        wanted = grant.offloads
        kinds = (TUN_F_TSO if wanted.tso else 0) | (TUN_F_USO if wanted.uso else 0)
        try:
            # None of them is to be had without completing checksums too.
            fcntl.ioctl(fd, TUNSETOFFLOAD, kinds | TUN_F_CSUM if kinds else 0)
        except OSError as error:
            grant.refuse(f"the kernel's TUN devices do not have it: {error.strerror}", youngest)
        else:
            return


def _explain(name: str, error: OSError) -> TunUnavailable:
    """What ``error`` of opening the device or of TUNSETIFF means, and what to do."""
    user = os.geteuid()
    match error.errno:
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            text = f"no {DEVICE}: run `modprobe tun`, or give the container `--device {DEVICE}`"
        case errno.EACCES:
            text = f"uid {user} may not open {DEVICE}: run as root, or let the device's group in"
        case errno.EPERM if not _opens():
            # A device cgroup answers the open like this, whatever the mode bits say.
            text = f"the container's device rules forbid {DEVICE}: give it `--device {DEVICE}`"
        case errno.EPERM:
            text = f"uid {user} opened {DEVICE} but may not create {name}: it needs CAP_NET_ADMIN in this namespace"
        case errno.EBUSY:
            text = f"{name} is in use by another process: stop that one or choose another interface name"
        case errno.EINVAL:
            text = f"{name!r} is no name for a TUN interface, or it is one of another kind"
        case _:
            text = f"{name}: {error}"
    return TunUnavailable(text, error.errno)


def _opens() -> bool:
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
