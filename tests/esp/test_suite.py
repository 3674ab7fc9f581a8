"""The table of suites, against the numbers of the documents that define them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import UnknownSuite
from esp.suite import DEFAULT_SUITES, SUITES, Suite, suite_named

# name: transform (RFC 2407 §4.4.4, RFC 3602 §5.2, RFC 4106 §8.3), authentication attribute, octets of key, salt,
# integrity key, IV, ICV, block (RFC 4106 §3-8, RFC 3602 §2-3, RFC 4868 §2.6, RFC 2404 §2-3).
TABLE = {
    "aes256-gcm16": (20, None, 32, 4, 0, 8, 16, 4),
    "aes192-gcm16": (20, None, 24, 4, 0, 8, 16, 4),
    "aes128-gcm16": (20, None, 16, 4, 0, 8, 16, 4),
    "aes256-cbc-sha256": (12, 5, 32, 0, 32, 16, 16, 16),
    "aes192-cbc-sha256": (12, 5, 24, 0, 32, 16, 16, 16),
    "aes128-cbc-sha256": (12, 5, 16, 0, 32, 16, 16, 16),
    "aes256-cbc-sha1": (12, 2, 32, 0, 20, 16, 12, 16),
    "aes192-cbc-sha1": (12, 2, 24, 0, 20, 16, 12, 16),
    "aes128-cbc-sha1": (12, 2, 16, 0, 20, 16, 12, 16),
}
EACH = st.sampled_from(sorted(SUITES.values(), key=lambda suite: suite.name))


def test_the_table_is_that_of_the_documents() -> None:
    assert {
        suite.name: (
            suite.transform,
            suite.authentication,
            suite.encryption_octets,
            suite.salt_octets,
            suite.integrity_octets,
            suite.iv_octets,
            suite.icv_octets,
            suite.block_octets,
        )
        for suite in SUITES.values()
    } == TABLE


@given(EACH, st.data())
def test_keymat_is_cut_in_the_order_of_the_documents(suite: Suite, data: st.DataObject) -> None:
    keymat = data.draw(st.binary(min_size=suite.keymat_octets, max_size=suite.keymat_octets))
    parts = suite.split(keymat)
    assert b"".join(parts) == keymat
    assert tuple(map(len, parts)) == TABLE[suite.name][2:5]


@given(EACH, st.binary(max_size=80))
def test_keymat_of_another_length_is_refused_without_being_shown(suite: Suite, keymat: bytes) -> None:
    if len(keymat) == suite.keymat_octets:
        return
    with pytest.raises(ValueError, match=f"takes {suite.keymat_octets} octets of KEYMAT, got {len(keymat)}$"):
        suite.split(keymat)


def test_names() -> None:
    assert all(suite_named(name) is suite for name, suite in SUITES.items())
    with pytest.raises(UnknownSuite, match="no suite 'rot13'; there are aes256-gcm16, "):
        suite_named("rot13")


def test_sha1_is_nobodys_default() -> None:
    assert [suite.name for suite in DEFAULT_SUITES] == ["aes256-gcm16", "aes128-gcm16", "aes256-cbc-sha256"]
