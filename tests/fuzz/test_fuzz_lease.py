"""A bounded run of the fuzz target, so that it cannot rot."""

from __future__ import annotations

import pytest
from fuzz.fuzz_lease import check, mutated
from hypothesis import given, settings

pytestmark = pytest.mark.fuzz


@settings(max_examples=60, deadline=None)
@given(mutated())
def test_leases_survive_a_bounded_fuzz(octets: bytes) -> None:
    check(octets)
