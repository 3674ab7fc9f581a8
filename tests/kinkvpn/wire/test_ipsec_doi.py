"""The numbers against another transcription of the same registries; every line with its reference."""

from __future__ import annotations

import inspect
import re
from enum import IntEnum

import pytest
from scapy.layers import isakmp as scapy

from kinkvpn.wire import ipsec_doi

ENUMS = [
    kind
    for _, kind in inspect.getmembers(ipsec_doi, inspect.isclass)
    if issubclass(kind, IntEnum) and kind is not IntEnum
]


def plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def names(numbers: dict[int, str]) -> dict[int, str]:
    return {number: plain(name) for number, name in numbers.items()}


def values_of(attribute: str) -> dict[int, str]:
    return {number: name for name, number in scapy.IPSECAttributeTypes[attribute][1].items() if number}


@pytest.mark.parametrize("kind", ENUMS)
def test_no_number_has_two_names(kind: type[IntEnum]) -> None:
    assert len(kind.__members__) == len(list(kind))


def test_every_number_says_where_it_is_assigned() -> None:
    numbered = [line for line in inspect.getsource(ipsec_doi).splitlines() if re.search(r"^ *[A-Z0-9_, ]+ = \d", line)]
    assert len(numbered) > 100
    # The reference stands on the line, or on the comment above for the two ranges.
    assert [line for line in numbered if "# RFC" not in line and "# draft-" not in line] == [
        "LAST_ERROR_NOTIFY = 16383",
        "FIRST_PRIVATE_STATUS, LAST_PRIVATE_STATUS = 32768, 40959",
    ]


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        (ipsec_doi.NotifyType, scapy.NotifyMessageType),
        (ipsec_doi.AuthenticationAlgorithm, values_of("AuthenticationAlgorithm")),
        (ipsec_doi.LifeType, values_of("LifeType")),
    ],
)
def test_names_and_numbers_are_scapys(kind: type[IntEnum], theirs: dict[int, str]) -> None:
    ours = {int(member): plain(member.name) for member in kind}
    shared = ours.keys() & theirs.keys()
    assert len(shared) >= 2
    assert {number: ours[number] for number in shared} == {number: names(theirs)[number] for number in shared}
    # What scapy has beyond is RFC 3706, which KINK has no use for (its STATUS does that).
    assert theirs.keys() - ours.keys() <= {36136, 36137}


def test_attribute_classes_are_scapys() -> None:
    theirs = {number for number, _, _ in scapy.IPSECAttributeTypes.values()}
    assert theirs == {member for member in ipsec_doi.SaAttribute if member <= 9}
    assert scapy.IPSECAttributeTypes["KeyLength"][0] == ipsec_doi.SaAttribute.KEY_LENGTH
    assert scapy.IPSECAttributeTypes["EncapsulationMode"][0] == ipsec_doi.SaAttribute.ENCAPSULATION_MODE
    assert scapy.IPSECAttributeTypes["LifeDuration"][0] == ipsec_doi.SaAttribute.LIFE_DURATION


def test_encapsulation_modes_are_scapys() -> None:
    assert values_of("EncapsulationMode").keys() == {mode for mode in ipsec_doi.EncapsulationMode if mode < 61440}


def test_payload_types_and_protocols_are_scapys() -> None:
    assert scapy.ISAKMP_payload_type.keys() == {kind for kind in ipsec_doi.PayloadType if kind < 20}
    assert tuple(ipsec_doi.Protocol) == (
        scapy.PROTO_ISAKMP,
        scapy.PROTO_IPSEC_AH,
        scapy.PROTO_IPSEC_ESP,
        scapy.PROTO_IPCOMP,
    )
