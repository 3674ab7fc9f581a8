"""What is done about sizes: cut, clamp, or answer, and never more than a bounded number of answers."""

from __future__ import annotations

from ipaddress import ip_address

from support.tunnel import ipv4, ipv6

from esp.fit import MAX_REPLIES, Fit, Inside
from esp.sa import Mode


def with_df(packet: bytes) -> bytes:
    return packet[:6] + bytes([packet[6] | 0x40]) + packet[7:]


def test_answers_come_from_the_first_address_of_the_family_and_are_bounded() -> None:
    addresses = [ip_address(text).packed for text in ("10.1.0.254", "10.1.0.253", "2001:db8::fe")]
    fit = Fit(Inside(addresses=tuple(addresses)))
    for packet in (with_df(ipv4(bytes(1500))), ipv6(bytes(1500))):
        assert fit.cut(packet, 1400, Mode.TUNNEL) == ()
    four, six = fit.take_replies()
    assert (four[12:16], six[8:24]) == (addresses[0], addresses[2])
    for _ in range(2 * MAX_REPLIES):
        fit.cut(ipv6(bytes(1500)), 1400, Mode.TUNNEL)
    assert len(fit.take_replies()) == MAX_REPLIES
    assert fit.take_replies() == []


def test_this_host_is_told_by_whom_it_sends_to() -> None:
    """What comes in from an address of its own a host drops."""
    fit = Fit(Inside(addresses=(ip_address("10.1.0.1").packed, ip_address("2001:db8:1::1").packed)))
    for packet in (with_df(ipv4(bytes(1500))), ipv6(bytes(1500))):
        fit.cut(packet, 1400, Mode.TUNNEL)
    four, six = fit.take_replies()
    assert (four[12:16], six[8:24]) == (ip_address("10.2.0.1").packed, ip_address("2001:db8:2::1").packed)


def test_a_packet_in_transport_mode_is_not_cut() -> None:
    """RFC 4303 §3.3.4: ESP there is for whole datagrams; the sender is on this host, and is told."""
    fit = Fit(Inside())
    assert fit.cut(ipv4(bytes(1500)), 1400, Mode.TRANSPORT) == ()
    assert len(fit.take_replies()) == 1
    assert len(fit.cut(ipv4(bytes(1500)), 1400, Mode.TUNNEL)) == 2


def test_the_mss_fits_the_inside_too_and_can_be_left_alone() -> None:
    syn = ipv4(bytes(12) + b"\x60\x02" + bytes(6) + bytes([2, 4]) + (1460).to_bytes(2), protocol=6)
    assert Fit(Inside(mtu=1300)).clamped(syn, 1400)[42:44] == (1260).to_bytes(2)
    assert Fit(Inside(mtu=1500)).clamped(syn, 1400)[42:44] == (1360).to_bytes(2)
    assert Fit(Inside(mtu=1300, clamp_mss=False)).clamped(syn, 1400) == syn
    assert Fit(Inside(mtu=1300)).clamped(ipv4(syn[20:], protocol=17), 1400) == ipv4(syn[20:], protocol=17)
