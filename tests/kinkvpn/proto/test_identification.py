from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import InvalidPolicy
from esp.inner import OPAQUE
from esp.policy import AddressRange, PortRange, Ports, Selector, address_interval, box, icmp_messages
from kinkvpn.proto.identification import addresses_of, identification_of, identifications_of, names_selector, show
from kinkvpn.wire.ipsec_doi import IdType
from kinkvpn.wire.isakmp import ID_LENGTHS, Identification

A4 = st.integers(0, 2**32 - 1)
R4 = st.tuples(A4, A4).map(lambda ends: AddressRange(IPv4Address(min(ends)), IPv4Address(max(ends))))
V4 = st.builds(lambda a, n: IPv4Network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32))
V6 = st.builds(lambda a, n: IPv6Network((a, n), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128))
U8, U16 = st.integers(0, 255), st.integers(0, 65535)
SELECTORS = st.builds(Selector, V4 | R4, V4 | R4, U8, U16, U16) | st.builds(Selector, V6, V6, U8, U16, U16)
IDENTIFICATIONS = st.sampled_from(sorted(ID_LENGTHS.items())).flatmap(
    lambda kind: st.builds(
        Identification, st.just(int(kind[0])), U8, U16, st.binary(min_size=kind[1], max_size=kind[1])
    )
)


def mirrored(selector: Selector) -> Selector:
    return Selector(selector.remote, selector.local, selector.protocol, selector.remote_port, selector.local_port)


@given(V4 | V6, U8, U16)
def test_round_trip(network: IPv4Network | IPv6Network, protocol: int, port: int) -> None:
    identification = identification_of(network, protocol, port)
    assert addresses_of(identification) == network
    assert (identification.protocol, identification.port) == (protocol, port)
    assert len(identification.value) == ID_LENGTHS[IdType(identification.type)]


@given(SELECTORS)
def test_what_the_initiator_says_names_the_responders_selector(selector: Selector) -> None:
    ids = identifications_of(selector, initiator=True)
    assert names_selector(mirrored(selector), *ids)
    assert ids == identifications_of(mirrored(selector), initiator=False)


@given(SELECTORS, SELECTORS)
def test_nothing_else_does(one: Selector, other: Selector) -> None:
    named = names_selector(other, *identifications_of(one, initiator=True))
    assert named == (box(other) == box(mirrored(one)) and one.version == other.version)


@pytest.mark.parametrize("field", ["protocol", "local_port", "remote_port", "local", "remote"])
def test_every_field_counts(field: str) -> None:
    selector = Selector(ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8"), 6, 80, 80)
    changed = replace(selector, **{field: ip_network("10.0.0.0/9") if field in ("local", "remote") else 17})
    assert not names_selector(selector, *identifications_of(changed, initiator=True))
    swapped = identifications_of(selector, initiator=True)[1]._replace(protocol=17)
    assert not names_selector(selector, identifications_of(selector, initiator=True)[0], swapped)


@given(IDENTIFICATIONS)
def test_whatever_a_peer_sends_is_addresses_or_nothing(identification: Identification) -> None:
    found = addresses_of(identification)
    value, half = identification.value, len(identification.value) // 2
    ends = None if found is None else tuple(number.to_bytes(len(value), "big") for number in address_interval(found))
    if identification.type in (IdType.IPV4_ADDR_RANGE, IdType.IPV6_ADDR_RANGE):
        given = value[:half], value[half:]
        assert ends == (tuple(one.rjust(len(value), b"\0") for one in given) if given[0] <= given[1] else None)
    if identification.type in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
        assert ends == (value, value)


@pytest.mark.parametrize(
    ("protocol", "port"), [(6, PortRange(80, 81)), (1, icmp_messages(8)), (6, OPAQUE), (OPAQUE, 0)]
)
def test_what_no_identification_says_is_refused(protocol: int, port: Ports) -> None:
    net = ip_network("10.0.0.0/8")
    with pytest.raises(InvalidPolicy, match="one port or any"):
        identifications_of(Selector(net, net, protocol, port), initiator=True)


@pytest.mark.parametrize(
    ("kind", "value", "network"),
    [
        (4, "0a010203ffff0000", "10.1.0.0/16"),  # host bits are not looked at
        (4, "0000000000000000", "0.0.0.0/0"),
        (4, "0a010203ffffffff", "10.1.2.3/32"),  # a subnet of one address
        (4, "0a010000ffff00ff", None),  # a mask with a hole
        (4, "0a01000000ffffff", None),
        (6, "fd" + "00" * 15 + "ff" * 8 + "00" * 8, "fd00::/64"),
        (6, "fd" + "00" * 15 + "00" * 8 + "ff" * 8, None),
        (7, "0a0100000a01ffff", "10.1.0.0/16"),
        (7, "0a0102030a010203", "10.1.2.3/32"),
        (7, "00000000ffffffff", "0.0.0.0/0"),
        (7, "0a0100000a01fffe", "10.1.0.0-10.1.255.254"),
        (7, "0a0100010a010002", "10.1.0.1-10.1.0.2"),
        (7, "0a0102030a010202", None),  # backwards
        (8, "fd" + "00" * 15 + "fd" + "00" * 7 + "ff" * 8, "fd00::/64"),
        (8, "fd" + "00" * 15 + "fd" + "00" * 14 + "02", "fd00::-fd00::2"),
    ],
)
def test_examples(kind: int, value: str, network: str | None) -> None:
    found = addresses_of(Identification(kind, 0, 0, bytes.fromhex(value)))
    assert (None if found is None else str(found)) == network
    assert show(Identification(kind, 0, 0, bytes.fromhex(value))) == (network or "no addresses")


def test_what_a_log_shows_of_it() -> None:
    https = Identification(IdType.IPV4_ADDR, 6, 443, bytes([10, 1, 2, 3]))
    assert show(https) == "10.1.2.3/32 protocol 6 port 443"
    assert show(https._replace(port=0)) == "10.1.2.3/32 protocol 6"


@given(V4 | V6)
def test_a_subnet_may_be_said_as_a_range(network: IPv4Network | IPv6Network) -> None:
    kind = IdType.IPV4_ADDR_RANGE if network.version == 4 else IdType.IPV6_ADDR_RANGE
    value = network.network_address.packed + network.broadcast_address.packed
    assert addresses_of(Identification(kind, 0, 0, value)) == network
