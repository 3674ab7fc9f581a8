"""KINK found in frames: scapy builds every link type and fragments, the extractor gets the same octets out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.captures import (
    AH,
    IP,
    UDP,
    CookedLinux,
    CookedLinuxV2,
    Dot1Q,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    Loopback,
    Raw,
    ether,
    extract,
    fragment,
    fragment6,
    frame,
    udp,
)
from support.vectors import load_vector

from kinkvpn.decode.capture import Frame
from kinkvpn.decode.datagrams import MAX_INCOMPLETE, Endpoint, Extractor, resembles_kink

MESSAGE = load_vector("create-2way-tunnel-aes256")[0].datagram
LONG = MESSAGE + bytes(3000)
V6 = {"source": "2001:db8::1", "destination": "2001:db8::2"}


@pytest.mark.parametrize("addresses", [{}, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("link_type", "link"),
    [
        (1, ether()),
        (1, ether() / Dot1Q(vlan=5)),
        (1, ether(type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6)),
        (113, CookedLinux()),
        (276, CookedLinuxV2()),
        (0, Loopback()),
        (108, Loopback()),
        (101, None),
    ],
)
def test_every_link_type(link_type: int, link: Any, addresses: dict[str, str]) -> None:
    layers = udp(MESSAGE, **addresses)
    (found,), _ = extract([frame(layers if link is None else link / layers, link_type)])
    assert found.octets == MESSAGE
    assert not found.missing
    assert str(found.source) == ("[2001:db8::1]:910" if addresses else "192.0.2.1:910")


def test_a_link_type_that_is_not_understood_is_counted() -> None:
    found, extractor = extract([frame(udp(MESSAGE), 127)])
    assert not found
    assert extractor.passed.link_types == {127: 1}


def test_ports_of_interest_in_either_place() -> None:
    frames = [
        frame(IP() / UDP(sport=source, dport=there) / Raw(MESSAGE), 101)
        for source, there in [(910, 40000), (40000, 910), (53, 53), (7000, 40000)]
    ]
    assert len(extract(frames)[0]) == 2
    assert len(extract(frames, 7000)[0]) == 3


def test_on_4500_only_what_is_marked_and_resembles_kink() -> None:
    ike = bytes(range(1, 17)) + bytes(12)
    payloads = [bytes(4) + MESSAGE, MESSAGE, b"\xff", bytes(4) + ike, bytes(4)]
    found, extractor = extract([frame(udp(payload, port=4500), 101) for payload in payloads])
    assert [(one.octets, one.marked) for one in found] == [(MESSAGE, True)]
    assert extractor.passed.other_marked == 2


def test_a_marker_on_another_port_is_taken_off_too() -> None:
    (found,), _ = extract([frame(udp(bytes(4) + MESSAGE, port=7000), 101)], 7000)
    assert (found.octets, found.marked) == (MESSAGE, True)


def test_one_bad_field_does_not_hide_a_message_on_4500() -> None:
    for offset in (1, 3, 7):
        octets = bytearray(MESSAGE)
        octets[offset] ^= 0x70
        assert resembles_kink(bytes(octets))
    assert not resembles_kink(b"\x01\x10" + b"\x77" * 20)


def fragments(layers: Any) -> list[Any]:
    if layers.haslayer(IPv6):
        whole = IPv6(src=layers.src, dst=layers.dst) / IPv6ExtHdrFragment(id=77) / layers.payload
        return list(fragment6(whole, 800))
    return list(fragment(layers, 512))


@pytest.mark.parametrize("addresses", [{}, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("seed", range(4))
def test_fragments_in_any_order_and_doubled(addresses: dict[str, str], seed: int) -> None:
    parts = [frame(part, 101, number) for number, part in enumerate(fragments(udp(LONG, **addresses)), 1)]
    assert len(parts) > 4
    shuffled = [*parts, parts[1]]
    random.Random(seed).shuffle(shuffled)
    found, extractor = extract(shuffled)
    assert [one.octets for one in found] == [LONG]
    assert found[0].fragments == len(parts)
    assert extractor.passed.incomplete <= 1  # the doubled one, where it came after the whole


@pytest.mark.parametrize("addresses", [{}, V6], ids=["IPv4", "IPv6"])
def test_a_missing_fragment_is_counted(addresses: dict[str, str]) -> None:
    parts = [frame(part, 101) for part in fragments(udp(LONG, **addresses))]
    for missing in range(len(parts)):
        found, extractor = extract(parts[:missing] + parts[missing + 1 :])
        assert not found
        assert extractor.passed.incomplete == 1


def test_fragments_of_no_end_stay_bounded() -> None:
    first = bytes(fragment(IP() / UDP(sport=910, dport=910) / Raw(LONG), 512)[0])
    extractor = Extractor()
    for number in range(600):
        part = first[:4] + number.to_bytes(2, "big") + first[6:]  # Identification (RFC 791 §3.1)
        assert extractor.feed(frame(part, 101)) is None
    assert extractor.passed.incomplete == 600 - MAX_INCOMPLETE


def test_a_datagram_that_the_capture_cut_says_how_much_is_missing() -> None:
    layers = ether() / udp(MESSAGE)
    (found,), _ = extract([frame(layers, cut=208)])
    assert found.missing == len(bytes(layers)) - 208
    assert found.octets == MESSAGE[: len(MESSAGE) - found.missing]


def test_padding_of_short_ethernet_frames_is_not_part_of_the_message() -> None:
    octets = bytes(ether() / udp(b"short")) + bytes(20)
    (found,), _ = extract([Frame(1, None, 1, octets, len(octets))])
    assert found.octets == b"short"


def test_extension_headers_of_ipv6_are_passed_over() -> None:
    options = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(nh=51) / AH(nh=17, payloadlen=4, icv=bytes(12), padding=b"")
    layers = IPv6(src="2001:db8::1", dst="2001:db8::2") / options / UDP(sport=910, dport=910) / Raw(MESSAGE)
    assert bytes(layers).endswith(MESSAGE)
    (found,), _ = extract([frame(layers, 101)])
    assert found.octets == MESSAGE


def test_what_is_no_udp_or_no_ip_is_passed_over() -> None:
    frames = [
        frame(IP(proto=6) / Raw(bytes(40)), 101),
        frame(ether(type=0x0806) / Raw(bytes(40))),
        frame(Raw(b""), 101),
    ]
    frames += [
        frame(IP() / Raw(bytes(4)), 101),
        frame(udp(MESSAGE), 101, cut=22),
        frame(udp(MESSAGE, **V6), 101, cut=30),
    ]
    found, extractor = extract(frames)
    assert not found
    assert extractor.passed.frames == 6


def test_lengths_of_zero_are_those_of_an_offloaded_packet() -> None:
    octets = bytearray(bytes(udp(MESSAGE)))
    octets[2:4] = octets[24:26] = bytes(2)
    (found,), _ = extract([Frame(1, None, 101, bytes(octets), len(octets))])
    assert found.octets == MESSAGE


def test_endpoints_print_as_people_write_them() -> None:
    (found,), _ = extract([frame(udp(MESSAGE, **V6), 101)])
    assert found.destination == Endpoint(found.destination.address, 910)
    assert str(found.destination) == "[2001:db8::2]:910"


@given(st.sampled_from([0, 1, 101, 113, 276, 127]), st.binary(max_size=120), st.integers(0, 200))
def test_any_octets_never_crash(link_type: int, octets: bytes, more: int) -> None:
    extract([Frame(1, 0.0, link_type, octets, len(octets) + more)])


HEADS = [bytes(udp(MESSAGE)), bytes(udp(MESSAGE, **V6)), *map(bytes, fragments(udp(LONG, **V6)))]


@given(st.lists(st.tuples(st.sampled_from(HEADS), st.integers(0, 80), st.binary(min_size=1, max_size=8)), max_size=6))
def test_any_change_of_a_header_never_crashes(changes: list[tuple[bytes, int, bytes]]) -> None:
    frames = []
    for number, (octets, at, put) in enumerate(changes):
        changed = octets[:at] + put + octets[at + len(put) :]
        frames.append(Frame(number + 1, 0.0, 101, changed, len(changed)))
    extract(frames)
