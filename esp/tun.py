"""The TUN device: inner packets out of this host's stack, and back into it, a batch at a time."""

from __future__ import annotations

import errno
import fcntl
import os
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
TUN_F_CSUM = 0x01
TUN_F_TSO = 0x02 | 0x04 | 0x08  # TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN
TUN_F_USO = 0x20 | 0x40  # TUN_F_USO4, TUN_F_USO6: the kernel has both or none

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
    """Where inner packets come from and go to. Implemented by :class:`TunDevice` and :class:`esp.testing.MemoryTun`."""

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

    async def wait_readable(self) -> None:
        """Return when :meth:`receive` may have something."""

    def close(self) -> None:
        """Give the device up. Closing twice is fine."""


class TunDevice:
    """A Linux TUN interface without packet information headers, gone when it is closed.

    It is created down, in the network namespace of the calling thread, and stays in it: addresses, routes and "up"
    belong to whoever configures the host.

    Args:
        name: interface name, at most 15 octets; a ``%d`` in it lets the kernel choose a number.
        mtu: octets, or None to leave what the kernel chose (1,500).
        offloads: wanted; which of them there are is in ``grant``.
        local: addresses that this host will have, packed: as for :func:`esp.coalesce.coalesce`.
        queues: descriptors, among which the kernel spreads flows (IFF_MULTI_QUEUE). Here the first one's packets are
            read, the others' by the threads of the compiled engine.

    Attributes:
        vnet: whether what is read and written at the descriptor starts with a struct virtio_net_hdr of ten octets.

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
        self.grant = Grant(offloads, OF_TUN)
        self._local = frozenset(local)
        # Any process that may do so could open one more queue of such a device; so this one is to be new (EXCL).
        several = pytun.IFF_MULTI_QUEUE | pytun.IFF_TUN_EXCL if queues > 1 else 0
        self._device, self.vnet = _open(name, self.grant, several)
        self._others: list[pytun.TunTapDevice] = []
        try:
            for _ in range(queues - 1):
                self._others.append(_another(self._device, vnet=self.vnet))
            if mtu is not None:
                self._device.mtu = mtu
        except OSError as error:
            self._close_all()
            what = f"an MTU of {mtu}" if len(self._others) == queues - 1 else f"{queues} queues"
            raise TunUnavailable(f"{name}: the kernel refuses {what}", error.errno) from error
        # pytun leaves descriptors blocking and open across exec.
        for each in (self._device, *self._others):
            os.set_blocking(each.fileno(), False)
            os.set_inheritable(each.fileno(), False)
        self._fd: int = self._device.fileno()
        self._name: str = self._device.name
        if self.vnet:
            _leave_segments_to_us(self._fd, self.grant)
        self._left_to_us = self.vnet and (self.offloads.tso or self.offloads.uso)

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._name

    @property
    def mtu(self) -> int:
        """As the kernel has it now. Ask in the namespace the device lives in."""
        return int(self._device.mtu)

    @property
    def offloads(self) -> Offloads:
        """Those in use."""
        return self.grant.offloads

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self._fd

    def of_queue(self, number: int) -> int:
        """The descriptor of that queue; :meth:`fileno` has the first one's."""
        return self._others[number - 1].fileno() if number else self._fd

    def receive(self) -> list[bytes]:
        """Up to :data:`BATCH` packets, oldest first; one that the host has left to us to cut counts once.

        Raises:
            TunUnavailable: somebody deleted the interface, or it is closed.
        """
        if not self.vnet:
            return self._read(LONGEST_PACKET)
        read, vnet = self._read(VNET.size + LONGEST_PACKET), VNET.size
        if not self._left_to_us:
            return [each[vnet:] for each in read]  # nothing is left to us, not even a checksum
        packets: list[bytes] = []
        for each in read:
            packets += segments(each[:vnet], each[vnet:])
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
            if self.grant.offloads.coalesce and len(packets) > 1:
                return sum(map(self._write_joined, coalesce(packets, self._local)))
            header = _PLAIN if self.vnet else b""
            return sum([not self._write(header + packet) for packet in packets])
        except OSError as error:
            raise self._lost(error) from error

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

    async def wait_readable(self) -> None:
        """Return when the kernel has a packet for us, or the interface is gone."""
        if self._fd < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Remove the interface, its addresses and routes. Who waits on it gets :class:`trio.ClosedResourceError`."""
        if self._fd < 0:
            return
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._fd)
        self._fd = -1
        self._close_all()

    def _close_all(self) -> None:
        for each in (self._device, *self._others):
            each.close()

    def _lost(self, error: OSError) -> TunUnavailable:
        return TunUnavailable(f"{self._name} is gone: the interface was deleted while in use", error.errno)


# Ahead of a packet that is whole.
_PLAIN = bytes(VNET.size)

# What a read or write says once the interface is deleted, and once our own descriptor is closed.
_GONE = frozenset({errno.EBADFD, errno.EBADF})


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
