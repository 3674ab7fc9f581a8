"""AGGFRAG payloads against what RFC 9347 draws, against loss and reordering, and against nonsense."""

from __future__ import annotations

import struct
from math import inf
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from support.tunnel import ipv4, ipv6

from esp.aggfrag import HEADER_OCTETS, LONGEST_GAP, MOST_EARLY, SMALLEST_FRAGMENT, Aggregator, Reassembler
from esp.errors import DropReason

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKETS = st.lists(
    st.builds(lambda make, octets: make(bytes(octets)), st.sampled_from([ipv4, ipv6]), st.integers(0, 400))
)
SIZES = st.integers(64, 300)
ROOM = 1 << 20
WINDOW = 16


def numbered(packets: Sequence[bytes]) -> list[bytes]:
    """The packets, no two alike: the IPv4 identification or the IPv6 flow label is their number."""
    return [packet[:4] + number.to_bytes(2) + packet[6:] if packet[0] >> 4 == 4 else
            packet[:2] + number.to_bytes(2) + packet[4:] for number, packet in enumerate(packets)]  # fmt: skip


def payloads_of(packets: Sequence[bytes], octets: int) -> list[bytes]:
    aggregator = Aggregator(octets, ROOM)
    assert all(aggregator.put(packet) for packet in packets)
    payloads = []
    while aggregator.waiting_octets:
        payloads.append(aggregator.next_payload())
    return payloads


def received(arrivals: Sequence[tuple[int, bytes]], window: int = WINDOW) -> list[bytes | DropReason]:
    reassembler = Reassembler(window)
    return [each for sequence, payload in arrivals for each in reassembler.receive(sequence, payload, 0.0)]


@given(packets=PACKETS, octets=SIZES)
def test_every_payload_has_the_size_and_every_packet_comes_out_in_order(packets: list[bytes], octets: int) -> None:
    packets = numbered(packets)
    payloads = payloads_of(packets, octets)
    assert {len(payload) for payload in payloads} <= {octets}
    assert received(list(enumerate(payloads, 1))) == packets


@given(packets=PACKETS, octets=SIZES, order=st.randoms(use_true_random=False))
def test_reordering_within_the_window_changes_nothing(packets: list[bytes], octets: int, order: object) -> None:
    packets = numbered(packets)
    arrivals = list(enumerate(payloads_of(packets, octets), 1))
    for start in range(0, len(arrivals), WINDOW):
        chunk = arrivals[start : start + WINDOW]
        order.shuffle(chunk)
        arrivals[start : start + WINDOW] = chunk
    assert received(arrivals) == packets


@given(packets=PACKETS, octets=SIZES, lost=st.sets(st.integers(1, 40)))
def test_a_lost_payload_costs_what_was_in_it_alone(packets: list[bytes], octets: int, lost: set[int]) -> None:
    packets = numbered(packets)
    payloads = payloads_of(packets, octets)
    # What follows pushes the gap out of the window.
    arrivals = list(enumerate([*payloads, *[bytes(octets)] * (WINDOW + 41)], 1))
    out = received([(number, payload) for number, payload in arrivals if number not in lost])
    delivered = [each for each in out if isinstance(each, bytes)]
    assert delivered == [packet for packet in packets if not touched(packets, octets, packet) & lost]
    # A packet with an end in what came and an end in what did not is told of once.
    assert out.count(DropReason.FRAGMENT_MISSING) <= len(packets) - len(delivered)
    assert set(out) - set(delivered) <= {DropReason.FRAGMENT_MISSING}


def touched(packets: Sequence[bytes], octets: int, wanted: bytes) -> set[int]:
    """The numbers of the payloads that ``wanted`` has octets in."""
    aggregator, found = Aggregator(octets, ROOM), set()
    for packet in packets:
        aggregator.put(packet)
    number = 0
    ahead = sum(map(len, packets[: packets.index(wanted)]))  # octets of packets that go before it
    sent = 0
    while aggregator.waiting_octets:
        number += 1
        payload = aggregator.next_payload()
        useful = octets - HEADER_OCTETS - padding_of(payload, sent, packets)
        if sent < ahead + len(wanted) and sent + useful > ahead:
            found.add(number)
        sent += useful
    return found


def padding_of(payload: bytes, sent: int, packets: Sequence[bytes]) -> int:
    """How much of the end is padding, by walking what the whole stream must be."""
    stream = b"".join(packets)[sent:]
    useful = 0
    blocks = payload[HEADER_OCTETS:]
    while useful < len(blocks) and blocks[: useful + 1] == stream[: useful + 1]:
        useful += 1
    # A packet may begin where the padding does and look like it no further than its first octet: no version is zero.
    return len(blocks) - useful


def test_the_layout_is_that_of_the_rfc() -> None:
    """RFC 9347 §6.1.1: sub-type, reserved, block offset; §6.1.3: blocks are the packets themselves, then zeros."""
    first, second = ipv4(bytes(30)), ipv6(bytes(40))
    aggregator = Aggregator(104, ROOM)
    assert aggregator.put(first)
    assert aggregator.put(second)
    assert aggregator.next_payload() == bytes([0, 0, 0, 0]) + first + second[:50]
    assert aggregator.next_payload() == bytes([0, 0, 0, 30]) + second[50:] + bytes(70)
    assert aggregator.next_payload() == bytes(104)


def test_a_fragment_too_small_to_show_its_length_is_not_made() -> None:
    first = ipv4(bytes(100 - HEADER_OCTETS - 20 - SMALLEST_FRAGMENT + 1))
    payloads = payloads_of([first, ipv4(bytes(9))], 100)
    assert payloads[0].endswith(first + bytes(SMALLEST_FRAGMENT - 1))
    assert payloads[1][:5] == bytes([0, 0, 0, 0, 0x45])


def test_a_full_queue_takes_no_more_and_gives_back_whole_packets() -> None:
    aggregator = Aggregator(64, 100)
    large = ipv4(bytes(500))
    assert aggregator.put(large)  # larger than the room, but nothing waits
    assert not aggregator.put(ipv4())
    aggregator.next_payload()
    assert aggregator.take_all() == [large]
    assert aggregator.waiting_octets == 0
    assert aggregator.next_payload() == bytes(64)
    assert aggregator.put(ipv4())


def test_a_length_split_between_two_payloads_is_found() -> None:
    """Ours never does it; RFC 9347 forbids it to nobody."""
    packet = ipv6(bytes(30))
    for cut in range(1, 8):
        begin = bytes([0, 0, 0, 0]) + packet[:cut]
        end = struct.pack("!BxH", 0, len(packet) - cut) + packet[cut:]
        assert received([(1, begin), (2, end)]) == [packet]


def test_congestion_information_is_passed_over() -> None:
    packet = ipv4(b"x")
    assert received([(1, bytes([1, 0, 0, 0]) + bytes(range(20)) + packet)]) == [packet]


def test_what_contradicts_itself_costs_the_packet_concerned() -> None:
    packet = ipv4(bytes(40))
    begin = bytes(4) + packet[:30]
    wrong = struct.pack("!BxH", 0, 31) + packet[30:] + b"\x00"
    assert received([(1, begin), (2, wrong), (3, bytes(4) + packet)]) == [DropReason.FRAGMENT_MISSING, packet]
    # A block offset of zero where more was to come.
    assert received([(1, begin), (2, bytes(4) + packet)]) == [DropReason.FRAGMENT_MISSING, packet]
    # Padding alone does not end a packet (§2.2.3).
    end = struct.pack("!BxH", 0, 30) + packet[30:]
    assert received([(1, begin), (2, bytes(64)), (3, end)]) == [packet]
    # The end of something whose beginning never came.
    assert received([(1, end + packet)]) == [packet]


def test_nonsense_is_malformed() -> None:
    for payload in (b"", b"\0\0\0", b"\2\0\0\0", bytes([1]) * 23, bytes(4) + b"\x70", bytes(4) + b"\x45\0\0\x05" * 9):
        assert received([(1, payload)]) == [DropReason.MALFORMED]


@given(
    payloads=st.lists(st.binary(max_size=80), max_size=40),
    jump=st.integers(0, 2**64),
    window=st.integers(0, 64),
    tick=st.floats(0, 0.2),
)
def test_octets_of_any_kind_raise_nothing_and_memory_is_bounded(
    payloads: list[bytes], jump: int, window: int, tick: float
) -> None:
    reassembler = Reassembler(window)
    for number, payload in enumerate(payloads):
        reassembler.receive((number * jump) % 2**64 + 1, payload, number * tick)
        assert len(reassembler) <= window * 80 + 65_535 + 80
        reassembler.give_up(number * tick)


def test_few_large_payloads_wait_where_many_small_ones_would() -> None:
    reassembler = Reassembler(64)
    assert reassembler.receive(1, bytes(60_000), 0.0) == []
    for number in range(3, 20):
        reassembler.receive(number, bytes(60_000), 0.0)
        assert len(reassembler) <= MOST_EARLY
    assert reassembler.lost == 1


def test_a_payload_full_of_the_smallest_packets_costs_its_own_size() -> None:
    """RFC 791: twenty octets. An authentic peer can have us look at 3,270 packets by one datagram, and at no more."""
    small = ipv4()
    assert received([(1, bytes(4) + small * 3269)]) == [small] * 3269
    assert received([(1, bytes(4) + (small[:3] + b"\x13" + small[4:]) * 3269)]) == [DropReason.MALFORMED]


def test_what_comes_after_it_was_given_up_is_late() -> None:
    packets = [ipv4(bytes([number] * 60)) for number in range(40)]
    payloads = payloads_of(packets, 84)
    arrivals = list(enumerate(payloads, 1))
    late = arrivals.pop(4)
    assert received([*arrivals, late])[-1] is DropReason.FRAGMENT_LATE


def whole(number: int) -> bytes:
    """A payload that is one packet, which shows its number."""
    return bytes(4) + ipv4(bytes([number]) * 8)


def test_the_window_ends_at_the_newest_and_only_what_is_behind_it_is_given_up() -> None:
    """RFC 9347 §2.2.3: "Receiving a larger (newer) sequence number packet advances the window"."""
    reassembler = Reassembler(3)
    assert reassembler.receive(1, whole(1), 0.0) == [whole(1)[4:]]
    assert reassembler.receive(6, whole(6), 0.0) == []  # 2 is behind the window, 3 to 5 are within
    assert reassembler.lost == 1
    assert reassembler.receive(2, whole(2), 0.0) == [DropReason.FRAGMENT_LATE]
    assert reassembler.receive(3, whole(3), 0.0) == [whole(3)[4:]]
    assert reassembler.receive(5, whole(5), 0.0) == []
    assert reassembler.receive(5, whole(5), 0.0) == [DropReason.REPLAYED]  # nobody else looks where there is no window
    assert reassembler.receive(4, whole(4), 0.0) == [whole(number)[4:] for number in (4, 5, 6)]
    assert reassembler.lost == 1


def test_a_window_of_nothing_delivers_what_comes_as_it_comes() -> None:
    assert received([(number, whole(number)) for number in (2, 4, 3, 5)], window=0) == [
        *(whole(number)[4:] for number in (2, 4)),
        DropReason.FRAGMENT_LATE,
        whole(5)[4:],
    ]


def test_what_is_missing_is_not_waited_for_when_nothing_more_comes() -> None:
    reassembler = Reassembler(3)
    reassembler.receive(1, whole(1), 0.0)
    reassembler.receive(3, whole(3), 1.0)
    reassembler.receive(5, whole(5), 1.05)
    assert reassembler.gap_ends == 1.0 + LONGEST_GAP
    assert reassembler.give_up(1.05) == []
    assert reassembler.give_up(1.2) == [whole(3)[4:]]
    assert reassembler.gap_ends == 1.2 + LONGEST_GAP
    assert reassembler.give_up(9.0) == [whole(5)[4:]]
    assert (reassembler.gap_ends, reassembler.lost, len(reassembler)) == (inf, 2, 0)
    assert reassembler.receive(6, whole(6), 9.0) == [whole(6)[4:]]


def test_an_sa_that_is_taken_over_begins_where_it_is() -> None:
    """And one that begins at its beginning waits for what is reordered there."""
    for start, first in ((2**32 + 7, 2**32 + 7), (2, 1)):
        reassembler = Reassembler(3)
        out = reassembler.receive(start, whole(0), 0.0)
        if first < start:
            out = reassembler.receive(first, whole(1), 0.0)
        assert len(out) == 1 + start - first
        assert reassembler.lost == 0


def test_padding_begins_with_four_zero_bits_and_goes_on_with_anything() -> None:
    """RFC 9347 §6.1.3.3; and as all there is it stands between two fragments (§2.2.3)."""
    packet = ipv4(bytes(40))
    begin, end = bytes(4) + packet[:30], struct.pack("!BxH", 0, 30) + packet[30:]
    assert received([(1, begin), (2, bytes(4) + b"\x0f\xff\x45"), (3, end + b"\x07junk")]) == [packet]


def test_the_example_of_appendix_a() -> None:
    lengths = (750, 750, 60, 240, 3000)
    packets = [ipv4(bytes([number]) * (length - 20)) for number, length in enumerate(lengths)]
    payloads = payloads_of(packets, 1404)
    assert [struct.unpack_from("!BxH", payload)[1] for payload in payloads] == [0, 100, 2000, 600]
    assert payloads[3].endswith(packets[4][-600:] + bytes(800))


@given(packets=PACKETS, sizes=st.lists(SIZES, min_size=1))
def test_the_size_may_change_in_the_middle_of_a_packet(packets: list[bytes], sizes: list[int]) -> None:
    packets = numbered(packets)
    aggregator, payloads = Aggregator(64, ROOM), []
    for packet in packets:
        aggregator.put(packet)
    while aggregator.waiting_octets:
        aggregator.octets = sizes[len(payloads) % len(sizes)]
        payloads.append(aggregator.next_payload())
        assert len(payloads[-1]) == aggregator.octets
    assert received(list(enumerate(payloads, 1))) == packets
