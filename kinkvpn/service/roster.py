"""Who the peers of a running host are, and who has been one until not long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.errors import KinkvpnError
from kinkvpn.proto.pairs import TOMBSTONE_KEPT
from kinkvpn.proto.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from esp.sa import Endpoint
    from kinkvpn.proto.responder import Responder
    from kinkvpn.proto.settings import PeerSettings

# Ours. Each of them is told of a stray packet by a DELETE, or probed: not all of a conspiracy at once.
MAX_AT_ONE_PLACE = 4


class PeerRefused(KinkvpnError):
    """There cannot be such a peer now; the message says why."""


class Roster:
    """Peers by name, by policy and by place.

    Who leaves is remembered as long as a command of then can be brought again: that machine of the same principal takes
    over what was known, or the same SAs could be made a second time (``pairs.TOMBSTONE_KEPT``).
    """

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self._by_policy: dict[str, Peer] = {}
        self._former: dict[tuple[str, bytes], tuple[float, Peer]] = {}  # by principal and machine, first who left first

    def check(self, settings: PeerSettings) -> None:
        """Raises PeerRefused: its name, its principal or a policy is somebody's who is here."""
        if settings.name in self.peers:
            raise PeerRefused(f"there is a peer {settings.name} already")
        for peer in self.peers.values():
            if peer.settings.principal == settings.principal:
                raise PeerRefused(f"peer {peer.settings.name} has principal {settings.principal} already")
        for policy in settings.policies:
            if policy.name in self._by_policy:
                owner = self._by_policy[policy.name].settings.name
                raise PeerRefused(f"peer {owner} has a policy {policy.name} already")

    def enter(self, peer: Peer) -> None:
        """Here is ``peer``, which was checked."""
        self.peers[peer.settings.name] = peer
        self._by_policy.update(dict.fromkeys(peer.policies, peer))
        self._former.pop((peer.settings.principal, peer.settings.machine), None)

    def change(self, peer: Peer, gone: Iterable[str]) -> None:
        """``peer``, which is here, has other policies by now, and those ``gone`` no more."""
        for policy in gone:
            if self._by_policy.get(policy) is peer:
                del self._by_policy[policy]
        self._by_policy.update(dict.fromkeys(peer.policies, peer))

    def leave(self, name: str, now: float) -> Peer:
        """The peer called ``name`` is here no more; returns it.

        Raises:
            PeerRefused: there is none.
        """
        peer = self.peers.pop(name, None)
        if peer is None:
            raise PeerRefused(f"no peer {name!r}; there are {', '.join(self.peers) or 'none'}")
        for policy in peer.policies:
            del self._by_policy[policy]
        self._forget(now)
        self._former[peer.settings.principal, peer.settings.machine] = now + TOMBSTONE_KEPT, peer
        return peer

    def _forget(self, now: float) -> None:
        while self._former and next(iter(self._former.values()))[0] <= now:
            del self._former[next(iter(self._former))]

    def former(self, settings: PeerSettings, now: float) -> Peer | None:
        """Who was that machine of that principal not long ago."""
        self._forget(now)
        found = self._former.get((settings.principal, settings.machine))
        return found and found[1]

    def leaving(self) -> Iterable[Peer]:
        """Those that were here not long ago: their DELETEs may be under way."""
        return (peer for _, peer in self._former.values())

    def expects(self, owner: Peer | Responder) -> bool:
        """Whether SAs of ``owner`` have a place: not those of a peer that has left, whatever comes by its name."""
        return not isinstance(owner, Peer) or self.peers.get(owner.settings.name) is owner

    def awaited(self, owner: Peer | Responder, name: str) -> Peer | Responder:
        """Who is to be woken for an effect of ``owner``: the peer called ``name``, if that is another one's."""
        return owner if not name or isinstance(owner, Peer) else self.peers.get(name, owner)

    def of_policy(self, policy: str) -> Peer | None:
        """Whose it is."""
        return self._by_policy.get(policy)

    def at_address(self, address: str) -> Iterator[Peer]:
        """Whose ESP goes there."""
        return (peer for peer in self.peers.values() if peer.contact.whereabouts.esp.address == address)

    def at(self, source: Endpoint) -> list[Peer]:
        """Whose ESP comes from ``source``; several peers behind one NAT differ by their ports.

        One, as a rule. But a peer is wherever it was heard, and can have itself heard with another peer's address in
        its datagrams: what is said of that place is said to both, or the one would deafen us to the other.
        """
        there = list(self.at_address(source.address))
        exactly = [peer for peer in there if peer.contact.whereabouts.esp.port == source.port]
        return exactly[:MAX_AT_ONE_PLACE] or there[:1]
