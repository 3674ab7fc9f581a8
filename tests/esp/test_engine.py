"""The engine whole: with scapy at the other end, with a hostile one, and with time passing."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import asdict, replace
from ipaddress import ip_network
from itertools import count, islice
from math import inf
from random import Random
from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scapy_esp import IPSecIntegrityError, ScapySa, scapy_has
from support.tunnel import (
    ELSEWHERE,
    ENDLESS,
    KINDS,
    LEFT,
    RIGHT,
    SELECTOR4,
    SELECTOR6,
    SPI4,
    SPI6,
    TWIN,
    TWINS,
    Tunnel,
    bare_tunnel,
    engine,
    flip,
    incoming,
    ipv4,
    ipv6,
    open_tunnel,
    parameters,
    ports,
    twin,
)

from esp.aggfrag import LONGEST_GAP
from esp.crypto import make_sealer
from esp.datagram import Incoming, Outgoing, Run, gather
from esp.engine import Engine
from esp.errors import DropReason, InvalidPolicy, InvalidSa, UnknownSa
from esp.events import (
    LARGE_OCTETS,
    LARGE_SECONDS,
    Acquired,
    CounterExhausted,
    EndpointMoved,
    HardExpired,
    LargeSent,
    PathNarrowed,
    PayloadsLost,
    SoftExpired,
    Unanswered,
    UnknownSpiSeen,
)
from esp.fit import Inside
from esp.fragmentation import fragment
from esp.headers import DontFragment, HeaderRules
from esp.hold import HOLD_SECONDS, MAX_HELD_PACKETS
from esp.keepalive import KEEPALIVE_SECONDS
from esp.mtu import largest_inner
from esp.outbound import MAX_DATAGRAM
from esp.pace import MOST_AT_ONCE
from esp.policy import Action, Direction, Policy, Selector
from esp.sa import Aggregation, Confidentiality, Encapsulation, Endpoint, Lifetime, Mode, SaParameters
from esp.statistics import Carried, PolicyStatistics
from esp.suite import SUITES
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

SCAPY_HAS = [name for name in SUITES if scapy_has(name)]
# Mostly near block ends, where padding differs, and up to what still fits a datagram.
SIZES = st.integers(0, 70) | st.integers(0, 1500) | st.integers(0, 65_000)


@pytest.fixture(params=TWINS, autouse=True, scope="module")
def _twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test here is of both engines."""
    TWIN.make = twin(request.param)
    yield
    TWIN.make = Engine


def outcome(drops: dict[DropReason, int]) -> set[DropReason]:
    assert all(drops.values())
    return set(drops)


def inner_packet(six: bool, size: int) -> bytes:
    return (ipv6 if six else ipv4)(Random(size).randbytes(size))


# --- scapy at the other end ---


@pytest.mark.parametrize("suite", SCAPY_HAS)
@given(st.lists(st.tuples(st.booleans(), SIZES), min_size=1, max_size=6), st.integers(1, 2**32 - 20))
@settings(max_examples=2, deadline=None)  # of 56 suites
def test_scapy_opens_what_we_seal_and_seals_what_we_open(suite: str, drawn: list[tuple[bool, int]], start: int) -> None:
    ours, theirs = open_tunnel(suite), open_tunnel(suite)
    oracle = {spi: ScapySa(suite, spi, parameters(suite, spi=spi).keymat) for spi in (SPI4, SPI6)}
    for sequence, (six, size) in enumerate([*drawn, (False, 65_000)], start):
        packet, scapy = inner_packet(six, size), oracle[SPI6 if six else SPI4]
        (datagram,) = ours.seal(packet)
        assert scapy.open(datagram) == packet
        assert theirs.open(scapy.seal(packet, sequence)) == [packet]
    assert theirs.right.statistics().drops == {}


CROSSING = 2**32


def crossing(suite: str = "aes256-gcm16", before: int = 4, window: int = 8192) -> Tunnel:
    """Extended numbers, of which ``before`` are left in the first subspace."""
    tunnel = bare_tunnel()
    sa = parameters(suite, esn=True, sequence=CROSSING - 1 - before)
    tunnel.left.install_outbound(sa, 0.0)
    tunnel.right.install_inbound(replace(sa, selector=flip(SELECTOR4), remote=LEFT, replay_window=window), 0.0)
    return tunnel


@pytest.mark.parametrize("suite", SCAPY_HAS)
def test_scapy_and_we_cross_into_the_next_subspace(suite: str) -> None:
    """RFC 4303 §2.2.1: the low half travels, and scapy is told the high one."""
    tunnel, again = crossing(suite, 2), crossing(suite, 2)
    oracle = ScapySa(suite, SPI4, parameters(suite).keymat, esn=True)
    for number in range(CROSSING - 2, CROSSING + 2):
        packet = inner_packet(False, number % 100)
        (datagram,) = tunnel.seal(packet)
        assert datagram[4:8] == (number % CROSSING).to_bytes(4)
        assert oracle.open(datagram, high=number // CROSSING) == packet
        with pytest.raises((IPSecIntegrityError, InvalidTag)):
            oracle.open(datagram, high=number // CROSSING + 1)
        assert again.open(oracle.seal(packet, number)) == [packet]
    assert again.right.statistics().drops == {}


@pytest.mark.parametrize("suite", KINDS)
def test_every_small_size_comes_through(suite: str) -> None:
    tunnel = open_tunnel(suite)
    packets = [build(bytes(size)) for size in range(70) for build in (ipv4, ipv6)]
    assert tunnel.open(*tunnel.seal(*packets)) == packets


def whole(size: int) -> bytes:
    """A packet with DF."""
    packet = bytearray(ipv4(bytes(size)))
    packet[6] |= 0x40
    return bytes(packet)


@pytest.mark.parametrize("suite", KINDS)
def test_the_biggest_packet_fits_and_the_next_does_not(suite: str) -> None:
    tunnel = open_tunnel(suite)
    biggest = next(size for size in range(MAX_DATAGRAM - 20, 0, -1) if tunnel.seal(whole(size)))
    (datagram,) = tunnel.seal(whole(biggest))
    assert MAX_DATAGRAM - SUITES[suite].block_octets < len(datagram) <= MAX_DATAGRAM
    statistics = tunnel.left.statistics()
    assert statistics.drops == {DropReason.TOO_BIG: MAX_DATAGRAM - 20 - biggest}
    assert statistics.sas[0].drops == statistics.drops
    assert statistics.sas[0].sequence == 2


def test_numbers_and_ivs_on_the_wire() -> None:
    tunnel = open_tunnel()
    masks = set()
    for number, datagram in enumerate(tunnel.seal(*[ipv4()] * 5), 1):
        assert datagram[:8] == SPI4.to_bytes(4) + number.to_bytes(4)
        masks.add(int.from_bytes(datagram[8:16]) ^ number)
    assert len(masks) == 1  # one random mask for the SA, and the counter under it


# --- policies on the way out ---


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        bytes(20),
        ipv4()[:-1],
        ipv4() + b"\x00",
        b"\x55" + ipv4()[1:],
        ipv6(b"12")[:-1],
        ipv6(b"12") + b"3",
    ],
)
def test_what_is_no_ip_packet_does_not_leave(packet: bytes) -> None:
    tunnel = open_tunnel()
    assert tunnel.seal(packet) == []
    assert tunnel.left.statistics().drops == {DropReason.NOT_IP: 1}


def test_the_first_policy_that_matches_decides() -> None:
    left = engine()
    left.add_policy(Policy("no dns", replace(SELECTOR4, protocol=17, remote_port=53), Action.DISCARD))
    left.add_policy(Policy("around", replace(SELECTOR4, protocol=17), Action.BYPASS))
    left.add_policy(Policy("four", SELECTOR4))
    left.install_outbound(parameters(), 0.0)
    packets = {
        ipv4(ports(9, 53), protocol=17): DropReason.POLICY_DISCARD,
        ipv4(ports(53, 9), protocol=17): DropReason.BYPASS_NOT_ROUTED,
        ipv4(ports(9, 53), protocol=6): None,
        ipv4(destination="10.3.0.1"): DropReason.NO_POLICY,
        ipv6(): DropReason.NO_POLICY,
    }
    for packet, reason in packets.items():
        before = left.statistics().drops
        assert len(left.protect([packet], 0.0)) == (reason is None)
        after = left.statistics().drops
        assert Counter(after) - Counter(before) == (Counter([reason]) if reason else Counter())
    left.remove_policy("no dns")
    left.protect([ipv4(ports(9, 53), protocol=17)], 0.0)
    assert left.statistics().drops[DropReason.BYPASS_NOT_ROUTED] == 2


def test_what_comes_in_the_clear_passes_if_policy_bypasses_it() -> None:
    right = engine()
    seen = flip(SELECTOR4)
    right.add_policy(Policy("no dns", replace(seen, protocol=17, local_port=53), Action.DISCARD))
    right.add_policy(Policy("around", replace(seen, protocol=17), Action.BYPASS))
    right.add_policy(
        Policy("out", replace(seen, protocol=6), Action.BYPASS, directions=frozenset({Direction.OUTBOUND}))
    )
    right.add_policy(Policy("four", seen))
    packets = {
        ipv4(ports(9, 53), protocol=17): DropReason.POLICY_DISCARD,
        ipv4(ports(53, 9), protocol=17): None,
        ipv4(ports(9, 53), protocol=6): DropReason.NOT_PROTECTED,
        ipv4(source="10.3.0.1"): DropReason.NO_POLICY,
        ipv4()[:-1]: DropReason.NOT_IP,
    }
    assert right.admit(list(packets)) == [packet for packet, reason in packets.items() if reason is None]
    assert right.statistics().drops == Counter(reason for reason in packets.values() if reason)


def test_a_fragment_without_ports_is_not_guessed_about() -> None:
    selector = replace(SELECTOR4, protocol=17, remote_port=53)
    tunnel = open_tunnel(selector=selector)
    first = ipv4(ports(9, 53), protocol=17)
    later = first[:6] + b"\x00\x01" + first[8:]
    assert len(tunnel.seal(first, later)) == 1
    assert tunnel.left.statistics().drops == {DropReason.NO_POLICY: 1}


def test_policies_that_cannot_be() -> None:
    left = engine()
    left.add_policy(Policy("four", SELECTOR4))
    with pytest.raises(InvalidPolicy):
        left.add_policy(Policy("four", SELECTOR6))
    with pytest.raises(InvalidPolicy):
        left.add_policy(Policy("mixed", Selector(SELECTOR4.local, SELECTOR6.remote)))
    with pytest.raises(InvalidPolicy):
        left.remove_policy("mixed")


# --- packets that wait ---


def test_packets_wait_for_their_sa_and_leave_in_order() -> None:
    tunnel = bare_tunnel()
    packets = [ipv4(bytes([number])) for number in range(10)]
    assert tunnel.seal(*packets[:5]) == []
    assert tunnel.seal(*packets[5:], now=0.5) == []
    assert tunnel.left.take_events() == [Acquired("four")]
    assert tunnel.left.statistics().held == {"four": 10, "six": 0}
    tunnel.right.install_inbound(parameters(selector=flip(SELECTOR4), remote=LEFT), 1.0)
    released = tunnel.left.install_outbound(parameters(), 1.0)
    assert {out.remote for out in released} == {RIGHT}
    assert tunnel.right.unprotect(incoming(released), 1.0) == packets
    assert tunnel.left.statistics().held == {"four": 0, "six": 0}
    assert tunnel.left.statistics().drops == {}


def test_a_full_queue_lets_the_oldest_go() -> None:
    tunnel = bare_tunnel()
    packets = [ipv4(number.to_bytes(2)) for number in range(MAX_HELD_PACKETS + 3)]
    tunnel.seal(*packets)
    tunnel.right.install_inbound(parameters(selector=flip(SELECTOR4), remote=LEFT), 0.0)
    assert tunnel.right.unprotect(incoming(tunnel.left.install_outbound(parameters(), 0.0)), 0.0) == packets[3:]
    assert tunnel.left.statistics().drops == {DropReason.HOLD_QUEUE_FULL: 3}


def test_keying_is_asked_again_while_packets_wait_and_no_longer() -> None:
    left = bare_tunnel().left
    left.protect([ipv4()], 0.0)
    assert left.take_events() == [Acquired("four")]
    deadline = left.expire(0.0)
    for second in range(1, int(HOLD_SECONDS)):
        assert deadline == second
        assert left.take_events() == []
        left.protect([ipv4()], second - 0.5)  # more of them do not ask more often
        deadline = left.expire(deadline)
        assert left.take_events() == [Acquired("four")]
    while deadline is not None:
        deadline = left.expire(deadline)
    assert left.statistics().drops == {DropReason.HOLD_EXPIRED: 10}
    assert left.statistics().held["four"] == 0


def test_what_waited_too_long_does_not_leave_after_all() -> None:
    left = bare_tunnel().left
    left.protect([ipv4(b"old")], 0.0)
    left.protect([ipv4(b"new")], HOLD_SECONDS - 1)
    assert len(left.install_outbound(parameters(), HOLD_SECONDS)) == 1
    assert left.statistics().drops == {DropReason.HOLD_EXPIRED: 1}


def test_a_policy_that_comes_later_stands_where_its_rank_has_it() -> None:
    left = engine()
    left.add_policy(Policy("behind", SELECTOR4, Action.DISCARD, rank=2))
    left.add_policy(Policy("four", SELECTOR4, rank=1))
    left.install_outbound(parameters(), 0.0)
    assert len(left.protect([ipv4()], 0.0)) == 1
    left.add_policy(Policy("before", replace(SELECTOR4, protocol=17), Action.DISCARD))
    assert len(left.protect([ipv4(ports(9, 53), protocol=17), ipv4()], 0.0)) == 1
    assert left.statistics().drops == {DropReason.POLICY_DISCARD: 1}


def test_a_policy_that_goes_takes_all_along() -> None:
    tunnel = open_tunnel()
    left = tunnel.left
    left.remove_outbound("four", SPI4)
    left.protect([ipv4(), ipv4()], 0.0)
    left.remove_policy("four")
    assert left.statistics().drops == {DropReason.NO_POLICY: 2}
    assert left.statistics().held == {"six": 0}
    tunnel.right.remove_policy("four")
    assert [sa.policy for engine in (left, tunnel.right) for sa in engine.statistics().sas] == ["six", "six"]


# --- the way in: the honest, the forged, the strange ---


def forge(text: bytes, sequence: int = 1, suite: str = "aes256-gcm16") -> bytes:
    """What a peer with the right keys and wrong ideas sends."""
    sa = parameters(suite)
    return make_sealer(sa.suite, sa.spi, sa.keymat, Random(9).randbytes).seal(sequence, text)


def trailer(payload: bytes, next_header: int, block: int = 4) -> bytes:
    pad = -(len(payload) + 2) % block
    return payload + bytes(range(1, pad + 1)) + bytes([pad, next_header])


INSIDE = ipv4(b"payload!")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (INSIDE + bytes([0, 4, 1, 4]), DropReason.BAD_PADDING),
        (INSIDE + bytes([0, 9, 200, 4]), DropReason.BAD_PADDING),
        (trailer(b"", 59), DropReason.DUMMY),
        (trailer(bytes(100), 59), DropReason.DUMMY),
        (trailer(INSIDE, 6), DropReason.BAD_NEXT_HEADER),
        (trailer(INSIDE, 50), DropReason.BAD_NEXT_HEADER),
        (trailer(INSIDE, 41), DropReason.NOT_IP),
        (trailer(ipv6(), 4), DropReason.NOT_IP),
        (trailer(INSIDE[:-1], 4), DropReason.NOT_IP),
        (trailer(b"", 4), DropReason.NOT_IP),
        (trailer(b"E", 4), DropReason.NOT_IP),
        (trailer(ipv4(source="10.9.0.1"), 4), DropReason.SELECTOR_MISMATCH),
        (trailer(ipv4(destination="10.9.0.1"), 4), DropReason.SELECTOR_MISMATCH),
        (trailer(ipv4(source="10.2.0.1", destination="10.1.0.1"), 4), DropReason.SELECTOR_MISMATCH),
        (trailer(ipv6(), 41), DropReason.SELECTOR_MISMATCH),
    ],
)
def test_authentic_but_not_to_be_delivered(text: bytes, reason: DropReason) -> None:
    tunnel = open_tunnel()
    assert tunnel.open(forge(text)) == []
    statistics = tunnel.right.statistics()
    assert statistics.drops == {reason: 1}
    assert statistics.sas[0].drops == {reason: 1}
    # It was authentic, so its number is spent (RFC 4303 §3.4.3) and its octets count.
    assert (statistics.sas[0].packets, statistics.sas[0].octets) == (1, len(text))
    assert tunnel.open(forge(text)) == []
    assert tunnel.right.statistics().drops == {reason: 1, DropReason.REPLAYED: 1}


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 50))
def test_padding_for_traffic_flow_confidentiality_is_cut_off(rest: bytes, six: bool, more: int) -> None:
    tunnel = open_tunnel()
    packet = (ipv6 if six else ipv4)(rest)
    text = trailer(packet + bytes(more), 41 if six else 4)
    sa = parameters(spi=SPI6 if six else SPI4)
    sealed = make_sealer(sa.suite, sa.spi, sa.keymat, Random(9).randbytes).seal(1, text)
    assert tunnel.open(sealed) == [packet]


def test_an_inner_fragment_needs_a_selector_without_ports() -> None:
    first = ipv4(ports(9, 53), protocol=17)
    later = first[:6] + b"\x00\x01" + first[8:]
    for selector, delivered in (
        (replace(SELECTOR4, protocol=17, remote_port=53), [first]),
        (SELECTOR4, [first, later]),
    ):
        tunnel = open_tunnel(selector=selector)
        assert tunnel.open(forge(trailer(first, 4), 1), forge(trailer(later, 4), 2)) == delivered


DNS = replace(SELECTOR4, protocol=17, remote_port=53)


def by_ports_tunnel(*, agreed: bool, octets: int = 1500) -> Tunnel:
    """For packets to port 53 alone, over a path of that many octets."""
    tunnel = bare_tunnel(DNS)
    sa = parameters(selector=DNS, fragments=agreed)
    tunnel.left.install_outbound(sa, 0.0)
    tunnel.right.install_inbound(replace(sa, selector=flip(DNS), remote=LEFT), 0.0)
    tunnel.left.learn_path(RIGHT, octets, None, 0.0)
    return tunnel


def in_pieces(port: int, octets: int = 4000) -> list[bytes]:
    packet = ipv4(ports(9, port, octets), protocol=17)
    return fragment(packet, 1000)


def test_fragments_go_where_their_first_went_if_that_is_agreed() -> None:
    """RFC 4301 §7.3, at both ends."""
    tunnel = by_ports_tunnel(agreed=True)
    pieces = in_pieces(53)
    assert tunnel.open(*tunnel.seal(*pieces)) == pieces
    assert tunnel.seal(*in_pieces(54)) == []
    assert tunnel.left.statistics().drops == {DropReason.NO_POLICY: len(pieces)}
    # A peer that sends what it should not: the first fragment is refused, and so are those of it.
    first, *later = in_pieces(54)
    forged = [forge(trailer(each, 4), number) for number, each in enumerate((first, *later), 100)]
    assert tunnel.open(*forged) == []
    assert tunnel.right.statistics().drops == {DropReason.SELECTOR_MISMATCH: len(forged)}


def test_without_agreement_only_the_first_is_sent_and_taken() -> None:
    tunnel = by_ports_tunnel(agreed=False)
    pieces = in_pieces(53)
    assert tunnel.open(*tunnel.seal(*pieces)) == pieces[:1]
    assert tunnel.left.statistics().drops == {DropReason.NOT_WHOLE: len(pieces) - 1}
    assert tunnel.open(forge(trailer(pieces[1], 4), 100)) == []


@pytest.mark.parametrize("agreed", [True, False])
def test_a_packet_for_a_port_is_cut_inside_only_for_a_peer_that_takes_the_pieces(agreed: bool) -> None:
    tunnel = by_ports_tunnel(agreed=agreed, octets=1280)
    packet = ipv4(ports(9, 53, 3000), protocol=17)
    sealed = tunnel.left.protect([packet], 0.0)
    opened = tunnel.right.unprotect(incoming(sealed), 0.0)
    assert b"".join(each[20:] for each in opened) == packet[20:]
    assert [each.dont_fragment for each in sealed] == ([None] * 3 if agreed else [False])


def test_fragments_pass_the_entries_that_their_packet_passes() -> None:
    """RFC 4301 §7.4: an entry by ports ahead leaves the rest of what it does not want to the next."""
    left = engine(1)
    left.add_policy(Policy("dns", DNS, Action.DISCARD))
    left.add_policy(Policy("four", SELECTOR4))
    left.install_outbound(parameters(), 0.0)
    assert len(left.protect(in_pieces(54), 0.0)) == len(in_pieces(54))
    assert left.protect(in_pieces(53), 0.0) == []
    assert left.statistics().drops == {DropReason.POLICY_DISCARD: len(in_pieces(53))}


SHORTEST = {name: 8 + suite.iv_octets + suite.block_octets + suite.icv_octets for name, suite in SUITES.items()}


@pytest.mark.parametrize("suite", KINDS)
def test_every_truncation_is_malformed_or_forged(suite: str) -> None:
    tunnel = open_tunnel(suite)
    (datagram,) = tunnel.seal(ipv4(b"payload"))
    before = tunnel.right.statistics()
    assert tunnel.open(*(datagram[:octets] for octets in range(len(datagram)))) == []
    statistics = tunnel.right.statistics()
    whole = [
        octets
        for octets in range(SHORTEST[suite], len(datagram))
        if (octets - SHORTEST[suite]) % SUITES[suite].block_octets == 0
    ]
    assert statistics.drops == {
        DropReason.MALFORMED: len(datagram) - len(whole),
        DropReason.AUTHENTICATION_FAILED: len(whole),
    }
    assert sum(statistics.sas[0].drops.values()) == len(datagram) - 8  # shorter ones name no SA
    unharmed(before.sas[0], statistics.sas[0])
    assert tunnel.open(datagram) == [ipv4(b"payload")]


def unharmed(before: object, after: object) -> None:
    """Nothing of an SA differs but what it counts as dropped."""
    assert replace(after, drops={}) == replace(before, drops={})


FORGERY = {
    DropReason.AUTHENTICATION_FAILED,
    DropReason.UNKNOWN_SPI,
    DropReason.REPLAYED,
    DropReason.TOO_OLD,
}


@pytest.mark.parametrize("suite", KINDS)
@pytest.mark.parametrize("window", [0, 64])
def test_no_flipped_bit_gets_through(suite: str, window: int) -> None:
    """Every bit of one packet, in the middle of a stream: a window that has seen its neighbours, one still to come."""
    tunnel = open_tunnel(suite, window=window)
    packets = [ipv4(bytes([number])) for number in range(100)]
    sealed = tunnel.seal(*packets)
    target = sealed.pop(90)
    assert len(tunnel.open(*sealed)) == 99
    before = tunnel.right.statistics()
    number = int.from_bytes(target)
    mutations = [(number ^ 1 << bit).to_bytes(len(target)) for bit in range(8 * len(target))]
    assert tunnel.open(*mutations, source=ELSEWHERE) == []
    statistics = tunnel.right.statistics()
    assert outcome(statistics.drops) == FORGERY - (set() if window else {DropReason.REPLAYED, DropReason.TOO_OLD})
    assert sum(statistics.drops.values()) == len(mutations)
    for one, other in zip(before.sas, statistics.sas, strict=True):
        unharmed(one, other)
    assert [type(event) for event in tunnel.right.take_events()] == [UnknownSpiSeen]  # a bit of the SPI; once a second
    assert tunnel.open(target) == [packets[90]]


@given(
    st.lists(st.binary(max_size=120) | st.binary(max_size=120).map(lambda rest: SPI4.to_bytes(4) + rest), max_size=30),
    st.sampled_from(KINDS),
)
def test_random_octets_count_once_each_and_do_nothing_else(datagrams: list[bytes], suite: str) -> None:
    tunnel = open_tunnel(suite)
    before = tunnel.right.statistics()
    assert tunnel.open(*datagrams, source=ELSEWHERE) == []
    statistics = tunnel.right.statistics()
    assert sum(statistics.drops.values()) == len(datagrams)
    assert outcome(statistics.drops) <= {*FORGERY, DropReason.MALFORMED}
    for one, other in zip(before.sas, statistics.sas, strict=True):
        unharmed(one, other)
    assert {type(event) for event in tunnel.right.take_events()} <= {UnknownSpiSeen}
    assert tunnel.open(*tunnel.seal(ipv4())) == [ipv4()]


def test_unknown_spis_are_told_once_a_second() -> None:
    tunnel = open_tunnel()
    stranger = [ESP_HEADER.pack(spi, 1) + bytes(40) for spi in range(1000, 1100)]
    assert tunnel.open(*stranger, source=ELSEWHERE) == []
    assert tunnel.right.take_events() == [UnknownSpiSeen(1000, ELSEWHERE)]
    assert tunnel.open(*stranger, source=ELSEWHERE, now=0.9) == []
    assert tunnel.right.take_events() == []
    assert tunnel.open(*stranger[50:], source=ELSEWHERE, now=1.0) == []
    assert tunnel.right.take_events() == [UnknownSpiSeen(1050, ELSEWHERE)]
    assert tunnel.right.statistics().drops == {DropReason.UNKNOWN_SPI: 250}


@given(st.lists(st.binary(max_size=120), max_size=30), st.sampled_from(["bare", "open"]))
def test_random_packets_from_inside_are_dropped_held_or_sealed(packets: list[bytes], kind: str) -> None:
    tunnel = bare_tunnel() if kind == "bare" else open_tunnel()
    sealed = tunnel.seal(*packets, *(ipv4(packet) for packet in packets))
    statistics = tunnel.left.statistics()
    dropped = sum(statistics.drops.values())
    assert len(sealed) + sum(statistics.held.values()) + dropped == 2 * len(packets)
    assert statistics.packets_out == len(sealed)


@given(st.lists(st.integers(0, 199), max_size=300), st.sampled_from((0, 1, 32, 64, 8192)))
@settings(max_examples=30)
def test_duplicates_and_late_packets_are_told_by_a_slow_model(order: list[int], window: int) -> None:
    tunnel = open_tunnel(window=window)
    packets = [ipv4(bytes([number])) for number in range(200)]
    sealed = tunnel.seal(*packets)
    accepted: set[int] = set()
    expected: Counter[DropReason] = Counter()
    delivered = []
    for number in order:
        if window and number <= max(accepted, default=-1) - window:
            expected[DropReason.TOO_OLD] += 1
        elif window and number in accepted:
            expected[DropReason.REPLAYED] += 1
        else:
            accepted.add(number)
            delivered.append(packets[number])
    assert tunnel.open(*(sealed[number] for number in order)) == delivered
    assert tunnel.right.statistics().drops == expected


# --- lifetimes ---


def test_an_sa_that_ends_within_a_packet_carries_the_whole_of_it() -> None:
    """A packet that may be fragmented is many to an SA: limits are looked at once for all of them."""
    tunnel = open_tunnel(left_lifetime=Lifetime(soft_packets=1, hard_packets=2))
    tunnel.left.learn_path(RIGHT, 576, None, 0.0)
    sealed = tunnel.seal(ipv4(bytes(4000)), ipv4())
    assert len(sealed) > 2
    assert len(tunnel.open(*sealed)) == len(sealed)
    assert HardExpired("four", SPI4, inbound=False) in tunnel.left.take_events()
    assert tunnel.left.statistics().held["four"] == 1


def test_the_sending_side_ends_by_packets_and_then_waits_for_a_successor() -> None:
    tunnel = open_tunnel(left_lifetime=Lifetime(soft_packets=2, hard_packets=4))
    left = tunnel.left
    assert [(len(tunnel.seal(ipv4())), left.take_events()) for _ in range(5)] == [
        (1, []),
        (1, [SoftExpired("four", SPI4, inbound=False)]),
        (1, []),
        (1, [HardExpired("four", SPI4, inbound=False)]),
        (0, [Acquired("four")]),
    ]
    assert left.statistics().held["four"] == 1
    assert len(left.install_outbound(parameters(spi=SPI4 + 1), 1.0)) == 1


def test_both_sides_end_by_octets_and_alike() -> None:
    lifetime = Lifetime(soft_octets=48, hard_octets=96)
    tunnel = open_tunnel(left_lifetime=lifetime, right_lifetime=lifetime)
    for _ in range(4):  # 24 octets each, with the trailer
        assert len(tunnel.open(*tunnel.seal(ipv4()))) == 1
    for side, inbound in ((tunnel.left, False), (tunnel.right, True)):
        assert side.take_events() == [SoftExpired("four", SPI4, inbound), HardExpired("four", SPI4, inbound)]
        assert [sa.policy for sa in side.statistics().sas] == ["six"]


def test_time_ends_an_sa_even_if_nobody_looks_at_the_clock() -> None:
    lifetime = Lifetime(hard_seconds=60)
    tunnel = open_tunnel(left_lifetime=lifetime, right_lifetime=lifetime)
    early, late = tunnel.seal(ipv4(b"1"), ipv4(b"2"), now=59.9)
    assert tunnel.open(early, now=59.9) == [ipv4(b"1")]
    assert tunnel.open(late, now=60.0) == []
    assert tunnel.right.statistics().drops == {DropReason.SA_EXPIRED: 1}
    assert tunnel.right.take_events() == [HardExpired("four", SPI4, inbound=True)]
    assert tunnel.open(late, now=60.0) == []
    assert tunnel.right.statistics().drops == {DropReason.SA_EXPIRED: 1, DropReason.UNKNOWN_SPI: 1}
    assert tunnel.seal(ipv4(), now=60.0) == []
    assert tunnel.left.take_events() == [HardExpired("four", SPI4, inbound=False), Acquired("four")]


def test_expire_tells_when_it_is_needed_next() -> None:
    lifetime = Lifetime(soft_seconds=50, hard_seconds=60)
    right = open_tunnel(right_lifetime=lifetime).right
    assert right.expire(0.0) == 50.0
    assert right.take_events() == []
    assert right.expire(50.0) == 60.0
    assert set(right.take_events()) == {SoftExpired("four", SPI4, inbound=True), SoftExpired("six", SPI6, inbound=True)}
    assert right.expire(60.0) is None
    assert set(right.take_events()) == {HardExpired("four", SPI4, inbound=True), HardExpired("six", SPI6, inbound=True)}
    assert right.statistics().sas == ()


def test_the_next_newest_takes_over() -> None:
    left = bare_tunnel().left
    left.install_outbound(parameters(spi=300), 0.0)
    left.install_outbound(parameters(spi=301, lifetime=Lifetime(hard_seconds=10)), 0.0)

    def carrier(now: float) -> int:
        (out,) = left.protect([ipv4()], now)
        return int.from_bytes(out.datagram[:4])

    assert carrier(9.0) == 301
    assert carrier(10.0) == 300
    left.install_outbound(parameters(spi=302), 11.0)
    assert carrier(11.0) == 302
    left.remove_outbound("four", 302)
    assert carrier(11.0) == 300


def test_the_last_number_is_used_and_none_after_it() -> None:
    tunnel = bare_tunnel()
    tunnel.left.install_outbound(parameters(sequence=2**32 - 3), 0.0)
    tunnel.right.install_inbound(parameters(selector=flip(SELECTOR4), remote=LEFT), 0.0)
    sealed = tunnel.seal(*[ipv4()] * 5)
    assert [int.from_bytes(datagram[4:8]) for datagram in sealed] == [2**32 - 2, 2**32 - 1]
    assert len(tunnel.open(*sealed)) == 2
    statistics = tunnel.left.statistics()
    assert statistics.drops == statistics.sas[0].drops == {DropReason.SEQUENCE_EXHAUSTED: 3}
    assert tunnel.left.take_events() == [SoftExpired("four", SPI4, inbound=False), CounterExhausted("four", SPI4)]
    tunnel.seal(ipv4())
    assert tunnel.left.take_events() == []  # said once
    assert tunnel.left.statistics().drops == {DropReason.SEQUENCE_EXHAUSTED: 4}


def test_the_last_extended_number_is_used_and_none_after_it() -> None:
    tunnel = bare_tunnel()
    tunnel.left.install_outbound(parameters(sequence=2**64 - 2, esn=True), 0.0)
    (sealed,) = tunnel.seal(*[ipv4()] * 3)
    assert ScapySa("aes256-gcm16", SPI4, parameters().keymat, esn=True).open(sealed, high=2**32 - 1) == ipv4()
    assert tunnel.left.statistics().drops == {DropReason.SEQUENCE_EXHAUSTED: 2}
    assert CounterExhausted("four", SPI4) in tunnel.left.take_events()


def test_a_window_spans_two_subspaces() -> None:
    """RFC 4303 appendix A2.2, case B: what is late belongs to the subspace before."""
    tunnel = crossing(before=20, window=32)
    assert len(tunnel.open(*tunnel.seal(ipv4()))) == 1
    sealed = tunnel.seal(*[ipv4()] * 30)
    assert len(tunnel.open(*reversed(sealed))) == 30
    assert tunnel.open(*sealed) == []
    statistics = tunnel.right.statistics()
    assert statistics.drops == {DropReason.REPLAYED: 30}
    assert statistics.sas[0].sequence == CROSSING + 10


@given(st.binary(min_size=4, max_size=4), st.integers(0, 60), st.integers(0, 255))
def test_a_forged_packet_moves_nothing_of_extended_numbers(low: bytes, octet: int, value: int) -> None:
    tunnel = crossing(window=32)
    sealed = tunnel.seal(*[ipv4(b"payload")] * 8)
    assert len(tunnel.open(*sealed[:5])) == 5
    before = tunnel.right.statistics().sas[0]
    forged = sealed[0][:4] + low + sealed[0][8:]
    forged = forged[:octet] + bytes([forged[octet] ^ value]) + forged[octet + 1 :] if octet >= 8 else forged
    assert tunnel.open(forged) == []
    after = tunnel.right.statistics().sas[0]
    assert (after.sequence, after.packets, after.octets) == (before.sequence, before.packets, before.octets)
    assert len(tunnel.open(*sealed[5:])) == 3


def lost(subspaces: int) -> tuple[Tunnel, Iterator[bytes]]:
    """An SA of which so many times 2^32 packets were lost, and those that come after them."""
    tunnel = crossing()
    (first,) = tunnel.seal(ipv4())
    assert len(tunnel.open(first)) == 1
    sa = parameters(esn=True, spi=SPI4, sequence=CROSSING - 3 + subspaces * CROSSING)
    tunnel.left.remove_outbound("four", SPI4)
    tunnel.left.install_outbound(sa, 0.0)
    return tunnel, (tunnel.seal(ipv4())[0] for _ in count())


@pytest.mark.parametrize("subspaces", [1, 8])
def test_numbers_are_found_again_after_more_than_two_to_the_32_lost_packets(subspaces: int) -> None:
    """RFC 4303 appendix A3: after a thousand packets in a row that are not authentic, and not before."""
    tunnel, packets = lost(subspaces)
    assert tunnel.open(*islice(packets, 1023)) == []
    assert len(tunnel.open(*islice(packets, 100))) == 100
    statistics = tunnel.right.statistics()
    assert statistics.drops == {DropReason.AUTHENTICATION_FAILED: 1023}
    assert statistics.sas[0].sequence == CROSSING - 3 + subspaces * CROSSING + 1123
    (first,) = crossing().seal(ipv4())
    assert tunnel.open(first) == []  # nothing of the past has become new by it


def test_too_much_is_lost_to_be_found_again_and_forgeries_find_nothing() -> None:
    tunnel, packets = lost(9)
    assert tunnel.open(*islice(packets, 3000)) == []
    tunnel = crossing()
    (good, *more) = tunnel.seal(*[ipv4()] * 4)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    assert tunnel.open(*[forged] * 3000) == []
    assert len(tunnel.open(good, *more)) == 4
    (late,) = tunnel.open(*tunnel.seal(ipv4()))
    assert late == ipv4()


def test_authentic_packets_between_make_the_count_start_again() -> None:
    tunnel = crossing()
    opened = tunnel.seal(*[ipv4()] * 3)
    oracle = ScapySa("aes256-gcm16", SPI4, parameters().keymat, esn=True)
    ahead = oracle.seal(ipv4(), CROSSING * 3)
    for good in opened:
        assert tunnel.open(*[ahead] * 1000) == []
        assert len(tunnel.open(good)) == 1
    assert tunnel.open(*[ahead] * 1023) == []
    assert len(tunnel.open(ahead)) == 1


# --- peers that move, NATs that forget ---


def both_ways() -> tuple[Engine, Tunnel]:
    """Right can answer: its outbound SAs serve the same policies."""
    tunnel = open_tunnel()
    for spi in (301, 302):
        tunnel.right.install_outbound(
            parameters(spi=spi, selector=flip(SELECTOR4), remote=LEFT),
            0.0,
        )
    return tunnel.right, tunnel


def answer(right: Engine) -> Endpoint:
    (out,) = right.protect([ipv4(source="10.2.0.1", destination="10.1.0.1")], 0.0)
    return out.remote


def test_answers_go_to_where_the_newest_packet_came_from() -> None:
    right, tunnel = both_ways()
    sealed = tunnel.seal(*[ipv4()] * 4)
    tunnel.open(sealed[0])
    assert answer(right) == LEFT
    tunnel.open(sealed[2], source=ELSEWHERE)
    assert answer(right) == ELSEWHERE
    assert right.take_events() == [EndpointMoved("four", SPI4, ELSEWHERE)]
    # A packet from before the move comes late: authentic, delivered, and no reason to move back.
    assert len(tunnel.open(sealed[1], source=LEFT)) == 1
    assert answer(right) == ELSEWHERE
    right.remove_outbound("four", 302)
    assert answer(right) == ELSEWHERE
    tunnel.open(sealed[3], source=LEFT)
    assert answer(right) == LEFT
    assert right.take_events() == [EndpointMoved("four", SPI4, LEFT)]


@pytest.mark.parametrize("window", [0, 8192])
def test_a_replay_from_elsewhere_moves_nothing(window: int) -> None:
    tunnel = open_tunnel(window=window)
    sealed = tunnel.seal(*[ipv4()] * 2)
    tunnel.open(*sealed)
    tunnel.open(*sealed, source=ELSEWHERE)
    assert tunnel.right.take_events() == []
    assert tunnel.right.statistics().sas[0].remote == LEFT


def test_a_late_packet_of_an_older_sa_moves_the_endpoint_until_the_next_packet_of_the_newer() -> None:
    """Whoever keeps back the last packet of an SA and sends it after the rekey gains one packet's time, no more."""
    right, tunnel = both_ways()
    kept = tunnel.seal(ipv4())
    younger = parameters(spi=303)
    tunnel.right.install_inbound(replace(younger, selector=flip(SELECTOR4), remote=LEFT), 0.0)
    tunnel.left.install_outbound(younger, 0.0)
    tunnel.open(*tunnel.seal(ipv4()))
    tunnel.open(*kept, source=ELSEWHERE)
    assert answer(right) == ELSEWHERE
    tunnel.open(*tunnel.seal(ipv4()))
    assert answer(right) == LEFT
    assert right.take_events() == [EndpointMoved("four", SPI4, ELSEWHERE), EndpointMoved("four", 303, LEFT)]
    assert {sa.remote for sa in right.statistics().sas if sa.policy == "four"} == {LEFT}


def test_keying_says_where_the_peer_is() -> None:
    """All SAs of the policy go there, and nobody is told what was their own word."""
    right, tunnel = both_ways()
    tunnel.open(*tunnel.seal(ipv4()))
    right.follow("four", ELSEWHERE)
    assert answer(right) == ELSEWHERE
    assert {sa.remote for sa in right.statistics().sas if sa.policy == "four"} == {ELSEWHERE}
    assert right.take_events() == []
    tunnel.open(*tunnel.seal(ipv4()))
    assert answer(right) == LEFT, "its newest packet has the last word"
    right.follow("no such policy", ELSEWHERE)


def test_a_peer_that_nobody_knows_the_place_of_is_found_by_what_it_sends() -> None:
    right, tunnel = both_ways()
    nowhere = Endpoint("", 0)
    right.follow("four", nowhere)
    assert answer(right) == nowhere
    assert tunnel.open(*tunnel.seal(ipv4()), source=ELSEWHERE) == [ipv4()]
    assert answer(right) == ELSEWHERE


def test_an_endpoint_moves_within_its_encapsulation() -> None:
    """What came in the other one is authentic, and says nothing of where to send in this one."""
    right, tunnel = both_ways()
    at_left = Endpoint(LEFT.address, 0)
    raw = {"policy": "six", "selector": flip(SELECTOR6), "remote": at_left, "encapsulation": Encapsulation.RAW}
    right.install_inbound(parameters(spi=SPI6, **raw), 0.0)
    right.install_outbound(parameters(spi=304, **raw), 0.0)
    back = ipv6(source="2001:db8:2::1", destination="2001:db8:1::1")
    elsewhere = Endpoint(ELSEWHERE.address, 0)
    assert len(tunnel.open(*tunnel.seal(ipv4()), source=elsewhere)) == 1
    assert answer(right) == LEFT
    tunnel.left.remove_outbound("six", SPI6)
    tunnel.left.install_outbound(replace(parameters(spi=SPI6, **raw), selector=SELECTOR6, remote=at_left), 0.0)
    for source, expected in ((ELSEWHERE, at_left), (elsewhere, elsewhere)):
        assert len(tunnel.open(*tunnel.seal(ipv6()), source=source)) == 1
        assert [out.remote for out in right.protect([back], 0.0)] == [expected]
    assert right.take_events() == [EndpointMoved("six", SPI6, elsewhere)]
    right.follow("six", LEFT)
    assert [out.remote for out in right.protect([back], 0.0)] == [at_left], "by keying's word, which has a port"


def test_keepalives_for_remotes_that_heard_nothing() -> None:
    left = open_tunnel().left
    left.install_outbound(parameters(spi=300, remote=ELSEWHERE), 5.0)  # SPI 0x1000 carries no more, its peer is RIGHT
    assert left.expire(5.0) == KEEPALIVE_SECONDS
    assert left.keepalives(19.9) == []
    assert left.keepalives(20.0) == [Outgoing(b"\xff", RIGHT)]
    assert left.keepalives(20.0) == []
    assert left.keepalives(25.0) == [Outgoing(b"\xff", ELSEWHERE)]
    left.protect([ipv6()], 30.0)  # to RIGHT
    assert left.keepalives(44.9) == []
    assert left.expire(44.9) == 45.0
    assert left.keepalives(45.0) == [Outgoing(b"\xff", ELSEWHERE)]
    assert left.keepalives(50.0) == [Outgoing(b"\xff", RIGHT)]
    assert sum(left.statistics().drops.values()) == 0


def test_raw_esp_has_no_mapping_to_keep() -> None:
    left = bare_tunnel().left
    left.install_outbound(parameters(encapsulation=Encapsulation.RAW, remote=Endpoint("192.0.2.2", 0)), 0.0)
    assert left.expire(0.0) is None
    assert left.keepalives(1000.0) == []


# --- installing and removing ---


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "nobody"},
        {"policy": "discarded"},
        {"spi": 5},
        {"keymat": b""},
        {"selector": Selector(SELECTOR4.local, SELECTOR6.remote)},
    ],
)
def test_sas_that_cannot_be(changes: dict[str, object]) -> None:
    left = bare_tunnel().left
    left.add_policy(Policy("discarded", SELECTOR4, Action.DISCARD))
    for install in (left.install_inbound, left.install_outbound):
        with pytest.raises((InvalidSa, InvalidPolicy)):
            install(parameters(**changes), 0.0)
    assert left.statistics().sas == ()


def test_an_outbound_sa_must_be_able_to_carry_all_of_its_policy() -> None:
    left = bare_tunnel().left
    with pytest.raises(InvalidSa, match="does not cover that of policy 'four'"):
        left.install_outbound(parameters(selector=replace(SELECTOR4, protocol=6)), 0.0)


def test_removing_what_is_not_there() -> None:
    left = open_tunnel().left
    with pytest.raises(UnknownSa):
        left.remove_inbound(SPI4)
    with pytest.raises(UnknownSa):
        left.remove_outbound("six", SPI4)
    left.remove_outbound("six", SPI6)
    with pytest.raises(UnknownSa):
        left.remove_outbound("six", SPI6)


def test_spis_are_reserved_until_installed_or_released() -> None:
    right = open_tunnel().right
    spis = {right.allocate_spi() for _ in range(100)}
    assert len(spis) == 100
    assert not spis & {SPI4, SPI6}
    for spi in spis:
        right.release_spi(spi)


def test_a_second_key_under_an_spi_replaces_the_first() -> None:
    """RFC 4430 §3.2: after the third message of a handshake, the optimistic keys are no keys any more."""
    tunnel = open_tunnel()
    (old,) = tunnel.seal(ipv4())
    tunnel.right.install_inbound(parameters(seed=1, selector=flip(SELECTOR4), remote=LEFT), 1.0)
    tunnel.left.remove_outbound("four", SPI4)
    tunnel.left.install_outbound(parameters(seed=1), 1.0)
    assert tunnel.open(old) == []
    assert tunnel.right.statistics().drops == {DropReason.AUTHENTICATION_FAILED: 1}
    assert len(tunnel.open(*tunnel.seal(ipv4()))) == 1


# --- statistics ---


def test_statistics_add_up_and_are_a_copy() -> None:
    tunnel = open_tunnel()
    sealed = tunnel.seal(ipv4(bytes(10)), ipv6(bytes(10)), ipv4(bytes(30)))
    tunnel.open(*sealed, sealed[0], b"junk")
    tunnel.right.count_drop(DropReason.TUN_REFUSED, 2)
    tunnel.right.count_drop(DropReason.LINK_REFUSED, 0)
    left, right = tunnel.left.statistics(), tunnel.right.statistics()
    assert (left.packets_out, left.octets_out) == (right.packets_in, right.octets_in) == (3, 30 + 50 + 50)
    assert (left.packets_in, right.packets_out) == (0, 0)
    assert right.drops == {DropReason.REPLAYED: 1, DropReason.MALFORMED: 1, DropReason.TUN_REFUSED: 2}
    four, six = right.sas
    assert (four.policy, four.spi, four.inbound, four.suite) == ("four", SPI4, True, "aes256-gcm16")
    assert (four.packets, four.octets, four.sequence, four.drops) == (2, 32 + 52, 2, {DropReason.REPLAYED: 1})
    assert (six.packets, six.sequence, six.drops) == (1, 1, {})
    tunnel.open(sealed[0])
    assert right.drops[DropReason.REPLAYED] == four.drops[DropReason.REPLAYED] == 1


def test_no_key_shows_in_statistics_or_events() -> None:
    keymat = b"SECRETS!" * 4 + b"SALT"
    left = bare_tunnel().left
    sa = SaParameters(300, SUITES["aes256-gcm16"], keymat, "four", SELECTOR4, RIGHT, Lifetime(soft_packets=1))
    left.install_outbound(sa, 0.0)
    left.protect([ipv4()], 0.0)
    assert "SECRET" not in repr((left.statistics(), left.take_events(), sa))


def test_each_of_many_packets_counts_exactly_once() -> None:
    """A stream with everything in it: good, held, forged, cut, replayed, unknown, of no policy, not IP at all."""
    random, tunnel = Random(11), open_tunnel()
    good = tunnel.seal(*(ipv4(number.to_bytes(2)) for number in range(500)))
    stream = []
    for datagram in good:
        octet = random.randrange(len(datagram))
        bad = datagram[:octet] + bytes([datagram[octet] ^ random.randrange(1, 256)]) + datagram[octet + 1 :]
        stream += [datagram, datagram, bad, datagram[:octet], random.randbytes(60)]
    random.shuffle(stream)
    delivered = tunnel.right.unprotect([Incoming(datagram, LEFT) for datagram in stream], 0.0)
    statistics = tunnel.right.statistics()
    assert sorted(delivered) == [ipv4(number.to_bytes(2)) for number in range(500)]
    assert statistics.packets_in == 500
    assert sum(statistics.drops.values()) == len(stream) - 500


def carry(tunnel: Tunnel, packets: int) -> None:
    assert len(tunnel.open(*tunnel.seal(*[ipv4(b"payload")] * packets))) == packets


def test_what_a_policy_carried_stays_when_its_sas_are_replaced_and_go() -> None:
    """A rekey, new keys under an SPI (RFC 4430 §3.2), a peer that restarts: nothing is taken back, or told twice."""
    tunnel = open_tunnel()
    carry(tunnel, 3)
    once = tunnel.left.statistics().carried["four"].octets_out // 3
    for now, seed in ((1.0, 1), (2.0, 2)):
        inbound = parameters(spi=SPI4 + 1, seed=seed, selector=flip(SELECTOR4), remote=LEFT)
        tunnel.right.install_inbound(inbound, now)
    tunnel.left.install_outbound(parameters(spi=SPI4 + 1, seed=2), 2.0)
    carry(tunnel, 4)
    assert [sa.spi for sa in tunnel.right.of_policy("four").sas] == [SPI4, SPI4 + 1], "the newest last"
    tunnel.left.remove_outbound("four", SPI4)
    tunnel.right.remove_inbound(SPI4)
    carry(tunnel, 5)
    tunnel.left.remove_outbound("four", SPI4 + 1)
    tunnel.right.remove_inbound(SPI4 + 1)
    sent, got = tunnel.left.statistics(), tunnel.right.statistics()
    assert sent.carried["four"] == Carried(packets_out=12, octets_out=12 * once)
    assert got.carried["four"] == Carried(packets_in=12, octets_in=12 * once)
    assert got.carried["six"] == Carried()
    sent.carried["four"].packets_out = tunnel.left.of_policy("four").carried.packets_out = 0
    assert tunnel.left.statistics().carried["four"].packets_out == 12, "it was a copy"
    tunnel.left.remove_policy("four")
    assert "four" not in tunnel.left.statistics().carried


def test_parts_of_the_statistics_are_those_of_the_whole() -> None:
    tunnel = open_tunnel()
    carry(tunnel, 3)
    tunnel.left.remove_outbound("six", SPI6)
    tunnel.left.protect([ipv6()], 0.0)
    for end in (tunnel.left, tunnel.right):
        whole, totals = end.statistics(), asdict(end.totals())
        assert {name: getattr(whole, name) for name in totals} == totals
        assert tuple(end.sas()) == whole.sas
        for name in ("four", "six"):
            sas = tuple(sa for sa in whole.sas if sa.policy == name)
            assert end.of_policy(name) == PolicyStatistics(sas, whole.carried.get(name, Carried()), whole.held[name])
    assert tunnel.left.of_policy("six").held == 1
    assert tunnel.left.of_policy("none") == PolicyStatistics((), Carried(), 0)


# --- a peer that does not answer ---


def watched(*, answer_within: float | None = 10.0) -> Tunnel:
    """Left sends under IPv4 and hears under IPv6: two policies of one peer, whom it watches."""
    tunnel = Tunnel(engine(1), engine(2))
    for name, one in (("four", SELECTOR4), ("six", SELECTOR6)):
        tunnel.left.add_policy(Policy(name, one, peer="east", answer_within=answer_within))
        tunnel.right.add_policy(Policy(name, flip(one)))
    four, six = parameters(), parameters(spi=SPI6, policy="six", selector=SELECTOR6)
    tunnel.left.install_outbound(four, 0.0)
    tunnel.left.install_inbound(six, 0.0)
    tunnel.right.install_outbound(replace(six, selector=flip(SELECTOR6), remote=LEFT), 0.0)
    return tunnel


def heard(tunnel: Tunnel, now: float) -> bytes:
    """An ESP packet from right."""
    packet = ipv6(source="2001:db8:2::1", destination="2001:db8:1::1")
    (out,) = tunnel.right.protect([packet], now)
    return out.datagram


def test_packets_that_nobody_answers_are_told_again_and_again_while_they_leave() -> None:
    left = watched().left
    left.protect([ipv4()], 5.0)
    assert left.expire(5.0) == 15.0
    left.protect([ipv4()], 14.0)
    left.expire(14.9)
    assert left.take_events() == []
    left.expire(15.0)
    assert left.take_events() == [Unanswered("east")]
    left.expire(1000.0)
    assert left.take_events() == [], "nobody sends any more: nobody wants to know"
    left.protect([ipv4()], 1000.0)
    left.expire(1010.0)
    assert left.take_events() == [Unanswered("east")]
    assert left.last_heard("east") is None


def test_an_authentic_packet_of_any_policy_of_the_peer_is_an_answer() -> None:
    tunnel = watched()
    tunnel.left.protect([ipv4()], 5.0)
    assert len(tunnel.left.unprotect([Incoming(heard(tunnel, 6.0), RIGHT)], 6.0)) == 1
    assert tunnel.left.last_heard("east") == 6.0
    tunnel.left.expire(100.0)
    assert tunnel.left.take_events() == []


def test_what_anybody_can_send_is_no_answer() -> None:
    tunnel = watched()
    datagram = heard(tunnel, 1.0)
    assert tunnel.left.unprotect([Incoming(datagram, RIGHT)], 1.0)
    tunnel.left.protect([ipv4()], 5.0)
    forged = bytearray(heard(tunnel, 6.0))
    forged[-1] ^= 1
    hostile = [datagram, bytes(forged), bytes(64), ESP_HEADER.pack(SPI6, 7), b""]
    assert tunnel.left.unprotect([Incoming(octets, RIGHT) for octets in hostile], 6.0) == []
    assert tunnel.left.last_heard("east") == 1.0
    tunnel.left.expire(15.0)
    assert Unanswered("east") in tunnel.left.take_events()


def test_a_rekey_forgets_nothing() -> None:
    tunnel = watched()
    tunnel.left.protect([ipv4()], 5.0)
    tunnel.left.install_outbound(parameters(spi=SPI4 + 1), 6.0)
    tunnel.left.remove_outbound("four", SPI4)
    tunnel.left.expire(15.0)
    assert tunnel.left.take_events() == [Unanswered("east")]


def test_who_is_not_watched_may_be_silent() -> None:
    left = watched(answer_within=None).left
    left.protect([ipv4()], 5.0)
    left.expire(1000.0)
    assert left.take_events() == []
    assert left.last_heard("east") is None


def test_a_peer_is_watched_as_long_as_it_has_a_policy() -> None:
    tunnel = watched()
    left = tunnel.left
    left.remove_policy("four")
    assert left.unprotect([Incoming(heard(tunnel, 6.0), RIGHT)], 6.0)
    assert left.last_heard("east") == 6.0
    left.remove_policy("six")
    assert left.last_heard("east") is None


def test_whether_and_how_long_changes_under_standing_sas() -> None:
    tunnel = watched(answer_within=None)
    left = tunnel.left
    left.protect([ipv4()], 5.0)
    for limit, large in ((3.0, False), (7.0, True)):
        for name, selector in (("four", SELECTOR4), ("six", SELECTOR6)):
            left.replace_policy(Policy(name, selector, peer="east", answer_within=limit, large=large))
    left.expire(100.0)
    assert left.take_events() == [], "what left before is not asked for"
    assert len(left.protect([ipv4(bytes(LARGE_OCTETS))], 100.0)) == 1
    assert left.take_events() == [LargeSent("four")]
    left.expire(106.9)
    assert left.take_events() == []
    assert left.unprotect([Incoming(heard(tunnel, 106.9), RIGHT)], 106.9)
    left.protect([ipv4()], 107.0)
    left.expire(114.0)
    assert left.take_events() == [Unanswered("east")]
    for name, selector in (("four", SELECTOR4), ("six", SELECTOR6)):
        left.replace_policy(Policy(name, selector, peer="east"))
    left.protect([ipv4(bytes(LARGE_OCTETS))], 115.0)
    left.expire(1000.0)
    assert left.take_events() == []
    assert left.last_heard("east") == 106.9


def test_what_a_policy_is_about_is_not_replaced() -> None:
    left = watched().left
    with pytest.raises(InvalidPolicy, match="'four' is about something else"):
        left.replace_policy(Policy("four", SELECTOR6, peer="east"))
    with pytest.raises(InvalidPolicy, match="no policy 'five'"):
        left.replace_policy(Policy("five", SELECTOR4, peer="east"))


# --- what an observer sees ---


def test_padding_makes_all_packets_up_to_a_size_alike_and_the_receiver_cuts_it_off() -> None:
    """RFC 4303 §2.7; the observer sees lengths of datagrams and nothing else."""
    tunnel = open_tunnel()
    tunnel.left.install_outbound(parameters(spi=0x1001, confidentiality=Confidentiality(1400)), 0.0)
    tunnel.right.install_inbound(parameters(spi=0x1001, selector=flip(SELECTOR4), remote=LEFT), 0.0)
    packets = [ipv4(bytes(octets)) for octets in (0, 1, 700, 1380, 1381, 1400)]
    sealed = tunnel.seal(*packets)
    assert len({len(each) for each in sealed[:4]}) == 1
    assert [len(each) > len(sealed[0]) for each in sealed[4:]] == [False, True]  # 1,401 octets end in the same block
    assert tunnel.open(*sealed) == packets


def test_a_dummy_goes_out_when_nothing_else_has_and_looks_like_the_rest() -> None:
    tunnel = open_tunnel()
    sa = parameters(spi=0x1001, confidentiality=Confidentiality(1400, dummy_after=0.5))
    tunnel.left.install_outbound(sa, 0.0)
    tunnel.right.install_inbound(parameters(spi=0x1001, selector=flip(SELECTOR4), remote=LEFT), 0.0)
    assert tunnel.left.pace(0.4) == []
    assert tunnel.left.pace_deadline() == 0.5
    (dummy,) = tunnel.left.pace(0.5)
    (packet,) = tunnel.left.protect([ipv4()], 0.8)
    assert len(dummy.datagram) == len(packet.datagram)
    assert tunnel.left.pace_deadline() == 1.3
    assert tunnel.left.pace(1.0) == []
    assert tunnel.open(dummy.datagram, packet.datagram) == [ipv4()]
    assert tunnel.right.statistics().drops == {DropReason.DUMMY: 1}
    tunnel.left.remove_outbound("four", 0x1001)
    assert tunnel.left.pace_deadline() == inf


def aggregating(octets: int = 500, per_second: float = 10, **changes: object) -> Tunnel:
    tunnel = bare_tunnel()
    sa = parameters(aggregation=Aggregation(octets, per_second), **changes)
    tunnel.left.install_outbound(sa, 0.0)
    tunnel.right.install_inbound(replace(sa, selector=flip(SELECTOR4), remote=LEFT), 0.0)
    return tunnel


def test_at_a_constant_rate_an_observer_learns_nothing_and_no_packet_is_lost() -> None:
    tunnel = aggregating()
    packets = [ipv4(Random(number).randbytes(50 * number)) for number in range(25)]
    assert tunnel.left.protect(packets, 0.0) == []
    seen, arrived = [], []
    for tenth in range(100):
        sealed = tunnel.left.pace(tenth / 10 + 0.001)
        seen.append([len(each.datagram) for each in sealed])
        arrived += tunnel.right.unprotect(incoming(sealed), tenth / 10)
    assert arrived == packets
    assert seen[0] == []
    assert len({tuple(each) for each in seen[1:]}) == 1
    assert tunnel.right.statistics().drops == {}


def test_aggregates_are_put_in_order_over_a_crossing_of_extended_numbers() -> None:
    """RFC 9347 §2.2.3: payloads are in the order of their sequence numbers, all 64 bits of them."""
    tunnel = aggregating(esn=True, sequence=CROSSING - 105)
    for tenth in range(1, 101):  # what came before the first that the receiver sees is given up
        assert tunnel.right.unprotect(incoming(tunnel.left.pace(tenth / 10 + 0.001)), tenth / 10) == []
    packets = [ipv4(bytes([number]) * 700) for number in range(6)]
    tunnel.left.protect(packets, 10.0)
    sealed = [each for tenth in range(101, 111) for each in tunnel.left.pace(tenth / 10 + 0.001)]
    order = [each for at in range(0, len(sealed), 2) for each in reversed(sealed[at : at + 2])]
    assert tunnel.right.unprotect(incoming(order), 11.0) == packets
    statistics = tunnel.right.statistics()
    assert statistics.drops == {}
    assert statistics.sas[0].sequence == CROSSING + 5


def test_more_than_the_rate_carries_is_dropped_and_counted() -> None:
    tunnel = aggregating()
    packets = [ipv4(bytes(1380))] * 100
    assert tunnel.left.protect(packets, 0.0) == []
    refused = tunnel.left.statistics().drops[DropReason.PACE_QUEUE_FULL]
    assert 0 < refused < 100
    tunnel.left.pace(1.0)
    statistics = tunnel.left.statistics()
    assert 0 < statistics.packets_out < 10
    assert statistics.octets_out == 1400 * statistics.packets_out
    assert statistics.packets_out + refused + statistics.held["four"] == 100
    tunnel.left.remove_outbound("four", SPI4)
    statistics = tunnel.left.statistics()
    assert statistics.packets_out + sum(statistics.drops.values()) == 100


def test_a_rekey_takes_over_what_waits_and_splits_no_packet() -> None:
    """RFC 9347 §2.2.3: no fragments of one packet in two SAs."""
    tunnel = aggregating()
    packets = [ipv4(bytes([number]) * 700) for number in range(10)]
    tunnel.left.protect(packets, 0.0)
    arrived = tunnel.right.unprotect(incoming(tunnel.left.pace(0.25)), 0.25)
    newer = parameters(spi=0x1001, aggregation=Aggregation(500, 10))
    assert tunnel.left.install_outbound(newer, 0.25) == []
    tunnel.right.install_inbound(replace(newer, selector=flip(SELECTOR4), remote=LEFT), 0.25)
    for tenth in range(3, 30):
        arrived += tunnel.right.unprotect(incoming(tunnel.left.pace(tenth / 10 + 0.06)), tenth / 10)
    assert arrived == packets
    older = parameters(spi=0x1002)
    tunnel.left.protect(packets, 3.0)
    assert len(tunnel.left.install_outbound(older, 3.0)) == len(packets)  # and one without a rate sends at once


def test_what_waits_for_its_turn_goes_with_its_policy_and_stays_when_an_sa_is_refused() -> None:
    tunnel = aggregating()
    tunnel.left.protect([ipv4()] * 7, 0.0)
    with pytest.raises(InvalidSa, match="SPI 0x00001000 already"):
        tunnel.left.install_outbound(parameters(), 0.0)
    assert tunnel.left.statistics().held["four"] == 7
    tunnel.left.remove_policy("four")
    assert tunnel.left.statistics().drops == {DropReason.SA_EXPIRED: 7}


@pytest.mark.parametrize("end", ["removed", "replaced", "policy", "packets"])
def test_what_waits_for_a_payload_before_it_goes_with_its_sa_and_counts(end: str) -> None:
    """Of four payloads the second is lost: two packets have parts in it, one is whole behind it, one has begun."""
    tunnel = aggregating()
    packets = [ipv4(bytes(600)), ipv4(bytes(600)), ipv4(bytes(700)), ipv4(bytes(100))]
    assert tunnel.left.protect(packets, 0.0) == []
    first, _, *later = tunnel.left.pace(0.401)
    inbound = parameters(aggregation=Aggregation(500, 10), selector=flip(SELECTOR4), remote=LEFT)
    if end == "packets":
        tunnel.right.install_inbound(replace(inbound, lifetime=Lifetime(hard_packets=3)), 0.0)
    assert tunnel.right.unprotect(incoming([first, *later]), 0.5) == []
    if end == "removed":
        tunnel.right.remove_inbound(SPI4)
    elif end == "replaced":
        tunnel.right.install_inbound(inbound, 0.5)
    elif end == "policy":
        tunnel.right.remove_policy("four")
    assert tunnel.right.statistics().drops == {DropReason.FRAGMENT_MISSING: 2, DropReason.SA_EXPIRED: 1}
    assert tunnel.right.release_deadline() == inf


def test_a_rekey_under_load_is_no_break_in_the_rate_and_no_packet_counts_twice() -> None:
    """The new SA sends when the old one would have, and so does the old one when the new one goes."""
    tunnel = aggregating(per_second=8)
    times = []
    for turn in range(100):
        now = turn / 64
        tunnel.left.protect([ipv4(bytes(300))], now)
        if turn in (23, 41, 77):
            newer = parameters(spi=0x1001 + turn, aggregation=Aggregation(500, 8))
            assert tunnel.left.install_outbound(newer, now) == []
        if turn == 55:
            tunnel.left.remove_outbound("four", 0x1001 + 41)
        if tunnel.left.pace_deadline() <= now:
            times += [now] * len(tunnel.left.pace(now))
    assert times == [eighth / 8 for eighth in range(1, 13)]
    statistics = tunnel.left.statistics()
    assert set(statistics.drops) == {DropReason.SA_EXPIRED}  # what waited for the SA that went
    assert statistics.packets_out + sum(statistics.drops.values()) + statistics.held["four"] == 100


MARKED = bytes([0x45, 0xBB]) + ipv4(bytes(200))[2:6] + b"\x40" + ipv4(bytes(200))[7:]  # EF, CE, DF


@given(
    traffic=st.dictionaries(
        st.integers(0, 39),
        st.lists(st.sampled_from([ipv4(), ipv4(bytes(3000)), MARKED, ipv4(bytes(60_000))]), max_size=9),
    ),
    path=st.integers(576, 1500),
)
def test_an_observer_sees_the_same_whatever_goes_on_inside(traffic: dict[int, list[bytes]], path: int) -> None:
    """SPI, sequence number, length, times and all of the outer header; over a rekey and a path that gets narrower."""
    idle, busy = (aggregating(1300, 8).left for _ in range(2))
    for turn in range(40):
        now = turn / 16
        assert busy.protect(traffic.get(turn, []), now) == []
        views = []
        for one in (idle, busy):
            if turn == 20:
                one.install_outbound(parameters(spi=0x1001, aggregation=Aggregation(1300, 8)), now)
            if turn == 30:
                one.learn_path(RIGHT, path, None, now)
            sent = one.pace(now)
            views.append([one.pace_deadline(), *((each.datagram[:8], len(each.datagram), each[1:]) for each in sent)])
        assert views[0] == views[1]


def test_a_rekey_does_not_hold_the_next_dummy_up() -> None:
    tunnel = bare_tunnel()
    for spi, now in ((0x1001, 0.0), (0x1002, 0.4)):
        tunnel.left.install_outbound(parameters(spi=spi, confidentiality=Confidentiality(1400, 0.5)), now)
    assert len(tunnel.left.pace(0.5)) == 1


def test_what_has_waited_long_enough_for_a_lost_payload_comes_out() -> None:
    """RFC 9347 §2.2.3: "using a lost packet timer is RECOMMENDED"; and the loss is told of (§2.4.1)."""
    tunnel = aggregating()
    packets = [ipv4(bytes([number]) * 400) for number in range(5)]
    tunnel.left.protect(packets, 0.0)
    first, _, *later = tunnel.left.pace(0.55)
    assert tunnel.right.release_deadline() == inf
    assert tunnel.right.unprotect(incoming([first, *later]), 1.0) == packets[:1]
    assert tunnel.right.release_deadline() == 1.0 + LONGEST_GAP
    assert tunnel.right.release(1.05) == []
    assert tunnel.right.release(1.2) == packets[3:]  # two had a part in what was lost
    assert tunnel.right.release_deadline() == inf
    statistics = tunnel.right.statistics()
    assert statistics.drops == {DropReason.FRAGMENT_MISSING: 1}
    assert (statistics.packets_in, statistics.octets_in) == (3, 3 * 420)
    assert statistics.sas[0].lost == 1
    tunnel.right.expire(2.0)
    tunnel.right.expire(3.0)
    assert tunnel.right.take_events() == [PayloadsLost("four", SPI4, 1, 5)]
    tunnel.right.remove_policy("four")
    assert tunnel.right.release_deadline() == inf


@pytest.mark.parametrize("clamp", [True, False])
def test_a_syn_that_waited_is_clamped_as_any(clamp: bool) -> None:
    tunnel = Tunnel(aggregating().left, engine(2, Inside(mtu=1000, clamp_mss=clamp)))
    tunnel.right.add_policy(Policy("four", flip(SELECTOR4)))
    sa = parameters(aggregation=Aggregation(500, 10), selector=flip(SELECTOR4), remote=LEFT)
    tunnel.right.install_inbound(sa, 0.0)
    tunnel.right.install_outbound(parameters(spi=0x3000, selector=flip(SELECTOR4), remote=LEFT), 0.0)
    syn = ipv4(ports(1, 2, 12) + bytes.fromhex("60020000 00000000 020405b4"), protocol=6)
    tunnel.left.protect([syn], 0.25)
    first, _ = tunnel.left.pace(0.25)
    assert tunnel.right.unprotect(incoming(tunnel.left.pace(0.35)), 0.4) == []
    (arrived,) = [*tunnel.right.unprotect(incoming([first]), 0.4), *tunnel.right.release(1.0)]
    assert (arrived == syn) is not clamp


def test_a_constant_rate_gets_smaller_payloads_where_the_path_gets_narrower() -> None:
    tunnel = narrowed(1280, aggregation=Aggregation(1400, 10))
    packet = ipv4(bytes(3000))
    tunnel.left.protect([packet], 0.0)
    sealed = tunnel.left.pace(0.35)
    assert {len(each.datagram) for each in sealed} == {1280 - 28}
    assert [sa.payload_octets for sa in tunnel.left.statistics().sas] == [0, 1280 - 28 - 34, 0]
    assert tunnel.right.unprotect(incoming(sealed), 0.4) == [packet]
    assert tunnel.left.learn_path(RIGHT, 700, None, 0.4)
    assert {len(each.datagram) for each in tunnel.left.pace(1.0)} == {700 - 28}
    tunnel.left.expire(601.0)
    assert {len(each.datagram) for each in tunnel.left.pace(602.0)} == {
        1400 + 36
    }  # two of them to be a multiple of four


def test_a_clock_that_jumps_makes_no_burst_and_no_debt() -> None:
    tunnel = aggregating()
    assert len(tunnel.left.pace(1e6)) == MOST_AT_ONCE
    assert tunnel.left.pace(1e6) == []
    assert 1e6 < tunnel.left.pace_deadline() <= 1e6 + 0.1


def test_a_peer_at_a_constant_rate_that_falls_silent_is_told_of_though_nobody_talks_to_it() -> None:
    """Its stream is due whatever goes on inside; padding alone, in and out, is as good as anything."""
    tunnel = watched()
    tunnel.left.install_outbound(parameters(spi=0x1001, aggregation=Aggregation(500, 8)), 0.0)
    back = parameters(spi=0x3000, aggregation=Aggregation(500, 8), selector=flip(SELECTOR4), remote=LEFT)
    tunnel.left.install_inbound(replace(back, selector=SELECTOR4, remote=RIGHT), 0.0)
    tunnel.right.install_outbound(back, 0.0)
    for second in range(1, 60):
        now = float(second)
        assert len(tunnel.left.pace(now)) == 8
        if second < 30:
            tunnel.left.unprotect(incoming(tunnel.right.pace(now), RIGHT), now)
        tunnel.left.expire(now)
        assert tunnel.left.take_events() == ([Unanswered("east")] if second in (40, 51) else [])


@pytest.mark.parametrize("df", list(DontFragment))
def test_the_outer_header_of_an_aggregate_is_that_of_the_rate(df: DontFragment) -> None:
    """RFC 9347 §2.2.5: no DF, ECN or DS field of what is inside; the DS field by configuration, if any."""
    tunnel = bare_tunnel()
    rules = HeaderRules(dscp=(46,) * 64, df=df)
    tunnel.left.install_outbound(parameters(aggregation=Aggregation(500, 10), headers=rules), 0.0)
    packet = ipv4()
    tunnel.left.protect([packet[:1] + b"\xab" + packet[2:6] + b"\x40" + packet[7:]], 0.0)
    expected = {DontFragment.SET: True, DontFragment.CLEAR: False}.get(df)
    sent = tunnel.left.pace(0.25)
    assert [(each.traffic_class, each.dont_fragment) for each in sent] == [(46 << 2, expected)] * 2


def test_an_inbound_sa_without_aggregation_takes_no_aggfrag() -> None:
    tunnel = aggregating()
    tunnel.right.install_inbound(parameters(selector=flip(SELECTOR4), remote=LEFT), 0.0)
    tunnel.right.unprotect(incoming(tunnel.left.pace(0.11)), 0.2)
    assert tunnel.right.statistics().drops == {DropReason.BAD_NEXT_HEADER: 1}


def test_each_inner_packet_of_an_aggregate_has_to_be_the_sas() -> None:
    tunnel = aggregating()
    stranger = replace(parameters(aggregation=Aggregation(500, 10)), selector=Selector(*[ip_network("0.0.0.0/0")] * 2))
    left = engine()
    left.add_policy(Policy("four", stranger.selector))
    left.install_outbound(stranger, 0.0)
    left.protect([ipv4(b"1"), ipv4(b"2", destination="10.3.0.1"), ipv4(b"3")], 0.0)
    assert tunnel.right.unprotect(incoming(left.pace(0.11)), 0.2) == [ipv4(b"1"), ipv4(b"3")]
    assert tunnel.right.statistics().drops == {DropReason.SELECTOR_MISMATCH: 1}


def test_the_clock_ends_an_sa_that_sends_by_it() -> None:
    tunnel = bare_tunnel()
    sa = parameters(aggregation=Aggregation(500, 10), lifetime=Lifetime(hard_packets=3, soft_packets=2))
    tunnel.left.install_outbound(sa, 0.0)
    assert len(tunnel.left.pace(1.0)) == 10  # limits are looked at once a turn
    assert [type(each) for each in tunnel.left.take_events()] == [HardExpired]
    assert tunnel.left.pace_deadline() == inf
    tunnel.left.install_outbound(replace(sa, sequence=2**32 - 2, lifetime=Lifetime()), 1.0)
    assert len(tunnel.left.pace(2.0)) == 1
    assert CounterExhausted("four", SPI4) in tunnel.left.take_events()
    assert tunnel.left.pace_deadline() == inf


# --- outer headers ---


def test_marks_of_the_path_come_in_and_where_they_cannot_the_packet_is_dropped() -> None:
    """RFC 6040 §4.2, through two engines: the outer traffic class goes out with a datagram and comes in with it."""
    tunnel = open_tunnel()
    capable, other = bytearray(ipv4(b"ect")), bytearray(ipv4(b"not"))
    capable[1], other[1] = 46 << 2 | 2, 46 << 2
    sealed = tunnel.left.protect([bytes(capable), bytes(other)], 0.0)
    assert [out.traffic_class for out in sealed] == [46 << 2 | 2, 46 << 2]
    marked = [Incoming(out.datagram, LEFT, out.traffic_class | 3) for out in sealed]
    (packet,) = tunnel.right.unprotect(marked, 0.0)
    assert packet[1] == 46 << 2 | 3
    assert packet[20:] == capable[20:]
    statistics = tunnel.right.statistics()
    assert statistics.drops == {DropReason.CE_ON_NOT_ECT: 1}
    assert statistics.unused_ecn == {"not_ect_in_ce": 1}


def test_an_unauthentic_mark_changes_nothing() -> None:
    """What is said of the outer header is looked at once the packet behind it is authentic."""
    tunnel = open_tunnel()
    (sealed,) = tunnel.seal(ipv4(b"x"))
    forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert tunnel.right.unprotect([Incoming(forged, LEFT, 3)], 0.0) == []
    assert tunnel.right.statistics().drops == {DropReason.AUTHENTICATION_FAILED: 1}
    assert tunnel.right.statistics().unused_ecn == {}
    assert tunnel.open(sealed) == [ipv4(b"x")]


# --- packets that are too large for the path ---


def narrowed(path: int, **changes: object) -> Tunnel:
    """A tunnel whose path has turned out to carry ``path`` octets."""
    tunnel = open_tunnel()
    if changes:
        tunnel.left.install_outbound(parameters(spi=0x1001, **changes), 0.0)
        tunnel.right.install_inbound(
            parameters(spi=0x1001, **changes | {"selector": flip(SELECTOR4), "remote": LEFT}), 0.0
        )
    assert tunnel.left.learn_path(RIGHT, path, None, 0.0)
    return tunnel


def test_a_packet_that_may_be_fragmented_is_and_every_datagram_fits() -> None:
    """RFC 4301 §7, §8.2.1; the other end has nothing to put together: its host does."""
    tunnel = narrowed(1280)
    sealed = tunnel.left.protect([ipv4(bytes(3000))], 0.0)
    assert len(sealed) == 3
    assert max(len(each.datagram) for each in sealed) + 28 <= 1280
    opened = tunnel.right.unprotect(incoming(sealed), 0.0)
    assert b"".join(each[20:] for each in opened) == bytes(3000)
    assert tunnel.left.statistics().packets_out == tunnel.right.statistics().packets_in == 3
    assert tunnel.left.take_replies() == []


def test_the_sender_of_one_that_may_not_is_told_how_large_it_may_be() -> None:
    tunnel = narrowed(1280)
    assert tunnel.left.protect([whole(1400)], 0.0) == []
    assert tunnel.left.statistics().drops == {DropReason.TOO_BIG: 1}
    (reply,) = tunnel.left.take_replies()
    mtu = int.from_bytes(reply[26:28])
    (sealed,) = tunnel.left.protect([whole(mtu - 20)], 0.0)
    assert 1280 - 4 < len(sealed.datagram) + 28 <= 1280
    assert tunnel.left.protect([whole(mtu - 19)], 0.0) == []
    assert tunnel.left.take_replies() != []
    assert tunnel.left.take_replies() == []


def test_1280_octets_of_ipv6_go_through_whatever_the_path_is() -> None:
    """RFC 8200 §5: no link of IPv6 carries less; so the outer packet is fragmented."""
    tunnel = narrowed(1280)
    (sealed,) = tunnel.left.protect([ipv6(bytes(1240))], 0.0)
    assert sealed.dont_fragment is False
    assert tunnel.left.protect([ipv6(bytes(1241))], 0.0) == []
    (reply,) = tunnel.left.take_replies()
    assert int.from_bytes(reply[44:48]) == 1280
    (small,) = tunnel.left.protect([ipv6(bytes(1000))], 0.0)
    assert small.dont_fragment is None


def test_padding_goes_no_further_than_the_path() -> None:
    tunnel = narrowed(1280, confidentiality=Confidentiality(1400, 0.5))
    (sealed,) = tunnel.left.protect([ipv4()], 0.0)
    (dummy,) = tunnel.left.pace(1.0)
    assert len(dummy.datagram) == len(sealed.datagram) <= 1280 - 28
    assert tunnel.right.unprotect(incoming([sealed]), 0.0) == [ipv4()]


def test_icmp_is_believed_that_quotes_a_packet_just_sent_and_for_ten_minutes() -> None:
    tunnel = open_tunnel()
    sent = tunnel.seal(*[ipv4()] * 3)
    (other,) = tunnel.left.protect([ipv6()], 0.0)
    fourth = SPI4.to_bytes(4) + (4).to_bytes(4)
    for remote, quoted in ((RIGHT, fourth), (RIGHT, sent[0][:7]), (ELSEWHERE, sent[0][:8]), (RIGHT, bytes(8))):
        assert not tunnel.left.learn_path(remote, 1300, quoted, 0.0)
    assert tunnel.left.protect([whole(1400)], 0.0) != []
    assert tunnel.left.learn_path(RIGHT, 1300, sent[0][:8], 1.0)
    assert tunnel.left.learn_path(RIGHT, 1400, other.datagram[:8], 1.0)  # true or not, it is no news
    assert tunnel.left.take_events() == [PathNarrowed(RIGHT.address, 1300)]
    assert tunnel.left.protect([whole(1400)], 1.0) == []
    tunnel.left.expire(601.0)
    assert tunnel.left.protect([whole(1400)], 601.0) != []


def test_a_path_is_that_of_an_address_whichever_sa_goes_there() -> None:
    tunnel = narrowed(1300)
    tunnel.left.install_outbound(parameters(spi=0x1001), 0.0)
    assert tunnel.left.protect([whole(1400)], 0.0) == []
    tunnel.left.follow("four", ELSEWHERE)
    assert tunnel.left.protect([whole(1400)], 0.0) != []
    tunnel.left.follow("four", RIGHT)
    assert tunnel.left.protect([whole(1400)], 0.0) == []
    tunnel.left.confirm_path(RIGHT.address, 1500)
    assert tunnel.left.protect([whole(1400)], 0.0) != []


def test_large_packets_are_told_of_where_that_is_wanted_and_once_a_second() -> None:
    left = engine(1)
    for name, selector, wanted in (("four", SELECTOR4, True), ("six", SELECTOR6, False)):
        left.add_policy(Policy(name, selector, large=wanted))
        spi = SPI4 if wanted else SPI6
        left.install_outbound(parameters(spi=spi, policy=name, selector=selector), 0.0)
    small, large, other = ipv4(bytes(LARGE_OCTETS - 20)), ipv4(bytes(LARGE_OCTETS - 19)), ipv6(bytes(1300))
    left.protect([small, other], 0.0)
    assert left.take_events() == []
    left.protect([large, large, large], 0.0)
    assert left.take_events() == [LargeSent("four")]
    left.protect([large], LARGE_SECONDS - 0.1)
    assert left.take_events() == []
    left.protect([large], LARGE_SECONDS)
    assert left.take_events() == [LargeSent("four")]


def test_a_syn_says_what_goes_through_either_way() -> None:
    options = bytes([2, 4]) + (1460).to_bytes(2)
    syn = ipv4(bytes(12) + b"\x60\x02" + bytes(6) + options, protocol=6)
    tunnel = narrowed(1300)
    (packet,) = tunnel.open(*tunnel.seal(syn))
    mss = largest_inner(SUITES["aes256-gcm16"], Mode.TUNNEL, Encapsulation.UDP, 4, 1300) - 40
    assert int.from_bytes(packet[42:44]) == mss
    untouched = [ipv4(syn[20:40], protocol=6), ipv4(b"", protocol=6), ipv4(syn[20:], protocol=17)]
    assert tunnel.open(*tunnel.seal(*untouched)) == untouched
    # And back: what the right says is what the left is going to send.
    other = open_tunnel()
    back = parameters(spi=0x3000, selector=flip(SELECTOR4), remote=LEFT)
    other.right.install_outbound(back, 0.0)
    assert other.right.learn_path(LEFT, 1300, None, 0.0)
    (packet,) = other.open(*other.seal(syn))
    assert int.from_bytes(packet[42:44]) == mss


# --- runs: several packets with one look ---


def bulk(six: bool, count: int, size: int = 400, *, flags: int = 0x10, source: int = 1000) -> list[bytes]:
    """TCP segments of one flow, as a bulk transfer sends them."""
    wrap = ipv6 if six else ipv4
    mss = struct.pack("!BBH", 2, 4, 9000)  # which only a SYN may have, and a SYN is clamped by
    heads = (
        struct.pack("!HHIIBBHI", source, 2, number * size, 7, 0x60, flags, 500, 0) + mss for number in range(count)
    )
    return [wrap(head + bytes((number,)) * size, protocol=6) for number, head in enumerate(heads)]


BULKS = st.lists(
    st.builds(bulk, st.booleans(), st.integers(1, 9), st.sampled_from([100, 101, 1400]), source=st.integers(1, 2))
    | st.builds(bulk, st.booleans(), st.integers(1, 3), st.just(30), flags=st.just(0x02))
    | st.just([b"", b"\x45" * 30]),
    max_size=6,
).map(lambda bulks: [packet for each in bulks for packet in each])


def alike(one: Engine, other: Engine) -> None:
    """Both have done the same, and would do the same next."""
    assert one.statistics() == other.statistics()
    assert one.take_events() == other.take_events()


@given(BULKS, st.sampled_from([ENDLESS, Lifetime(soft_packets=4, hard_packets=12), Lifetime(hard_octets=3000)]))
@settings(deadline=None, max_examples=40)
def test_a_batch_is_sealed_as_its_packets_one_by_one(packets: list[bytes], lifetime: Lifetime) -> None:
    batch, ones = (open_tunnel(left_lifetime=lifetime) for _ in range(2))
    assert batch.left.protect(packets, 1.0) == [out for each in packets for out in ones.left.protect([each], 1.0)]
    alike(batch.left, ones.left)


def run_of(datagrams: list[bytes], source: Endpoint = LEFT, traffic_class: int = 0) -> list[Incoming | Run]:
    """As the kernel gives a run whose datagrams are as long as the first, and what else there is."""
    octets = len(datagrams[0])
    return gather(b"".join(datagrams), octets, source, traffic_class)


def opened(engine: Engine, arrived: list[Incoming | Run], now: float = 1.0) -> list[bytes]:
    packets = []
    for each in arrived:
        packets += engine.unprotect_run(each, now) if isinstance(each, Run) else engine.unprotect([each], now)
    return packets


def narrow_tunnel(window: int, lifetime: Lifetime) -> Tunnel:
    """Left sends what right does not all take: of these packets, those from port 1000. What is sent back has to fit."""
    tunnel = open_tunnel(window=window, right_lifetime=lifetime)
    for name, spi, selector in (("four", SPI4, SELECTOR4), ("six", SPI6, SELECTOR6)):
        sa = parameters(spi=spi, policy=name, selector=replace(selector, protocol=6, local_port=1000))
        there = replace(sa, selector=flip(sa.selector), remote=LEFT, replay_window=window, lifetime=lifetime)
        tunnel.right.install_inbound(there, 0.0)
        tunnel.right.install_outbound(replace(sa, selector=flip(selector), remote=LEFT), 0.0)
    tunnel.right.confirm_path(LEFT.address, 1400)
    return tunnel


@given(
    st.booleans(),
    st.lists(st.sampled_from(["tcp", "tcp", "other", "syn"]), min_size=2, max_size=12),
    st.sets(st.integers(0, 11), max_size=2),
    st.sets(st.integers(0, 11), max_size=2),
    st.sampled_from([0, 0, 0, 3]),
    st.sampled_from([LEFT, LEFT, ELSEWHERE]),
    st.sampled_from([ENDLESS, ENDLESS, Lifetime(soft_packets=4, hard_packets=9), Lifetime(hard_octets=3000)]),
    st.sampled_from([0, 8, 8192]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_a_run_is_opened_as_its_packets_one_by_one(
    six: bool,
    kinds: list[str],
    lost: set[int],
    spoilt: set[int],
    ecn: int,
    source: Endpoint,
    lifetime: Lifetime,
    window: int,
    again: bool,
) -> None:
    """Whatever is lost, forged, marked, moved, expired or replayed, or is not for this SA."""
    made = {"tcp": bulk(six, 12), "other": bulk(six, 12, source=2), "syn": bulk(six, 12, flags=2)}
    run, ones = (narrow_tunnel(window, lifetime) for _ in range(2))
    sealed = run.seal(*(made[kind][number] for number, kind in enumerate(kinds)))
    sealed = [each[:-1] + bytes((each[-1] ^ (at in spoilt),)) for at, each in enumerate(sealed) if at not in lost]
    for datagrams in [sealed] * (1 + again) if sealed else []:
        arrived = run_of(datagrams, source, ecn)
        expected = ones.right.unprotect([Incoming(each, source, ecn) for each in datagrams], 1.0)
        assert opened(run.right, arrived) == expected
        alike(run.right, ones.right)


@pytest.mark.parametrize("suite", ["aes256-gcm16", "chacha20-poly1305", "aes256-cbc-sha256"])
def test_runs_cross_into_the_next_subspace(suite: str) -> None:
    run, ones = crossing(suite, 5), crossing(suite, 5)
    packets = bulk(False, 12)
    sealed = run.seal(*packets)
    assert sealed == [datagram for packet in packets for datagram in ones.seal(packet)] or suite.startswith(
        "aes256-cbc"
    )
    assert opened(run.right, run_of(sealed)) == ones.open(*sealed) == packets
    alike(run.right, ones.right)
