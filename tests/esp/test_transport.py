"""Transport mode: what two hosts say to each other, with scapy as the one who knows."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet, Raw
from support.scapy_esp import IP, IPOption_NOP, IPv6, ScapySa, scapy_has
from support.tunnel import KINDS, LEFT, RIGHT, SPI4, Tunnel, engine, flip, ipv4, ipv6, parameters

from esp.datagram import Incoming
from esp.errors import DropReason, HeaderOutside, NotWhole
from esp.policy import Policy, Selector
from esp.sa import Mode
from esp.transport import Transport

# Left's own view of itself and right: what is between them may call them otherwise.
HERE4, THERE4 = "10.0.0.5", "192.0.2.2"
HERE6, THERE6 = "fd00::5", "2001:db8::2"
HOSTS4 = Selector(ip_network(HERE4), ip_network(THERE4))
HOSTS6 = Selector(ip_network(HERE6), ip_network(THERE6))
DATA = st.binary(max_size=70)
CLASS = st.integers(0, 255)
HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60


def four(payload: bytes = b"", **fields: object) -> bytes:
    return bytes(IP(src=HERE4, dst=THERE4, proto=253, **fields) / Raw(payload))


def six(payload: bytes = b"", protocol: int = 253) -> bytes:
    return ipv6(payload, source=HERE6, destination=THERE6, protocol=protocol)


def extension(follows: int, units: int = 0) -> bytes:
    return bytes([follows, units]) + bytes(units * 8 + 6)


UPPER = st.one_of(
    st.builds(lambda data: TCP(sport=5, dport=6) / Raw(data), DATA),
    st.builds(lambda data: UDP(sport=5, dport=6) / Raw(data), DATA),
    st.builds(Raw, DATA),
)


@given(upper=UPPER, traffic_class=CLASS, version=st.sampled_from([4, 6]))
def test_a_packet_comes_out_as_it_was_but_for_what_the_way_changes(
    upper: Packet, traffic_class: int, version: int
) -> None:
    protocol = {TCP: 6, UDP: 17}.get(type(upper), 253)
    packet: Packet = IP(src=HERE4, dst=THERE4, tos=traffic_class, ttl=9, id=7, proto=protocol)
    if version == 6:
        packet = IPv6(src=HERE6, dst=THERE6, tc=traffic_class, hlim=9, fl=7, nh=protocol)
    sent = bytes(packet / upper)
    selector = HOSTS4 if version == 4 else HOSTS6
    payload, next_header, outer = Transport(selector).wrap(sent)
    assert outer == traffic_class
    unwrapped = Transport(flip(selector)).unwrap(payload, next_header, outer)
    assert not isinstance(unwrapped, DropReason)
    expected = IP(sent) if version == 4 else IPv6(sent)
    if version == 4:
        expected.ttl, expected.id, expected.flags = 64, 0, "DF"
        del expected.chksum
    else:
        expected.hlim, expected.fl = 64, 0
    assert unwrapped[0] == bytes(expected)


@given(upper=UPPER, suite=st.sampled_from([name for name in KINDS if scapy_has(name)]), version=st.sampled_from([4, 6]))
def test_scapy_opens_what_is_sealed_and_seals_what_opens(upper: Packet, suite: str, version: int) -> None:
    selector, layer, header = (HOSTS4, IP, 20) if version == 4 else (HOSTS6, IPv6, 40)
    addresses = {"src": HERE4, "dst": THERE4} if version == 4 else {"src": HERE6, "dst": THERE6}
    sent = bytes(layer(**addresses) / (upper if upper.payload else UDP() / upper))
    pair = hosts(selector, suite)
    scapy = ScapySa(suite, SPI4, parameters(suite).keymat, tunnel=False)
    (sealed,) = pair.seal(sent)
    assert scapy.open(sealed, layer(sent[:header]))[header:] == sent[header:]
    (received,) = pair.open(scapy.seal(sent, 1))
    assert received[header:] == sent[header:]


def hosts(selector: Selector, suite: str = "aes256-gcm16") -> Tunnel:
    """Left seals for right, two hosts with one SA between them."""
    left, right = engine(1), engine(2)
    left.add_policy(Policy("four", selector))
    right.add_policy(Policy("four", flip(selector)))
    sa = parameters(suite, selector=selector, mode=Mode.TRANSPORT)
    left.install_outbound(sa, 0.0)
    right.install_inbound(replace(sa, selector=flip(selector), remote=LEFT), 0.0)
    return Tunnel(left, right)


@given(upper=st.sampled_from([TCP(), UDP()]), data=DATA)
def test_the_checksum_is_right_for_the_addresses_that_the_receiver_knows(upper: Packet, data: bytes) -> None:
    """The sender has another address, by its own account, than the selector of the receiver says."""
    sent = bytes(IP(src="10.9.9.9", dst=THERE4) / (upper / Raw(data)))
    unwrapped = Transport(flip(HOSTS4)).unwrap(sent[20:], sent[9], 0)
    assert not isinstance(unwrapped, DropReason)
    again = IP(unwrapped[0])
    del again[type(upper)].chksum
    assert bytes(again) == unwrapped[0]
    assert (again.src, again.dst) == (HERE4, THERE4)


@given(units=st.lists(st.integers(0, 3), max_size=3), data=DATA)
def test_destination_options_are_behind_esp(units: list[int], data: bytes) -> None:
    payload = bytes(IPv6(src=HERE6, dst=THERE6) / UDP(sport=5, dport=6) / Raw(data))[40:]
    protocol = 17
    for each in units:
        payload, protocol = extension(protocol, each) + payload, OPTIONS
    packet = six(payload, protocol)
    sealed = Transport(HOSTS6).wrap(packet)
    assert sealed == (payload, protocol, 0)
    assert Transport(flip(HOSTS6)).unwrap(*sealed) == (packet, (17, packet[8:40], 5 << 16 | 6))
    assert Transport(Selector(ip_network("fd00::9"), HOSTS6.local)).unwrap(*sealed) != DropReason.NOT_IP


@pytest.mark.parametrize(
    ("packet", "refusal"),
    [
        (four(frag=1), NotWhole),
        (four(flags="MF"), NotWhole),
        (four(options=[IPOption_NOP()] * 4), HeaderOutside),
        (six(extension(17), HOP_BY_HOP), HeaderOutside),
        (six(extension(17), ROUTING), HeaderOutside),
        (six(extension(17), FRAGMENT), NotWhole),
        (six(extension(ROUTING) + extension(17), OPTIONS), HeaderOutside),
        (six(extension(FRAGMENT, 1) + bytes(8) + extension(17), OPTIONS), NotWhole),
    ],
)
def test_what_cannot_be_sent_is_dropped_and_counted(packet: bytes, refusal: type[NotWhole | HeaderOutside]) -> None:
    selector = HOSTS4 if packet[0] >> 4 == 4 else HOSTS6
    with pytest.raises(refusal):
        Transport(selector).wrap(packet)
    pair = hosts(selector)
    assert pair.seal(packet) == []
    assert pair.left.statistics().drops == {refusal.reason: 1}
    assert pair.left.statistics().sas[0].drops == {refusal.reason: 1}
    assert pair.left.statistics().sas[0].sequence == 0, "a number that nothing was sealed under"


@pytest.mark.parametrize("selector", [HOSTS4, HOSTS6], ids=["IPv4", "IPv6"])
def test_what_the_payload_may_not_be(selector: Selector) -> None:
    mode = Transport(flip(selector))
    assert mode.unwrap(b"", 59, 0) is DropReason.DUMMY
    for protocol in (HOP_BY_HOP, ROUTING, FRAGMENT):
        assert mode.unwrap(extension(17) + bytes(8), protocol, 0) is DropReason.BAD_NEXT_HEADER
    assert mode.unwrap(bytes(65_536), 253, 0) is DropReason.NOT_IP
    longest = 65_515 if selector is HOSTS4 else 65_535
    assert not isinstance(mode.unwrap(bytes(longest), 253, 0), DropReason)


@given(octets=st.binary(max_size=64), protocol=st.integers(0, 255), traffic_class=CLASS)
def test_any_octets_become_a_packet_between_the_two_or_a_reason(
    octets: bytes, protocol: int, traffic_class: int
) -> None:
    for selector in (HOSTS4, HOSTS6):
        unwrapped = Transport(flip(selector)).unwrap(octets, protocol, traffic_class)
        if not isinstance(unwrapped, DropReason):
            addresses = selector.local.network_address.packed + selector.remote.network_address.packed
            assert unwrapped[1][1] == addresses
            assert unwrapped[0].endswith(octets[20:])


def test_a_selector_with_a_port_holds_in_transport_mode_too() -> None:
    narrow = replace(HOSTS4, protocol=17, remote_port=53)
    pair = hosts(narrow)
    packet = bytes(IP(src=HERE4, dst=THERE4) / UDP(sport=5, dport=53))
    (sealed,) = pair.seal(packet)
    assert len(pair.open(sealed)) == 1
    assert pair.seal(bytes(IP(src=HERE4, dst=THERE4) / UDP(sport=5, dport=54))) == []
    forged = ScapySa("aes256-gcm16", SPI4, parameters().keymat, tunnel=False)
    other = bytes(IP(src=HERE4, dst=THERE4) / UDP(sport=5, dport=54))
    assert pair.open(forged.seal(other, 2)) == []
    assert pair.right.statistics().drops == {DropReason.SELECTOR_MISMATCH: 1}


def test_the_traffic_class_is_the_outer_one() -> None:
    pair = hosts(HOSTS4)
    (sealed,) = pair.left.protect([four(b"x", tos=0xB8)], 0.0)
    assert (sealed.traffic_class, sealed.remote) == (0xB8, RIGHT)
    (packet,) = pair.right.unprotect([Incoming(sealed.datagram, LEFT, 0xBB)], 0.0)
    assert packet[1] == 0xBB
    assert struct.unpack_from("!H", packet, 2)[0] == len(packet) == len(ipv4(b"x"))
