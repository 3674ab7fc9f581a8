from __future__ import annotations

from kinkvpn.decode.findings import Finding, Kind, Severity


def test_every_kind_has_one_severity_and_a_name_of_its_own() -> None:
    assert {kind.severity for kind in Kind} == set(Severity)
    assert len({kind.value for kind in Kind}) == len(Kind)


def test_what_is_wrong_decides_the_exit_code() -> None:
    assert Finding(Kind.CHECKSUM_WRONG, "").wrong
    assert not Finding(Kind.TRAILING_OCTETS, "").wrong
    assert not Finding(Kind.RETRANSMISSION, "").wrong


def test_json_has_stable_keys() -> None:
    found = Finding(Kind.NO_KEY, "no key").as_json()
    assert found == {"kind": "no-key", "severity": "wrong", "text": "no key"}
