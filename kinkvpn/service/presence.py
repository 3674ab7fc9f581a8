"""Which peers packets can be sent to, by the outbound SAs there are; and who is told when that changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Who = TypeVar("Who")


class Presence(Generic[Who]):
    """Told of outbound SAs as they come and go.

    Args:
        tell: told of a peer whose first SA stands (True), and of one whose last has gone (False).
    """

    def __init__(self, tell: Callable[[Who, bool], None]) -> None:
        self._tell = tell
        self._owners: dict[tuple[str, int], Who] = {}
        self._standing: defaultdict[Who, int] = defaultdict(int)

    def installed(self, peer: Who, policy: str, spi: int) -> None:
        """An SA of ``policy`` to ``peer``, at whom ``spi`` is."""
        if (policy, spi) in self._owners:
            return
        self._owners[policy, spi] = peer
        self._standing[peer] += 1
        if self._standing[peer] == 1:
            self._tell(peer, True)

    def removed(self, policy: str, spi: int) -> None:
        """It is no more; one that never was is nobody's affair."""
        peer = self._owners.pop((policy, spi), None)
        if peer is None:
            return
        self._standing[peer] -= 1
        if not self._standing[peer]:
            del self._standing[peer]
            self._tell(peer, False)
