"""Whether peers answer, as lanes see it: they note when packets leave and come, and say once that one waits."""

from __future__ import annotations

from math import inf

from esp.native import _core
from esp.silence import Silence
from esp.silences import Silences


class NativeSilence(Silence):
    """One peer's."""

    __slots__ = ("core",)

    def __init__(self, limit: float, peer: str) -> None:
        self.core = _core.Silence(False)
        super().__init__(limit, peer)

    @property
    def since(self) -> float:
        return self.core.since

    @since.setter
    def since(self, value: float) -> None:
        self.core.since = value

    @property
    def heard_at(self) -> float:
        return self.core.heard_at

    @heard_at.setter
    def heard_at(self, value: float) -> None:
        self.core.heard_at = value


class NativeSilences(Silences):
    """As any."""

    def _make(self, limit: float, peer: str) -> Silence:
        return NativeSilence(limit, peer)

    def wait_for_all(self) -> None:
        """A packet waits for an answer, and the SA that sent it has gone: whose peer it was is not known any more."""
        for silence in self._of.values():
            if isinstance(silence, NativeSilence) and silence.core.watched and silence.deadline() < inf:
                self.wait(silence)

    def _let_go(self, silence: Silence) -> None:
        super()._let_go(silence)
        if isinstance(silence, NativeSilence):
            silence.core.watched = False
            if silence.deadline() < inf:  # a packet has gone out meanwhile, and its lane saw that it was watched
                silence.core.watched = True
                self.wait(silence)
