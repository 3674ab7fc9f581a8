"""Tunnel mode: what is wrapped comes out again, and nothing else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.tunnel import ipv4, ipv6

from esp.errors import DropReason
from esp.tunnel import Tunnel
from esp.wire import IPV4_IN_ESP, IPV6_IN_ESP

TUNNEL = Tunnel()


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
