"""Whether peers answer: which of them have kept a packet waiting, and which of them for too long."""

from __future__ import annotations

from math import inf

from esp.silence import Silence


class Silences:
    """By name of the peer.

    Attributes:
        due_at: when the first of those that wait was due, as they were last looked at; inf if none was.
    """

    def __init__(self) -> None:
        self._of: dict[str, Silence] = {}
        # Those that had a packet without an answer when last looked at, in the order of those packets.
        self._waiting: dict[Silence, None] = {}
        self.due_at = inf

    def _make(self, limit: float, peer: str) -> Silence:
        return Silence(limit, peer)

    def add(self, peer: str, limit: float | None) -> None:
        """A policy is with ``peer``, which is to answer within ``limit`` seconds; None is whenever it likes."""
        if limit is not None and peer not in self._of:
            self._of[peer] = self._make(limit, peer)

    def change(self, peer: str, limit: float | None) -> None:
        """As :meth:`add`, with another limit for what has been added already."""
        self.add(peer, limit)
        if peer in self._of:
            self._of[peer].watch(inf if limit is None else limit)

    def remove(self, peer: str) -> None:
        """No policy is with ``peer`` any more."""
        self._of.pop(peer, None)

    def of(self, peer: str) -> Silence:
        """What SAs with ``peer`` share; one that nobody looks at where it need not answer."""
        return self._of.get(peer) or Silence()

    def wait(self, silence: Silence) -> None:
        """A packet has left that nothing has answered yet."""
        self._waiting[silence] = None

    def broken(self, now: float) -> list[str]:
        """Names of the peers that have not answered in time, each once; those that have answered are let go."""
        found = [silence.peer for silence in self._waiting if silence.broken(now)]
        for silence in [silence for silence in self._waiting if silence.deadline() == inf]:
            self._let_go(silence)
        self.due_at = min((silence.deadline() for silence in self._waiting), default=inf)
        return found

    def _let_go(self, silence: Silence) -> None:
        del self._waiting[silence]
