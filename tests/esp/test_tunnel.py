"""Tunnel mode: what is wrapped comes out again, marked as the path has marked it, and nothing else does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scapy_esp import IP, IPOption_NOP, IPv6
from support.tunnel import ipv4, ipv6

from esp.errors import DropReason
from esp.headers import DEFAULT_RULES, Ecn, HeaderRules
from esp.tunnel import Tunnel, traffic_class_of, with_traffic_class
from esp.wire import IPV4_IN_ESP, IPV6_IN_ESP

TUNNEL = Tunnel(DEFAULT_RULES, Counter())
COMPATIBLE = replace(DEFAULT_RULES, ecn=Ecn.COMPATIBLE)
INWARD = replace(DEFAULT_RULES, dscp_inward=True)

# RFC 3168 §5.
CODEPOINTS = {"Not-ECT": 0b00, "ECT(1)": 0b01, "ECT(0)": 0b10, "CE": 0b11}
# RFC 6040 §4.1 and §4.2, as they stand there.
FIGURE_3 = """
            |    Not-ECT      |   Not-ECT     |   Not-ECT     |
            |     ECT(0)      |   Not-ECT     |    ECT(0)     |
            |     ECT(1)      |   Not-ECT     |    ECT(1)     |
            |       CE        |   Not-ECT     |      CE       |
"""
FIGURE_4 = """
            |  Header | Not-ECT | ECT(0)     | ECT(1)     |     CE     |
            +---------+---------+------------+------------+------------+
            | Not-ECT | Not-ECT |Not-ECT(!!!)|Not-ECT(!!!)| <drop>(!!!)|
            |  ECT(0) |  ECT(0) | ECT(0)     | ECT(1)     |     CE     |
            |  ECT(1) |  ECT(1) | ECT(1) (!) | ECT(1)     |     CE     |
            |    CE   |      CE |     CE     |     CE(!!!)|     CE     |
"""


def rows(figure: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip(" |").split("|")]
        for line in figure.splitlines()
        if line.strip()[:1] == "|"
    ]


def packet_of(version: int, traffic_class: int) -> bytes:
    """One of scapy's making."""
    if version == 4:
        return bytes(IP(src="10.1.0.1", dst="10.2.0.1", tos=traffic_class, id=7, flags="DF", proto=253) / b"payload")
    return bytes(IPv6(src="2001:db8:1::1", dst="2001:db8:2::1", tc=traffic_class, fl=0xABCDE, nh=253) / b"payload")


def passed(tunnel: Tunnel, packet: bytes, outer: int) -> bytes | DropReason:
    """What comes out of a tunnel on whose path the outer traffic class has become ``outer``."""
    payload, next_header, _ = tunnel.wrap(packet)
    unwrapped = tunnel.unwrap(payload, next_header, outer)
    return unwrapped if isinstance(unwrapped, DropReason) else unwrapped[0]


@given(packet=st.one_of(st.builds(ipv4, st.binary(max_size=64)), st.builds(ipv6, st.binary(max_size=64))))
def test_a_packet_comes_out_as_it_went_in_and_tfc_padding_does_not(packet: bytes) -> None:
    payload, next_header, traffic_class = TUNNEL.wrap(packet)
    assert next_header == {4: IPV4_IN_ESP, 6: IPV6_IN_ESP}[packet[0] >> 4]
    for padded in (payload, payload + bytes(7)):
        unwrapped = TUNNEL.unwrap(padded, next_header, traffic_class)
        assert not isinstance(unwrapped, DropReason)
        assert unwrapped[0] == packet


def test_the_next_header_and_the_version_have_to_agree() -> None:
    assert TUNNEL.unwrap(ipv4(), IPV6_IN_ESP, 0) is DropReason.NOT_IP
    assert TUNNEL.unwrap(ipv6(), IPV4_IN_ESP, 0) is DropReason.NOT_IP
    assert TUNNEL.unwrap(b"", IPV4_IN_ESP, 0) is DropReason.NOT_IP
    assert TUNNEL.unwrap(ipv4(), 59, 0) is DropReason.DUMMY
    assert TUNNEL.unwrap(ipv4(), 6, 0) is DropReason.BAD_NEXT_HEADER


# ECN: RFC 6040.


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("inner", "compatible", "normal"), rows(FIGURE_3))
def test_figure_3_of_rfc_6040(version: int, inner: str, compatible: str, normal: str) -> None:
    for dscp in (0, 46, 63):
        packet = packet_of(version, dscp << 2 | CODEPOINTS[inner])
        for rules, outer in ((DEFAULT_RULES, normal), (COMPATIBLE, compatible)):
            payload, _, traffic_class = Tunnel(rules, Counter()).wrap(packet)
            assert payload == packet, "the inner header is as it came"
            assert traffic_class == dscp << 2 | CODEPOINTS[outer]


HEADINGS, *FIGURE_4_ROWS = rows(FIGURE_4)
CELLS = [(inner, outer, cell) for inner, *row in FIGURE_4_ROWS for outer, cell in zip(HEADINGS[1:], row, strict=True)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("inner", "outer", "cell"), CELLS)
def test_figure_4_of_rfc_6040(version: int, inner: str, outer: str, cell: str) -> None:
    """The packet that leaves is the one that scapy makes with the codepoint of the figure: checksum and all."""
    unused: Counter[str] = Counter()
    tunnel = Tunnel(DEFAULT_RULES, unused)
    leaves = cell.partition("(!")[0].strip()
    for dscp, outside in ((0, 0), (46, 46), (63, 10)):
        arrived = packet_of(version, dscp << 2 | CODEPOINTS[inner])
        left = passed(tunnel, arrived, outside << 2 | CODEPOINTS[outer])
        if leaves == "<drop>":
            assert left is DropReason.CE_ON_NOT_ECT
        else:
            assert left == packet_of(version, dscp << 2 | CODEPOINTS[leaves])
    assert sum(unused.values()) == (3 if "!" in cell else 0)


def test_unused_combinations_are_counted_by_name() -> None:
    unused: Counter[str] = Counter()
    for inner in range(4):
        for outer in range(4):
            passed(Tunnel(DEFAULT_RULES, unused), packet_of(4, inner), outer)
    names = ("not_ect_in_ect0", "not_ect_in_ect1", "not_ect_in_ce", "ect1_in_ect0", "ce_in_ect1")
    assert unused == dict.fromkeys(names, 1)


# DSCP: RFC 4301 §5.1.2, RFC 2983.


@pytest.mark.parametrize("version", [4, 6])
def test_dscp_is_copied_fixed_or_mapped_and_ecn_stays_beside_it(version: int) -> None:
    mapped = bytes(46 if dscp == 34 else 0 for dscp in range(64))
    for table in (DEFAULT_RULES.dscp, bytes([46]) * 64, mapped):
        tunnel = Tunnel(HeaderRules(dscp=table), Counter())
        for traffic_class in range(256):
            _, _, outer = tunnel.wrap(packet_of(version, 0) if traffic_class == 0 else _with(version, traffic_class))
            assert (outer >> 2, outer & 3) == (table[traffic_class >> 2], traffic_class & 3)


def _with(version: int, traffic_class: int) -> bytes:
    """Made by hand: scapy takes a millisecond for each."""
    packet = bytearray(ipv4(b"x") if version == 4 else ipv6(b"x"))
    if version == 4:
        packet[1] = traffic_class
    else:
        packet[:2] = (0x6000 | traffic_class << 4).to_bytes(2)
    return bytes(packet)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("outer", [0, 46, 63])
def test_the_outer_dscp_comes_in_only_where_that_was_asked_for(version: int, outer: int) -> None:
    arrived = packet_of(version, 10 << 2 | CODEPOINTS["ECT(0)"])
    assert passed(TUNNEL, arrived, outer << 2) == arrived
    inward = Tunnel(INWARD, Counter())
    assert passed(inward, arrived, outer << 2) == packet_of(version, outer << 2 | CODEPOINTS["ECT(0)"])
    assert passed(inward, arrived, outer << 2 | 3) == packet_of(version, outer << 2 | CODEPOINTS["CE"])
    assert passed(inward, packet_of(version, 10 << 2), outer << 2 | 3) is DropReason.CE_ON_NOT_ECT


# Nothing else of the inner header changes.


def test_options_and_extension_headers_pass_untouched_and_stay_inside() -> None:
    four = IP(src="10.1.0.1", dst="10.2.0.1", tos=2, options=[IPOption_NOP()] * 8, ttl=9, id=99, proto=17) / b"datagram"
    hop_by_hop = bytes([17, 0, 1, 4, 0, 0, 0, 0])
    six = IPv6(src="2001:db8:1::1", dst="2001:db8:2::1", tc=2, fl=0x12345, hlim=9, nh=0) / (hop_by_hop + b"datagram")
    for packet, field in ((four, "tos"), (six, "tc")):
        payload, _, traffic_class = TUNNEL.wrap(bytes(packet))
        assert payload == bytes(packet)
        assert traffic_class == 2
        marked = packet.copy()
        setattr(marked, field, 3)
        assert passed(TUNNEL, bytes(packet), 3) == bytes(marked)


def ones_complement_sum(octets: bytes) -> int:
    """RFC 1071 §4.1, word by word."""
    total = 0
    for offset in range(0, len(octets), 2):
        total += octets[offset] << 8 | octets[offset + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(
    words=st.lists(st.integers(0, 0xFFFF), min_size=10, max_size=30).filter(lambda words: len(words) % 2 == 0),
    before=st.integers(0, 255),
    after=st.integers(0, 255),
    right=st.booleans(),
)
def test_the_checksum_follows_the_change_and_what_was_wrong_is_wrong_by_as_much(
    words: list[int], before: int, after: int, right: bool
) -> None:
    header = bytearray(b"".join(word.to_bytes(2) for word in words))
    header[0], header[1] = 0x40 | len(words) // 2, before
    if right:
        header[10:12] = bytes(2)
        header[10:12] = (0xFFFF - ones_complement_sum(header)).to_bytes(2)
    changed = with_traffic_class(bytes(header), after)
    assert traffic_class_of(changed) == after
    assert (changed[0], changed[2:10], changed[12:]) == (header[0], header[2:10], header[12:])
    assert ones_complement_sum(changed) % 0xFFFF == ones_complement_sum(header) % 0xFFFF


def test_the_example_of_rfc_1624() -> None:
    """§4: a checksum that has to become 0x0000 does not become 0xFFFF."""
    # Here the word has version and header length in it: 0x45FF becomes 0x4500, among words that make 0xFFFF with it.
    octets = bytearray(20)
    octets[:2], octets[2:4] = b"\x45\xff", (0xFFFF - 0x4500).to_bytes(2)
    octets[10:12] = (0xFFFF - ones_complement_sum(octets)).to_bytes(2)
    changed = with_traffic_class(bytes(octets), 0)
    assert changed[10:12] == b"\0\0"
    assert ones_complement_sum(changed) == 0xFFFF
