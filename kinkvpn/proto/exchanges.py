"""The exchanges that this host has begun with one peer: under way, or over and kept for a cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.proto.delete import DeleteCommand
from kinkvpn.proto.status import StatusCommand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.proto.initiator import Initiator

# Ours. Commands of ours to one peer that are under way, or over and kept for a cycle: two for each policy, which are a
# rekey of all of them, and these. Whatever a peer has us say beyond that, such as a DELETE for each pair too many, it
# has to wait for with its next CREATE.
MAX_EXCHANGES = 256


class Exchanges(dict[int, "Initiator"]):
    """By XID, the oldest first."""

    def enter(self, exchange: Initiator) -> Initiator:
        """One more, which is returned."""
        self[exchange.xid] = exchange
        return exchange

    @property
    def busy(self) -> bool:
        """Whether one about SAs has not come to its end."""
        return any(not isinstance(exchange.command, StatusCommand) for exchange in self._under_way())

    @property
    def deleting(self) -> bool:
        """Whether a DELETE has not come to its end."""
        return any(isinstance(exchange.command, DeleteCommand) for exchange in self._under_way())

    def _under_way(self) -> Iterator[Initiator]:
        return (exchange for exchange in self.values() if exchange.outcome is None)

    def due(self, now: float) -> Iterator[int]:
        """XIDs of those whose deadline has come; each is looked at when it is its turn."""
        for xid, exchange in list(self.items()):
            if exchange.deadline is not None and exchange.deadline <= now:
                yield xid

    def crowded(self, policies: int) -> bool:
        """Whether there are more than a peer with so many policies has any need of."""
        return len(self) > MAX_EXCHANGES + 2 * policies
