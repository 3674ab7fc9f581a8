"""How large packets to the subnets of each peer may be, as the peers tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from esp.policy import networks_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from esp.policy import Network
    from kinkvpn.proto.peer import Peer

# Ours. A peer can tell another inner MTU with every STATUS, a thousand a second, and each costs a thread, a netlink
# socket and a line in the log: a second lies between one look at what they have told and the next.
MTU_SECONDS = 1.0


async def left_alone(_subnets: Sequence[Network], _octets: int) -> None:
    """For a host whose routes are not kinkvpn's to change."""


class InnerMtus:
    """One limit after the other, so that what a peer said last is what stays; and what it said in between is nothing.

    Args:
        limit: has packets to the given subnets be no larger than that many octets.
    """

    def __init__(self, limit: Callable[[Sequence[Network], int], Awaitable[None]] = left_alone) -> None:
        self.limit = limit
        self._wanted: dict[str, int] = {}  # by peer
        self._changed = trio.Event()

    def want(self, peer: str, octets: int) -> None:
        """Its packets are to be no larger than that."""
        self._wanted[peer] = octets
        self._changed.set()

    def forget(self, peer: str) -> None:
        """It has left."""
        self._wanted.pop(peer, None)

    async def run(self, peers: Mapping[str, Peer], turn: Callable[[str, Peer], AbstractContextManager[object]]) -> None:
        """Until cancelled.

        Args:
            peers: who is here, by name.
            turn: what each limit is set in.
        """
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            wanted, self._wanted = self._wanted, {}
            for name, octets in wanted.items():
                peer = peers.get(name)
                if peer is None:
                    continue  # it has left meanwhile
                subnets = [subnet for each in peer.settings.policies for subnet in networks_of(each.selector.remote)]
                with turn("mtu", peer):
                    await self.limit(subnets, octets)
            await trio.sleep(MTU_SECONDS)
