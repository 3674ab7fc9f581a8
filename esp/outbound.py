"""Outbound SAs at work: packets are sealed for one peer (RFC 4303 §3.3).

Which kind an SA is of is decided when it is installed: what one does not ask for is not asked about for each packet.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, ClassVar

from esp.aggfrag import AGGFRAG
from esp.ah import AH, ah_octets, make_ah_sealer
from esp.combined import CombinedSealer
from esp.crypto import make_sealer
from esp.datagram import ESP_PROTOCOL, Outgoing
from esp.errors import DropReason, InvalidSa
from esp.flow_label import FlowLabels
from esp.fragmentation import may_fragment
from esp.headers import DontFragment
from esp.lifetime import SaState, limit_of
from esp.mtu import IP_HEADER_OCTETS, largest_inner
from esp.pace import ConstantRate
from esp.policy import by_ports
from esp.sa import Endpoint, Mode, SecurityProtocol
from esp.seqnum import SendCounter
from esp.transport import Transport
from esp.tunnel import Tunnel
from esp.wire import ESP_HEADER, NO_NEXT_HEADER, build_trailers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from esp.sa import SaParameters

# RFC 768, RFC 791: 65,535 octets of IPv4 less its header and that of UDP. IPv6 and raw ESP could carry 20 and 8 more.
MAX_DATAGRAM = 65_507
# Ours. A sixteenth of the counter leaves a rekey a quarter of a billion packets of time (RFC 4303 §3.3.3).
_SEQUENCE_MARGIN = 16

# Of the datagrams of an SA; COPY asks each packet.
_DONT_FRAGMENT = {DontFragment.AUTO: None, DontFragment.COPY: None, DontFragment.SET: True, DontFragment.CLEAR: False}

# ``Outgoing(...)`` goes through a Python function that NamedTuple makes: 300 ns, and this 180, for every packet.
_new = tuple.__new__


class OutboundSa(SaState):
    """Seals packets for one peer, as their mode has them and without anything else that could be asked for."""

    __slots__ = (
        "_block",
        "_counter",
        "_dont_fragment",
        "_dummy_after",
        "_largest",
        "_pad_to",
        "_random",
        "_seal",
        "_seal_run",
        "_trailers",
        "_wrap",
        "largest",
        "rate",
        "runs",
        "sent_at",
        "tell_at",
        "told_above",
        "whole_only",
    )

    protocol: ClassVar[int] = ESP_PROTOCOL  # of the outer IP header, where there is no UDP

    def __init__(self, parameters: SaParameters, now: float, random: Callable[[int], bytes]) -> None:
        super().__init__(parameters, now)
        suite = parameters.suite
        self.whole_only = by_ports(parameters.selector) and not parameters.fragments
        self.told_above, self.tell_at = inf, -inf  # octets of packets that the engine tells of, and when again
        self.sent_at = now  # installed by an exchange that has just passed: a NAT has heard from us
        last = parameters.sequence_max
        self._counter = SendCounter(parameters.sequence, last)
        self._random = random
        # Ciphers are keyed for the first packet: an SA may be rekeyed before it carries one (RFC 4430 §3.2).
        self._seal: Callable[[int, bytes], bytes] | None = None
        self._seal_run: Callable[[int, Iterable[bytes]], list[bytes]] | None = None
        self.runs = False  # whether it may be given several packets at once, for all it knows
        self._block = suite.block_octets
        transport = parameters.mode is Mode.TRANSPORT
        self._wrap = (Transport(parameters.selector) if transport else Tunnel(parameters.headers, {})).wrap
        self._dont_fragment = _DONT_FRAGMENT[parameters.headers.df]
        self._trailers: dict[int, tuple[bytes, ...]] = {}  # by next header, as they come
        shape, aggregation = parameters.confidentiality, parameters.aggregation
        self._pad_to = 0 if shape is None else shape.octets
        self._dummy_after = inf if shape is None else limit_of(shape.dummy_after)
        self.rate = None if aggregation is None else ConstantRate(aggregation, now)
        room = MAX_DATAGRAM - ESP_HEADER.size - suite.iv_octets - suite.icv_octets
        self._largest = room - room % self._block - 2
        self.largest = self._largest
        self.alarm_packets = min(self.alarm_packets, max(last - last // _SEQUENCE_MARGIN - parameters.sequence, 1))

    @property
    def sequence(self) -> int:
        """The last number used."""
        return self._counter.last

    def narrow(self, path: int) -> None:
        """Its datagrams are to be IP packets of no more than ``path`` octets."""
        sa = self.parameters
        outer = self.remote.version
        self.largest = min(self._largest, largest_inner(sa.suite, sa.mode, sa.encapsulation, outer, path))
        if self.rate is not None:
            self.rate.narrow(self.largest)

    def seal(self, packet: bytes, now: float) -> Outgoing:
        """The ESP packet (RFC 4303 §3.3) for ``packet``, an IP packet that fits.

        Raises:
            NotSealed: the counter is at its end (:class:`esp.seqnum.SendCounter`), or the mode cannot carry it.
        """
        payload, next_header, traffic_class = self._wrap(packet)
        sealed = self._seal_payload(self._counter.next(), payload, next_header, now)
        return _new(Outgoing, (sealed, self.remote, traffic_class, self._dont_fragment, 0, self.protocol))

    def takes_run(self, packets: Sequence[bytes]) -> bool:
        """Whether :meth:`seal_run` does what :meth:`seal` of each would do, and nothing becomes of it that wants a look
        in between: a lifetime that ends, a counter, a packet that does not fit.
        """
        count, octets = len(packets), len(packets[0])
        return (
            self.runs
            and octets <= self.largest
            and self.packets + count < self.alarm_packets
            and self.octets + count * (octets + self._block + 2) < self.alarm_octets
            and self._counter.has(count)
        )

    def seal_run(self, packets: Sequence[bytes], now: float) -> list[Outgoing]:
        """As :meth:`seal` of each of ``packets``, which have one shape (:mod:`esp.shape`)."""
        payload, next_header, traffic_class = self._wrap(packets[0])
        trailer = (self._trailers.get(next_header) or self._trailers_for(next_header))[len(payload) % self._block]
        if self._seal_run is None:
            self._keyed()
        assert self._seal_run is not None
        sealed = self._seal_run(self._counter.take(len(packets)), [packet + trailer for packet in packets])
        self.packets += len(packets)
        self.octets += len(packets) * (len(payload) + len(trailer))
        self.sent_at = now
        header = (self.remote, traffic_class, self._dont_fragment, 0, self.protocol)
        return [_new(Outgoing, (datagram, *header)) for datagram in sealed]

    def abandon(self) -> Sequence[DropReason]:
        """As of any SA: what waits for its turn."""
        return () if self.rate is None else [DropReason.SA_EXPIRED] * len(self.rate.take_all())

    def paced(self) -> bool:
        """Whether it sends by the clock: at a constant rate, or dummies when nothing else goes out."""
        return self.rate is not None or self._dummy_after < inf

    def keep_step(self, before: OutboundSa) -> None:
        """Send next when ``before``, whose place it takes, would have: an observer sees no break but a new SPI."""
        self.sent_at = before.sent_at
        if self.rate is not None and before.rate is not None:
            self.rate.at = before.rate.at

    def due_at(self) -> float:
        """When ``seal_due`` has something, as far as is known now."""
        return self.sent_at + self._dummy_after if self.rate is None else self.rate.at

    def seal_due(self, now: float) -> Iterator[Outgoing]:
        """What goes out by the clock: AGGFRAG payloads (RFC 9347 §2.2), or a dummy (RFC 4303 §2.6).

        Raises:
            NotSealed: the counter is at its end (:class:`esp.seqnum.SendCounter`); what waits, waits on.
        """
        traffic_class = self.parameters.headers.dscp[0] << 2  # as that of a packet without a wish of its own
        due = int(now >= self.due_at()) if self.rate is None else self.rate.due(now)
        for _ in range(due):
            number = self._counter.next()
            payload, next_header = self._next_due()
            sealed = self._seal_payload(number, payload, next_header, now)
            yield Outgoing(sealed, self.remote, traffic_class, self._dont_fragment)

    def _next_due(self) -> tuple[bytes, int]:
        if self.rate is None:
            return bytes(min(self._pad_to, self.largest)), NO_NEXT_HEADER
        return self.rate.next_payload(), AGGFRAG

    def _seal_payload(self, number: int, payload: bytes, next_header: int, now: float) -> bytes:
        trailers = self._trailers.get(next_header) or self._trailers_for(next_header)
        text = payload + trailers[len(payload) % self._block]
        sealed = (self._seal or self._keyed())(number, text)
        self.packets += 1
        self.octets += len(text)
        self.sent_at = now
        return sealed

    def _trailers_for(self, next_header: int) -> tuple[bytes, ...]:
        found = self._trailers[next_header] = build_trailers(self._block, next_header)
        return found

    def _keyed(self) -> Callable[[int, bytes], bytes]:
        sa = self.parameters
        sealer = make_sealer(sa.suite, sa.spi, sa.keymat, self._random, esn=sa.esn)
        self._seal = sealer.seal
        if isinstance(sealer, CombinedSealer):
            self._seal_run = sealer.seal_run
        return self._seal


class ShapedOutboundSa(OutboundSa):
    """Likewise, with TFC padding (RFC 4303 §2.7), DF of the inner packet, or a label for each flow."""

    __slots__ = ("_copies_df", "_labels")

    def __init__(self, parameters: SaParameters, now: float, random: Callable[[int], bytes]) -> None:
        super().__init__(parameters, now, random)
        self._copies_df = parameters.headers.df is DontFragment.COPY
        self._labels = FlowLabels(random(16)) if parameters.headers.flow_labels else None

    def seal(self, packet: bytes, now: float) -> Outgoing:
        """As for any SA."""
        payload, next_header, traffic_class = self._wrap(packet)
        if len(payload) < self._pad_to:
            payload = payload.ljust(min(self._pad_to, self.largest), b"\0")
        dont_fragment = not may_fragment(packet) if self._copies_df else self._dont_fragment
        label = 0 if self._labels is None else self._labels.label_of(packet)
        sealed = self._seal_payload(self._counter.next(), payload, next_header, now)
        return Outgoing(sealed, self.remote, traffic_class, dont_fragment, label, self.protocol)


class AhOutboundSa(ShapedOutboundSa):
    """Authenticates packets for one peer, and the outer header with them (RFC 4302); whole IP packets leave.

    Raises:
        InvalidSa: the local address is not there, or not of the family of the remote one.
    """

    __slots__ = ()

    protocol = AH

    def __init__(self, parameters: SaParameters, now: float, random: Callable[[int], bytes]) -> None:
        super().__init__(parameters, now, random)
        version = parameters.remote.version
        if not parameters.local or Endpoint(parameters.local, 0).version != version:
            raise InvalidSa(f"AH from {parameters.local or 'nowhere'} to {parameters.remote.address}")
        self._block = 1  # nothing is aligned but the header itself
        self._largest = 0xFFFF - 20 - ah_octets(parameters.suite, version)

    def follow(self, remote: Endpoint) -> None:
        """Send to ``remote`` from now on, if there is a way from the local address."""
        if remote.version == self.remote.version:
            super().follow(remote)
            self._seal = None

    def narrow(self, path: int) -> None:
        """As for ESP."""
        version = self.remote.version
        outer = IP_HEADER_OCTETS[version] if self.parameters.mode is Mode.TUNNEL else 0
        self.largest = min(self._largest, path - outer - ah_octets(self.parameters.suite, version))

    def _keyed(self) -> Callable[[int, bytes], bytes]:
        sa = self.parameters
        sealer = make_ah_sealer(sa.suite, sa.spi, sa.keymat, sa.local, self.remote.address, esn=sa.esn)
        self._seal = sealer.seal
        return self._seal


def make_outbound(parameters: SaParameters, now: float, random: Callable[[int], bytes]) -> OutboundSa:
    """The SA that ``parameters`` describe, of the plainest kind that does what they ask for.

    Raises:
        InvalidSa: see :class:`AhOutboundSa`.
    """
    headers = parameters.headers
    if parameters.protocol is SecurityProtocol.AH:
        return AhOutboundSa(parameters, now, random)
    if parameters.confidentiality is not None or headers.flow_labels or headers.df is DontFragment.COPY:
        return ShapedOutboundSa(parameters, now, random)
    plain = OutboundSa(parameters, now, random)
    plain.runs = parameters.mode is Mode.TUNNEL and plain.rate is None and parameters.suite.integrity is None
    return plain
