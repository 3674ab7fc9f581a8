from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from esp.sa import SecurityProtocol
from kinkvpn.proto.pairs import (
    MAX_LINGERING,
    MAX_OF_PEER,
    MAX_TOMBSTONES,
    MAX_UNACKNOWLEDGED,
    MAX_UNDELETED,
    TOMBSTONE_KEPT,
    Pairs,
)
from kinkvpn.proto.quick_mode import SaPair


def pair(number: int, *, initiated: bool = True, policy: str = "net") -> SaPair:
    return SaPair(policy, 1000 + number, 2000 + number, "suite", initiated, 3600, 0.0)


def test_the_newest_stands_last_and_is_found_by_either_spi() -> None:
    pairs = Pairs()
    assert pairs.newest("net") is None
    one, two, other = pair(1), pair(2), pair(3, policy="other")
    for each in (one, two, other):
        pairs.establish(each)
    assert pairs.of("net") == [one, two]
    assert pairs.all() == [one, two, other]
    assert pairs.newest("net") == two
    assert pairs.find("net", 1001) == pairs.find("net", 2001) == one
    assert pairs.find("net", 1003) is None


def test_a_removed_pair_is_buried_for_a_while() -> None:
    pairs = Pairs()
    pairs.establish(pair(1))
    assert pairs.remove(pair(1), 10.0)
    assert not pairs.remove(pair(1), 10.0)
    assert pairs.of("net") == []
    assert 2001 in pairs.taken(10.0 + TOMBSTONE_KEPT - 1)
    assert 2001 not in pairs.taken(10.0 + TOMBSTONE_KEPT)


def test_what_a_former_peer_has_buried_and_buries_yet_is_buried() -> None:
    former = Pairs()
    former.bury(2001, 10.0)
    pairs = Pairs(former)
    former.bury(2002, 11.0)
    assert pairs.taken(12.0) == {2001, 2002}
    assert pairs.all() == []


def test_tombstones_are_bounded_and_the_oldest_goes_first() -> None:
    pairs = Pairs()
    for spi in range(MAX_TOMBSTONES):
        pairs.bury(spi, 0)
    pairs.bury(0, 1)
    pairs.bury(5000, 1)
    assert len(pairs.taken(1)) == MAX_TOMBSTONES
    assert {0, 5000} <= pairs.taken(1)
    assert 1 not in pairs.taken(1)


def test_waiting_for_an_ack_ends_once() -> None:
    pairs = Pairs()
    pairs.await_ack(pair(1))
    assert pairs.unacknowledged() == [pair(1)]
    assert pairs.of("net") == []
    assert pairs.by_outbound() == {2001: pair(1)}
    assert 2001 in pairs.taken(0)
    assert pairs.settle(pair(1))
    assert not pairs.settle(pair(1))


def test_another_pair_with_the_same_spi_is_not_settled() -> None:
    pairs = Pairs()
    pairs.await_ack(pair(1))
    assert not pairs.settle(replace(pair(1), inbound_spi=77))
    assert pairs.unacknowledged() == [pair(1)]


def test_unacknowledged_pairs_are_bounded() -> None:
    pairs = Pairs()
    for number in range(MAX_UNACKNOWLEDGED + 3):
        assert not pairs.crowded(1, 3)
        pairs.await_ack(pair(number, initiated=False))
    assert pairs.crowded(1, 3)
    assert not pairs.crowded(2, 5)
    assert pairs.crowded(3, 5)


def test_who_replaces_a_pair_replaces_all_that_are_not_younger_be_it_there_or_not() -> None:
    pairs = Pairs()
    old, middle, new, other = (
        replace(pair(number, policy=name), established=float(number))
        for number, name in ((1, "net"), (2, "net"), (3, "net"), (1, "other"))
    )
    for each in (old, middle, new, replace(other, outbound_spi=9)):
        pairs.establish(each)
    assert pairs.until(middle) == [old, middle]
    pairs.remove(middle, 0.0)
    assert pairs.until(middle) == [old]


@given(st.lists(st.booleans(), max_size=12), st.booleans())
def test_superseded_leaves_one_of_ours_and_few_of_theirs(initiated: list[bool], ours_yield: bool) -> None:
    pairs = Pairs()
    for number, ours in enumerate(initiated):
        pairs.establish(pair(number, initiated=ours))
    gone = pairs.superseded("net", ours_yield=ours_yield)
    left = [each for each in pairs.of("net") if each not in gone]
    ours, theirs = ([each for each in left if each.initiated is side] for side in (True, False))
    assert len(theirs) == min(initiated.count(False), MAX_OF_PEER)
    yields = ours_yield and False in initiated
    assert len(ours) == (0 if yields else min(initiated.count(True), 1))
    # What is left is the newest of its kind.
    assert all(old.inbound_spi < new.inbound_spi for old in gone for new in left if old.initiated == new.initiated)


def test_graces_lapse_once() -> None:
    pairs = Pairs()
    assert pairs.linger(1, 5.0, 1) is None
    assert pairs.linger(2, 6.0, 1) is None
    assert pairs.lapsed(4.9) == []
    assert pairs.lapsed(5.0) == [1]
    assert pairs.lapsed(100.0) == [2]
    assert pairs.lapsed(100.0) == []


def test_few_linger_and_the_oldest_goes_at_once() -> None:
    pairs = Pairs()
    gone = [pairs.linger(spi, 5.0, policies=3) for spi in range(MAX_LINGERING + 10)]
    assert gone == [None] * (MAX_LINGERING + 6) + [0, 1, 2, 3]
    assert len(pairs.lapsed(5.0)) == MAX_LINGERING + 6


def test_what_is_owed_is_asked_for_until_it_is_repaid_or_over() -> None:
    pairs = Pairs()
    pairs.owe("net", 1, 100.0)
    pairs.owe("net", 2, 200.0)
    pairs.owe("net", 1, 300.0)  # the first word counts
    assert pairs.owed(50.0) == ("net", 1, 100.0, True, SecurityProtocol.ESP)
    assert pairs.owed(100.0) == ("net", 2, 200.0, True, SecurityProtocol.ESP)
    assert not pairs.repaid(1)
    assert pairs.repaid(2)
    assert pairs.owed(50.0) is None


def test_what_is_owed_is_bounded() -> None:
    pairs = Pairs()
    dropped = [pairs.owe("net", spi, 100.0) for spi in range(MAX_UNDELETED + 1)]
    assert dropped == [None] * MAX_UNDELETED + [0]
    assert pairs.undeleted() == list(range(1, MAX_UNDELETED + 1))
    assert pairs.owed(0.0) == ("net", 1, 100.0, True, SecurityProtocol.ESP)


def test_what_never_stood_is_forgotten_before_what_did() -> None:
    """Every CREATE of a long outage leaves a debt that the peer has most likely never heard of."""
    pairs = Pairs()
    pairs.owe("net", 1, 100.0)
    pairs.owe("net", 2, 100.0)
    dropped = [pairs.owe("net", spi, 100.0, stood=False) for spi in range(10, 10 + 2 * MAX_UNDELETED)]
    assert dropped[MAX_UNDELETED - 2 :] == list(range(10, 10 + MAX_UNDELETED + 2))
    assert {1, 2} < set(pairs.undeleted())


def test_clear() -> None:
    pairs = Pairs()
    pairs.establish(pair(1))
    pairs.await_ack(pair(2))
    pairs.owe("net", 3, 100.0)
    pairs.bury(4, 0.0)
    pairs.clear(0.0)
    assert pairs.by_outbound() == {}
    assert pairs.owed(0.0) is None
    assert pairs.taken(0.0) == {4, 2001, 2002}
