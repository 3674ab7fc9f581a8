"""A bounded run of the fuzz target, so that it cannot rot."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz.fuzz_wire import PLAINTEXT_SEEDS, SEEDS, check, mutated
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.fuzz


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | mutated())
def test_the_parsers_survive_a_bounded_fuzz(octets: bytes) -> None:
    check(octets)


def test_the_target_starts_from_real_messages() -> None:
    assert len(SEEDS) > 60
    assert len(PLAINTEXT_SEEDS) > 20
    for octets in SEEDS + PLAINTEXT_SEEDS:
        check(octets)


def test_the_target_notices_what_a_parser_must_not_raise() -> None:
    not_octets: Any = None
    with pytest.raises(TypeError):
        check(not_octets)
