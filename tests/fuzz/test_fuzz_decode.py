"""A bounded run of the fuzz target, so that it cannot rot."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz.fuzz_decode import SEEDS, check, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.fuzz


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300) | mutated())
def test_the_decoder_survives_a_bounded_fuzz(octets: bytes) -> None:
    check(octets)


def test_the_target_starts_from_real_captures() -> None:
    assert len(SEEDS) == 12
    for octets in SEEDS:
        check(octets)


def test_the_target_notices_what_the_decoder_must_not_raise() -> None:
    not_octets: Any = "text"
    with pytest.raises(TypeError):
        check(not_octets)
