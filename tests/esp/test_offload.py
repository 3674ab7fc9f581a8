"""What is in use, what is refused, and that it is told once."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from esp.offload import ALL_OFFLOADS, NO_OFFLOADS, OF_TUN, OF_UDP, Grant, Offload, Offloads

CHOICES = st.builds(Offloads, *[st.booleans()] * len(Offload))


def test_every_offload_has_a_field_and_somebody_who_has_it() -> None:
    assert [each.name for each in fields(Offloads)] == [each.value for each in Offload]
    assert sorted(OF_TUN + OF_UDP, key=list(Offload).index) == list(Offload)
    assert all(map(ALL_OFFLOADS.has, Offload))
    assert not any(map(NO_OFFLOADS.has, Offload))


@given(CHOICES, st.sets(st.sampled_from(Offload)))
def test_without_takes_away_and_leaves_the_others(choice: Offloads, gone: set[Offload]) -> None:
    left = choice.without(*gone)
    assert [left.has(each) for each in Offload] == [choice.has(each) and each not in gone for each in Offload]


@given(CHOICES, st.lists(st.tuples(st.text(), st.sampled_from(Offload))))
def test_what_was_wanted_is_in_use_or_refused_for_its_first_reason(
    wanted: Offloads, refused: list[tuple[str, Offload]]
) -> None:
    grant = Grant(wanted, OF_TUN)
    for reason, offload in refused:
        grant.refuse(reason, offload)
    first = {offload: reason for reason, offload in reversed(refused) if wanted.has(offload) and offload in OF_TUN}
    assert grant.refusals == first
    for each in Offload:
        assert grant.offloads.has(each) == (wanted.has(each) and each in OF_TUN and each not in first)
    taken = grant.take_refusals()
    assert dict(taken) == first
    assert len(taken) == len(first)
    assert grant.take_refusals() == []
