"""Runs an engine between a TUN and a link: the portable loops, in Trio, one checkpoint a batch.

A packet costs no queue and no task switch, a batch costs one wake-up. The compiled engine runs its own loop in
a thread; it takes this class's place, with the same methods (:attr:`Dataplane.engine_name` says which it is).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import trio

from esp.datagram import Incoming, Outgoing, Run
from esp.errors import DropReason
from esp.events import EspEvent, OffloadRefused, UnreachableReported
from esp.wire import NON_ESP_MARKER, Kind, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from esp.engine import Engine
    from esp.link import Link
    from esp.policy import Policy
    from esp.sa import Endpoint, SaParameters
    from esp.statistics import PolicyStatistics, SaStatistics, Statistics, Totals
    from esp.tun import Tun

# Each event makes keying do something that takes a KDC or a round trip. A thousand of them is a thousand peers at once;
# beyond it they wait in the engine, which keeps one of a kind.
EVENTS = 1024

# Longest sleep of the clock loop, seconds. Installing wakes it, and so does an Acquired event; this bounds how late it
# learns of anything else that became due earlier, and how long events wait once their reader made room.
LONGEST_SLEEP = 1.0

# And its shortest: looking at the clock goes over all SAs. When hundreds are installed or expire one after the other,
# that happens a hundred times a second, not once for each.
SHORTEST_SLEEP = 0.01


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What passed the link besides and including ESP, in datagrams since the start.

    ``refused`` are those of all kinds that it would not send, and ICMP errors about earlier ones; the ESP among them
    are drops too.
    """

    esp_received: int = 0
    control_received: int = 0
    keepalives_received: int = 0
    junk_received: int = 0
    control_sent: int = 0
    keepalives_sent: int = 0
    refused: int = 0


class Dataplane:
    """An engine at work.

    Args:
        engine: whose methods are repeated here with the time filled in.
        tun, link: stay the caller's, who closes them after :meth:`run`.
        clock: seconds; what the engine's ``now`` is taken from. Trio's can only be asked, and so SAs can only be
            installed, inside ``trio.run``.
        receive_control: given each KINK datagram that came to the ESP port, without its non-ESP marker (RFC 3948 §2.2),
            and its source. Called in the loop: it must not block, and it must bound what it keeps.
        witness: told of each SA that has been installed, keys and all, and whether it is inbound; None, as a rule.
    """

    engine_name = "portable"

    def __init__(
        self,
        engine: Engine,
        tun: Tun,
        link: Link,
        *,
        clock: Callable[[], float] = trio.current_time,
        receive_control: Callable[[bytes, Endpoint], None],
        witness: Callable[[SaParameters, bool], None] | None = None,
    ) -> None:
        self._engine = engine
        self._tun = tun
        self._link = link
        self._clock = clock
        self._receive_control = receive_control
        self._witness = witness
        self._received = dict.fromkeys(Kind, 0)
        self._control_sent = 0
        self._keepalives_sent = 0
        self._schedule_changed = trio.Event()
        self._pace_changed = trio.Event()
        self._sleeping_until = inf
        self._unpublished: deque[EspEvent] = deque()
        self._publisher, self.events = trio.open_memory_channel[EspEvent](EVENTS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry packets until cancelled; then :attr:`events` ends.

        Raises:
            TunUnavailable: the interface was deleted; as everything here, in an exception group.
            trio.ClosedResourceError: the TUN or the link was closed under it.
        """
        with self._publisher:
            async with trio.open_nursery() as nursery:
                self._carry(nursery)
                nursery.start_soon(self._watch_clock)
                nursery.start_soon(self._keep_pace)
                task_status.started()

    def _carry(self, nursery: trio.Nursery) -> None:
        """Start what carries packets."""
        nursery.start_soon(self._carry_outbound)
        nursery.start_soon(self._carry_inbound)

    async def wait_turn(self) -> None:
        """Until whatever carries packets has had a turn that began after this call: not ever, where it is stuck.

        Here it shares the loop of whoever asks, and has had one when that goes on.
        """
        await trio.lowlevel.checkpoint()

    async def _carry_outbound(self) -> None:
        while True:
            await self._tun.wait_readable()
            packets = self._tun.receive()
            self._send(self._engine.protect(packets, self._clock()))
            self._answer()
            self._publish()

    async def _carry_inbound(self) -> None:
        while True:
            await self._wait_inbound()
            self._deliver(self._sort(self._link.receive()))
            self._answer()
            self._publish()

    def _deliver(self, protected: Sequence[Incoming | Run]) -> None:
        """Open ``protected`` and give the inside what may pass, and what has waited long enough."""
        now = self._clock()
        packets: list[bytes] = []
        alone: list[Incoming] = []
        for each in protected:
            if isinstance(each, Incoming):
                alone.append(each)
                continue
            if alone:
                packets += self._engine.unprotect(alone, now)
                alone = []
            packets += self._engine.unprotect_run(each, now)
        packets += self._engine.unprotect(alone, now)
        packets += self._engine.release(now)
        if packets:
            self._engine.count_drop(DropReason.TUN_REFUSED, self._tun.send(packets))

    async def _wait_inbound(self) -> None:
        """Until there are datagrams, or something has waited long enough for one that is missing."""
        ends = self._engine.release_deadline()
        if ends == inf:
            await self._link.wait_readable()
            return
        with trio.move_on_after(max(ends - self._clock(), 0.0)):
            await self._link.wait_readable()

    async def _watch_clock(self) -> None:
        while True:
            self._schedule_changed = trio.Event()
            now = self._clock()
            due = self._engine.expire(now)
            keepalives = self._engine.keepalives(now)
            self._keepalives_sent += len(keepalives) - self._link.send(keepalives)
            self._publish()
            pause = LONGEST_SLEEP if due is None else min(max(due - now, SHORTEST_SLEEP), LONGEST_SLEEP)
            self._sleeping_until = now + pause
            with trio.move_on_after(pause) as sleep:
                await self._schedule_changed.wait()
            self._sleeping_until = -inf
            if not sleep.cancelled_caught:
                await trio.sleep(SHORTEST_SLEEP)

    async def _keep_pace(self) -> None:
        """Send what goes out by the clock and not by what comes in: asleep while no SA asks for it."""
        while True:
            self._pace_changed = trio.Event()
            now = self._clock()
            self._send(self._engine.pace(now))
            with trio.move_on_after(max(self._engine.pace_deadline() - now, 0.0)):
                await self._pace_changed.wait()
            await trio.lowlevel.checkpoint()

    def _sort(self, datagrams: Sequence[Incoming | Run]) -> list[Incoming | Run]:
        """The ESP among ``datagrams``. Control goes up at once: no batch of ESP before it holds it up."""
        protected: list[Incoming | Run] = []
        esp = Kind.ESP
        for incoming in datagrams:
            if isinstance(incoming, Run):
                protected.append(incoming)
                self._received[esp] += incoming.count - 1
                continue
            kind = classify(incoming.datagram)
            # Without UDP there is nothing but ESP: whatever else it looks like, the engine refuses.
            if kind is esp or not incoming.source.port:
                protected.append(incoming)
                continue
            self._received[kind] += 1
            if kind is Kind.CONTROL:
                self._receive_control(incoming.datagram[len(NON_ESP_MARKER) :], incoming.source)
            elif kind is Kind.JUNK:
                self._engine.count_drop(DropReason.MALFORMED)
        self._received[esp] += len(protected)
        return protected

    def _send(self, sealed: Sequence[Outgoing]) -> None:
        if sealed:
            self._engine.count_drop(DropReason.LINK_REFUSED, self._link.send(sealed))

    def _answer(self) -> None:
        """Pass on what was too big: by the path to the engine, by the engine to the inside."""
        for remote, octets, quoted in self._link.take_too_big():
            if self._engine.learn_path(remote, octets, quoted, self._clock()):
                self._schedule_changed.set()
        replies = self._engine.take_replies()
        if replies:
            self._tun.send(replies)

    def _publish(self) -> None:
        """Pass events up as far as there is room. The others wait here and in the engine: none is lost, none blocks."""
        if not self._unpublished:
            fresh = self._engine.take_events()
            fresh += [UnreachableReported(remote) for remote in sorted(self._link.take_unreachable())]
            for grant in (self._tun.grant, self._link.grant):
                fresh += [OffloadRefused(*refusal) for refusal in grant.take_refusals()]
            if not fresh:
                return
            self._unpublished.extend(fresh)
            self._schedule_changed.set()  # a packet that is held from now on has a hold time
        try:
            while self._unpublished:
                self._publisher.send_nowait(self._unpublished[0])
                self._unpublished.popleft()
        except trio.WouldBlock:
            pass
        except trio.BrokenResourceError:
            self._unpublished.clear()  # the reader has gone: nobody is left to key anything

    def send_control(self, datagram: bytes, remote: Endpoint, *, whole: bool = False) -> None:
        """Send KINK from the ESP port, behind the non-ESP marker (RFC 3948 §2.2). Lost like any datagram.

        Args:
            datagram: without the marker.
            remote: where it goes.
            whole: unfragmented, whatever the path is thought to carry.
        """
        if not whole:
            self._control_sent += 1 - self._link.send([Outgoing(NON_ESP_MARKER + datagram, remote)])
            return
        self._control_sent += self._link.send_whole(NON_ESP_MARKER + datagram, remote)
        self._answer()  # one that is longer than the interface is wide is told of at once
        self._publish()

    def add_policy(self, policy: Policy) -> None:
        """As :meth:`esp.engine.Engine.add_policy`."""
        self._engine.add_policy(policy)

    def remove_policy(self, name: str) -> None:
        """As :meth:`esp.engine.Engine.remove_policy`."""
        self._engine.remove_policy(name)

    def change_policies(self, gone: Iterable[str], come: Iterable[Policy], replaced: Iterable[Policy] = ()) -> None:
        """Remove, add, and replace under standing SAs; no packet meets half of it.

        Raises:
            InvalidPolicy: as for one of them; those before it have changed.
        """
        for name in gone:
            self._engine.remove_policy(name)
        for policy in come:
            self._engine.add_policy(policy)
        for policy in replaced:
            self._engine.replace_policy(policy)

    def allocate_spi(self) -> int:
        """As :meth:`esp.engine.Engine.allocate_spi`."""
        return self._engine.allocate_spi()

    def release_spi(self, spi: int) -> None:
        """As :meth:`esp.engine.Engine.release_spi`."""
        self._engine.release_spi(spi)

    def install_inbound(self, sa: SaParameters) -> None:
        """As :meth:`esp.engine.Engine.install_inbound`, now."""
        self._engine.install_inbound(sa, self._clock())
        if self._witness is not None:
            self._witness(sa, True)
        self._reschedule()

    def install_outbound(self, sa: SaParameters) -> None:
        """As :meth:`esp.engine.Engine.install_outbound`, now; packets that were held for it are sent at once."""
        held = self._engine.install_outbound(sa, self._clock())
        if self._witness is not None:
            self._witness(sa, False)
        self._send(held)
        self._reschedule()
        if sa.confidentiality is not None or sa.aggregation is not None:
            self._pace_changed.set()

    def _reschedule(self) -> None:
        """Wake the clock loop, unless it wakes in time by itself: a new SA of hours is none of its business yet."""
        due = self._engine.deadline()
        if due is not None and due < self._sleeping_until:
            self._schedule_changed.set()

    def remove_inbound(self, spi: int) -> None:
        """As :meth:`esp.engine.Engine.remove_inbound`."""
        self._engine.remove_inbound(spi)

    def remove_outbound(self, policy: str, spi: int) -> None:
        """As :meth:`esp.engine.Engine.remove_outbound`."""
        self._engine.remove_outbound(policy, spi)

    def follow(self, policy: str, remote: Endpoint) -> None:
        """As :meth:`esp.engine.Engine.follow`."""
        self._engine.follow(policy, remote)

    def confirm_path(self, address: str, octets: int) -> None:
        """As :meth:`esp.engine.Engine.confirm_path`."""
        self._engine.confirm_path(address, octets)

    def last_heard(self, peer: str) -> float | None:
        """As :meth:`esp.engine.Engine.last_heard`."""
        return self._engine.last_heard(peer)

    def totals(self) -> Totals:
        """The engine's; what the TUN and the link refused, and what on the link was junk, is among its drops."""
        self._engine.count_drop(DropReason.HOST_QUEUE_FULL, self._tun.take_lost())
        return self._engine.totals()

    def sas(self) -> Iterator[SaStatistics]:
        """As :meth:`esp.engine.Engine.sas`."""
        return self._engine.sas()

    def of_policy(self, policy: str) -> PolicyStatistics:
        """As :meth:`esp.engine.Engine.of_policy`."""
        return self._engine.of_policy(policy)

    def statistics(self) -> Statistics:
        """Everything, as :meth:`totals`."""
        self._engine.count_drop(DropReason.HOST_QUEUE_FULL, self._tun.take_lost())
        return self._engine.statistics()

    def link_statistics(self) -> LinkStatistics:
        """What kinds of datagrams passed."""
        return LinkStatistics(
            esp_received=self._received[Kind.ESP],
            control_received=self._received[Kind.CONTROL],
            keepalives_received=self._received[Kind.KEEPALIVE],
            junk_received=self._received[Kind.JUNK],
            control_sent=self._control_sent,
            keepalives_sent=self._keepalives_sent,
            refused=self._link.refused,
        )
