"""The reference engine: IP packets in, ESP datagrams out, and back (RFC 4303, RFC 4301 §5).

Synchronous and without a clock, a socket or a thread of its own. Every packet is delivered, held, or counted under one
:class:`esp.errors.DropReason`.
"""

from __future__ import annotations

from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING

from esp.accounts import Accounts
from esp.errors import DropReason, InvalidSa, NotSealed
from esp.events import (
    LARGE_OCTETS,
    LARGE_SECONDS,
    Acquired,
    CounterExhausted,
    EndpointMoved,
    EventQueue,
    HardExpired,
    LargeSent,
    PathNarrowed,
    PayloadsLost,
    SoftExpired,
    Unanswered,
    UnknownSpiSeen,
)
from esp.fit import FLAGS, SYN, Fit, Inside
from esp.fragment_flows import FragmentFlows, is_later_fragment
from esp.hold import Holds
from esp.inbound import InboundSa
from esp.inner import TCP, parse_inner
from esp.keepalive import Keepalives
from esp.lifetime import Limit
from esp.outbound import OutboundSa
from esp.path import Paths
from esp.policy import Action, by_ports, check_selector, covers
from esp.sa import Encapsulation, Endpoint, check_parameters
from esp.sad import Sad
from esp.shape import runs
from esp.silences import Silences
from esp.spd import Spd
from esp.statistics import PolicyStatistics, SaStatistics, Statistics, Totals, sa_statistics
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from esp.datagram import Incoming, Outgoing, Run
    from esp.events import EspEvent
    from esp.policy import Policy
    from esp.sa import SaParameters

# Ours. Anybody can send packets with SPIs that are not here; one of them a second is worth a word to keying.
UNKNOWN_SPI_SECONDS = 1.0

# Past IPsec is another road, which the host's routes take; what comes here anyway is not let out in the clear.
_REFUSALS = {Action.DISCARD: DropReason.POLICY_DISCARD, Action.BYPASS: DropReason.BYPASS_NOT_ROUTED}


class Engine:
    """The portable engine.

    Args:
        random: ``random(n)`` gives ``n`` unpredictable octets; SPIs and the IVs of CBC are made of them.
        inside: what is known of the side that it protects.
    """

    def __init__(self, *, random: Callable[[int], bytes], inside: Inside | None = None) -> None:
        self._fit = Fit(inside or Inside())
        self._paths = Paths()
        self._spd = Spd()
        self._lookup = self._spd.outbound.lookup
        self._sad = self._make_sad(random)
        self._fragments: FragmentFlows | None = None  # of what comes from the inside, once a policy asks for ports
        self._holds = Holds()
        self._keepalives = Keepalives(self._sad)
        self._silences = self._make_silences()
        self._events = EventQueue()
        self._tell_unknown_spi_at = -inf
        self._accounts = Accounts()
        self._drop = self._accounts.drop

    def _make_sad(self, random: Callable[[int], bytes]) -> Sad:
        return Sad(random)

    def _make_silences(self) -> Silences:
        return Silences()

    # --- what keying installs ---

    def add_policy(self, policy: Policy) -> None:
        """Put ``policy`` behind those of its rank: the first that matches decides (RFC 4301 §4.4.1).

        Raises:
            InvalidPolicy: its name is taken, or it says nothing that could be done.
        """
        self._spd.add(policy)
        if any(map(by_ports, policy.selectors)):
            self._fragments = self._fragments or FragmentFlows()
        self._silences.add(policy.peer, policy.answer_within)
        if policy.action is Action.PROTECT:
            self._holds.add(policy.name)

    def replace_policy(self, policy: Policy) -> None:
        """Have ``policy`` in the place of the one of its name: what is told of its peer changes, and its SAs stay.

        Raises:
            InvalidPolicy: there is none, or another thing of it is different.
        """
        self._spd.replace(policy)
        self._silences.change(policy.peer, policy.answer_within)
        for sa in self._sad.of_policy(policy.name):
            sa.silence = self._silences.of(policy.peer)
            if isinstance(sa, OutboundSa):
                sa.told_above = LARGE_OCTETS if policy.large else inf

    def remove_policy(self, name: str) -> None:
        """Take out a policy, its SAs and the packets that wait for one.

        Raises:
            InvalidPolicy: there is none of that name.
        """
        peer = self._spd.remove(name).peer
        if not self._spd.any_of(peer):
            self._silences.remove(peer)
        for sa in self._sad.of_policy(name):
            self._drop_waiting(sa)
        self._sad.remove_policy(name)
        self.count_drop(DropReason.NO_POLICY, self._holds.remove(name))

    def allocate_spi(self) -> int:
        """An SPI for an inbound SA, nobody else's until it is installed or released (RFC 4303 §2.1)."""
        return self._sad.allocate_spi()

    def release_spi(self, spi: int) -> None:
        """Give back an SPI that will not be installed."""
        self._sad.release_spi(spi)

    def install_inbound(self, sa: SaParameters, now: float) -> None:
        """Start to open packets of ``sa``, in place of the SA with the same SPI if there is one (RFC 4430 §3.2).

        Raises:
            InvalidSa: parameters that contradict each other, or a policy that does not protect.
        """
        self._check(sa)
        before = self._sad.inbound.get(sa.spi)
        self._sad.add_inbound(sa, now).silence = self._silences.of(self._spd[sa.policy].peer)
        if before is not None:
            self._drop_waiting(before)

    def install_outbound(self, sa: SaParameters, now: float) -> list[Outgoing]:
        """Let ``sa``, the newest of its policy now, carry that policy's traffic; returns the packets that waited.

        Raises:
            InvalidSa: as for inbound; or the policy has more traffic than the SA may carry, or an SA with this SPI.
        """
        self._check(sa)
        if not covers(sa.selector, self._spd[sa.policy].selector):
            raise InvalidSa(f"the SA's selector does not cover that of policy {sa.policy!r}")
        before = self._sad.carriers.get(sa.policy)
        added = self._sad.add_outbound(sa, now)
        waiting = [] if before is None or before.rate is None else before.rate.take_all()
        added.silence = self._silences.of(self._spd[sa.policy].peer)
        added.narrow(self._paths.octets(sa.remote.address))
        if self._spd[sa.policy].large:
            added.told_above = LARGE_OCTETS
        if sa.encapsulation is Encapsulation.UDP:
            self._keepalives.expect(now)
        expired, held = self._holds.take(sa.policy, now)
        self.count_drop(DropReason.HOLD_EXPIRED, expired)
        return self.protect(waiting + held, now)

    def remove_inbound(self, spi: int) -> None:
        """Stop to open packets of this SA.

        Raises:
            UnknownSa: there is none.
        """
        self._drop_waiting(self._sad.remove_inbound(spi))

    def remove_outbound(self, policy: str, spi: int) -> None:
        """Stop to use this SA: the next newest of the policy takes over. (Two peers may have chosen the same SPI.)

        Raises:
            UnknownSa: there is none.
        """
        self._drop_waiting(self._sad.remove_outbound(policy, spi))

    def _drop_waiting(self, sa: InboundSa | OutboundSa) -> None:
        """Count what waits in an SA that has gone: no successor has taken it over."""
        for reason in sa.abandon():
            self._drop(reason)

    def _check(self, sa: SaParameters) -> None:
        check_parameters(sa)
        check_selector(sa.selector)
        if sa.policy not in self._holds:
            raise InvalidSa(f"there is no policy {sa.policy!r} that protects")

    # --- packets ---

    def protect(self, packets: Sequence[bytes], now: float) -> list[Outgoing]:
        """Seal ``packets`` from the inside, in order (RFC 4301 §5.1), but for those that wait or are dropped.

        Args:
            packets: whole IPv4 or IPv6 packets.
            now: seconds, on the clock of all other calls.
        """
        sealed: list[Outgoing] = []
        for alike in runs(packets) if len(packets) > 1 else (packets,):
            if len(alike) < 2 or not self._protect_run(alike, now, sealed):
                self._protect_each(alike, now, sealed)
        return sealed

    def _protect_run(self, packets: Sequence[bytes], now: float, sealed: list[Outgoing]) -> bool:
        """Add ``packets``, which have the shape of the first, sealed. False where each has to be looked at."""
        inner = parse_inner(packets[0])
        if inner is None or inner[0] != len(packets[0]):
            return False
        policy = self._lookup(inner[1])
        sa = None if policy is None else self._sad.carriers.get(policy.name)
        if sa is None or now >= sa.hard_at or not sa.takes_run(packets):
            return False
        sealed += sa.seal_run(packets, now)
        self._accounts.add(len(packets), len(packets) * len(packets[0]))
        if len(packets[0]) > sa.told_above and now >= sa.tell_at:
            self._tell_large(sa, now)
        if sa.silence.since > now:
            self._has_sealed(sa, now)
        return True

    def _protect_each(self, packets: Sequence[bytes], now: float, sealed: list[Outgoing]) -> None:
        lookup, carriers, fragments = self._lookup, self._sad.carriers, self._fragments
        for packet in packets:
            inner = parse_inner(packet)
            if inner is None or inner[0] != len(packet):
                self._drop(DropReason.NOT_IP)
                continue
            flow = inner[1]
            if fragments is not None:
                flow = fragments.flow_of(packet, flow, now)
            policy = lookup(flow)
            sa = None if policy is None else carriers.get(policy.name)
            if sa is None or now >= sa.hard_at:
                sa = self._carrier(packet, policy, now)
                if sa is None:
                    continue
            if fragments is not None and sa.whole_only and is_later_fragment(packet):
                self._drop(DropReason.NOT_WHOLE, sa)
                continue
            if flow[0] == TCP and packet[FLAGS[packet[0]]] in SYN:
                packet = self._fit.clamped(packet, sa.largest)
            if sa.rate is not None or len(packet) > sa.largest:
                sealed += self._protect_otherwise(packet, sa, now)
                continue
            try:
                sealed.append(sa.seal(packet, now))
            except NotSealed as refused:
                self._not_sealed(refused.reason, sa)
                continue
            self._accounts.add(1, len(packet))
            if len(packet) > sa.told_above and now >= sa.tell_at:
                self._tell_large(sa, now)
            if sa.silence.since > now or sa.packets >= sa.alarm_packets or sa.octets >= sa.alarm_octets:
                self._has_sealed(sa, now)

    def _protect_otherwise(self, packet: bytes, sa: OutboundSa, now: float) -> list[Outgoing]:
        """The same for a packet that waits for its turn at a constant rate, or is larger than the path carries."""
        if len(packet) > sa.told_above and now >= sa.tell_at:
            self._tell_large(sa, now)
        if sa.rate is not None:
            if not sa.rate.put(packet):
                self._drop(DropReason.PACE_QUEUE_FULL, sa)
            return []
        pieces = self._fit.cut(packet, sa.largest, sa.parameters.mode, whole_only=sa.whole_only)
        if not pieces:
            self._drop(DropReason.TOO_BIG, sa)
        sealed: list[Outgoing] = []
        for piece in pieces:
            try:
                outgoing = sa.seal(piece, now)
            except NotSealed as refused:
                self._not_sealed(refused.reason, sa)
                continue
            # There is no smaller one to be had: see :meth:`esp.fit.Fit.cut`.
            sealed.append(outgoing if len(piece) <= sa.largest else outgoing._replace(dont_fragment=False))
            self._accounts.add(1, len(piece))
        if sealed:
            self._has_sealed(sa, now)  # once: the SA may go with it
        return sealed

    def _tell_large(self, sa: OutboundSa, now: float) -> None:
        sa.tell_at = now + LARGE_SECONDS
        self._events.put(LargeSent(sa.parameters.policy))

    def _has_sealed(self, sa: OutboundSa, now: float) -> None:
        """A packet has left by ``sa``: it waits for an answer from now on, and may have been the last."""
        if sa.silence.since > now:
            sa.silence.sent(now)
            self._silences.wait(sa.silence)
        if sa.packets >= sa.alarm_packets or sa.octets >= sa.alarm_octets:
            self._expire(sa, now)

    def take_replies(self) -> list[bytes]:
        """What the engine itself has to say to the inside since the last call: ICMP errors, a bounded number."""
        return self._fit.take_replies()

    def learn_path(self, remote: Endpoint, octets: int, quoted: bytes | None, now: float) -> bool:
        """A datagram to ``remote`` did not fit a path that carries ``octets``. Whether that is believed.

        Args:
            remote: where the datagram went.
            octets: of the largest IP packet, as ICMP has it.
            quoted: the first octets of the ESP packet, which nobody knows but those on its way: an error about none
                of ours is nobody's (RFC 4301 §8.2.1). None where it is this host's own kernel who says so.
            now: seconds.
        """
        if quoted is not None and not self._sad.sent_lately(remote.address, quoted):
            return False
        if self._paths.narrow(remote.address, octets, now):
            self._sad.narrow(remote.address, self._paths.octets(remote.address))
            self._events.put(PathNarrowed(remote.address, self._paths.octets(remote.address)))
        return True

    def confirm_path(self, address: str, octets: int) -> None:
        """The path to the outer ``address`` carries ``octets`` and no more: that has been tried (RFC 8899)."""
        if self._paths.confirm(address, octets):
            self._sad.narrow(address, self._paths.octets(address))

    def pace(self, now: float) -> list[Outgoing]:
        """What goes out by the clock: AGGFRAG payloads of SAs with a constant rate, and dummies (RFC 4303 §2.6)."""
        sealed: list[Outgoing] = []
        for sa in list(self._sad.paced.values()):
            if now >= sa.hard_at:
                self._expire(sa, now)
                continue
            if now < sa.due_at():
                continue  # as most are, where there are many: not to be asked costs a tenth
            before = sa.packets
            try:
                sealed += sa.seal_due(now)
            except NotSealed:  # nothing is lost by it: what waits is for the SA that comes after
                del self._sad.paced[sa.parameters.policy]
                self._events.put(CounterExhausted(sa.parameters.policy, sa.parameters.spi))
            if sa.rate is not None:
                self._accounts.add(*sa.rate.take_gone())
            # The peer of a constant rate has one too: its next payload is never long in coming, whatever is in ours.
            sent = sa.rate is not None and sa.packets > before
            if sent or sa.packets >= sa.alarm_packets or sa.octets >= sa.alarm_octets:
                self._has_sealed(sa, now)
        return sealed

    def pace_deadline(self) -> float:
        """When :meth:`pace` has something to do; infinity while no SA sends by the clock."""
        return min((sa.due_at() for sa in self._sad.paced.values()), default=inf)

    def _carrier(self, packet: bytes, policy: Policy | None, now: float) -> OutboundSa | None:
        """The SA that carries ``packet`` now that the newest does not; None when it has been dropped or held."""
        if policy is None:
            self._drop(DropReason.NO_POLICY)
            return None
        sa = self._sad.carriers.get(policy.name)
        while sa is not None and now >= sa.hard_at:
            self._expire(sa, now)
            sa = self._sad.carriers.get(policy.name)
        if sa is None:
            self._refuse_or_hold(packet, policy, now)
        return sa

    def _refuse_or_hold(self, packet: bytes, policy: Policy, now: float) -> None:
        if policy.action is not Action.PROTECT:
            self._drop(_REFUSALS[policy.action])
            return
        full, asked = self._holds.put(policy.name, packet, now)
        if full:
            self._drop(DropReason.HOLD_QUEUE_FULL)
        if asked:
            self._events.put(Acquired(policy.name))

    def _not_sealed(self, reason: DropReason, sa: OutboundSa) -> None:
        if reason is DropReason.SEQUENCE_EXHAUSTED and reason not in sa.drops:
            self._events.put(CounterExhausted(sa.parameters.policy, sa.parameters.spi))
        self._drop(reason, sa)

    def unprotect(self, datagrams: Sequence[Incoming], now: float) -> list[bytes]:
        """Open ``datagrams`` from the link, in order (RFC 4301 §5.2); returns the inner packets that may pass.

        Args:
            datagrams: ESP, as :func:`esp.wire.classify` tells; any octets do no harm.
            now: seconds, on the clock of all other calls.
        """
        packets: list[bytes] = []
        inbound = self._sad.inbound
        for datagram, source, traffic_class in datagrams:
            if len(datagram) < ESP_HEADER.size:
                self._drop(DropReason.MALFORMED)
                continue
            spi, sequence = ESP_HEADER.unpack_from(datagram)
            sa = inbound.get(spi)
            if sa is None:
                self._drop_unknown(spi, source, now)
                continue
            if now >= sa.hard_at:
                self._expire(sa, now)
                self._drop(DropReason.SA_EXPIRED, sa)
                continue
            top = sa.window.top
            text = sa.authenticate(datagram, sequence)
            if not isinstance(text, bytes):
                self._drop(text, sa)
                continue
            if sa.silence.heard_at < now:  # once a batch is enough
                sa.silence.heard(now)
            if source != sa.remote and sa.window.top > top:
                self._follow(sa, source)
            for packet in sa.unwrap(text, sequence, traffic_class, now):
                if not isinstance(packet, bytes):
                    self._drop(packet, sa)
                    continue
                if packet[FLAGS[packet[0]]] in SYN:
                    packet = self._clamped(packet, sa)
                packets.append(packet)
            if sa.packets >= sa.alarm_packets or sa.octets >= sa.alarm_octets:
                self._expire(sa, now)
        self._accounts.opened(packets)
        return packets

    def unprotect_run(self, run: Run, now: float) -> list[bytes]:
        """As ``unprotect``, for datagrams that have come as one."""
        spi, _ = ESP_HEADER.unpack_from(run.datagrams)
        sa = self._sad.inbound.get(spi)
        if sa is None or now >= sa.hard_at or run.source != sa.remote or not sa.takes_run(run):
            return self.unprotect(run.split(), now)
        packets: list[bytes] = []
        authentic = 0
        for first, followers in sa.open_run(run, now):
            packets += self._passed((first,), sa)
            packets += followers
            authentic += 1 + len(followers)
        if authentic and sa.silence.heard_at < now:
            sa.silence.heard(now)
        self._accounts.opened(packets)
        return packets + self.unprotect(run.split(authentic), now)

    def _passed(self, found: Iterable[bytes | DropReason], sa: InboundSa) -> list[bytes]:
        """The packets that ``sa`` lets pass; what is none is counted."""
        packets: list[bytes] = []
        for packet in found:
            if isinstance(packet, bytes):
                packets.append(self._clamped(packet, sa) if packet[FLAGS[packet[0]]] in SYN else packet)
            else:
                self._drop(packet, sa)
        return packets

    def _drop_unknown(self, spi: int, source: Endpoint, now: float) -> None:
        self._drop(DropReason.UNKNOWN_SPI)
        if now >= self._tell_unknown_spi_at:
            self._tell_unknown_spi_at = now + UNKNOWN_SPI_SECONDS
            self._events.put(UnknownSpiSeen(spi, source))

    def release(self, now: float) -> list[bytes]:
        """Inner packets that have waited long enough for an AGGFRAG payload before them (RFC 9347 §2.2.3)."""
        late = [sa for sa in self._sad.reassembling.values() if now >= sa.gap_ends()]
        packets = [packet for sa in late for packet in self._passed(sa.give_up(now), sa)]
        self._accounts.opened(packets)
        return packets

    def release_deadline(self) -> float:
        """When :meth:`release` has something to do; infinity while nothing waits."""
        return min((sa.gap_ends() for sa in self._sad.reassembling.values()), default=inf)

    def _clamped(self, packet: bytes, sa: InboundSa) -> bytes:
        """A SYN of the peer's side: what ours will send by it has to go through the other way."""
        back = self._sad.carriers.get(sa.parameters.policy)
        return packet if back is None else self._fit.clamped(packet, back.largest)

    def admit(self, packets: Sequence[bytes]) -> list[bytes]:
        """Those of ``packets``, which have come from the outside in the clear, that may pass (RFC 4301 §5.2, step 3b).

        Whoever has such packets in hand asks; where the kernel has them, nobody does (docs/decisions.md).
        """
        refusals = [self._spd.refusal(packet) for packet in packets]
        for reason in filter(None, refusals):
            self._drop(reason)
        return [packet for packet, reason in zip(packets, refusals, strict=True) if reason is None]

    def follow(self, policy: str, remote: Endpoint) -> None:
        """Send what the SAs of ``policy`` carry to ``remote``: keying has authentically heard the peer there."""
        for each in self._sad.of_policy(policy):
            each.follow(remote)
            if isinstance(each, OutboundSa):
                each.narrow(self._paths.octets(remote.address))
        self._keepalives.look()  # there they have perhaps not heard from us for long

    def _follow(self, sa: InboundSa, source: Endpoint) -> None:
        """The peer's newest authentic packet came from ``source``: send there (docs/decisions.md).

        Only the newest: an old packet that somebody kept and sends again from elsewhere moves nothing. All SAs of the
        policy move: else a late packet of an older SA would send us elsewhere, and no packet of the newer one, which
        comes from where that one has always been, would ever take us back. What came in another encapsulation than was
        agreed on says nothing of where to send in this one.
        """
        if (source.port == 0) is not (sa.parameters.encapsulation is Encapsulation.RAW):
            return
        self.follow(sa.parameters.policy, source)
        self._events.put(EndpointMoved(sa.parameters.policy, sa.parameters.spi, source))

    # --- time ---

    def expire(self, now: float) -> float | None:
        """Do what is due by the clock: lifetimes, waiting packets, asking again, peers that have fallen silent.

        Returns:
            When to call this and ``keepalives`` again; None while there is nothing to wait for. An install or a held
            packet can make it earlier.
        """
        for sa in self._sad.due(now):
            self._expire(sa, now)
        for address in self._paths.forget(now):
            self._sad.narrow(address, self._paths.octets(address))
        for spi, reassembling in self._sad.reassembling.items():
            told = reassembling.loss.report(reassembling.lost, reassembling.packets, now)
            if told is not None:
                self._events.put(PayloadsLost(reassembling.parameters.policy, spi, *told))
        expired, asked = self._holds.expire(now)
        self.count_drop(DropReason.HOLD_EXPIRED, expired)
        for policy in asked:
            self._events.put(Acquired(policy))
        for peer in self._silences.broken(now):
            self._events.put(Unanswered(peer))
        return self.deadline()

    def _expire(self, sa: InboundSa | OutboundSa, now: float) -> None:
        limit = sa.reached(now)
        if limit is None:
            return
        inbound = isinstance(sa, InboundSa)
        policy, spi = sa.parameters.policy, sa.parameters.spi
        if limit is Limit.SOFT:
            self._events.put(SoftExpired(policy, spi, inbound))
            return
        self._events.put(HardExpired(policy, spi, inbound))
        self._drop_waiting(self._sad.remove_inbound(spi) if inbound else self._sad.remove_outbound(policy, spi))

    def deadline(self) -> float | None:
        """When ``expire`` or ``keepalives`` has something to do; None while neither has."""
        packets = min(self._keepalives.due_at, self._holds.deadline())
        earliest = min(packets, self._sad.next_deadline(), self._silences.due_at, self._paths.deadline())
        return None if earliest == inf else earliest

    def keepalives(self, now: float) -> list[Outgoing]:
        """As :meth:`esp.keepalive.Keepalives.take`."""
        return self._keepalives.take(now)

    # --- what became of it all ---

    def last_heard(self, peer: str) -> float | None:
        """When the newest authentic packet of a peer that is watched came in; None for never."""
        heard_at = self._silences.of(peer).heard_at
        return None if heard_at == -inf else heard_at

    def take_events(self) -> list[EspEvent]:
        """What has happened since the last call, in order; the same event is in it once."""
        return self._events.take()

    def count_drop(self, reason: DropReason, packets: int = 1) -> None:
        """Count packets that were dropped outside the engine: by the link, by the TUN, as junk."""
        self._accounts.count(reason, packets)

    def totals(self) -> Totals:
        """Counters of the whole as they are now; a copy."""
        return self._accounts.totals(self._events.lost, self._sad.unused_ecn)

    def sas(self) -> Iterator[SaStatistics]:
        """Of the SAs that there are now, each as it is when it is asked for."""
        return map(self._statistics_of, self._sad.all())

    def of_policy(self, policy: str) -> PolicyStatistics:
        """Of one policy as they are now; all zero of one that there is not."""
        return PolicyStatistics(
            sas=tuple(map(self._statistics_of, self._sad.of_policy(policy))),
            carried=self._sad.carried_for(policy),
            held=self._holds.length(policy) + self._sad.pacing(policy),
        )

    def statistics(self) -> Statistics:
        """Everything as it is now; a copy."""
        return Statistics(
            **asdict(self.totals()),
            sas=tuple(self.sas()),
            held={name: waiting + self._sad.pacing(name) for name, waiting in self._holds.lengths().items()},
            carried=self._sad.carried(),
        )

    def _statistics_of(self, sa: InboundSa | OutboundSa) -> SaStatistics:
        return sa_statistics(sa)
