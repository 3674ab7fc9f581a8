"""What lanes note of peers and what Python makes of it is one; a packet that left meanwhile is not forgotten."""

from __future__ import annotations

from math import inf

from esp.native.silences import NativeSilence, NativeSilences

LIMIT = 10.0
PEER = "east"


def silence_of(silences: NativeSilences) -> NativeSilence:
    silence = silences.of(PEER)
    assert isinstance(silence, NativeSilence)
    return silence


def test_a_silence_is_one_for_python_and_the_lanes() -> None:
    silence = NativeSilence(LIMIT, PEER)
    silence.since, silence.heard_at = 3.0, 2.0
    assert (silence.core.since, silence.core.heard_at) == (silence.since, silence.heard_at) == (3.0, 2.0)


def test_who_is_let_go_is_told_of_by_a_lane_again() -> None:
    silences = NativeSilences()
    silences.add(PEER, LIMIT)
    silence = silence_of(silences)
    silence.core.watched = True  # as a lane leaves it with the first packet
    silence.sent(1.0)
    silences.wait(silence)
    assert silences.broken(2.0) == []
    assert silence.core.watched
    silence.heard(3.0)
    assert silences.broken(4.0) == []
    assert not silence.core.watched
    assert silences.due_at == inf


def test_whose_sa_has_gone_still_waits() -> None:
    silences = NativeSilences()
    silences.add(PEER, LIMIT)
    silences.add("west", LIMIT)
    silence = silence_of(silences)
    silence.core.watched = True
    silence.sent(1.0)
    silences.wait_for_all()
    assert silences.broken(2.0) == []
    assert silences.due_at == 1.0 + LIMIT
    assert silences.broken(11.0) == [PEER]


class Late(NativeSilence):
    """A lane sends a packet between the look at it and the mark that nobody watches it."""

    __slots__ = ("looks",)

    def deadline(self) -> float:
        self.looks = getattr(self, "looks", 0) + 1
        if self.looks == 3:  # by `broken` of it, by what it found, and then
            self.sent(5.0)
        return super().deadline()


def test_a_packet_that_leaves_while_its_peer_is_let_go_waits_too() -> None:
    silences = NativeSilences()
    silence = Late(LIMIT, PEER)
    silences.wait(silence)
    assert silences.broken(4.0) == []
    assert silence.core.watched
    assert silences.due_at == 5.0 + LIMIT
    assert silences.broken(15.0) == [PEER]
