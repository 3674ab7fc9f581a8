from __future__ import annotations

from enum import IntEnum

import pytest

from kinkvpn.decode import numbers
from kinkvpn.wire import ipsec_doi, kink


def test_a_number_that_gets_a_name_in_the_wire_tables_has_it_here() -> None:
    for table in (kink.MessageType, kink.PayloadType, kink.ErrorCode, ipsec_doi.NotifyType, ipsec_doi.SaAttribute):
        for member in table:
            assert numbers.named(table, member) == {"number": member.value, "name": member.name}


def test_a_number_without_one_stays_a_number() -> None:
    unknown = numbers.payload_name(99)
    assert unknown == {"number": 99, "name": None}
    assert numbers.spoken(unknown) == "unknown (99)"
    assert numbers.name_of(None, 5) is None


def test_transform_ids_depend_on_the_protocol() -> None:
    assert numbers.transform_name(3, 12)["name"] == "AES_CBC"
    assert numbers.transform_name(2, 5)["name"] == "SHA2_256"
    assert numbers.transform_name(4, 2)["name"] is None
    assert numbers.transform_name(77, 2)["name"] is None


@pytest.mark.parametrize("attribute", ["LIFE_TYPE", "ENCAPSULATION_MODE", "AUTHENTICATION_ALGORITHM"])
def test_values_of_attributes_are_found_by_the_name_of_the_class(attribute: str) -> None:
    table = numbers.values_of(ipsec_doi.SaAttribute[attribute])
    assert table is not None
    assert issubclass(table, IntEnum)


def test_attributes_of_plain_numbers_and_unknown_ones_have_no_table() -> None:
    assert numbers.values_of(ipsec_doi.SaAttribute.KEY_LENGTH) is None
    assert numbers.values_of(4711) is None


def test_notifies_for_private_use_say_so() -> None:
    unnamed = next(n for n in range(40959, 32767, -1) if numbers.name_of(ipsec_doi.NotifyType, n) is None)
    assert numbers.spoken(numbers.notify_name(unnamed)) == f"private use {unnamed}"
    assert numbers.spoken(numbers.notify_name(14)) == "NO_PROPOSAL_CHOSEN"
    assert numbers.spoken(numbers.notify_name(20000)) == "unknown (20000)"


def test_kerberos_errors_by_name() -> None:
    assert numbers.kerberos_error_name(37)["name"] == "KRB_AP_ERR_SKEW"
    assert numbers.kerberos_error_name(111)["name"] is None


def test_long_octets_are_cut() -> None:
    assert numbers.hexadecimal(b"\x01\x02") == "0x0102"
    assert numbers.hexadecimal(bytes(70), 4) == "0x00000000... (70 octets)"
