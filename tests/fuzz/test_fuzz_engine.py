"""A bounded run of the fuzz target, so that it cannot rot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fuzz.fuzz_engine import ENGINES, SAS, TEXTS, check, check_hostile, let_in, mutated, steps
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tunnel import LEFT, ipv4, open_tunnel

from esp.datagram import Incoming

if TYPE_CHECKING:
    from esp.engine import Engine

pytestmark = pytest.mark.fuzz


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | mutated())
def test_the_engine_survives_a_bounded_fuzz(octets: bytes) -> None:
    check(octets)


@pytest.mark.parametrize("make", ENGINES)
def test_the_target_starts_from_texts_that_pass_for_every_sa(make: type[Engine]) -> None:
    assert {which for which, _ in TEXTS} == set(range(len(SAS)))
    packets, _ = let_in(steps(*((which, 0, text) for which, text in TEXTS)), make)
    assert len(packets) == 12


def test_the_target_notices_what_the_engine_must_not_let_pass() -> None:
    tunnel = open_tunnel()
    (authentic,) = tunnel.seal(ipv4())
    with pytest.raises(AssertionError):
        check_hostile(tunnel.right, Incoming(authentic, LEFT))
