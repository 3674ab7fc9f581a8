from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from fuzz.fuzz_lease import LEASES, WANTED, check, refused
from hypothesis import given, settings
from hypothesis import strategies as st

from kinkvpn import values
from kinkvpn.errors import MalformedMessage
from kinkvpn.proto.lease import (
    MAX_ATTRIBUTES,
    MAX_ROUTES,
    Lease,
    Wanted,
    ask,
    found_lease,
    found_request,
    grant,
    is_configuration,
    parse,
    wished,
)
from kinkvpn.wire.ipsec_doi import FIRST_PRIVATE_STATUS, LAST_PRIVATE_STATUS, IdType, NotifyType
from kinkvpn.wire.isakmp import Identification, Nonce, Notify

FULL = Lease(
    (IPv4Address("10.8.0.7"), IPv6Address("fd00:8::7")),
    (ip_network("10.1.0.0/16"), ip_network("fd00:1::/48"), ip_network("0.0.0.0/0")),
    (IPv4Address("10.1.0.53"), IPv6Address("fd00:1::53")),
    ("example.com", "corp.example.com"),
)


def reply(*attributes: str) -> Notify:
    """A lease of attributes in hexadecimal."""
    octets = b"KVPN" + bytes.fromhex("02000000" + "".join(attributes))
    return Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, octets)


ADDRESS = "0001 0004 0a080007"


def test_the_layouts_are_those_of_the_page() -> None:
    assert (
        grant(FULL).value
        == b"KVPN"
        + bytes.fromhex(
            "02000000"
            "0001 0004 0a080007"
            "0008 0011 fd000008000000000000000000000007 80"
            "0003 0004 0a010035"
            "000a 0010 fd000001000000000000000000000053"
            "000d 0008 0a010000 ffff0000"
            "000f 0011 fd000001000000000000000000000000 30"
            "000d 0008 00000000 00000000"
        )
        + b"\0\x19\0\x0bexample.com\0\x19\0\x10corp.example.com"
    )
    assert ask(Wanted((IPv4Address("10.8.0.7"),))).value == b"KVPN" + bytes.fromhex(
        "01000000 0001 0004 0a080007 0008 0000 0003 0000 000a 0000 000d 0000 000f 0000 0019 0000"
    )
    assert FIRST_PRIVATE_STATUS <= NotifyType.KINKVPN_CONFIGURATION <= LAST_PRIVATE_STATUS
    assert (grant(FULL).protocol, grant(FULL).spi) == (1, b"")


@settings(max_examples=40)
@given(LEASES)
def test_a_lease_is_read_as_it_was_written(lease: Lease) -> None:
    assert parse(grant(lease)) == lease
    assert found_lease([Nonce(bytes(16)), grant(lease)]) == lease
    assert found_request([grant(lease)]) is None


@settings(max_examples=30)
@given(WANTED)
def test_a_request_is_read_as_it_was_written(wanted: Wanted) -> None:
    assert parse(ask(wanted)) == wanted
    assert found_request([ask(wanted)]) == wanted
    assert found_lease([ask(wanted)]) is None


def test_truncated_at_every_octet_it_is_malformed_or_shorter() -> None:
    whole = grant(FULL).value
    for length in range(len(whole)):
        cut = Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, whole[:length])
        if length < 4:
            assert not is_configuration(cut)
        elif not refused(cut):
            assert parse(cut) != FULL


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "0001 0003 0a0800",
        "0001 0005 0a08000701",
        "0001 0000",
        ADDRESS + "0001 0004 0a080008",
        "0001 0004 7f000001",
        "0001 0004 e0000001",
        "0001 0004 00000000",
        "0001 0004 ffffffff",
        "0001 0004 a9fe0001",
        "0008 0010 fd000008000000000000000000000007",
        "0008 0011 fe800000000000000000000000000007 80",
        "0008 0011 ff020000000000000000000000000001 80",
        ADDRESS + "000d 0008 0a010001 ffff0000",
        ADDRESS + "000d 0008 0a000000 000000ff",
        ADDRESS + "000d 0008 0a000000 ff00ff00",
        ADDRESS + "000d 0008 7f000000 ff000000",
        ADDRESS + "000d 0008 e0000000 f0000000",
        ADDRESS + "000f 0011 fd000001000000000000000000000000 81",
        ADDRESS + "000f 0011 fd000001000000000000000000000001 30",
        ADDRESS + "0003 0004 7f000001",
        ADDRESS + "0019 0000",
        ADDRESS + "0019 0003 610a62",
        ADDRESS + "0019 0003 612062",
        ADDRESS + "0019 0002 2d61",
        ADDRESS + "0019 0003 612e2e",
        ADDRESS + "0019 0001 e9",
        ADDRESS + "0019 0002 615f",
        ADDRESS + "0019 0001 31",
        ADDRESS + "0019 0003 612e31",
        ADDRESS + "0019 0040" + "61" * 64,
        ADDRESS + "".join(f"000d 0008 0a{index:02x}0000 ffff0000" for index in range(MAX_ROUTES + 1)),
        ADDRESS + "7fff 0000" * MAX_ATTRIBUTES,
    ],
)
def test_what_cannot_be_is_malformed(attributes: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(reply(attributes))


@given(st.text("ab1_-.A", min_size=1, max_size=6))
def test_a_domain_that_is_taken_may_be_in_a_configuration(name: str) -> None:
    """Which is made of a lease."""
    try:
        read = parse(reply(ADDRESS, f"0019 {len(name):04x}", name.encode().hex()))
    except MalformedMessage:
        return
    assert isinstance(read, Lease)
    assert read.domains == (values.domain(name),)


def test_what_is_not_known_is_ignored_and_so_is_the_reserved_bit() -> None:
    assert parse(reply("8001 0004 0a080007", "4000 0002 abcd")) == Lease((ip_address("10.8.0.7"),))
    assert parse(reply(ADDRESS, "0019 000c", b"EXAMPLE.com.".hex())) == Lease(
        (ip_address("10.8.0.7"),), domains=("example.com",)
    )


def test_what_a_command_wishes() -> None:
    """A CREATE comes from an address, a STATUS asks for some; all else says nothing of it."""
    four, six = ip_address("10.8.0.7"), ip_address("fd00:8::7")
    there = Identification(IdType.IPV4_ADDR_SUBNET, 0, 0, ip_network("10.1.0.0/16").network_address.packed * 2)
    assert list(wished([Nonce(bytes(16)), Identification(IdType.IPV4_ADDR, 0, 0, four.packed), there])) == [four]
    assert list(wished([Identification(IdType.IPV6_ADDR, 0, 0, six.packed), there])) == [six]
    assert list(wished([there, Identification(IdType.IPV4_ADDR, 0, 0, four.packed)])) == []
    assert list(wished([ask(Wanted((four, six)))])) == [four, six]
    assert list(wished([ask(Wanted())])) == list(wished([Nonce(bytes(16))])) == list(wished([])) == []
    assert list(wished([reply("7fff")])) == []


def test_neither_request_nor_reply_is_malformed() -> None:
    with pytest.raises(MalformedMessage):
        parse(Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, b"KVPN\3\0\0\0"))


def test_somebody_else_s_number_is_not_ours() -> None:
    assert not is_configuration(Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, b"else"))
    assert found_lease([Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, b"else")]) is None


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_any_octets_are_read_or_malformed(octets: bytes) -> None:
    check(octets)
