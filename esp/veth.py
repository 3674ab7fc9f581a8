"""A packet device where there is no /dev/net/tun: packet sockets at one end of a veth pair, the host at the other.

What a TUN gives and takes with a vnet header such a socket does too (packet(7), PACKET_VNET_HDR), with an Ethernet
header between that and the packet: the socket has to be SOCK_RAW, for the others know no vnet headers.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING

from esp.offload import ALL_OFFLOADS, OF_TUN, Grant, Offload, Offloads
from esp.tun import PacketDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

# linux/if_packet.h, linux/if_ether.h; Python's socket module does not name them.
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_VNET_HDR = 15
PACKET_FANOUT = 18
PACKET_IGNORE_OUTGOING = 23
FANOUT_HASH, FANOUT_UNIQUE, FANOUT_IGNORE_OUTGOING = 0x0000, 0x2000, 0x4000
ETH_P_ALL = 3
# linux/sockios.h, linux/ethtool.h: struct ethtool_value is command 4 | value 4.
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
_VALUE = struct.Struct("=II")
_IFREQ = struct.Struct("@16sP16x")
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: packets 4 | drops 4

# Ours. As far as net.core.rmem_max and wmem_max let us; past them only root may, and that is who has TUN devices.
BUFFER_OCTETS = 4 << 20


def settled(offloads: Offloads) -> Offloads:
    """Those of the wanted ones that such a device has: both kinds of cutting, or neither."""
    of_ours = offloads.without(*(each for each in Offload if each not in OF_TUN))
    return of_ours if of_ours.tso and of_ours.uso else of_ours.without(Offload.TSO, Offload.USO)


def open_sockets(host: str, end: str, offloads: Offloads = ALL_OFFLOADS, queues: int = 1) -> list[int]:
    """Descriptors of the packet sockets at ``end``, to make a :class:`VethDevice` of, here or in another process.

    Call it in the namespace that the pair is in. Nothing of what is written comes back.

    Args:
        host: name of the end that has addresses and routes; it cuts and sums itself what ``offloads`` do not leave
            to us.
        end: name of ours.
        offloads: wanted.
        queues: descriptors, among which the kernel spreads flows.

    Raises:
        OSError: no CAP_NET_RAW in this namespace, or no such devices.
    """
    granted = settled(offloads)
    if not granted.tso:
        _sum_before(host)
    opened: list[socket.socket] = []
    try:
        for _ in range(queues):
            opened.append(_bound(end, vnet=granted.tso or granted.coalesce))  # noqa: PERF401 - those before are closed
        if queues > 1:
            _spread(opened)
        return [each.detach() for each in opened]
    finally:
        for each in opened:
            each.close()


def _bound(end: str, *, vnet: bool) -> socket.socket:
    bound = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        bound.setsockopt(SOL_PACKET, PACKET_VNET_HDR, int(vnet))
        bound.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            bound.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
        bound.bind((end, ETH_P_ALL))
    except OSError:
        bound.close()
        raise
    return bound


def _spread(group: Sequence[socket.socket]) -> None:
    """Have each flow come to one of the ``group`` (packet(7), PACKET_FANOUT)."""
    first, *others = group
    first.setsockopt(SOL_PACKET, PACKET_FANOUT, (FANOUT_HASH | FANOUT_UNIQUE | FANOUT_IGNORE_OUTGOING) << 16)
    number = first.getsockopt(SOL_PACKET, PACKET_FANOUT) & 0xFFFF
    for each in others:
        each.setsockopt(SOL_PACKET, PACKET_FANOUT, (FANOUT_HASH | FANOUT_IGNORE_OUTGOING) << 16 | number)


def _sum_before(host: str) -> None:
    """Have checksums complete before packets get to the device; without that nothing is left to it to cut either."""
    value = ctypes.create_string_buffer(_VALUE.pack(ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SIOCETHTOOL, _IFREQ.pack(host.encode(), ctypes.addressof(value)))


class VethDevice(PacketDevice):
    """One end of a veth pair, which goes with whoever's it is: us, or its namespace.

    Args:
        name: of the other end, the host's.
        descriptors: of :func:`open_sockets`, taken over.
        hardware: address of the other end, six octets.
        offloads: as there.
        local: as for :class:`PacketDevice`.
        gone: called when this is closed; what removes the pair.
    """

    def __init__(
        self,
        name: str,
        descriptors: Sequence[int],
        hardware: bytes,
        *,
        offloads: Offloads = ALL_OFFLOADS,
        local: Collection[bytes] = (),
        gone: Callable[[], object] = lambda: None,
    ) -> None:
        self._gone = gone
        granted = settled(offloads)
        grant = Grant(offloads, OF_TUN)
        if not granted.tso:
            grant.refuse("a veth pair leaves both kinds of large packets to us, or neither", Offload.TSO, Offload.USO)
        # Whose address is ahead of what we write as its source is nothing to anybody.
        super().__init__(
            name,
            descriptors,
            vnet=granted.tso or granted.coalesce,
            hardware=hardware * 2,
            grant=grant,
            local=local,
        )

    def close(self) -> None:
        """Let go of it. Who waits on it gets :class:`trio.ClosedResourceError`."""
        if self.fileno() >= 0:
            super().close()
            self._gone()

    def take_lost(self) -> int:
        """As :meth:`esp.tun.Tun.take_lost`: what found no room in the sockets (packet(7), PACKET_STATISTICS)."""
        lost = 0
        for each in self.descriptors:
            with socket.socket(fileno=os.dup(each)) as asked:
                octets = asked.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
            lost += int(_STATISTICS.unpack(octets)[1])  # since they were asked for
        return lost
