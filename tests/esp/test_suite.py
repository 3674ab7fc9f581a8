"""The table of suites, against the numbers of the documents that define them."""

from __future__ import annotations

import subprocess
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import UnknownSuite
from esp.suite import DEFAULT_SUITES, GRAMMAR, SUITES, Suite, suite_named

BITS = (256, 192, 128)
# Transform (RFC 2407 §4.4.4 and the document named), octets of salt, IV, ICV, block.
COMBINED = {
    **{f"aes{bits}-gcm16": (20, bits, 4, 8, 16, 4) for bits in BITS},  # RFC 4106 §3-8
    **{f"aes{bits}-gcm12": (19, bits, 4, 8, 12, 4) for bits in BITS},
    **{f"aes{bits}-gcm8": (18, bits, 4, 8, 8, 4) for bits in BITS},
    **{f"aes{bits}-ccm16": (16, bits, 3, 8, 16, 4) for bits in BITS},  # RFC 4309 §3-7
    **{f"aes{bits}-ccm12": (15, bits, 3, 8, 12, 4) for bits in BITS},
    **{f"aes{bits}-ccm8": (14, bits, 3, 8, 8, 4) for bits in BITS},
    **{f"aes{bits}-gmac": (23, bits, 4, 8, 16, 4) for bits in BITS},  # RFC 4543 §3, §5
    "chacha20-poly1305": (249, None, 4, 8, 16, 4),  # RFC 7634 §2; private use
}
CIPHERS = {
    **{f"aes{bits}-cbc": (12, bits, 0, 16, 16) for bits in BITS},  # RFC 3602 §2-5
    **{f"aes{bits}-ctr": (13, bits, 4, 8, 4) for bits in BITS},  # RFC 3686 §3-5
    **{f"camellia{bits}-cbc": (22, bits, 0, 16, 16) for bits in BITS},  # RFC 4312 §2-4
    "null": (11, None, 0, 0, 4),  # RFC 2410 §2
    "3des-cbc": (3, None, 0, 8, 8),  # RFC 2451 §2
}
# Authentication attribute (RFC 2407 §4.5), octets of key and ICV.
INTEGRITIES = {
    "md5": (1, 16, 12),  # RFC 2403 §2-3
    "sha1": (2, 20, 12),  # RFC 2404 §2-3
    "sha256": (5, 32, 16),  # RFC 4868 §2.6
    "sha384": (6, 48, 24),
    "sha512": (7, 64, 32),
    "xcbc": (9, 16, 12),  # RFC 3566 §4
}
FIXED_KEYS = {"chacha20-poly1305": 32, "null": 0, "3des-cbc": 24}
EACH = st.sampled_from(sorted(SUITES.values(), key=lambda suite: suite.name))


def test_the_table_is_that_of_the_documents() -> None:
    table = {
        name: (transform, bits, None, bits // 8 if bits else FIXED_KEYS[name], salt, 0, iv, icv, block)
        for name, (transform, bits, salt, iv, icv, block) in COMBINED.items()
    } | {
        f"{name}-{integrity}": (
            *(transform, bits, authentication, bits // 8 if bits else FIXED_KEYS[name]),
            *(salt, key, iv, icv, block),
        )
        for (name, (transform, bits, salt, iv, block)), (integrity, (authentication, key, icv)) in product(
            CIPHERS.items(), INTEGRITIES.items()
        )
    }
    assert {
        suite.name: (
            suite.transform,
            suite.key_length,
            suite.authentication,
            suite.encryption_octets,
            suite.salt_octets,
            suite.integrity_octets,
            suite.iv_octets,
            suite.icv_octets,
            suite.block_octets,
        )
        for suite in SUITES.values()
    } == table


def test_what_is_negotiated_names_one_suite() -> None:
    """Transform, Key Length and Authentication Algorithm are all that a proposal can say of a suite."""
    numbers = {(suite.transform, suite.key_length, suite.authentication) for suite in SUITES.values()}
    assert len(numbers) == len(SUITES)


def test_legacy_suites_say_what_they_cost() -> None:
    """RFC 8221 §5, §6: 3DES SHOULD NOT, MD5 MUST NOT."""
    assert {suite.name for suite in SUITES.values() if suite.legacy} == {
        name for name in SUITES if name.startswith("3des-") or name.endswith("-md5")
    }
    assert all(("MD5" in suite.cost) == ("-md5" in suite.name) for suite in SUITES.values())
    assert all(("3DES" in suite.cost) == ("3des-" in suite.name) for suite in SUITES.values())


def test_what_others_call_them() -> None:
    """Both names are of the same algorithm, whoever gives it."""
    assert SUITES["aes128-gcm8"].cipher_names == ("rfc4106(gcm(aes))", "AES-GCM with 8 octet ICV [RFC4106]", None)
    assert SUITES["aes128-gcm8"].integrity_names is None
    null = SUITES["null-sha384"]
    assert null.cipher_names == ("ecb(cipher_null)", "NULL", "NULL")
    assert null.integrity_names == ("hmac(sha384)", "HMAC-SHA-384-192 [RFC4868]", "SHA2-384-192")


@given(EACH, st.data())
def test_keymat_is_cut_in_the_order_of_the_documents(suite: Suite, data: st.DataObject) -> None:
    keymat = data.draw(st.binary(min_size=suite.keymat_octets, max_size=suite.keymat_octets))
    parts = suite.split(keymat)
    assert b"".join(parts) == keymat
    assert tuple(map(len, parts)) == (suite.encryption_octets, suite.salt_octets, suite.integrity_octets)


@given(EACH, st.binary(max_size=80))
def test_keymat_of_another_length_is_refused_without_being_shown(suite: Suite, keymat: bytes) -> None:
    if len(keymat) == suite.keymat_octets:
        return
    with pytest.raises(ValueError, match=f"takes {suite.keymat_octets} octets of KEYMAT, got {len(keymat)}$"):
        suite.split(keymat)


def test_names() -> None:
    assert all(suite_named(name) is suite for name, suite in SUITES.items())
    with pytest.raises(UnknownSuite, match=r"^a suite: aes"):
        suite_named("rot13")
    with pytest.raises(UnknownSuite, match=r"did you mean aes256-gcm16\b"):
        suite_named("aes256-gmc16")
    with pytest.raises(UnknownSuite, match=r"did you mean aes256-gcm16\b"):
        suite_named("AES256-GCM16")
    with pytest.raises(UnknownSuite) as raised:  # nobody is to be led to what needs legacy = true
        suite_named("des-cbc-md5")
    assert not any(suite.legacy and suite.name in str(raised.value) for suite in SUITES.values())


def test_what_encrypts_nothing() -> None:
    silent = {suite.name for suite in SUITES.values() if not suite.encrypts}
    assert silent == {name for name in SUITES if name.startswith("null-") or name.endswith("-gmac")}


def test_the_grammar_of_names_makes_those_that_are_not_legacy() -> None:
    """As a shell expands braces."""
    patterns = GRAMMAR.replace(", or ", " ").replace(", ", " ")
    names = subprocess.run(
        ["bash", "-c", f"echo {patterns}"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert sorted(names) == sorted(name for name, suite in SUITES.items() if not suite.legacy)


def test_sha1_is_nobodys_default() -> None:
    assert [suite.name for suite in DEFAULT_SUITES] == ["aes256-gcm16", "aes128-gcm16", "aes256-cbc-sha256"]


def test_the_payload_begins_on_eight_octets() -> None:
    """RFC 4303 §2.3, from the beginning of the ESP header on: 4 octets would do for IPv4."""
    assert [name for name, suite in SUITES.items() if (8 + suite.iv_octets) % 8] == []
