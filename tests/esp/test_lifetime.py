"""Limits of an SA are reached in order, and said once."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from support.tunnel import ipv4, parameters

from esp.inbound import InboundSa
from esp.lifetime import Limit
from esp.outbound import OutboundSa
from esp.sa import Lifetime

SEEDED = Random(5).randbytes


@given(st.integers(1, 20), st.integers(0, 20))
def test_packets_reach_limits_in_order(soft: int, more: int) -> None:
    sa = OutboundSa(parameters(lifetime=Lifetime(soft_packets=soft, hard_packets=soft + more)), 0.0, SEEDED)
    reached = []
    for _ in range(soft + more):
        sa.seal(ipv4(), 0.0)
        reached.append(sa.reached(0.0))
    expected = [None] * (soft + more)
    expected[soft - 1] = Limit.SOFT
    expected[-1] = Limit.HARD
    assert reached == expected


def test_octets_are_those_of_the_cipher() -> None:
    """RFC 4301 §4.4.2.1: a lifetime in octets counts what the algorithm was applied to; both ends count alike."""
    for suite, octets in (("aes256-gcm16", 24), ("aes128-cbc-sha1", 32)):
        outbound = OutboundSa(parameters(suite, lifetime=Lifetime(soft_octets=octets)), 0.0, SEEDED)
        opener = InboundSa(parameters(suite), 0.0, {})
        assert outbound.reached(0.0) is None
        assert isinstance(opener.authenticate(outbound.seal(ipv4(), 0.0).datagram, 1), bytes)
        assert outbound.octets == opener.octets == octets
        assert outbound.reached(0.0) is Limit.SOFT


def test_seconds_count_from_installation() -> None:
    sa = OutboundSa(parameters(lifetime=Lifetime(soft_seconds=10, hard_seconds=20)), 100.0, SEEDED)
    assert sa.deadline() == 110.0
    assert sa.reached(109.9) is None
    assert sa.reached(110.0) is Limit.SOFT
    assert sa.deadline() == 120.0
    assert sa.reached(119.9) is None
    assert sa.reached(120.0) is Limit.HARD
    assert sa.reached(120.0) is Limit.HARD
