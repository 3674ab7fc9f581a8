"""Sums in C, of every length and alignment, against the definition."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packets import checksum as defined

from esp.native._core import checksum

OCTETS = Random(1071).randbytes(70_000)
# Whatever is done in steps: of two and four octets, and of the 64 of a pair of vectors.
LENGTHS = [*range(260), 1_367, 1_368, 1_400, 9_000, 65_535, 65_536, 70_000]


def same(sum_of_words: int, complemented: int) -> bool:
    """Zero has two forms in ones' complement, and a sum of nothing but zeros alone is really 0 (RFC 1071 §2)."""
    return sum_of_words % 0xFFFF == (0xFFFF ^ complemented) % 0xFFFF


@pytest.mark.parametrize("start", range(5))
def test_every_length_sums_as_rfc_1071_has_it_and_is_copied_whole(start: int) -> None:
    for length in LENGTHS:
        octets = OCTETS[start : start + length]
        found, copied = checksum(octets)
        assert same(found, defined(octets)), length
        assert copied == octets


@pytest.mark.parametrize("octet", [0, 0x7F, 0x80, 0xFF])
def test_extremes_carry_nothing_away(octet: int) -> None:
    for length in LENGTHS:
        octets = bytes([octet]) * length
        found, _ = checksum(octets)
        assert same(found, defined(octets)), length
        assert (found == 0) == (not any(octets)), length


@given(st.binary(min_size=1, max_size=2_000), st.data())
def test_one_bit_changes_the_sum(octets: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(octets) - 1))
    wrong = bytearray(octets)
    wrong[place] ^= 1 << data.draw(st.integers(0, 7))
    assert checksum(octets)[0] != checksum(wrong)[0]
