"""The XIDs of this host's exchanges, and whose each of them is (RFC 4430 §4)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.peer import Peer


class Xids:
    """Each with its peer, the oldest first; those that are over go when new ones come.

    Args:
        random: octets.
    """

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._owners: OrderedDict[int, Peer] = OrderedDict()

    def owner(self, xid: int) -> Peer | None:
        """Whose exchange that is."""
        return self._owners.get(xid)

    def assign(self, peer: Peer) -> int:
        """A new one, for ``peer``.

        Random: who is asked something by this host, or listens somewhere, cannot tell the XIDs of what others are
        asked, and so cannot forge answers to it from afar (RFC 4430 §4 leaves the choice).
        """
        xid = int.from_bytes(self._random(4), "big")
        while xid in self._owners:
            xid = int.from_bytes(self._random(4), "big")
        self._owners[xid] = peer
        while self._owners:
            oldest, owner = next(iter(self._owners.items()))
            if oldest == xid or owner.owns(oldest):
                break
            del self._owners[oldest]
        return xid
