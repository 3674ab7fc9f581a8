from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from esp.silence import Silence

LIMIT = 10.0


def test_nothing_sent_is_nothing_unanswered() -> None:
    silence = Silence(LIMIT)
    assert not silence.broken(1e9)
    silence.heard(1.0)
    assert not silence.broken(1e9)
    assert (silence.heard_at, silence.deadline()) == (1.0, inf)


def test_it_counts_from_the_first_packet_and_is_told_once() -> None:
    silence = Silence(LIMIT)
    silence.sent(5.0)
    silence.sent(14.0)
    assert silence.deadline() == 15.0
    assert not silence.broken(14.9)
    assert silence.broken(15.0)
    assert not silence.broken(1e9)
    silence.sent(20.0)
    assert silence.broken(30.0)


def test_without_a_limit_it_is_never_broken() -> None:
    silence = Silence()
    silence.sent(0.0)
    assert not silence.broken(1e9)


def test_another_limit_counts_from_the_next_packet() -> None:
    silence = Silence(LIMIT)
    silence.sent(5.0)
    silence.heard_at = 3.0
    silence.watch(LIMIT)
    assert silence.deadline() == 15.0, "it is the same one"
    silence.watch(inf)
    silence.sent(6.0)
    assert not silence.broken(1e9)
    silence.watch(2.0)
    assert (silence.deadline(), silence.heard_at) == (inf, 3.0)
    silence.sent(8.0)
    assert silence.broken(10.0)


@given(st.lists(st.tuples(st.floats(0, 7), st.sampled_from(["sent", "heard", "asked"]))))
def test_it_is_broken_exactly_when_a_packet_waits_so_long(steps: list[tuple[float, str]]) -> None:
    silence, waiting, now = Silence(LIMIT), [], 0.0
    for pause, what in steps:
        now += pause
        match what:
            case "sent":
                silence.sent(now)
                waiting.append(now)
            case "heard":
                silence.heard(now)
                waiting.clear()
            case "asked":
                due = bool(waiting) and now >= waiting[0] + LIMIT
                assert silence.broken(now) == due
                if due:
                    waiting.clear()
        assert silence.deadline() == (waiting[0] + LIMIT if waiting else inf)
