"""A hundred thousand packets, in and out, through one pair of engines: each counts once, under the reason it must.

What becomes of a packet is known before the engine sees it: by how it was made, and for authentic ones by a model of
the window that remembers every number. A third engine gets the authentic packets alone, and ends like the one that got
everything else besides: nothing that is not authentic has changed anything but the counts of drops.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from support.tunnel import ELSEWHERE, LEFT, RIGHT, TWIN, TWINS, engine, flip, ipv4, ipv6, ports, twin

from esp.aggfrag import AGGFRAG
from esp.checksum import complement, ones_sum
from esp.crypto import make_sealer
from esp.datagram import Incoming
from esp.engine import Engine
from esp.errors import DropReason
from esp.events import EndpointMoved, UnknownSpiSeen
from esp.hold import HOLD_SECONDS, MAX_HELD_PACKETS
from esp.pace import LEAST_ROOM
from esp.policy import Action, Policy, Selector, address_interval
from esp.sa import Aggregation, Confidentiality, Endpoint, Lifetime, Mode, SaParameters
from esp.suite import SUITES
from esp.wire import IPV4_IN_ESP, IPV6_IN_ESP, NO_NEXT_HEADER, build_trailers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esp.datagram import Outgoing
    from esp.events import EspEvent
    from esp.statistics import Statistics

PACKETS = 100_000
# A payload has a header of 4 octets and room for 500: two packets of 750 fill three of them.
AGGREGATED = Aggregation(504, 1024)
AGGREGATED_OCTETS, AGGREGATED_PACKETS, PAYLOADS = 750, 20, 30
TURN = PAYLOADS / AGGREGATED.per_second
NARROW, MOVED = Endpoint("192.0.2.77", 4500), Endpoint("192.0.2.78", 4500)

TRANSPORT = {"mode": Mode.TRANSPORT}
# Policies whose packets go from the left engine to the right one as they come; by a clock; and not at all.
PLAIN: dict[str, dict[str, Any]] = {
    "tunnel": {},
    "cbc": {"suite": SUITES["aes128-cbc-sha256"], "replay_window": 64},
    "esn": {"esn": True, "sequence": 2**32 - 1000, "replay_window": 64},
    "no-window": {"replay_window": 0, "suite": SUITES["aes256-ctr-sha256"]},
    "narrow-window": {"replay_window": 1, "suite": SUITES["chacha20-poly1305"]},
    "wide-window": {"replay_window": 65_536, "sequence": 2**31},
    "padded": {"confidentiality": Confidentiality(200)},
    "six": {"suite": SUITES["aes128-gcm8"]},
    "transport": {**TRANSPORT, "replay_window": 32},
    "transport-esn": {**TRANSPORT, "esn": True, "sequence": 2**32 - 1000, "replay_window": 1024},
    "mortal": {},
}
PACED: dict[str, dict[str, Any]] = {
    "aggregated": {"aggregation": AGGREGATED},
    "aggregated-esn": {"aggregation": AGGREGATED, "esn": True, "sequence": 2**32 - 3000},
}
STAYING: dict[str, dict[str, Any]] = {
    "exhausted": {"sequence": 2**32 - 1 - 100},
    "path": {"remote": NARROW},
    "crammed": {"aggregation": Aggregation(504, 2**-10)},
    "unkeyed": {},
}
LANES = PLAIN | PACED | STAYING
MORTAL_AT = 3.0  # when the inbound SA of that lane has lived
CROOKED = 0x1000  # so much higher is the SPI of a peer that seals what it should not
NOBODYS = 0xDEAD_BEEF  # SPI
ALL = 0  # instead of an SPI, where no SA is to blame


@dataclass
class Lane:
    """One policy with its pair of SAs, and what the test knows of them."""

    name: str
    number: int
    sa: SaParameters
    selector: Selector
    last: int = field(init=False)  # sent
    top: int = 0  # of the receiver's window
    accepted: set[int] = field(default_factory=set)
    kept: deque[Callable[[Endpoint], None]] = field(default_factory=lambda: deque(maxlen=200))  # to come again
    delivered: list[bytes] = field(default_factory=list)
    serials: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.last = self.sa.sequence
        self.there = replace(self.sa, selector=flip(self.selector), remote=LEFT, sequence=0)
        inside, outside = (
            str(ip_address(address_interval(one)[0])) for one in (self.selector.local, self.selector.remote)
        )
        six = self.selector.version == 6
        octets = AGGREGATED_OCTETS - 20 if self.sa.aggregation else 30
        whole = (ipv6 if six else ipv4)(ports(1000, 2000, octets), source=inside, destination=outside, protocol=17)
        self.start = whole[:-8]
        if self.sa.mode is Mode.TRANSPORT:  # what the receiver makes: no identification, DF, a checksum
            fields = self.start[:4] + b"\0\0\x40\0\x40\x11"
            checksum = complement(ones_sum(fields + b"\0\0" + self.start[12:20]))
            self.start = fields + checksum.to_bytes(2) + self.start[12:]

    def packet(self) -> bytes:
        """The next of its packets, each unlike all others."""
        return self.start + next(self.serials).to_bytes(8)

    def fate(self, number: int) -> DropReason | None:
        """Of an authentic packet (RFC 4303 §3.4.3, appendix A2)."""
        window = self.sa.replay_window
        if window and number <= self.top - window:
            return DropReason.AUTHENTICATION_FAILED if self.sa.esn else DropReason.TOO_OLD
        return DropReason.REPLAYED if window and number in self.accepted else None

    def accept(self, number: int) -> None:
        self.accepted.add(number)
        self.top = max(self.top, number)


def lanes() -> dict[str, Lane]:
    made = {}
    for number, (name, changes) in enumerate(LANES.items(), 1):
        local, remote = (ip_network(f"10.{side}.{number}.0/24") for side in (1, 2))
        if name == "six":
            local, remote = (ip_network(f"2001:db8:{side}::/48") for side in (1, 2))
        if changes.get("mode") is Mode.TRANSPORT:
            local, remote = (ip_network(f"10.{side}.{number}.1/32") for side in (1, 2))
        suite = changes.get("suite", SUITES["aes128-gcm16"])
        selector = Selector(local, remote)
        keymat = Random(name).randbytes(suite.keymat_octets)
        sa = SaParameters(0x1000 + number, suite, keymat, name, selector, RIGHT)
        made[name] = Lane(name, number, replace(sa, **changes), selector)
    return made


class Crooked:
    """A peer that has the keys, and seals what it should not; under SPIs of its own, for it has its own numbers.

    Attributes:
        cases: lane, payload, next header, outer traffic class, and what that counts as.
    """

    def __init__(self, of: dict[str, Lane]) -> None:
        self.lanes = of
        self.numbers: Counter[str] = Counter()
        packet, six = (of[name].start + bytes(8) for name in ("tunnel", "six"))
        self.cases = [
            ("tunnel", packet, None, 0, DropReason.BAD_PADDING),
            ("tunnel", packet, 6, 0, DropReason.BAD_NEXT_HEADER),
            ("tunnel", bytes(500), AGGFRAG, 0, DropReason.BAD_NEXT_HEADER),
            ("transport", packet, 43, 0, DropReason.BAD_NEXT_HEADER),
            ("tunnel", bytes(50), NO_NEXT_HEADER, 0, DropReason.DUMMY),
            ("transport", bytes(50), NO_NEXT_HEADER, 0, DropReason.DUMMY),
            ("tunnel", packet[:19], IPV4_IN_ESP, 0, DropReason.NOT_IP),
            ("tunnel", packet, IPV6_IN_ESP, 0, DropReason.NOT_IP),
            ("tunnel", packet, IPV4_IN_ESP, 3, DropReason.CE_ON_NOT_ECT),
            ("tunnel", of["cbc"].start + bytes(8), IPV4_IN_ESP, 0, DropReason.SELECTOR_MISMATCH),
            ("tunnel", six, IPV6_IN_ESP, 0, DropReason.SELECTOR_MISMATCH),
            ("aggregated", b"\7" + bytes(503), AGGFRAG, 0, DropReason.MALFORMED),
        ]
        self.sealers = {
            name: make_sealer(of[name].sa.suite, of[name].sa.spi + CROOKED, of[name].sa.keymat, Random(1).randbytes)
            for name in {case[0] for case in self.cases}
        }

    def seal(self, name: str, payload: bytes, next_header: int | None) -> bytes:
        """Without a next header: with padding that is none."""
        trailer = b"\1\4" if next_header is None else build_trailers(4, next_header)[len(payload) % 4]
        self.numbers[name] += 1
        return self.sealers[name].seal(self.numbers[name], payload + trailer)


class Siege:
    """The engines, and what their accounts must say: how often each SPI has had each reason."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.lanes = lanes()
        self.crooked = Crooked(self.lanes)
        self.left, self.right, self.quiet = engine(1), engine(2), engine(2)
        self.out: Counter[tuple[int, DropReason]] = Counter()
        self.into: Counter[tuple[int, DropReason]] = Counter()  # the right engine's
        self.known: Counter[tuple[int, DropReason]] = Counter()  # of these, what the quiet one has too
        self.offered = self.more_pieces = self.datagrams = self.cleartext = self.admitted = 0
        self.vanished = 0  # packets of whose payloads nothing has come
        self.opened: defaultdict[bytes, list[bytes]] = defaultdict(list)  # by how they start
        self.turn, self.now, self.source = 0, 0.0, LEFT
        self.mortal_gone = False
        self.arrivals: list[Incoming] = []
        self.genuine: list[Incoming] = []  # those of them that the quiet engine gets
        self.later: defaultdict[int, list[Callable[[], None]]] = defaultdict(list)  # by turn
        self.install()

    def install(self) -> None:
        for lane in self.lanes.values():
            self.left.add_policy(Policy(lane.name, lane.selector))
            for each in (self.right, self.quiet):
                each.add_policy(Policy(lane.name, flip(lane.selector), peer="left", answer_within=60.0))
            if lane.name == "unkeyed":
                continue
            self.left.install_outbound(lane.sa, 0.0)
            life = Lifetime(hard_seconds=MORTAL_AT) if lane.name == "mortal" else Lifetime(soft_packets=100)
            for each in (self.right, self.quiet):
                each.install_inbound(replace(lane.there, lifetime=life), 0.0)
                each.install_inbound(replace(lane.there, spi=lane.sa.spi + CROOKED), 0.0)
        for number, action in ((200, Action.DISCARD), (201, Action.BYPASS)):
            selector = Selector(ip_network(f"10.1.{number}.0/24"), ip_network(f"10.2.{number}.0/24"))
            self.left.add_policy(Policy(action.value, selector, action=action))
            self.right.add_policy(Policy(action.value, flip(selector), action=action))
        self.left.confirm_path(NARROW.address, 1280)
        self.bad, self.clear = self.bad_packets(), self.clear_packets()

    # --- out ---

    def bad_packets(self) -> list[tuple[bytes, int, DropReason | None]]:
        """Packets that the left engine must drop, each with the SPI and the reason; None: it goes, cut in two."""
        whole, path, transport = (self.lanes[name] for name in ("tunnel", "path", "transport"))
        packet, hosts = whole.start + bytes(8), transport.start + bytes(8)
        large = ipv4(bytes(1480), source=f"10.1.{path.number}.1", destination=f"10.2.{path.number}.1")
        return [
            (b"", ALL, DropReason.NOT_IP),
            (packet[:-1], ALL, DropReason.NOT_IP),
            (packet + b"x", ALL, DropReason.NOT_IP),
            (b"\x75" + packet[1:], ALL, DropReason.NOT_IP),
            (ipv4(destination="192.0.2.200"), ALL, DropReason.NO_POLICY),
            (ipv6(destination="2001:db8:9::1"), ALL, DropReason.NO_POLICY),
            (ipv4(source="10.1.200.1", destination="10.2.200.1"), ALL, DropReason.POLICY_DISCARD),
            (ipv4(source="10.1.201.1", destination="10.2.201.1"), ALL, DropReason.BYPASS_NOT_ROUTED),
            (large[:6] + b"\x40" + large[7:], path.sa.spi, DropReason.TOO_BIG),
            (large, path.sa.spi, None),
            (hosts[:6] + b"\x20" + hosts[7:], transport.sa.spi, DropReason.NOT_WHOLE),
            (b"\x46" + hosts[1:], transport.sa.spi, DropReason.HEADER_OUTSIDE),
        ]

    def protect(self, packets: list[bytes]) -> list[Outgoing]:
        self.offered += len(packets)
        return self.left.protect(packets, self.now)

    def offer(self) -> None:
        """A batch for the left engine, good and bad; what it seals of the good is on its way."""
        offers: list[tuple[bytes, Lane | None]] = []
        for packet, spi, reason in self.random.choices(self.bad, k=12):
            offers.append((packet, None))
            self.out[spi, reason or DropReason.TOO_BIG] += reason is not None
            self.more_pieces += reason is None
        good = [self.lanes[name] for name in self.random.choices(tuple(PLAIN), k=80)]
        offers += [(lane.packet(), lane) for lane in good]
        self.random.shuffle(offers)
        sealed = [each for each in self.protect([packet for packet, _ in offers]) if each.remote != NARROW]
        sent = [(packet, lane) for packet, lane in offers if lane is not None]
        for (packet, lane), outgoing in zip(sent, sealed, strict=True):
            lane.last += 1
            self.travel(lane, lane.last, outgoing.datagram, packet)

    def offer_more_than_goes(self) -> None:
        """Packets for an SA at its last numbers, for one whose rate is next to nothing, and for none."""
        for name, reason, room in (
            ("exhausted", DropReason.SEQUENCE_EXHAUSTED, 100),
            ("crammed", DropReason.PACE_QUEUE_FULL, LEAST_ROOM // AGGREGATED_OCTETS),
            ("unkeyed", DropReason.HOLD_QUEUE_FULL, MAX_HELD_PACKETS),
        ):
            lane = self.lanes[name]
            self.protect([lane.packet() for _ in range(250)])
            self.out[lane.sa.spi if name == "exhausted" else ALL, reason] += 250 - room  # one SA goes, one never comes

    # --- in ---

    def travel(self, lane: Lane, number: int, datagram: bytes, packet: bytes) -> None:
        """What becomes of an authentic datagram on its way: it is lost, late, or comes, perhaps after forgeries."""
        luck = self.random.random()
        if luck < 0.05:
            return
        arrival = partial(self.arrive, lane, number, datagram, packet)
        if luck < 0.15:
            self.later[self.turn + self.random.choice((1, 1, 30))].append(arrival)
            return
        if luck < 0.5:
            self.attack(lane, datagram)
        arrival()
        lane.kept.append(arrival)
        if luck > 0.7:
            self.random.choice(lane.kept)(ELSEWHERE)

    def arrive(self, lane: Lane, number: int, datagram: bytes, packet: bytes, source: Endpoint | None = None) -> None:
        """An authentic datagram comes, for the first time or not."""
        if lane.name == "mortal" and self.now >= MORTAL_AT:
            self.blame(ALL, DropReason.UNKNOWN_SPI if self.mortal_gone else DropReason.SA_EXPIRED)
            self.mortal_gone = True
        elif (refused := lane.fate(number)) is not None:
            self.into[ALL if lane.name == "mortal" else lane.sa.spi, refused] += 1  # its own account goes with it
            self.arrivals.append(Incoming(datagram, source or self.source))
            return
        else:
            lane.accept(number)
            lane.delivered.append(packet)
        self.come(Incoming(datagram, source or self.source))

    def come(self, incoming: Incoming) -> None:
        """To both engines."""
        self.arrivals.append(incoming)
        self.genuine.append(incoming)

    def blame(self, spi: int, reason: DropReason) -> None:
        """Both engines drop it."""
        self.into[spi, reason] += 1
        self.known[spi, reason] += 1

    def attack(self, lane: Lane, datagram: bytes) -> None:
        """Somebody without the keys sends what he makes of a datagram that has not arrived yet."""
        if lane.name == "mortal":  # which ends with the first packet after its time, whoever has sent it
            return
        spi, reason, octets = lane.sa.spi, DropReason.AUTHENTICATION_FAILED, bytearray(datagram)
        match self.random.randrange(7):
            case 0 | 1:
                octets[self.random.randrange(8, len(octets))] ^= 1 << self.random.randrange(8)
            case 2:
                octets += bytes(16)
            case 3:
                octets[5 if lane.last < 2**16 else 8] ^= 0x10  # a number far beyond; elsewhere the IV
            case 4:
                reason = DropReason.MALFORMED
                del octets[self.random.choice((-1, 8, 15)) :]
            case 5:
                spi, reason = ALL, DropReason.MALFORMED
                del octets[self.random.randrange(8) :]
            case _:
                spi, reason = ALL, DropReason.UNKNOWN_SPI
                octets[:4] = NOBODYS.to_bytes(4)
        self.into[spi, reason] += 1
        self.arrivals.append(Incoming(bytes(octets), ELSEWHERE, self.random.randrange(256)))

    def seal_crooked(self) -> None:
        for name, payload, next_header, traffic_class, reason in self.random.choices(self.crooked.cases, k=10):
            self.blame(self.lanes[name].sa.spi + CROOKED, reason)
            datagram = self.crooked.seal(name, payload, next_header)
            self.come(Incoming(datagram, self.source, traffic_class))

    def aggregate(self, *, lossless: bool) -> None:
        """A turn of the SAs with a constant rate: packets that fill their payloads exactly."""
        sent = {name: [self.lanes[name].packet() for _ in range(AGGREGATED_PACKETS)] for name in PACED}
        for packets in sent.values():
            assert self.protect(packets) == []
        sealed = self.left.pace(self.now)
        for name, packets in sent.items():
            lane = self.lanes[name]
            datagrams = [each.datagram for each in sealed if each.datagram.startswith(lane.sa.spi.to_bytes(4))]
            for cycle in range(PAYLOADS // 3):
                lost = None if lossless else self.random.choice((*range(3), *[None] * 20))
                self.cycle(lane, datagrams[3 * cycle :][:3], packets[2 * cycle :][:2], lost)

    def cycle(self, lane: Lane, datagrams: list[bytes], packets: list[bytes], lost: int | None) -> None:
        """Three payloads: the first packet ends in the second of them, where the other begins. One is lost, or late."""
        whole = {None: packets, 0: packets[1:], 1: [], 2: packets[:1]}[lost]
        lane.delivered += whole
        if lost in (1, 2):  # the first part of a packet is there
            self.blame(lane.sa.spi, DropReason.FRAGMENT_MISSING)
        self.vanished += 2 - len(whole) - (lost in (1, 2))
        for each in self.random.choice(((0, 1, 2), (0, 1, 2), (1, 0, 2))):
            come = partial(self.come_paced, lane, lane.last + 1 + each, datagrams[each])
            if each == lost:
                self.later[self.turn + 3].append(partial(come, late=True))
                continue
            if self.random.random() < 0.1:
                self.attack(lane, datagrams[each])
            come()
            if self.random.random() < 0.1:
                self.into[lane.sa.spi, DropReason.REPLAYED] += 1
                self.arrivals.append(Incoming(datagrams[each], ELSEWHERE))
        lane.last += 3

    def come_paced(self, lane: Lane, number: int, datagram: bytes, *, late: bool = False) -> None:
        lane.accept(number)
        self.come(Incoming(datagram, self.source))
        if late:  # it has been given up
            self.blame(lane.sa.spi, DropReason.FRAGMENT_LATE)

    def clear_packets(self) -> list[tuple[bytes, DropReason | None]]:
        """What arrives without ESP, and what the right engine must say to it; None: it may pass."""
        return [
            (ipv4(source="10.1.201.1", destination="10.2.201.1"), None),
            (ipv4(source="10.1.200.1", destination="10.2.200.1"), DropReason.POLICY_DISCARD),
            (ipv4(source="10.1.1.1", destination="10.2.1.1"), DropReason.NOT_PROTECTED),
            (ipv4(), DropReason.NO_POLICY),
            (bytes(40), DropReason.NOT_IP),
        ]

    def come_clear(self) -> None:
        chosen = self.random.choices(self.clear, k=5)
        self.cleartext += len(chosen)
        self.admitted += len(self.right.admit([packet for packet, _ in chosen]))
        self.into.update((ALL, reason) for _, reason in chosen if reason is not None)

    def receive(self) -> None:
        """Everything goes to the right engine, what is authentic to the quiet one: they tell the same by it."""
        self.datagrams += len(self.arrivals)
        packets = self.right.unprotect(self.arrivals, self.now)
        assert packets == self.quiet.unprotect(self.genuine, self.now)
        self.arrivals, self.genuine = [], []
        for packet in packets:
            self.opened[packet[:-8]].append(packet)
        events = told(self.right)
        assert events == told(self.quiet)
        assert {event.remote for event in events if isinstance(event, EndpointMoved)} <= {MOVED}

    def run(self, packets: int) -> None:
        """Turns until there have been so many packets, and then those that are under way still."""
        self.offer_more_than_goes()
        while (lossless := self.offered + self.datagrams + self.cleartext >= packets) is False or self.later:
            self.now += TURN
            self.source = LEFT if self.turn < 100 else MOVED
            if not lossless:
                self.offer()
                self.seal_crooked()
                self.come_clear()
            self.aggregate(lossless=lossless)
            for arrival in self.later.pop(self.turn, ()):
                arrival()
            self.receive()
            self.turn += 1

    def end(self) -> None:
        """What waits in the left engine has waited too long, or goes with its SA."""
        self.left.expire(self.now + HOLD_SECONDS)
        self.out[ALL, DropReason.HOLD_EXPIRED] += MAX_HELD_PACKETS
        self.left.remove_outbound("crammed", self.lanes["crammed"].sa.spi)
        self.out[ALL, DropReason.SA_EXPIRED] += LEAST_ROOM // AGGREGATED_OCTETS


def told(by: Engine) -> list[EspEvent]:
    """Events, but for the hints of those whom nobody vouches for."""
    return [event for event in by.take_events() if not isinstance(event, UnknownSpiSeen)]


def account(statistics: Statistics) -> Counter[tuple[int, DropReason]]:
    """Drops by SPI and reason, and under ALL what no SA has of the sums."""
    found = Counter({(sa.spi, reason): number for sa in statistics.sas for reason, number in sa.drops.items()})
    of_sas = Counter(reason for _, reason in found.elements())
    found.update({(ALL, reason): number - of_sas[reason] for reason, number in statistics.drops.items()})
    return +found


def states(by: Engine) -> list[object]:
    """All there is to see of an engine's SAs, but for what they have dropped."""
    return [*(replace(sa, drops={}) for sa in by.statistics().sas), by.deadline(), by.last_heard("left")]


@pytest.fixture(params=TWINS, autouse=True, scope="module")
def _twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test here is of both engines."""
    TWIN.make = twin(request.param)
    yield
    TWIN.make = Engine


@pytest.fixture(scope="module")
def siege(_twin: None) -> Siege:
    siege = Siege(20261129)
    siege.run(PACKETS)
    siege.end()
    return siege


def test_each_packet_out_counts_once_under_its_reason(siege: Siege) -> None:
    statistics = siege.left.statistics()
    assert account(statistics) == +siege.out
    assert siege.offered + siege.more_pieces == statistics.packets_out + sum(statistics.drops.values())


def test_each_packet_in_counts_once_under_its_reason(siege: Siege) -> None:
    statistics = siege.right.statistics()
    assert account(statistics) == +siege.into
    for lane in siege.lanes.values():
        assert siege.opened[lane.start] == lane.delivered, lane.name
    assert statistics.packets_in == sum(len(lane.delivered) for lane in siege.lanes.values())


def test_what_comes_in_is_delivered_or_dropped(siege: Siege) -> None:
    statistics, paced = siege.right.statistics(), [siege.lanes[name] for name in PACED]
    delivered = sum(len(lane.delivered) for lane in paced)
    late, missing = (statistics.drops[reason] for reason in (DropReason.FRAGMENT_LATE, DropReason.FRAGMENT_MISSING))
    payloads = sum(len(lane.accepted) for lane in paced)
    assert siege.datagrams - (payloads - late) + siege.cleartext == (
        statistics.packets_in - delivered + siege.admitted + sum(statistics.drops.values()) - missing
    )
    assert sum(next(lane.serials) for lane in paced) == delivered + missing + siege.vanished


def test_what_is_not_authentic_changes_nothing_but_its_count(siege: Siege) -> None:
    assert states(siege.right) == states(siege.quiet)
    assert account(siege.quiet.statistics()) == +siege.known
    for lane in (siege.lanes[name] for name in (PLAIN | PACED) if name != "mortal"):
        (sa,) = (sa for sa in siege.right.statistics().sas if sa.spi == lane.sa.spi)
        assert sa.sequence == lane.top
        assert sa.packets == len(lane.accepted if lane.sa.aggregation else lane.delivered)
        assert sa.remote == MOVED


def test_nothing_at_all_changes_while_nobody_but_an_attacker_sends() -> None:
    siege = Siege(1)
    siege.run(3000)
    before, lanes = states(siege.right), [siege.lanes[name] for name in PLAIN if name != "mortal"]
    sent = [lane.packet() for lane in lanes]
    sealed = siege.left.protect(sent, siege.now)
    for lane, outgoing in zip(lanes, sealed, strict=True):
        for _ in range(50):
            siege.attack(lane, outgoing.datagram)
    assert siege.right.unprotect(siege.arrivals, siege.now + 1.0) == []
    assert states(siege.right) == before
    assert siege.right.unprotect([Incoming(each.datagram, LEFT) for each in sealed], siege.now + 2.0) == sent


def test_every_reason_that_the_engine_gives_has_been_given(siege: Siege) -> None:
    """The others are the link's and the TUN's: see test_dataplane.py."""
    assert siege.offered + siege.datagrams + siege.cleartext >= PACKETS
    given = {reason for _, reason in siege.out + siege.into}
    of_loops = {DropReason.LINK_REFUSED, DropReason.TUN_REFUSED, DropReason.HOST_QUEUE_FULL, DropReason.ENGINE_BUSY}
    assert given == set(DropReason) - of_loops
