from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from esp.silences import Silences

LIMIT = 10.0
PEERS = ("east", "west", "south")


def test_sas_with_a_peer_share_one_and_who_need_not_answer_has_none() -> None:
    silences = Silences()
    silences.add("east", LIMIT)
    silences.add("east", 2 * LIMIT)  # another policy: the first has said it
    silences.add("west", None)
    assert silences.of("east") is silences.of("east")
    assert silences.of("east").limit == LIMIT
    assert silences.of("west").limit == inf
    silences.of("west").sent(1.0)
    assert silences.broken(1e9) == []


def test_another_limit_comes_and_goes() -> None:
    silences = Silences()
    silences.change("east", LIMIT)
    silence = silences.of("east")
    silences.change("east", 2.0)
    assert silences.of("east") is silence
    assert silence.limit == 2.0
    silences.change("east", None)
    assert silence.limit == inf
    silences.change("west", None)
    assert silences.of("west") is not silences.of("west"), "there is none to keep"


def test_of_a_peer_that_has_gone_nothing_is_kept() -> None:
    silences = Silences()
    silences.add("east", LIMIT)
    silences.of("east").heard(5.0)
    silences.remove("east")
    silences.remove("east")
    assert silences.of("east").heard_at == -inf


@given(st.lists(st.tuples(st.floats(0, 7), st.sampled_from(PEERS), st.sampled_from(["sent", "heard", "looked"]))))
def test_each_peer_is_told_once_when_its_time_is_over(steps: list[tuple[float, str, str]]) -> None:
    silences, waiting, now = Silences(), dict.fromkeys(PEERS, inf), 0.0
    for peer in PEERS:
        silences.add(peer, LIMIT)
    for pause, peer, what in steps:
        now += pause
        match what:
            case "sent":
                waiting[peer] = min(waiting[peer], now)
                silences.of(peer).sent(now)
                silences.wait(silences.of(peer))
            case "heard":
                waiting[peer] = inf
                silences.of(peer).heard(now)
            case "looked":
                late = {each for each, since in waiting.items() if now >= since + LIMIT}
                assert sorted(silences.broken(now)) == sorted(late)
                waiting |= dict.fromkeys(late, inf)
                assert silences.due_at == min(waiting.values()) + LIMIT
