from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.proto.allowance import (
    BURST,
    BURST_OCTETS,
    MAX_SOURCES,
    OCTETS_PER_SECOND,
    PER_SECOND,
    Allowance,
    source_of,
)


def test_a_burst_then_one_a_second() -> None:
    allowance = Allowance()
    assert [allowance.take("x", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not allowance.take("x", 0.5)
    assert allowance.take("x", 1.0)
    assert not allowance.take("x", 1.5)
    assert allowance.take("y", 1.5)


def test_an_idle_source_saves_up_no_more_than_a_burst() -> None:
    allowance = Allowance()
    allowance.take("x", 0.0)
    assert [allowance.take("x", 1e9) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_the_bucket_holds(gaps: list[float]) -> None:
    allowance, now, taken = Allowance(), 0.0, 0
    for gap in gaps:
        now += gap
        taken += allowance.take("x", now)
    assert taken <= BURST + now * PER_SECOND + 1e-6


def test_few_sources_are_remembered_and_the_longest_silent_is_forgotten() -> None:
    allowance = Allowance()
    for _ in range(6):
        allowance.take("busy", 0.0)
    for number in range(MAX_SOURCES - 1):
        allowance.take(str(number), 0.0)
    assert not allowance.take("busy", 0.0)
    allowance.take("one more", 0.0)
    assert not allowance.take("busy", 0.0)
    for number in range(MAX_SOURCES):
        allowance.take(str(number), 0.0)
    assert allowance.take("busy", 0.0)


def test_an_ipv6_site_is_one_source_and_an_ipv4_address_is_one() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff:ffff:ffff:ffff")
    assert source_of("2001:db8:1:2::1") != source_of("2001:db8:1:3::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2%eth1")
    assert source_of("192.0.2.1") == source_of("::ffff:192.0.2.1") != source_of("192.0.2.2")


def test_forged_sources_share_one_allowance_of_octets() -> None:
    """A new source for each datagram, as fast as they come: a bucket of octets, and a trickle."""
    allowance, octets, seconds = Allowance(), 0, 30
    for number in range(200_000):
        now = seconds * number / 200_000
        octets += 120 * allowance.take(f"source {number}", now, 120)
    assert octets <= BURST_OCTETS + seconds * OCTETS_PER_SECOND
    assert octets > 0.9 * (BURST_OCTETS + seconds * OCTETS_PER_SECOND)
    assert len(allowance) == MAX_SOURCES


def test_what_may_not_go_costs_nothing() -> None:
    allowance = Allowance()
    while allowance.take(f"source {len(allowance)}", 0.0, 1000):
        pass
    assert [allowance.take("honest", 0.0, 1000) for _ in range(20)] == [False] * 20
    assert [allowance.take("honest", 1.0, 1000) for _ in range(6)] == [True] * 5 + [False]
    assert not allowance.take("honest", 1.0)
