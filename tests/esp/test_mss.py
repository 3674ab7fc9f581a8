"""The MSS of a SYN, with scapy to make packets and to compute checksums."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from esp.mss import clamp

# 18 octets at most before it and behind it: there is room for 40.
OTHERS = st.lists(st.sampled_from([("NOP", None), ("SAckOK", b""), ("WScale", 7)]), max_size=4).flatmap(
    lambda few: st.sampled_from([few, [("Timestamp", (1, 2))]])
)


def syn(version: int, options: list[object], flags: str = "S", payload: bytes = b"") -> bytes:
    ip = IP(src="10.1.0.1", dst="10.2.0.1") if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    return bytes(ip / TCP(sport=1024, dport=80, flags=flags, options=options) / Raw(payload))


def parsed(packet: bytes) -> TCP:
    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)[TCP]


@given(
    version=st.sampled_from([4, 6]),
    before=OTHERS,
    after=OTHERS,
    offered=st.integers(0, 65_535),
    mtu=st.integers(100, 9000),
    flags=st.sampled_from(["S", "SA", "SEC"]),
    payload=st.binary(max_size=9),
)
def test_it_is_lowered_and_nothing_else_changes(
    version: int, before: list[object], after: list[object], offered: int, mtu: int, flags: str, payload: bytes
) -> None:
    packet = syn(version, [*before, ("MSS", offered), *after], flags, payload)
    expected = syn(
        version, [*before, ("MSS", min(offered, mtu - 40 - (20 if version == 6 else 0))), *after], flags, payload
    )
    found = clamp(packet, mtu)
    # Zero and all ones are the same sum; scapy and RFC 1624 each have one of them.
    if parsed(found).chksum != parsed(expected).chksum:
        assert {parsed(found).chksum, parsed(expected).chksum} == {0, 0xFFFF}
    else:
        assert found == expected


def test_what_is_no_syn_or_has_no_option_stays() -> None:
    for packet in (
        syn(4, [("MSS", 9000)], "A"),
        syn(4, []),
        syn(4, [("NOP", None), ("EOL", None), ("MSS", 9000)]),
        syn(6, [("MSS", 9000)])[:59],
        syn(4, [("MSS", 1000)]),
    ):
        assert clamp(packet, 1400) is packet


@given(offset=st.integers(1, 8191), more=st.booleans())
def test_data_in_a_later_fragment_is_nobody_s_header(offset: int, more: bool) -> None:
    """A transfer of packets is full of what looks like SYNs; the checksum would be made to agree with the change."""
    later = IP(src="10.1.0.1", dst="10.2.0.1", proto=6, frag=offset, flags="MF" if more else 0)
    packet = bytes(later / Raw(syn(4, [("MSS", 9000)])[20:]))
    assert clamp(packet, 1400) is packet


@given(options=st.binary(max_size=40), cut=st.integers(0, 100), mtu=st.integers(0, 2000))
def test_any_octets_for_options_do_no_harm(options: bytes, cut: int, mtu: int) -> None:
    options += bytes(-len(options) % 4)
    bare = bytearray(syn(4, []))
    bare[32] = (20 + len(options)) // 4 << 4
    packet = (bytes(bare) + options)[: max(20, 40 + len(options) - cut)]
    assert len(clamp(packet, mtu)) == len(packet)
