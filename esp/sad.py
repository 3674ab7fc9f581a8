"""The SAs an engine runs: what each has done, and where to find it (RFC 4301 §4.4.2)."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.constant_time import bytes_eq

from esp.aggfrag import AGGFRAG, Reassembler
from esp.ah import AH, ah_octets, make_ah_opener, make_ah_sealer
from esp.crypto import make_opener, make_sealer
from esp.datagram import Outgoing
from esp.errors import AuthenticationFailed, DropReason, EspError, InvalidSa, UnknownSa
from esp.flow_label import FlowLabels
from esp.fragmentation import may_fragment
from esp.headers import DontFragment
from esp.mtu import IP_HEADER_OCTETS, largest_inner
from esp.pace import ConstantRate
from esp.policy import Direction
from esp.sa import SPI_MIN, Encapsulation, Endpoint, Mode, SecurityProtocol
from esp.seqnum import ReplayWindow, SendCounter
from esp.silence import Silence
from esp.spd import Match, SelectorMatcher
from esp.transport import Transport
from esp.tunnel import ECN_FIELD, Tunnel, traffic_class_of
from esp.wire import ESP_HEADER, IPV4_IN_ESP, IPV6_IN_ESP, NO_NEXT_HEADER, build_trailers, parse_trailer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence

    from esp.inner import Flow
    from esp.sa import SaParameters

# RFC 768, RFC 791: 65,535 octets of IPv4 less its header and that of UDP. IPv6 and raw ESP could carry 20 and 8 more.
MAX_DATAGRAM = 65_507
# Ours. A sixteenth of the counter leaves a rekey a quarter of a billion packets of time (RFC 4303 §3.3.3).
_SEQUENCE_MARGIN = 16
# Ours. So many packets in a row that are not authentic make an SA with extended numbers ask whether it has missed 2^32
# of them, and look so many subspaces ahead (RFC 4303 appendix A3). Whoever forges packets makes each 1 % dearer by it;
# at a million packets a second eight subspaces are nine hours, longer than SAs live.
_RESYNCHRONIZE_AFTER = 1024
_SUBSPACES_AHEAD = 8
# Ours. Flows of one SA that have passed its selector, about 200 octets each; a peer with more pays for matching again.
_MAX_ACCEPTED = 4096
# Ours. With half of all SPIs taken, 64 draws fail once in 2^64 times: what fails then is the source of randomness.
_SPI_DRAWS = 64


# Ours. Deadlines of SAs that have gone are swept out when there are more of them than of living ones, and these many.
_FEW_DEADLINES = 64


def _mode(parameters: SaParameters, unused_ecn: MutableMapping[str, int]) -> Tunnel | Transport:
    if parameters.mode is Mode.TRANSPORT:
        return Transport(parameters.selector)
    return Tunnel(parameters.headers, unused_ecn)


# Of the datagrams of an SA; COPY asks each packet.
_DONT_FRAGMENT = {DontFragment.AUTO: None, DontFragment.COPY: None, DontFragment.SET: True, DontFragment.CLEAR: False}


class Limit(Enum):
    """Which lifetime has been reached (RFC 4301 §4.4.2.1)."""

    SOFT = "soft"
    HARD = "hard"


class SaState:
    """One SA at work: counters and lifetimes, whichever way it goes.

    ``octets`` counts what the cipher was applied to, as RFC 4301 §4.4.2.1 counts for lifetimes: payload and trailer.
    """

    __slots__ = (
        "_hard_octets",
        "_hard_packets",
        "_soft_at",
        "alarm_octets",
        "alarm_packets",
        "drops",
        "hard_at",
        "octets",
        "packets",
        "parameters",
        "remote",
        "silence",
    )

    def __init__(self, parameters: SaParameters, now: float) -> None:
        self.parameters = parameters
        self.remote = parameters.remote
        self.silence = Silence()  # the peer's, once the engine has put it here
        self.packets = self.octets = 0
        self.drops: defaultdict[DropReason, int] = defaultdict(int)
        lifetime = parameters.lifetime
        self._soft_at = now + _limit(lifetime.soft_seconds)
        self.hard_at = now + _limit(lifetime.hard_seconds)
        self._hard_packets, self._hard_octets = _limit(lifetime.hard_packets), _limit(lifetime.hard_octets)
        # The next of soft and hard, for one comparison a packet.
        self.alarm_packets = min(_limit(lifetime.soft_packets), self._hard_packets)
        self.alarm_octets = min(_limit(lifetime.soft_octets), self._hard_octets)

    def reached(self, now: float) -> Limit | None:
        """The hardest limit reached; the soft one is told of once."""
        if now >= self.hard_at or self.packets >= self._hard_packets or self.octets >= self._hard_octets:
            return Limit.HARD
        if now >= self._soft_at or self.packets >= self.alarm_packets or self.octets >= self.alarm_octets:
            self._soft_at = inf
            self.alarm_packets, self.alarm_octets = self._hard_packets, self._hard_octets
            return Limit.SOFT
        return None

    def follow(self, remote: Endpoint) -> None:
        """Send to ``remote`` from now on; behind raw ESP that is the address alone."""
        raw = self.parameters.encapsulation is Encapsulation.RAW
        self.remote = Endpoint(remote.address, 0) if raw else remote

    def deadline(self) -> float:
        """When ``reached`` is due by the clock."""
        return min(self._soft_at, self.hard_at)


def _limit(limit: float | None) -> float:
    return inf if limit is None else limit


class OutboundSa(SaState):
    """Seals packets for one peer."""

    __slots__ = (
        "_block",
        "_copies_df",
        "_counter",
        "_dont_fragment",
        "_dummy_after",
        "_labels",
        "_largest",
        "_pad_to",
        "_random",
        "_seal",
        "_trailers",
        "_wrap",
        "largest",
        "rate",
        "sent_at",
    )

    def __init__(self, parameters: SaParameters, now: float, random: Callable[[int], bytes]) -> None:
        super().__init__(parameters, now)
        suite = parameters.suite
        self.sent_at = now  # installed by an exchange that has just passed: a NAT has heard from us
        last = parameters.sequence_max
        self._counter = SendCounter(parameters.sequence, last)
        self._random = random
        # Ciphers are keyed for the first packet: an SA may be rekeyed before it carries one (RFC 4430 §3.2).
        self._seal: Callable[[int, bytes], bytes] | None = None
        self._block = suite.block_octets
        self._wrap = _mode(parameters, {}).wrap
        self._dont_fragment = _DONT_FRAGMENT[parameters.headers.df]
        self._copies_df = parameters.headers.df is DontFragment.COPY
        self._labels = FlowLabels(random(16)) if parameters.headers.flow_labels else None
        self._trailers: dict[int, tuple[bytes, ...]] = {}  # by next header, as they come
        shape, aggregation = parameters.confidentiality, parameters.aggregation
        self._pad_to = 0 if shape is None else shape.octets
        self._dummy_after = inf if shape is None else _limit(shape.dummy_after)
        self.rate = None if aggregation is None else ConstantRate(aggregation, now)
        room = MAX_DATAGRAM - ESP_HEADER.size - suite.iv_octets - suite.icv_octets
        self._largest = room - room % self._block - 2
        self.largest = self._largest
        self.alarm_packets = min(self.alarm_packets, max(last - last // _SEQUENCE_MARGIN - parameters.sequence, 1))

    @property
    def sequence(self) -> int:
        """The last number used."""
        return self._counter.last

    def fits(self, packet: bytes) -> bool:
        """Whether ``packet``, sealed, goes through in one piece; an aggregate is cut to its size anyway."""
        return len(packet) <= self.largest or self.rate is not None

    def narrow(self, path: int) -> None:
        """Its datagrams are to be IP packets of no more than ``path`` octets."""
        sa = self.parameters
        outer = 6 if ":" in self.remote.address else 4
        self.largest = min(self._largest, largest_inner(sa.suite, sa.mode, sa.encapsulation, outer, path))

    def seal(self, packet: bytes, now: float) -> Outgoing:
        """The ESP packet (RFC 4303 §3.3) for ``packet``, an IP packet that fits.

        Raises:
            NotSealed: the counter is at its end (:class:`esp.seqnum.SendCounter`), or the mode cannot carry it.
        """
        payload, next_header, traffic_class = self._wrap(packet)
        if len(payload) < self._pad_to:
            payload = payload.ljust(min(self._pad_to, self.largest), b"\0")
        dont_fragment = not may_fragment(packet) if self._copies_df else self._dont_fragment
        if len(packet) > self.largest:
            dont_fragment = False  # there is no smaller one to be had: see esp.fit
        label = 0 if self._labels is None else self._labels.label_of(packet)
        return Outgoing(self._seal_payload(payload, next_header, now), self.remote, traffic_class, dont_fragment, label)

    def paced(self) -> bool:
        """Whether it sends by the clock: at a constant rate, or dummies when nothing else goes out."""
        return self.rate is not None or self._dummy_after < inf

    def due_at(self) -> float:
        """When ``seal_due`` has something, as far as is known now."""
        return self.sent_at + self._dummy_after if self.rate is None else self.rate.at

    def seal_due(self, now: float) -> Iterator[Outgoing]:
        """What goes out by the clock: AGGFRAG payloads (RFC 9347 §2.2), or a dummy (RFC 4303 §2.6).

        Raises:
            NotSealed: the counter is at its end (:class:`esp.seqnum.SendCounter`).
        """
        traffic_class = self.parameters.headers.dscp[0] << 2  # as that of a packet without a wish of its own
        due: Iterable[tuple[bytes, int]] = ()
        if self.rate is not None:
            due = ((payload, AGGFRAG) for payload in self.rate.payloads(now))
        elif now >= self.due_at():
            due = ((bytes(min(self._pad_to, self.largest)), NO_NEXT_HEADER),)
        for payload, next_header in due:
            sealed = self._seal_payload(payload, next_header, now)
            yield Outgoing(sealed, self.remote, traffic_class, self._dont_fragment)

    def _seal_payload(self, payload: bytes, next_header: int, now: float) -> bytes:
        trailers = self._trailers.get(next_header) or self._trailers_for(next_header)
        text = payload + trailers[len(payload) % self._block]
        sealed = (self._seal or self._keyed())(self._counter.next(), text)
        self.packets += 1
        self.octets += len(text)
        self.sent_at = now
        return sealed

    def _trailers_for(self, next_header: int) -> tuple[bytes, ...]:
        found = self._trailers[next_header] = build_trailers(self._block, next_header)
        return found

    def _keyed(self) -> Callable[[int, bytes], bytes]:
        sa = self.parameters
        self._seal = make_sealer(sa.suite, sa.spi, sa.keymat, self._random, esn=sa.esn).seal
        return self._seal


class AhOutboundSa(OutboundSa):
    """Authenticates packets for one peer, and the outer header with them (RFC 4302).

    Raises:
        InvalidSa: the local address is not there, or not of the family of the remote one.
    """

    __slots__ = ()

    def __init__(self, parameters: SaParameters, now: float, random: Callable[[int], bytes]) -> None:
        super().__init__(parameters, now, random)
        version = _version(parameters.remote)
        if not parameters.local or _version(Endpoint(parameters.local, 0)) != version:
            raise InvalidSa(f"AH from {parameters.local or 'nowhere'} to {parameters.remote.address}")
        self._block = 1  # nothing is aligned but the header itself
        self._largest = 0xFFFF - 20 - ah_octets(parameters.suite, version)

    def follow(self, remote: Endpoint) -> None:
        """Send to ``remote`` from now on, if there is a way from the local address."""
        if _version(remote) == _version(self.remote):
            super().follow(remote)
            self._seal = None

    def narrow(self, path: int) -> None:
        """As for ESP."""
        version = _version(self.remote)
        outer = IP_HEADER_OCTETS[version] if self.parameters.mode is Mode.TUNNEL else 0
        self.largest = min(self._largest, path - outer - ah_octets(self.parameters.suite, version))

    def _keyed(self) -> Callable[[int, bytes], bytes]:
        sa = self.parameters
        sealer = make_ah_sealer(sa.suite, sa.spi, sa.keymat, sa.local, self.remote.address, esn=sa.esn)
        self._seal = sealer.seal
        return self._seal

    def seal(self, packet: bytes, now: float) -> Outgoing:
        """As for ESP; what leaves is a whole IP packet."""
        return super().seal(packet, now)._replace(protocol=AH)


def _version(endpoint: Endpoint) -> int:
    return 6 if ":" in endpoint.address else 4


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
        "_overhead",
        "_reassembler",
        "_unwrap",
        "window",
    )

    def __init__(self, parameters: SaParameters, now: float, unused_ecn: MutableMapping[str, int]) -> None:
        super().__init__(parameters, now)
        suite = parameters.suite
        self.window = ReplayWindow(parameters.replay_window)
        self._esn = parameters.esn
        self._failed = self._failed_after = 0  # with extended numbers: not authentic in a row, after so many that were
        self._unwrap = _mode(parameters, unused_ecn).unwrap
        self._reassembler = None if parameters.aggregation is None else Reassembler()
        self._open: Callable[[bytes, int], bytes] | None = None  # for the first packet, as above
        self._block = suite.block_octets
        self._overhead = ESP_HEADER.size + suite.iv_octets + suite.icv_octets
        self._matcher: SelectorMatcher | None = None  # likewise
        self._accepted: set[Flow] = set()

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
        self._open = make_opener(sa.suite, sa.keymat, esn=sa.esn).open
        return self._open

    def unwrap(self, text: bytes, sequence: int, traffic_class: int) -> Sequence[bytes | DropReason]:
        """The IP packets in the authentic ``text`` that this SA may carry (RFC 4303 §2.4-2.7, RFC 4301 §5.2).

        And a reason for each that is not delivered. An AGGFRAG payload has any number of both, others have one.
        """
        trailer = parse_trailer(text)
        if isinstance(trailer, DropReason):
            return (trailer,)
        end, next_header = trailer
        if next_header == AGGFRAG and self._reassembler is not None:
            if self._esn:  # it is in the window by now: no other number is meant
                sequence = self.window.extended(sequence)
            return [self._unwrap_block(block) for block in self._reassembler.receive(sequence, text[:end])]
        return (self._admit(text[:end], next_header, traffic_class),)

    def _unwrap_block(self, block: bytes | DropReason) -> bytes | DropReason:
        if isinstance(block, DropReason):
            return block
        # The outer header belongs to the rate, not to what happens to be inside (RFC 9347 §2.2.5).
        next_header = IPV4_IN_ESP if block[0] >> 4 == 4 else IPV6_IN_ESP
        return self._admit(block, next_header, traffic_class_of(block) & ~ECN_FIELD)

    def _admit(self, payload: bytes, next_header: int, traffic_class: int) -> bytes | DropReason:
        unwrapped = self._unwrap(payload, next_header, traffic_class)
        if isinstance(unwrapped, DropReason):
            return unwrapped
        packet, flow = unwrapped
        if flow not in self._accepted and not self._accept(flow):
            return DropReason.SELECTOR_MISMATCH
        return packet

    def _accept(self, flow: Flow) -> bool:
        self._matcher = self._matcher or SelectorMatcher(self.parameters.selector, Direction.INBOUND)
        if self._matcher.match(flow) is not Match.YES:
            return False
        if len(self._accepted) >= _MAX_ACCEPTED:
            self._accepted.clear()
        self._accepted.add(flow)
        return True


class AhInboundSa(InboundSa):
    """Verifies packets of one peer, and their outer headers with them (RFC 4302)."""

    __slots__ = ()

    def __init__(self, parameters: SaParameters, now: float, unused_ecn: MutableMapping[str, int]) -> None:
        super().__init__(parameters, now, unused_ecn)
        version = _version(parameters.remote)
        self._block = 1
        # What there is besides payload, pad length and next header.
        outer = 20 if version == 4 else 40
        self._overhead = ESP_HEADER.size + outer + ah_octets(parameters.suite, version) - 2

    def _keyed(self) -> Callable[[bytes, int], bytes]:
        sa = self.parameters
        self._open = make_ah_opener(sa.suite, sa.keymat, esn=sa.esn).open
        return self._open


def _deadline(sa: InboundSa | OutboundSa) -> tuple[float, str, int, bool]:
    return sa.deadline(), sa.parameters.policy, sa.parameters.spi, isinstance(sa, InboundSa)


class Sad:
    """Inbound SAs by SPI; outbound SAs by policy, the newest of which carries its traffic."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self.inbound: dict[int, InboundSa] = {}
        self._inbound_of: defaultdict[str, set[int]] = defaultdict(set)  # their SPIs by policy
        self.carriers: dict[str, OutboundSa] = {}
        self.paced: dict[str, OutboundSa] = {}  # those of them that send by the clock
        self.unused_ecn: defaultdict[str, int] = defaultdict(int)  # of every inbound SA there was
        self._outbound: dict[str, list[OutboundSa]] = {}  # oldest first, never empty
        self._reserved: set[int] = set()
        # A heap of deadlines and who has them. An SA that goes leaves its own behind, for ``due`` to pass over.
        self._deadlines: list[tuple[float, str, int, bool]] = []
        self._swept = _FEW_DEADLINES

    def all(self) -> Iterable[InboundSa | OutboundSa]:
        """Every SA, as a list that stays as it is."""
        return [*self.inbound.values(), *chain.from_iterable(self._outbound.values())]

    def of_policy(self, policy: str) -> list[InboundSa | OutboundSa]:
        """The SAs of ``policy``, both ways."""
        return [sa for sa in self.all() if sa.parameters.policy == policy]

    def outbound(self) -> list[OutboundSa]:
        """Every outbound SA."""
        return list(chain.from_iterable(self._outbound.values()))

    def due(self, now: float) -> Iterator[InboundSa | OutboundSa]:
        """SAs that have reached a limit by the clock, each once for each limit; the caller asks them which."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, policy, spi, inbound = heappop(self._deadlines)
            sa = self._find(policy, spi, inbound=inbound)
            if sa is not None and sa.deadline() <= now:
                yield sa
            # Its soft limit has passed, perhaps by packets long ago, and the hard one is to come.
            if sa is not None and self._find(policy, spi, inbound=inbound) is sa:
                self._watch(sa)

    def next_deadline(self) -> float:
        """When ``due`` may have something; infinity when it never will."""
        return self._deadlines[0][0] if self._deadlines else inf

    def _find(self, policy: str, spi: int, *, inbound: bool) -> InboundSa | OutboundSa | None:
        if inbound:
            return self.inbound.get(spi)
        return next((sa for sa in self._outbound.get(policy, ()) if sa.parameters.spi == spi), None)

    def _watch(self, sa: InboundSa | OutboundSa) -> None:
        if sa.deadline() < inf:
            heappush(self._deadlines, _deadline(sa))
        if len(self._deadlines) > self._swept:
            self._deadlines = [_deadline(sa) for sa in self.all() if sa.deadline() < inf]
            heapify(self._deadlines)
            self._swept = 2 * len(self._deadlines) + _FEW_DEADLINES

    def allocate_spi(self) -> int:
        """An SPI that no inbound SA has (RFC 4303 §2.1), kept until it is installed or released."""
        for _ in range(_SPI_DRAWS):
            spi = int.from_bytes(self._random(4))
            if spi >= SPI_MIN and spi not in self.inbound and spi not in self._reserved:
                self._reserved.add(spi)
                return spi
        raise EspError(f"{_SPI_DRAWS} draws gave no free SPI")

    def release_spi(self, spi: int) -> None:
        """Give back an SPI that will not be installed; one that is not kept is none of ours."""
        self._reserved.discard(spi)

    def add_inbound(self, parameters: SaParameters, now: float) -> InboundSa:
        """Install, in place of what has this SPI (RFC 4430 §3.2: the second of a three-way handshake's two keys).

        The window of an SA with the very same keys stays: without it every packet of the past could be replayed. Not
        that of one with the other kind of numbers, whose packets are not authentic here.
        """
        made = AhInboundSa if parameters.protocol is SecurityProtocol.AH else InboundSa
        sa = made(parameters, now, self.unused_ecn)
        old = self.inbound.get(parameters.spi)
        if old is not None:
            if old.parameters.esn is parameters.esn and bytes_eq(old.parameters.keymat, parameters.keymat):
                sa.window = old.window
            self.remove_inbound(parameters.spi)
        self.inbound[parameters.spi] = sa
        self._inbound_of[parameters.policy].add(parameters.spi)
        self._watch(sa)
        self._reserved.discard(parameters.spi)
        return sa

    def add_outbound(self, parameters: SaParameters, now: float) -> OutboundSa:
        """Install as the newest of its policy.

        Raises:
            InvalidSa: the policy has an outbound SA with this SPI. To start its counter again would repeat its IVs.
        """
        sas = self._outbound.get(parameters.policy, [])
        if any(sa.parameters.spi == parameters.spi for sa in sas):
            raise InvalidSa(f"policy {parameters.policy!r} has an outbound SA with SPI {parameters.spi:#010x} already")
        made = AhOutboundSa if parameters.protocol is SecurityProtocol.AH else OutboundSa
        sa = made(parameters, now, self._random)
        self._outbound[parameters.policy] = [*sas, sa]
        self._carry(parameters.policy, sa)
        self._watch(sa)
        return sa

    def remove_inbound(self, spi: int) -> None:
        """Forget an SA.

        Raises:
            UnknownSa: there is none.
        """
        sa = self.inbound.pop(spi, None)
        if sa is None:
            raise UnknownSa(f"no inbound SA with SPI {spi:#010x}")
        self._inbound_of[sa.parameters.policy].discard(spi)

    def remove_outbound(self, policy: str, spi: int) -> OutboundSa:
        """Forget an SA and return it; the newest that is left carries on.

        Raises:
            UnknownSa: there is none.
        """
        sas = self._outbound.get(policy, [])
        gone = next((sa for sa in sas if sa.parameters.spi == spi), None)
        if gone is None:
            raise UnknownSa(f"no outbound SA of policy {policy!r} with SPI {spi:#010x}")
        left = [sa for sa in sas if sa is not gone]
        if left:
            self._outbound[policy] = left
        else:
            del self._outbound[policy]
        self._carry(policy, left[-1] if left else None)
        return gone

    def _carry(self, policy: str, sa: OutboundSa | None) -> None:
        """Let ``sa`` have the traffic of ``policy``."""
        self.carriers.pop(policy, None)
        self.paced.pop(policy, None)
        if sa is None:
            return
        self.carriers[policy] = sa
        if sa.paced():
            self.paced[policy] = sa

    def remove_policy(self, policy: str) -> None:
        """Forget all SAs that serve ``policy``."""
        for spi in self._inbound_of.pop(policy, ()):
            del self.inbound[spi]
        self._outbound.pop(policy, None)
        self._carry(policy, None)
