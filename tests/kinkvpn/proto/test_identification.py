from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.policy import Selector
from kinkvpn.proto.identification import identification_of, identifications_of, names_selector, network_of
from kinkvpn.wire.ipsec_doi import IdType
from kinkvpn.wire.isakmp import ID_LENGTHS, Identification

V4 = st.builds(lambda a, n: IPv4Network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32))
V6 = st.builds(lambda a, n: IPv6Network((a, n), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128))
U8, U16 = st.integers(0, 255), st.integers(0, 65535)
SELECTORS = st.builds(Selector, V4, V4, U8, U16, U16) | st.builds(Selector, V6, V6, U8, U16, U16)
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
    assert network_of(identification) == network
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
    assert named == (other == mirrored(one))


@pytest.mark.parametrize("field", ["protocol", "local_port", "remote_port", "local", "remote"])
def test_every_field_counts(field: str) -> None:
    selector = Selector(ip_network("10.0.0.0/8"), ip_network("10.0.0.0/8"), 6, 80, 80)
    changed = replace(selector, **{field: ip_network("10.0.0.0/9") if field in ("local", "remote") else 17})
    assert not names_selector(selector, *identifications_of(changed, initiator=True))
    swapped = identifications_of(selector, initiator=True)[1]._replace(protocol=17)
    assert not names_selector(selector, identifications_of(selector, initiator=True)[0], swapped)


@given(IDENTIFICATIONS)
def test_whatever_a_peer_sends_is_a_network_or_none(identification: Identification) -> None:
    network = network_of(identification)
    if identification.type in (IdType.IPV4_ADDR_RANGE, IdType.IPV6_ADDR_RANGE) and network is not None:
        value, half = identification.value, len(identification.value) // 2
        assert (network.network_address.packed, network.broadcast_address.packed) == (value[:half], value[half:])
    if identification.type in (IdType.IPV4_ADDR, IdType.IPV6_ADDR):
        assert network is not None
        assert network.network_address.packed == identification.value


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
        (7, "0a0100000a01fffe", None),  # ranges that are no subnet are not what policies here hold
        (7, "0a0100010a010002", None),
        (7, "0a0102030a010202", None),  # backwards
        (8, "fd" + "00" * 15 + "fd" + "00" * 7 + "ff" * 8, "fd00::/64"),
        (8, "fd" + "00" * 15 + "fd" + "00" * 14 + "02", None),
    ],
)
def test_examples(kind: int, value: str, network: str | None) -> None:
    found = network_of(Identification(kind, 0, 0, bytes.fromhex(value)))
    assert found == (None if network is None else ip_network(network))


@given(V4 | V6)
def test_a_subnet_may_be_said_as_a_range(network: IPv4Network | IPv6Network) -> None:
    kind = IdType.IPV4_ADDR_RANGE if network.version == 4 else IdType.IPV6_ADDR_RANGE
    value = network.network_address.packed + network.broadcast_address.packed
    assert network_of(Identification(kind, 0, 0, value)) == network
