from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import policy

from esp.suite import SUITES
from kinkvpn.proto.lifetime import (
    HARD_PACKETS,
    HARD_PACKETS_ESN,
    answered,
    draw_fraction,
    initiated,
    soft_count,
    soft_seconds,
)
from kinkvpn.proto.proposal import Terms
from kinkvpn.proto.retransmit import FULL_CYCLE

FRACTIONS = st.floats(0, 1, exclude_max=True)
LIVES = st.none() | st.integers(1000, 2**40)


def terms(seconds: int | None = 28800, kilobytes: int | None = None) -> Terms:
    return Terms(SUITES["aes256-gcm16"], policy().mode, policy().encapsulation, seconds, kilobytes)


@given(st.integers(1, 2**31), FRACTIONS)
def test_soft_life_is_hard_life_less_once_to_twice_a_cycle(hard: int, fraction: float) -> None:
    cycle = min(FULL_CYCLE, hard / 4)
    assert hard - 2 * cycle <= soft_seconds(hard, fraction) <= hard - cycle
    assert soft_seconds(hard, fraction) > 0


@given(st.integers(1024, 2**41), FRACTIONS)
def test_soft_life_in_packets_and_octets_is_spread_too(hard: int, fraction: float) -> None:
    assert hard - hard // 8 <= soft_count(hard, fraction) <= hard - hard // 16
    assert soft_count(hard, 0.9) < soft_count(hard, 0.1)


def test_a_fraction_is_drawn_from_the_whole_of_its_range() -> None:
    assert draw_fraction(bytes) == 0
    assert 0.999 < draw_fraction(lambda octets: b"\xff" * octets) < 1


@given(LIVES, LIVES, st.none() | st.integers(1, 2**31), st.integers(10, 2**31), st.integers(1000, 2**33), FRACTIONS)
def test_a_responder_keeps_every_limit_of_both_and_goes_first_only_where_the_initiator_cannot(
    offered: int | None, own: int | None, seconds: int | None, own_seconds: int, packets: int, fraction: float
) -> None:
    ours = policy(lifetime_seconds=own_seconds, lifetime_kilobytes=own, lifetime_packets=packets)
    life = answered(ours, terms(seconds, offered), fraction)
    assert life.hard_seconds == min(28800 if seconds is None else seconds, own_seconds)
    assert (life.soft_seconds is not None) == (seconds is None and own_seconds < 28800)
    known = [each for each in (offered, own) if each is not None]
    assert life.hard_octets == (1024 * min(known) if known else None)
    assert (life.soft_octets is not None) == (offered is None and own is not None)
    assert life.hard_packets == min(packets, HARD_PACKETS)
    assert life.soft_packets is not None
    assert soft_count(life.hard_packets, 0) <= life.soft_packets < life.hard_packets


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_an_initiator_rekeys_before_each_of_its_limits(fraction: float) -> None:
    ours = policy(lifetime_kilobytes=5000, lifetime_packets=6000)
    life = initiated(ours, terms(3600, 4000), fraction)
    assert (life.hard_seconds, life.hard_octets, life.hard_packets) == (3600, 4_096_000, 6000)
    assert (life.soft_seconds, life.soft_octets, life.soft_packets) == (
        soft_seconds(3600, fraction),
        soft_count(4_096_000, fraction),
        soft_count(6000, fraction),
    )


@pytest.mark.parametrize(("esn", "packets"), [(False, HARD_PACKETS), (True, HARD_PACKETS_ESN)])
def test_what_nobody_limits_ends_with_the_counter_or_the_cipher(esn: bool, packets: int) -> None:
    agreed = replace(terms(None), esn=esn)
    for life in (initiated(policy(), agreed, 0.5), answered(policy(), agreed, 0.5)):
        assert (life.hard_seconds, life.hard_packets, life.hard_octets) == (28800, packets, None)
        weak = replace(agreed, suite=SUITES["3des-cbc-sha1"])
        assert initiated(policy(), weak, 0.5).hard_packets == HARD_PACKETS  # blocks of 64 bits: RFC 4304 §4
    assert initiated(policy(lifetime_packets=2**33), agreed, 0.5).hard_packets == min(2**33, packets)
