"""Inbound SAs at work: packets of one peer are authenticated, opened and checked (RFC 4303 §3.4, RFC 4301 §5.2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from esp.aggfrag import AGGFRAG, Reassembler
from esp.ah import ah_octets, make_ah_opener
from esp.combined import CombinedOpener
from esp.crypto import make_opener
from esp.errors import AuthenticationFailed, DropReason
from esp.fragment_flows import FragmentFlows
from esp.lifetime import SaState
from esp.loss import Loss
from esp.policy import Direction, by_ports
from esp.sa import Mode, SecurityProtocol
from esp.seqnum import ReplayWindow
from esp.shape import NO_SHAPE, shape_of
from esp.spd import Match, SelectorMatcher
from esp.transport import Transport
from esp.tunnel import ECN_FIELD, Tunnel, traffic_class_of
from esp.wire import ESP_HEADER, IPV4_IN_ESP, IPV6_IN_ESP, parse_trailer

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from esp.datagram import Run
    from esp.inner import Flow
    from esp.sa import SaParameters

# Ours. So many packets in a row that are not authentic make an SA with extended numbers ask whether it has missed 2^32
# of them, and look so many subspaces ahead (RFC 4303 appendix A3). Whoever forges packets makes each 1 % dearer by it;
# at a million packets a second eight subspaces are nine hours, longer than SAs live.
_RESYNCHRONIZE_AFTER = 1024
_SUBSPACES_AHEAD = 8
# Ours. Flows of one SA that have passed its selector, about 200 octets each; a peer with more pays for matching again.
_MAX_ACCEPTED = 4096


_Unwrap = Callable[[bytes, int, int], "tuple[bytes, Flow] | DropReason"]


class InboundSa(SaState):
    """Opens packets of one peer. ``unused_ecn``: see :class:`esp.tunnel.Tunnel`."""

    __slots__ = (
        "_accepted",
        "_block",
        "_esn",
        "_failed",
        "_failed_after",
        "_matcher",
        "_open",
        "_open_run",
        "_overhead",
        "_unwrap",
        "runs",
        "window",
    )

    def __init__(self, parameters: SaParameters, now: float, unused_ecn: MutableMapping[str, int]) -> None:
        super().__init__(parameters, now)
        suite = parameters.suite
        self.window = ReplayWindow(parameters.replay_window)
        self._esn = parameters.esn
        self._failed = self._failed_after = 0  # with extended numbers: not authentic in a row, after so many that were
        transport = parameters.mode is Mode.TRANSPORT
        mode = Transport(parameters.selector) if transport else Tunnel(parameters.headers, unused_ecn)
        self._unwrap: _Unwrap = mode.unwrap
        if parameters.fragments and by_ports(parameters.selector):
            self._unwrap = self._with_ports(self._unwrap, FragmentFlows())
        self._open: Callable[[bytes, int], bytes] | None = None  # for the first packet, as above
        self._open_run: Callable[[bytes, int, int], list[bytes]] | None = None
        self.runs = False  # whether it may be given several packets at once, for all it knows
        self._block = suite.block_octets
        self._overhead = ESP_HEADER.size + suite.iv_octets + suite.icv_octets
        self._matcher: SelectorMatcher | None = None  # likewise
        self._accepted: set[Flow] = set()

    def _with_ports(self, unwrap: _Unwrap, flows: FragmentFlows) -> _Unwrap:
        """``unwrap``, whose fragments have the ports of their packet's first (RFC 4301 §7.3)."""

        def unwrap_fragments(payload: bytes, next_header: int, traffic_class: int) -> tuple[bytes, Flow] | DropReason:
            unwrapped = unwrap(payload, next_header, traffic_class)
            if not isinstance(unwrapped, tuple):
                return unwrapped
            packet, flow = unwrapped
            return packet, flows.flow_of(packet, flow, self.silence.heard_at)  # this packet was heard now

        return unwrap_fragments

    @property
    def sequence(self) -> int:
        """The newest number accepted."""
        return self.window.top

    def authenticate(self, packet: bytes, sequence: int) -> bytes | DropReason:
        """Payload and trailer of ``packet``; nothing changes before its ICV is verified (RFC 4303 §3.4.3-3.4.4).

        Args:
            packet: ESP, with at least a header.
            sequence: as its header has it, 32 bits.
        """
        octets = len(packet) - self._overhead
        if octets < self._block or octets % self._block:
            return DropReason.MALFORMED
        if self._esn:
            sequence = self.window.extended(sequence)
        if sequence <= self.window.top:  # nearly every packet is newer than all before it: nothing to look up
            refused = self.window.check(sequence)
            if refused is not None:
                return refused
        try:
            text = (self._open or self._keyed())(packet, sequence)
        except AuthenticationFailed:
            found = self._resynchronize(packet, sequence) if self._esn else None
            if found is None:
                return DropReason.AUTHENTICATION_FAILED
            sequence, text = found
        self.window.mark(sequence)
        self.packets += 1
        self.octets += octets
        return text

    def takes_run(self, run: Run) -> bool:
        """Whether :meth:`open_run` does what :meth:`authenticate` of each would do, and nothing becomes of it that
        wants a look in between: a lifetime that ends, a number that is not new.
        """
        count, text = run.count, run.octets - self._overhead
        low = int.from_bytes(run.datagrams[4:8])
        return (
            self.runs
            and text >= self._block
            and not text % self._block
            and not run.traffic_class & ECN_FIELD
            and self.packets + count < self.alarm_packets
            and self.octets + count * text < self.alarm_octets
            and self.window.top < (self.window.extended(low) if self._esn else low)
        )

    def open_run(self, run: Run, now: float) -> list[tuple[bytes | DropReason, list[bytes]]]:
        """What :meth:`unwrap` makes of the packets of ``run``, up to the first that is not authentic.

        Each of what it has looked at, with the packets that follow it and have its shape (:mod:`esp.shape`).
        """
        opened: list[tuple[bytes | DropReason, list[bytes]]] = []
        followers: list[bytes] = []
        (octets, mask, value), trailer, end = NO_SHAPE, b"", 0
        from_bytes = int.from_bytes
        for text in self._authenticate_run(run):
            if text[end:] == trailer and from_bytes(text[:octets]) & mask == value:
                followers.append(text[:end])
                continue
            (found,) = self.unwrap(text, 0, run.traffic_class, now)
            followers = []
            opened.append((found, followers))
            if isinstance(found, bytes):
                octets, mask, value = shape_of(found) or NO_SHAPE
                end = len(found)
                trailer = text[end:]
        return opened

    def _authenticate_run(self, run: Run) -> list[bytes]:
        """Payload and trailer of each packet of ``run``, likewise."""
        first = int.from_bytes(run.datagrams[4:8])
        if self._esn:
            first = self.window.extended(first)
        if self._open_run is None:
            self._keyed()
        assert self._open_run is not None
        texts = self._open_run(run.datagrams, run.octets, first)
        if texts:
            self.window.mark_run(first, len(texts))
            self.packets += len(texts)
            self.octets += len(texts) * (run.octets - self._overhead)
        return texts

    def _resynchronize(self, packet: bytes, sequence: int) -> tuple[int, bytes] | None:
        """The number in a later subspace under which ``packet`` is authentic after all, and its text.

        RFC 4303 appendix A3. An older packet never is: only numbers beyond the window are tried.
        """
        if self.packets != self._failed_after:
            self._failed, self._failed_after = 0, self.packets
        self._failed += 1
        if self._failed % _RESYNCHRONIZE_AFTER:
            return None
        opened = self._open or self._keyed()
        for number in range(sequence + 2**32, min(sequence + _SUBSPACES_AHEAD * 2**32, 2**64 - 1) + 1, 2**32):
            with suppress(AuthenticationFailed):
                return number, opened(packet, number)
        return None

    def _keyed(self) -> Callable[[bytes, int], bytes]:
        sa = self.parameters
        opener = make_opener(sa.suite, sa.keymat, esn=sa.esn)
        self._open = opener.open
        if isinstance(opener, CombinedOpener):
            self._open_run = opener.open_run
        return self._open

    def unwrap(self, text: bytes, sequence: int, traffic_class: int, now: float) -> Sequence[bytes | DropReason]:
        """The IP packets in the authentic ``text`` that this SA may carry (RFC 4303 §2.4-2.7, RFC 4301 §5.2).

        And a reason for each that is not delivered. An AGGFRAG payload has any number of both, others have one.
        """
        trailer = parse_trailer(text)
        if not isinstance(trailer, tuple):
            return (trailer,)
        end, next_header = trailer
        return (self._admit(text[:end], next_header, traffic_class),)

    def _admit(self, payload: bytes, next_header: int, traffic_class: int) -> bytes | DropReason:
        unwrapped = self._unwrap(payload, next_header, traffic_class)
        if not isinstance(unwrapped, tuple):
            return unwrapped
        packet, flow = unwrapped
        return packet if flow in self._accepted or self._accept(flow) else DropReason.SELECTOR_MISMATCH

    def _accept(self, flow: Flow) -> bool:
        self._matcher = self._matcher or SelectorMatcher(self.parameters.selector, Direction.INBOUND)
        if self._matcher.match(flow) is not Match.YES:
            return False
        if len(self._accepted) >= _MAX_ACCEPTED:
            self._accepted.clear()
        self._accepted.add(flow)
        return True


class AggregatedInboundSa(InboundSa):
    """Likewise, where the peer aggregates packets and fragments them (RFC 9347)."""

    __slots__ = ("_reassembler", "loss")

    def __init__(self, parameters: SaParameters, now: float, unused_ecn: MutableMapping[str, int]) -> None:
        super().__init__(parameters, now, unused_ecn)
        self._reassembler = Reassembler(3 if parameters.aggregation is None else parameters.aggregation.reorder)
        self.loss = Loss()

    @property
    def lost(self) -> int:
        """Payloads that did not come, or too late to be of use."""
        return self._reassembler.lost

    def unwrap(self, text: bytes, sequence: int, traffic_class: int, now: float) -> Sequence[bytes | DropReason]:
        """As for any SA; packets that are not in an AGGFRAG payload come as they do there."""
        trailer = parse_trailer(text)
        if not isinstance(trailer, tuple):
            return (trailer,)
        end, next_header = trailer
        if next_header != AGGFRAG:
            return (self._admit(text[:end], next_header, traffic_class),)
        if self._esn:  # it is in the window by now: no other number is meant
            sequence = self.window.extended(sequence)
        return [self._unwrap_block(block) for block in self._reassembler.receive(sequence, text[:end], now)]

    def give_up(self, now: float) -> list[bytes | DropReason]:
        """As ``unwrap``, of what has waited long enough for a payload that is missing (RFC 9347 §2.2.3)."""
        return [self._unwrap_block(block) for block in self._reassembler.give_up(now)]

    def abandon(self) -> Sequence[DropReason]:
        """As of any SA: what waits for a payload before it."""
        waiting = self._reassembler.take_all()
        return [DropReason.SA_EXPIRED if isinstance(block, bytes) else block for block in waiting]

    def gap_ends(self) -> float:
        """When ``give_up`` has something; infinity while nothing waits."""
        return self._reassembler.gap_ends

    def _unwrap_block(self, block: bytes | DropReason) -> bytes | DropReason:
        if not isinstance(block, bytes):
            return block
        # The outer header belongs to the rate, not to what happens to be inside (RFC 9347 §2.2.5).
        next_header = IPV4_IN_ESP if block[0] >> 4 == 4 else IPV6_IN_ESP
        return self._admit(block, next_header, traffic_class_of(block) & ~ECN_FIELD)


class AhInboundSa(InboundSa):
    """Verifies packets of one peer, and their outer headers with them (RFC 4302)."""

    __slots__ = ()

    def __init__(self, parameters: SaParameters, now: float, unused_ecn: MutableMapping[str, int]) -> None:
        super().__init__(parameters, now, unused_ecn)
        version = parameters.remote.version
        self._block = 1
        # What there is besides payload, pad length and next header.
        outer = 20 if version == 4 else 40
        self._overhead = ESP_HEADER.size + outer + ah_octets(parameters.suite, version) - 2

    def _keyed(self) -> Callable[[bytes, int], bytes]:
        sa = self.parameters
        self._open = make_ah_opener(sa.suite, sa.keymat, esn=sa.esn).open
        return self._open


def make_inbound(parameters: SaParameters, now: float, unused_ecn: MutableMapping[str, int]) -> InboundSa:
    """The SA that ``parameters`` describe, of the plainest kind that does what they ask for."""
    if parameters.protocol is SecurityProtocol.AH:
        return AhInboundSa(parameters, now, unused_ecn)
    if parameters.aggregation is not None:
        return AggregatedInboundSa(parameters, now, unused_ecn)
    plain = InboundSa(parameters, now, unused_ecn)
    by_the_packet = parameters.headers.dscp_inward or (parameters.fragments and by_ports(parameters.selector))
    tunnel = parameters.mode is Mode.TUNNEL
    plain.runs = tunnel and not by_the_packet and parameters.suite.integrity is None
    return plain
