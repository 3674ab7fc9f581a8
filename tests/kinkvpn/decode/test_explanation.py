"""Names, units and subnets, and what must not be told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from support.messages import ISAKMP_PAYLOADS

from esp.sa import Endpoint
from kinkvpn.decode.explanation import explain_quick_mode, group_of, selector
from kinkvpn.decode.findings import Finding, Kind
from kinkvpn.proto import extensions, lease
from kinkvpn.wire.ipsec_doi import IdType, NotifyType
from kinkvpn.wire.isakmp import (
    Attribute,
    Delete,
    Identification,
    IsakmpPayload,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    Transform,
    Unknown,
)


def explained(payload: IsakmpPayload) -> tuple[dict[str, Any], list[Kind]]:
    findings: list[Finding] = []
    tree = explain_quick_mode(payload, findings)
    return tree, [finding.kind for finding in findings]


def sa(*attributes: Attribute, protocol: int = 3, identifier: int = 20) -> SecurityAssociation:
    return SecurityAssociation(
        (Proposal(1, protocol, bytes.fromhex("01020304"), (Transform(1, identifier, attributes),)),)
    )


def attributes(payload: SecurityAssociation) -> list[dict[str, Any]]:
    tree, _ = explained(payload)
    found: list[dict[str, Any]] = tree["proposals"][0]["transforms"][0]["attributes"]
    return found


def test_an_sa_by_names_with_units() -> None:
    tree, kinds = explained(
        sa(Attribute(1, 1), Attribute(2, 28800), Attribute(4, 3), Attribute(6, 256), Attribute(11, 1))
    )
    assert not kinds
    (proposal,) = tree["proposals"]
    assert (proposal["protocol"]["name"], proposal["spi"]) == ("ESP", "0x01020304")
    (transform,) = proposal["transforms"]
    assert transform["id"]["name"] == "AES_GCM_16"
    shown = [(one["type"]["name"], one["value"], one["meaning"], one["unit"]) for one in transform["attributes"]]
    assert shown == [
        ("LIFE_TYPE", 1, "SECONDS", None),
        ("LIFE_DURATION", 28800, None, "s"),
        ("ENCAPSULATION_MODE", 3, "UDP_TUNNEL", None),
        ("KEY_LENGTH", 256, None, "bits"),
        ("EXTENDED_SEQUENCE_NUMBER", 1, "ESN_64", None),
    ]


def test_a_duration_takes_the_unit_of_the_life_type_before_it() -> None:
    pairs = attributes(sa(Attribute(1, 2), Attribute(2, b"\x00\x98\x96\x80"), Attribute(1, 1), Attribute(2, 60)))
    assert [(one["value"], one["unit"]) for one in pairs[1::2]] == [(10_000_000, "kB"), (60, "s")]


@pytest.mark.parametrize(
    "payload",
    [
        sa(identifier=200),
        sa(protocol=99),
        sa(Attribute(4, 77)),
        sa(Attribute(4711, 1)),
        Notify(3, b"", 20000),
        Unknown(99, b"abc"),
        Delete(99, (b"a",)),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_numbers_without_a_name_are_findings(payload: IsakmpPayload) -> None:
    assert set(explained(payload)[1]) == {Kind.UNKNOWN_NUMBER}


def test_nonces_and_public_values_are_counted_and_not_shown() -> None:
    assert explained(Nonce(b"N" * 32)) == ({"nonce_octets": 32}, [])
    assert explained(KeyExchange(b"K" * 256)) == ({"public_value_octets": 256}, [])


def identification(kind: IdType, *parts: str, protocol: int = 0, port: int = 0) -> Identification:
    return Identification(kind, protocol, port, b"".join(ip_address(part).packed for part in parts))


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (identification(IdType.IPV4_ADDR_SUBNET, "10.1.0.0", "255.255.0.0"), "10.1.0.0/16"),
        (identification(IdType.IPV4_ADDR, "10.1.0.1", protocol=6, port=443), "10.1.0.1/32 tcp port 443"),
        (identification(IdType.IPV6_ADDR, "fd00::1", protocol=99), "fd00::1/128 protocol 99"),
        (identification(IdType.IPV6_ADDR_SUBNET, "fd00::", str(ip_network("::/32").netmask)), "fd00::/32"),
        (identification(IdType.IPV4_ADDR_RANGE, "10.0.0.1", "10.0.0.9"), "10.0.0.1 to 10.0.0.9"),
        (identification(IdType.IPV4_ADDR_SUBNET, "10.0.0.0", "255.0.255.0"), "10.0.0.0 mask 255.0.255.0"),
    ],
)
def test_ids_as_an_operator_writes_them(payload: Identification, text: str) -> None:
    assert selector(payload) == text


def test_notifies_say_what_they_are_about() -> None:
    tree, _ = explained(Notify(0, b"", NotifyType.INVALID_PAYLOAD_TYPE, b"\x04"))
    assert tree["meaning"] == "about a payload of type KE"
    tree, _ = explained(Notify(3, b"\x01\x02\x03\x04", NotifyType.INVALID_SPI))
    assert (tree["notify"]["name"], tree["spi"], tree["data"]) == ("INVALID_SPI", "0x01020304", None)


TOLD = extensions.Told(
    extensions.Capability.KINK_ON_ESP_PORT | extensions.Capability.BEHIND_NAT,
    extensions.Observed(Endpoint("192.0.2.1", 40000), marked=True),
    1400,
)


def test_our_extensions_are_read_as_their_page_draws_them() -> None:
    trees = [explained(notify) for notify in extensions.build(TOLD)]
    assert [(tree["notify"]["name"], tree["meaning"], kinds) for tree, kinds in trees] == [
        ("KINKVPN_CAPABILITIES", "kink on esp port, behind nat", []),
        ("KINKVPN_OBSERVED_ENDPOINT", "the receiver is seen at 192.0.2.1:40000, behind the non-ESP marker", []),
        ("KINKVPN_INNER_MTU", "1400 octets", []),
    ]
    tree, kinds = explained(Notify(1, b"", NotifyType.KINKVPN_CAPABILITIES, b"KVPN\0\0\0\0"))
    assert (tree["meaning"], kinds) == ("none", [])


def test_ip_tfs_is_told_of_and_with_flags_that_nobody_knows_is_not() -> None:
    asked = extensions.use_aggfrag(0x1234)
    tree, kinds = explained(asked)
    assert (tree["meaning"], tree["spi"], kinds) == ("IP-TFS: AGGFRAG payloads and nothing else", "0x00001234", [])
    assert explained(replace(asked, value=b"KVPN\1"))[0]["meaning"] is None


def test_what_fills_a_message_up_is_not_shown_for_what_it_is_not() -> None:
    filling = Notify(1, b"", NotifyType.KINKVPN_PADDING, b"KVPN" + bytes(1000))
    tree, kinds = explained(filling)
    assert (tree["meaning"], kinds) == ("fills the message up, by 1004 octets", [])
    assert explained(replace(filling, value=b"else"))[0]["meaning"] is None


def test_leases_are_told_of() -> None:
    address, server = ip_address("10.8.0.7"), ip_address("10.1.0.53")
    assert explained(lease.ask(lease.Wanted()))[0]["meaning"] == "asks for an address"
    assert explained(lease.ask(lease.Wanted((address,))))[0]["meaning"] == "asks for 10.8.0.7"
    lent = lease.grant(lease.Lease((address,), (ip_network("10.1.0.0/16"),), (server,), ("example.com",)))
    tree, kinds = explained(lent)
    assert tree["meaning"] == "lends 10.8.0.7; to 10.1.0.0/16; name servers 10.1.0.53; domains example.com"
    assert kinds == []
    assert explained(replace(lent, value=b"KVPN\2\0\0\0"))[1] == [Kind.EXTENSION_MALFORMED]


def test_an_extension_of_another_layout_is_odd_and_somebody_else_s_number_is_not() -> None:
    assert explained(Notify(1, b"", NotifyType.KINKVPN_INNER_MTU, b"KVPN\0"))[1] == [Kind.EXTENSION_MALFORMED]
    tree, kinds = explained(Notify(1, b"", NotifyType.KINKVPN_INNER_MTU, b"else"))
    assert (tree["meaning"], tree["data"], kinds) == (None, "0x656c7365", [])


def test_deletes_list_their_spis() -> None:
    tree, _ = explained(Delete(3, (b"\x00\x00\x01\x00", b"\x00\x00\x01\x01")))
    assert tree["spis"] == ["0x00000100", "0x00000101"]


def test_the_group_of_an_sa() -> None:
    group = group_of(sa(Attribute(3, 14)))
    assert group is not None
    assert group["number"] == 14
    assert group_of(sa()) is None


@given(ISAKMP_PAYLOADS)
def test_everything_that_can_be_built_is_explained(payload: IsakmpPayload) -> None:
    explained(payload)
