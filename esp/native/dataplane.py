"""Runs the compiled engine: a thread for each lane, and on Trio what the lanes leave to Python."""

from __future__ import annotations

import errno
import os
import socket
import time
from math import inf
from typing import TYPE_CHECKING

import trio

from esp.ah import AH
from esp.datagram import Incoming
from esp.dataplane import Dataplane, LinkStatistics
from esp.errors import DropReason
from esp.native import _core
from esp.offload import Offload
from esp.raw import Links
from esp.tun import PacketDevice, TunUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from esp.datagram import Outgoing
    from esp.link import UdpLink
    from esp.native.engine import NativeEngine
    from esp.policy import Policy
    from esp.sa import Endpoint, SaParameters

# Packets that a lane has left to Python are done so many at a time; then everything else has its turn.
BATCH = 64
# More than their ring holds.
ALL_NEWS = 2048
# Between looks at whether a thread has taken its turn: most have, when they are looked at for the first time.
TURN_SECONDS = 0.001
# As ring and loop have them.
_TROUBLES = {1: (Offload.UDP_SEGMENT,), 2: (Offload.USO,), 3: (Offload.COALESCE,)}


class NativeDataplane(Dataplane):
    """As :class:`esp.dataplane.Dataplane`, whose methods it has; packets are carried by threads that need no Python.

    Args:
        engine: with as many lanes as there are queues.
        tun, link: real ones; their descriptors are the lanes' while :meth:`run` runs, and Python sends by them too.
        clock, receive_control, witness: as there.
    """

    engine_name = "native"

    def __init__(
        self,
        engine: NativeEngine,
        tun: PacketDevice,
        link: UdpLink | Links,
        *,
        clock: Callable[[], float] = trio.current_time,
        receive_control: Callable[[bytes, Endpoint], None],
        witness: Callable[[SaParameters, bool], None] | None = None,
    ) -> None:
        super().__init__(engine, tun, link, clock=clock, receive_control=receive_control, witness=witness)
        self._native = engine
        self._device = tun
        self._sockets = link
        self._loops: list[_core.Loop] = []
        # What each of them sends by, and whether it receives by that too.
        self._ports: list[list[tuple[socket.socket, bool]]] = []
        self._wake = -1

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As there."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        lanes = range(self._native.lanes.count)
        self._ports = [[port for port in self._sockets.of_queue(lane) if port[0].proto != AH] for lane in lanes]
        self._loops = [self._loop(lane) for lane in lanes]
        self._native.publish()
        self._native.running = True
        try:
            await super().run(task_status=task_status)
        finally:
            self._native.running = False
            trio.lowlevel.notify_closing(self._wake)
            os.close(self._wake)

    def _loop(self, lane: int) -> _core.Loop:
        offloads, link_offloads = self._device.offloads, self._sockets.offloads
        return _core.Loop(
            self._native.lanes,
            lane,
            tun=self._device.of_queue(lane),
            vnet=self._device.vnet,
            hardware=self._device.hardware,
            ports=[
                (each.fileno(), each.family, each.type == socket.SOCK_RAW, receives)
                for each, receives in self._ports[lane]
            ],
            runs=link_offloads.udp_segment,
            coalesce_tcp=offloads.coalesce,
            coalesce_udp=offloads.coalesce and offloads.uso,
            clock_offset=self._clock() - time.monotonic(),
            wake=self._wake,
        )

    def _carry(self, nursery: trio.Nursery) -> None:
        for loop in self._loops:
            nursery.start_soon(self._run_loop, loop)
            nursery.start_soon(self._stop_at_the_end, loop)
        nursery.start_soon(self._serve)
        if any(each.proto == AH for each in self._sockets.sockets):
            nursery.start_soon(self._carry_ah)

    async def wait_turn(self) -> None:
        """As there; each thread is roused from its sleep."""
        before = [(loop, loop.counters()["polls"]) for loop in self._loops]
        for loop, polls in before:
            loop.rouse()
            while loop.counters()["polls"] == polls:  # noqa: ASYNC110 - a thread without Python tells nobody
                await trio.sleep(TURN_SECONDS)

    async def _run_loop(self, loop: _core.Loop) -> None:
        gone = await trio.to_thread.run_sync(loop.run, limiter=trio.CapacityLimiter(1))
        if gone == errno.EBADF:
            raise trio.ClosedResourceError
        if gone:
            raise TunUnavailable(f"{self._device.name} is gone: the interface was deleted while in use", gone)

    async def _stop_at_the_end(self, loop: _core.Loop) -> None:
        try:
            await trio.sleep_forever()
        finally:
            loop.stop()

    def change_policies(self, gone: Iterable[str], come: Iterable[Policy], replaced: Iterable[Policy] = ()) -> None:
        """As there."""
        with self._native.unpublished():
            super().change_policies(gone, come, replaced)

    # --- what the lanes leave ---

    async def _serve(self) -> None:
        while True:
            await self._wait_for_lanes()
            unread = [loop.look() for loop in self._loops]
            if any(unread):
                self._native.look_at_all(self._clock())
            left = False
            for lane in range(len(self._loops)):
                left |= self._serve_lane(lane)
            self._answer()
            self._publish()
            if left:
                os.eventfd_write(self._wake, 1)

    async def _wait_for_lanes(self) -> None:
        """Until a lane has something, or something has waited long enough for a payload before it."""
        ends = self._engine.release_deadline()
        with trio.move_on_after(inf if ends == inf else max(ends - self._clock(), 0.0)):
            await trio.lowlevel.wait_readable(self._wake)
            os.eventfd_read(self._wake)

    def _serve_lane(self, lane: int) -> bool:
        """A turn; whether there may be more. KINK and the end of an SA never wait for packets."""
        loop = self._loops[lane]
        # What has been told of an SA was told before the packets that came after.
        packets, news = loop.take(_core.PACKETS, BATCH), loop.take(_core.NEWS, ALL_NEWS)
        for record in news:
            self._take_news(lane, record)
        control = loop.take(_core.CONTROL, BATCH)
        for _, _, _, _, source, datagram in control:
            self._receive_control(datagram, source)
        self._take_packets(packets)
        return BATCH in (len(control), len(packets)) or len(news) == ALL_NEWS

    def _take_news(self, lane: int, record: _core.Record) -> None:
        kind, detail, number, _, source, _ = record
        if kind == _core.ATTENTION:
            self._native.look_at(number, detail, source, self._clock())
        elif kind == _core.TROUBLE:
            reason = os.strerror(number)
            for grant in (self._device.grant, self._sockets.grant):
                grant.refuse(reason, *_TROUBLES[detail])
        else:
            self._sockets.take_errors(self._ports[lane][number][0])
            self._loops[lane].errors_taken(number)

    def _take_packets(self, records: list[_core.Record]) -> None:
        packets = [octets for kind, *_, octets in records if kind == _core.PACKET]
        if packets:
            self._send(self._engine.protect(packets, self._clock()))
        opened = [
            self._native.clamped(octets, number) for kind, _, number, *_, octets in records if kind == _core.OPENED
        ]
        if opened:
            self._engine.count_drop(DropReason.TUN_REFUSED, self._tun.send(opened))
        self._deliver(
            [
                Incoming(octets, source, traffic_class)
                for kind, _, _, traffic_class, source, octets in records
                if kind == _core.DATAGRAM
            ]
        )

    async def _carry_ah(self) -> None:
        """AH is the reference engine's, and so are its sockets."""
        assert isinstance(self._sockets, Links)
        link = self._sockets.of_protocol(AH)
        while True:
            await link.wait_readable()
            self._deliver(self._sort(link.receive()))
            self._answer()
            self._publish()

    def _send(self, sealed: Sequence[Outgoing]) -> None:
        super()._send(sealed)
        self._sockets.undress()

    def link_statistics(self) -> LinkStatistics:
        """As there."""
        counters = [loop.counters() for loop in self._loops]

        def total(name: str) -> int:
            return sum(each[name] for each in counters)

        besides = super().link_statistics()
        return LinkStatistics(
            esp_received=besides.esp_received + total("esp_received"),
            control_received=total("control_received"),
            keepalives_received=total("keepalives_received"),
            junk_received=total("junk_received"),
            control_sent=besides.control_sent,
            keepalives_sent=besides.keepalives_sent,
            refused=besides.refused + total("refused"),
        )
