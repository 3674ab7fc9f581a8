"""Fragments against scapy's, and put together again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet import fragment as scapy_fragment
from scapy.packet import Raw
from support.tunnel import ipv4, ipv6

from esp.fragmentation import fragment, may_fragment


def option(number: int, body: bytes) -> bytes:
    return bytes([number, len(body) + 2]) + body


OPTION = st.just(b"\1") | st.builds(option, st.integers(2, 31) | st.integers(0x82, 0x9F), st.binary(max_size=8))
OPTIONS = st.lists(OPTION, max_size=4).filter(lambda each: len(b"".join(each)) <= 40)


def packet_with(options: bytes, payload: bytes, tos: int = 0, offset: int = 0, more: int = 0) -> bytes:
    padded = options + bytes(-len(options) % 4)
    header = IP(src="10.0.0.1", dst="10.0.0.2", id=7, tos=tos, ttl=9, proto=17, frag=offset, flags=more)
    bare = bytearray(bytes(header / Raw(payload)))
    bare[0] = 0x45 + len(padded) // 4
    bare[2:4] = (len(bare) + len(padded)).to_bytes(2)
    built = IP(bytes(bare[:20]) + padded + bytes(bare[20:]))
    del built.chksum
    return bytes(built)


@given(octets=st.integers(0, 3000), mtu=st.integers(68, 1500), tos=st.integers(0, 255))
def test_without_options_it_is_what_scapy_makes(octets: int, mtu: int, tos: int) -> None:
    packet = packet_with(b"", bytes(index % 251 for index in range(octets)), tos)
    room = (mtu - 20) // 8 * 8
    expected = [packet] if len(packet) <= mtu else [bytes(each) for each in scapy_fragment(IP(packet), fragsize=room)]
    found = fragment(packet, mtu)
    # The last piece may fill the room to the octet; scapy leaves it to the next eight.
    assert b"".join(each[20:] for each in found) == packet[20:]
    if len(found) == len(expected):
        assert found == expected
    assert all(len(each) <= mtu for each in found)


@given(
    options=OPTIONS,
    octets=st.integers(0, 600),
    mtu=st.integers(68, 300),
    offset=st.integers(0, 100),
    more=st.integers(0, 1),
)
def test_every_piece_is_whole_and_they_make_the_packet(
    options: list[bytes], octets: int, mtu: int, offset: int, more: int
) -> None:
    payload = bytes(index % 251 for index in range(octets - octets % 8 if more else octets))
    packet = packet_with(b"".join(options), payload, offset=offset, more=more)
    together = {}
    pieces = [IP(each) for each in fragment(packet, mtu)]
    for piece in pieces:
        check = IP(bytes(piece))
        del check.chksum
        assert IP(bytes(check)).chksum == piece.chksum
        assert (piece.id, piece.ttl, piece.proto, piece.len) == (7, 9, 17, len(bytes(piece)))
        assert len(bytes(piece)) <= mtu
        together[piece.frag - offset] = bytes(piece)[piece.ihl * 4 :]
    assert b"".join(together[position] for position in sorted(together)) == payload
    assert [bool(piece.flags.MF) for piece in pieces] == [True] * (len(pieces) - 1) + [bool(more)]
    first, *others = pieces
    assert bytes(first)[20 : first.ihl * 4] == bytes(IP(packet))[20 : IP(packet).ihl * 4]
    kept = b"".join(each for each in options if each[0] & 0x80)
    for piece in others:
        assert bytes(piece)[20 : piece.ihl * 4] == kept + bytes(-len(kept) % 4)


def test_who_may() -> None:
    assert may_fragment(ipv4())
    assert not may_fragment(ipv6())
    packet = bytearray(ipv4())
    packet[6] |= 0x40
    assert not may_fragment(bytes(packet))


def test_options_that_run_over_their_end_are_not_copied() -> None:
    pieces = fragment(packet_with(b"\x94\x04\0\0\x94\x09\0\0", bytes(200)), 100)
    assert [piece[0] & 15 for piece in pieces] == [7, 6, 6]
