"""AH, with scapy as the one who knows."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw
from support.scapy_esp import AH, IP, IPSecIntegrityError, IPv6, ScapyAh, scapy_has
from support.tunnel import SELECTOR4, SELECTOR6, SPI4, Tunnel, engine, flip, ipv4, ipv6, parameters

from esp.ah import AH as AH_PROTOCOL
from esp.ah import ah_octets, dressed, make_ah_opener, make_ah_sealer, presented
from esp.datagram import Incoming, Outgoing
from esp.errors import AuthenticationFailed, DropReason, InvalidSa
from esp.inner import MAX_EXTENSIONS
from esp.policy import Policy, Selector
from esp.sa import Encapsulation, Endpoint, Mode, SecurityProtocol
from esp.suite import SUITES, Cipher

if TYPE_CHECKING:
    from esp.sa import SaParameters

ENDS4, ENDS6 = ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")
HOSTS4 = Selector(*map(ip_network, ENDS4))
HOSTS6 = Selector(*map(ip_network, ENDS6))
AH_SUITES = [suite for suite in SUITES.values() if suite.cipher is Cipher.NULL]
NAMES = [suite.name for suite in AH_SUITES]
ALL = st.sampled_from(NAMES)
SCAPYS = st.sampled_from([name for name in NAMES if scapy_has(name)])
DATA = st.binary(max_size=70)
VERSION = st.sampled_from([4, 6])


def keymat_of(suite: str) -> bytes:
    return Random(suite).randbytes(SUITES[suite].keymat_octets)


def sa(suite: str, outer: int, mode: Mode, selector: Selector, **changes: object) -> SaParameters:
    local, remote = ENDS4 if outer == 4 else ENDS6
    made = replace(
        parameters(suite, selector=selector),
        keymat=keymat_of(suite),
        legacy=True,
        mode=mode,
        protocol=SecurityProtocol.AH,
        encapsulation=Encapsulation.RAW,
        local=local,
        remote=Endpoint(remote, 0),
    )
    return replace(made, **changes)


def hosts(suite: str, outer: int, mode: Mode, selector: Selector, **changes: object) -> Tunnel:
    """Left seals for right; ``changes`` to both SAs."""
    left, right = engine(1), engine(2)
    left.add_policy(Policy("four", selector))
    right.add_policy(Policy("four", flip(selector)))
    outbound = sa(suite, outer, mode, selector, **changes)
    left.install_outbound(outbound, 0.0)
    here = Endpoint(outbound.local, 0)
    right.install_inbound(replace(outbound, selector=flip(selector), remote=here, local=outbound.remote.address), 0.0)
    return Tunnel(left, right)


def on_the_wire(out: Outgoing) -> bytes:
    assert out.protocol == AH_PROTOCOL
    return dressed(out)


def wire_of(sealed: bytes, **fields: object) -> bytes:
    return dressed(Outgoing(sealed, Endpoint("", 0))._replace(**fields))


def arrives(packet: bytes, source: str = ENDS4[0], traffic_class: int = 0) -> Incoming:
    datagram = presented(packet)
    assert datagram is not None
    return Incoming(datagram, Endpoint(source, 0), traffic_class)


def shape(outer: int, inner: int, mode: Mode, data: bytes) -> tuple[Selector, bytes]:
    """A selector, and a packet that it wants."""
    if mode is Mode.TUNNEL:
        return (SELECTOR4, ipv4(data)) if inner == 4 else (SELECTOR6, ipv6(data))
    source, destination = ENDS4 if outer == 4 else ENDS6
    layer = IP if outer == 4 else IPv6
    return HOSTS4 if outer == 4 else HOSTS6, bytes(layer(src=source, dst=destination) / UDP(sport=5, dport=6) / data)


def payload_of(packet: bytes) -> bytes:
    return packet[20:] if packet[0] >> 4 == 4 else packet[40:]


@given(suite=SCAPYS, outer=VERSION, inner=VERSION, mode=st.sampled_from(Mode), data=DATA)
def test_scapy_verifies_what_we_send(suite: str, outer: int, inner: int, mode: Mode, data: bytes) -> None:
    selector, packet = shape(outer, inner, mode, data)
    (out,) = hosts(suite, outer, mode, selector).left.protect([packet], 0.0)
    wire = on_the_wire(out)
    oracle = ScapyAh(suite, SPI4, keymat_of(suite), *(ENDS4 if outer == 4 else ENDS6), tunnel=mode is Mode.TUNNEL)
    assert payload_of(oracle.verify(wire)) == payload_of(packet)
    layer = IP(wire) if outer == 4 else IPv6(wire)
    assert (layer.src, layer.dst) == (ENDS4 if outer == 4 else ENDS6)
    assert bytes(layer) == wire, "checksum and lengths are those that scapy makes"
    with pytest.raises(IPSecIntegrityError):
        oracle.verify(wire[:-1] + bytes([wire[-1] ^ 1]))


@given(
    suite=SCAPYS, outer=VERSION, inner=VERSION, mode=st.sampled_from(Mode), data=DATA, number=st.integers(1, 2**32 - 1)
)
def test_we_verify_what_scapy_sends(suite: str, outer: int, inner: int, mode: Mode, data: bytes, number: int) -> None:
    selector, packet = shape(outer, inner, mode, data)
    ends = ENDS4 if outer == 4 else ENDS6
    oracle = ScapyAh(suite, SPI4, keymat_of(suite), *ends, tunnel=mode is Mode.TUNNEL)
    pair = hosts(suite, outer, mode, selector)
    (received,) = pair.right.unprotect([arrives(oracle.sign(packet, number), ends[0])], 0.0)
    assert payload_of(received) == payload_of(packet)
    assert pair.right.statistics().sas[0].sequence == number


@given(suite=ALL, outer=VERSION, mode=st.sampled_from(Mode), esn=st.booleans(), data=DATA, number=st.integers(0))
def test_what_is_sealed_comes_out(suite: str, outer: int, mode: Mode, esn: bool, data: bytes, number: int) -> None:
    selector, packet = shape(outer, 4, mode, data)
    last = number % 2**31  # with a new window the first subspace is meant
    pair = hosts(suite, outer, mode, selector, esn=esn, sequence=last)
    outs = pair.left.protect([packet] * 3, 0.0)
    source = (ENDS4 if outer == 4 else ENDS6)[0]
    received = pair.right.unprotect([arrives(on_the_wire(out), source) for out in outs], 0.0)
    assert [payload_of(each) for each in received] == [payload_of(packet)] * 3
    left, right = pair.left.statistics().sas[0], pair.right.statistics().sas[0]
    assert (left.packets, left.octets, left.sequence) == (right.packets, right.octets, right.sequence)


def test_extended_numbers_are_covered() -> None:
    """The half that is not sent is part of the ICV (RFC 4302 §3.3.3.2.2)."""
    suite = SUITES["null-sha256"]
    keymat = keymat_of(suite.name)
    sealer = make_ah_sealer(suite, SPI4, keymat, *ENDS4, esn=True)
    opener = make_ah_opener(suite, keymat, esn=True)
    number = (7 << 32) + 5
    datagram = presented(wire_of(sealer.seal(number, b"text\x00\x11")))
    assert datagram is not None
    assert datagram[4:8] == (5).to_bytes(4)
    assert opener.open(datagram, number) == b"text\x00\x11"
    for wrong in (5, (8 << 32) + 5):
        with pytest.raises(AuthenticationFailed):
            opener.open(datagram, wrong)
    with pytest.raises(AuthenticationFailed):
        make_ah_opener(suite, keymat).open(datagram, number)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("mode", Mode, ids=str)
def test_replays_are_dropped(outer: int, mode: Mode) -> None:
    selector, packet = shape(outer, 4, mode, b"x")
    pair = hosts("null-sha1", outer, mode, selector, replay_window=2)
    source = (ENDS4 if outer == 4 else ENDS6)[0]
    wires = [arrives(on_the_wire(out), source) for out in pair.left.protect([packet] * 4, 0.0)]
    assert len(pair.right.unprotect([*wires[:2], wires[1], wires[3], wires[0]], 0.0)) == 3
    assert pair.right.statistics().drops == {DropReason.REPLAYED: 1, DropReason.TOO_OLD: 1}


# What routers change (RFC 4302 §3.3.3.1.1.1, §3.3.3.1.2.1), and what they do not, by octet of the header.
MUTABLE = {4: {1, 6, 7, 8, 10, 11}, 6: {1, 2, 3, 7}}
FRAGMENTED = {6, 7}  # another offset makes it a fragment: no packet of AH, but one of a datagram's


@pytest.mark.parametrize("outer", [4, 6])
def test_what_changes_on_the_way_may_and_what_does_not_may_not(outer: int) -> None:
    selector, packet = shape(outer, 4, Mode.TUNNEL, b"payload")
    ends = ENDS4 if outer == 4 else ENDS6
    pair = hosts("null-sha256", outer, Mode.TUNNEL, selector)
    (out,) = pair.left.protect([packet], 0.0)
    wire = on_the_wire(out)
    assert len(pair.right.unprotect([arrives(wire, ends[0])], 0.0)) == 1
    fresh = make_ah_opener(SUITES["null-sha256"], keymat_of("null-sha256"))
    for at in range(len(wire)):
        for bit in (0x01, 0x80):
            changed = bytearray(wire)
            changed[at] ^= bit
            datagram = presented(bytes(changed))
            allowed = at in MUTABLE[outer] or (outer == 6 and at == 0 and bit == 0x01)
            if outer == 4 and at in FRAGMENTED:
                assert (datagram is None) is not (at == 6 and bit == 0x80)
            elif allowed:
                assert datagram is not None
                assert fresh.open(datagram, 1)
            elif datagram is not None:
                with pytest.raises(AuthenticationFailed):
                    fresh.open(datagram, 1)


OPTIONS = {
    "nop": b"\x01",
    "alert": b"\x94\x04\x00\x00",
    "security": b"\x82\x0b" + bytes(range(9)),
    "record": b"\x07\x07\x04" + bytes(4),
    "stamp": b"\x44\x08\x05\x00" + bytes(4),
    "loose": b"\x83\x07\x08" + bytes(range(4)),
    "unknown": b"\xde\x03\x09",
}


@given(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=3))
def test_ipv4_options_as_scapy_covers_them(names: list[str]) -> None:
    """Appendix A1: some count as they are, all others as zeros."""
    options = b"".join(OPTIONS[name] for name in names)
    options += bytes(-len(options) % 4)
    plain = IP(src=ENDS4[0], dst=ENDS4[1], proto=17, options=IP(_with_options(options)).options)
    suite = "null-sha256"
    oracle = ScapyAh(suite, SPI4, keymat_of(suite), *ENDS4, tunnel=False)
    signed = oracle.sign(bytes(plain / UDP(sport=5, dport=6) / b"data"), 9)
    datagram = presented(signed)
    assert datagram is not None
    opened = make_ah_opener(SUITES[suite], keymat_of(suite)).open(datagram, 9)
    assert opened.endswith(b"data\x00\x11")
    if "record" in names:  # a router writes itself down
        at = signed.index(b"\x07\x07\x04")
        written = presented(signed[: at + 2] + b"\x08" + signed[at + 3 :])
        assert written is not None
        assert make_ah_opener(SUITES[suite], keymat_of(suite)).open(written, 9) == opened
    if "security" in names:
        changed = presented(signed.replace(OPTIONS["security"], OPTIONS["security"][:-1] + b"\xff"))
        assert changed is not None
        with pytest.raises(AuthenticationFailed):
            make_ah_opener(SUITES[suite], keymat_of(suite)).open(changed, 9)


def _with_options(options: bytes) -> bytes:
    header = bytearray(bytes(IP(src=ENDS4[0], dst=ENDS4[1], proto=17)))
    header[0] = 0x45 + len(options) // 4
    return bytes(header) + options


def test_ipv6_options_as_scapy_covers_them() -> None:
    """Appendix A2: the data of an option that may change counts as zeros, its type and length as they are."""
    suite = "null-sha256"
    keymat = keymat_of(suite)
    oracle = ScapyAh(suite, SPI4, keymat, *ENDS6, tunnel=False)
    fixed, mutable = b"\x1e\x02\x00\x01", b"\x3e\x02\x00\x01"
    for layer in (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt):
        for option in (fixed, mutable):
            extension = layer(bytes([17, 0]) + option + b"\x01\x00")
            plain: Packet = IPv6(src=ENDS6[0], dst=ENDS6[1]) / extension / UDP(sport=5, dport=6) / Raw(b"data")
            datagram = presented(oracle.sign(bytes(plain), 9))
            assert datagram is not None
            opener = make_ah_opener(SUITES[suite], keymat)
            assert datagram.index(option) < datagram.index(SPI4.to_bytes(4), 8), "it stands before AH"
            opened = opener.open(datagram, 9)
            assert opened.endswith(b"data" + bytes([0, opened[-1]]))
            changed = datagram.replace(option, option[:3] + b"\x02")
            if option is mutable:
                assert opener.open(changed, 9) == opened
            else:
                with pytest.raises(AuthenticationFailed):
                    opener.open(changed, 9)


@pytest.mark.parametrize("suite", NAMES)
def test_the_header_is_aligned_as_each_version_wants_it(suite: str) -> None:
    for outer, ends, alignment in ((4, ENDS4, 4), (6, ENDS6, 8)):
        sealer = make_ah_sealer(SUITES[suite], SPI4, keymat_of(suite), *ends)
        packet = sealer.seal(1, b"\x00\x3b")
        octets = len(payload_of(packet))
        assert octets == ah_octets(SUITES[suite], outer) == 4 * (payload_of(packet)[1] + 2)
        assert octets % alignment == 0
        assert octets - 12 - SUITES[suite].icv_octets < alignment


def test_a_longer_alignment_than_ours_is_taken() -> None:
    """Linux aligns to eight octets over IPv4 too, unless told otherwise."""
    suite = SUITES["null-sha256"]
    keymat = keymat_of(suite.name)
    six = make_ah_sealer(suite, SPI4, keymat, *ENDS6)
    assert ah_octets(suite, 6) == ah_octets(suite, 4) + 4
    datagram = presented(wire_of(six.seal(3, b"text\x00\x11")))
    assert datagram is not None
    assert make_ah_opener(suite, keymat).open(datagram, 3) == b"text\x00\x11"


@given(st.binary(max_size=120), st.integers(0, 2**64 - 1))
def test_any_octets_are_refused(octets: bytes, number: int) -> None:
    opener = make_ah_opener(SUITES["null-sha256"], keymat_of("null-sha256"))
    for packet in (octets, b"\x45" + octets, b"\x60" + octets):
        presented(packet)
        with pytest.raises(AuthenticationFailed):
            opener.open(bytes(8) + packet, number)


def test_a_number_that_is_not_the_packets_own_is_refused() -> None:
    """What stands in front for the lookup cannot take a packet past the window."""
    selector, packet = shape(4, 4, Mode.TUNNEL, b"x")
    pair = hosts("null-sha256", 4, Mode.TUNNEL, selector)
    (out,) = pair.left.protect([packet], 0.0)
    good = arrives(on_the_wire(out))
    forged = good._replace(datagram=good.datagram[:4] + (7).to_bytes(4) + good.datagram[8:])
    assert pair.right.unprotect([forged], 0.0) == []
    assert pair.right.statistics().drops == {DropReason.AUTHENTICATION_FAILED: 1}
    assert len(pair.right.unprotect([good], 0.0)) == 1


@given(st.data())
def test_every_truncation_and_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    outer = data.draw(VERSION)
    selector, packet = shape(outer, 4, Mode.TUNNEL, b"some payload")
    pair = hosts("null-sha256", outer, Mode.TUNNEL, selector)
    (out,) = pair.left.protect([packet], 0.0)
    datagram = arrives(on_the_wire(out)).datagram
    cut = datagram[: data.draw(st.integers(0, len(datagram) - 1))]
    source = Endpoint((ENDS4 if outer == 4 else ENDS6)[0], 0)
    assert pair.right.unprotect([Incoming(cut, source), Incoming(cut + b"more", source)], 0.0) == []
    drops = pair.right.statistics().drops
    assert sum(drops.values()) == 2
    assert drops.keys() <= {DropReason.MALFORMED, DropReason.AUTHENTICATION_FAILED, DropReason.UNKNOWN_SPI}


def test_esp_under_the_spi_of_ah_is_refused_and_the_other_way_about() -> None:
    selector, packet = shape(4, 4, Mode.TUNNEL, b"x")
    ah = hosts("null-sha256", 4, Mode.TUNNEL, selector)
    esp = hosts("null-sha256", 4, Mode.TUNNEL, selector, protocol=SecurityProtocol.ESP)
    (by_ah,) = ah.left.protect([packet], 0.0)
    (by_esp,) = esp.left.protect([packet], 0.0)
    assert by_esp.protocol == 50
    source = Endpoint(ENDS4[0], 0)
    assert ah.right.unprotect([Incoming(by_esp.datagram, source)], 0.0) == []
    assert esp.right.unprotect([arrives(on_the_wire(by_ah))], 0.0) == []
    for end in (ah, esp):
        assert sum(end.right.statistics().drops.values()) == 1
        assert end.right.statistics().sas[0].sequence == 0


def test_the_outer_header_has_class_and_df() -> None:
    packet = make_ah_sealer(SUITES["null-sha1"], SPI4, keymat_of("null-sha1"), *ENDS4).seal(1, b"\x00\x3b")
    for dont_fragment, flags in ((None, "DF"), (True, "DF"), (False, "")):
        layer = IP(wire_of(packet, traffic_class=0xB9, dont_fragment=dont_fragment))
        assert (layer.tos, layer.flags, layer.ttl, layer.proto) == (0xB9, flags, 64, AH_PROTOCOL)
        assert isinstance(layer.payload, AH)
    six = make_ah_sealer(SUITES["null-sha1"], SPI4, keymat_of("null-sha1"), *ENDS6).seal(1, b"\x00\x3b")
    found = IPv6(wire_of(six, traffic_class=0xB9, flow_label=0x54321))
    assert (found.tc, found.fl, found.hlim) == (0xB9, 0x54321, 64)


def test_no_identification_is_zero() -> None:
    sealer = make_ah_sealer(SUITES["null-sha1"], SPI4, keymat_of("null-sha1"), *ENDS4)
    found = {int.from_bytes(sealer.seal(number, b"\x00\x3b")[4:6]) for number in (1, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE)}
    assert 0 not in found
    assert len(found) >= 3


def test_where_the_peer_goes_packets_go_and_its_new_address_is_covered() -> None:
    selector, packet = shape(4, 4, Mode.TUNNEL, b"x")
    pair = hosts("null-sha256", 4, Mode.TUNNEL, selector)
    pair.left.protect([packet], 0.0)
    pair.left.follow("four", Endpoint("192.0.2.9", 4500))
    (out,) = pair.left.protect([packet], 0.0)
    assert out.remote == Endpoint("192.0.2.9", 0)
    oracle = ScapyAh("null-sha256", SPI4, keymat_of("null-sha256"), ENDS4[0], "192.0.2.9", tunnel=True)
    assert oracle.verify(on_the_wire(out)) == packet
    pair.left.follow("four", Endpoint("2001:db8::9", 4500))
    (out,) = pair.left.protect([packet], 0.0)
    assert out.remote == Endpoint("192.0.2.9", 0), "no way from an IPv4 address"


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("mode", Mode, ids=str)
def test_the_largest_packet_fills_the_path(outer: int, mode: Mode) -> None:
    selector = HOSTS4 if outer == 4 else HOSTS6
    if mode is Mode.TUNNEL:
        selector = SELECTOR4
    pair = hosts("null-sha256", outer, mode, selector)
    remote = (ENDS4 if outer == 4 else ENDS6)[1]
    assert pair.left.learn_path(Endpoint(remote, 0), 1400, None, 0.0)
    overhead = ah_octets(SUITES["null-sha256"], outer) + ((20 if outer == 4 else 40) if mode is Mode.TUNNEL else 0)
    build, ends = (ipv6, ENDS6) if mode is Mode.TRANSPORT and outer == 6 else (ipv4, ENDS4)
    inside = {"source": ends[0], "destination": ends[1]} if mode is Mode.TRANSPORT else {}
    header = 40 if build is ipv6 else 20
    (out,) = pair.left.protect([build(bytes(1400 - overhead - header), **inside)], 0.0)
    assert len(out.datagram) == 1400
    more = pair.left.protect([build(bytes(1401 - overhead - header), **inside)], 0.0)
    assert [len(each.datagram) <= 1400 for each in more] == [True, True] if mode is Mode.TUNNEL else more == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": SUITES["aes128-gcm16"], "keymat": bytes(20)}, "AH encrypts nothing"),
        ({"encapsulation": Encapsulation.UDP}, "it goes raw"),
        ({"local": ""}, "AH from nowhere to 192.0.2.2"),
        ({"local": "2001:db8::1"}, "AH from 2001:db8::1 to 192.0.2.2"),
    ],
)
def test_sas_that_cannot_be(changes: dict[str, object], message: str) -> None:
    left = engine()
    left.add_policy(Policy("four", SELECTOR4))
    wrong = replace(sa("null-sha256", 4, Mode.TUNNEL, SELECTOR4), **changes)
    with pytest.raises(InvalidSa, match=message):
        left.install_outbound(wrong, 0.0)
    assert left.statistics().sas == ()


@pytest.mark.parametrize(("headers", "taken"), [(MAX_EXTENSIONS, True), (MAX_EXTENSIONS + 1, False)])
def test_a_chain_of_extension_headers_is_followed_so_far(headers: int, taken: bool) -> None:
    """Eight thousand of them, in one datagram, would cost ten milliseconds before anybody has vouched for it."""
    suite = SUITES["null-sha256"]
    sealed = make_ah_sealer(suite, SPI4, keymat_of(suite.name), *ENDS6).seal(1, bytes(30) + b"\0\x3b")
    options = bytes([0, 1, 4, 0, 0, 0, 0])  # one header's length, and padding
    following = [60] * (headers - 1) + [AH_PROTOCOL]
    chain = b"".join(bytes([each]) + options for each in following)
    octets = (len(chain) + len(sealed) - 40).to_bytes(2)
    assert (presented(sealed[:4] + octets + b"\x3c" + sealed[7:40] + chain + sealed[40:]) is not None) is taken
