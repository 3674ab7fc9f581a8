"""The MSS of a SYN in C: what the reference makes of it, octet for octet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from esp import mss

OPTIONS = st.lists(st.sampled_from([("NOP", None), ("SAckOK", b""), ("WScale", 7), ("EOL", None), ("MSS", 9000)]))


def segment(version: int, options: list[object], flags: str, payload: bytes) -> bytes:
    ip = IP(src="10.1.0.1", dst="10.2.0.1") if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    return bytes(ip / TCP(sport=1024, dport=80, flags=flags, options=options) / Raw(payload))


@given(
    version=st.sampled_from([4, 6]),
    options=OPTIONS.filter(lambda drawn: len(drawn) < 9),
    mtu=st.integers(0, 9100),
    flags=st.sampled_from(["S", "SA", "A", "F"]),
    payload=st.binary(max_size=9),
    cut=st.integers(0, 30),
    flipped=st.none() | st.tuples(st.integers(12, 90), st.integers(0, 255)),
)
def test_both_engines_make_the_same_of_it(
    version: int,
    options: list[object],
    mtu: int,
    flags: str,
    payload: bytes,
    cut: int,
    flipped: tuple[int, int] | None,
) -> None:
    from esp.native import _core

    packet = bytearray(segment(version, options, flags, payload))
    del packet[max(len(packet) - cut, 40) :]
    if flipped is not None and 20 < flipped[0] < len(packet):  # behind the addresses: anything may stand in options
        packet[flipped[0]] = flipped[1]
    assert _core.clamp(bytes(packet), mtu) == mss.clamp(bytes(packet), mtu)
