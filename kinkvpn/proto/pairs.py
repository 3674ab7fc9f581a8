"""The pairs of SAs with one peer: those that stand, those that wait for an ACK, and what remains of deleted ones."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from esp.sa import SecurityProtocol

if TYPE_CHECKING:
    from kinkvpn.proto.quick_mode import SaPair

# Ours. A peer that creates and never deletes has lost track of its own pairs: of those that it initiated for one
# policy, four stand (the one in use, the one that replaces it, and two whose DELETE is still on its way), and the
# oldest goes for a fifth. Refusing the fifth would lock a peer out that lost its DELETEs to a broken link.
MAX_OF_PEER = 4
# Ours. Pairs that wait for an ACK last one retransmission cycle at most: one for each policy, when all of them are
# negotiated at once, and these, not a stream of them.
MAX_UNACKNOWLEDGED = 16
# Ours. Whoever holds back one retransmission of a CREATE can deliver it until its authenticator is too old: for twice
# the clock skew that Kerberos allows (five minutes usually, RFC 4430 §3.5), should the sender's clock be ahead. A pair
# made from it anew would be half open, and worse: same session key, same SPI, same Ni, so the same KEYMAT, with its
# packet counter at the start again. Its SPI is refused all that time; 4,096 is a DELETE every seventh of a second.
TOMBSTONE_KEPT = 600.0
MAX_TOMBSTONES = 4096
# Ours. Inbound SAs that outlive their DELETE by the grace time: two for each policy of the peer, which are two rekeys
# of all of them, and these. A peer that creates and deletes without end would else have thousands stand here.
MAX_LINGERING = 64
# Ours. A DELETE that found no answer is sent again, one at a time, while the peer's SA may live; pairs lost to a
# link that fails for hours are a handful, and what is forgotten beyond that ends with its lifetime.
MAX_UNDELETED = 16


class Pairs:
    """Bookkeeping, no decisions and no effects. Outbound SPIs are the peer's choice, inbound ones ours.

    Args:
        former: those with the same principal before, which may still be on their way out: what they bury is buried.
    """

    def __init__(self, former: Pairs | None = None) -> None:
        self._standing: dict[int, SaPair] = {}  # by outbound SPI, oldest first
        self._by_policy: dict[str, dict[int, SaPair]] = {}  # the same again: a peer may have thousands of policies
        self._unacknowledged: dict[int, SaPair] = {}  # likewise
        # Outbound SPI to when it is forgotten.
        self._tombstones: OrderedDict[int, float] = OrderedDict() if former is None else former._tombstones
        self._graces: deque[tuple[float, int]] = deque()  # when an inbound SPI is to go
        # Inbound SPI to policy, end of life, whether the pair ever stood here, and the protocol.
        self._undeleted: OrderedDict[int, tuple[str, float, bool, SecurityProtocol]] = OrderedDict()

    def has(self, policy: str) -> bool:
        """Whether one of ``policy`` stands or waits for its ACK."""
        return bool(self.of(policy)) or any(pair.policy == policy for pair in self.unacknowledged())

    def of(self, policy: str) -> list[SaPair]:
        """Standing pairs of ``policy``, the newest last."""
        return list(self._by_policy.get(policy, {}).values())

    def all(self) -> list[SaPair]:
        """Every standing pair, the oldest first."""
        return list(self._standing.values())

    def find(self, policy: str, spi: int) -> SaPair | None:
        """The standing pair of ``policy`` that has ``spi`` in either direction."""
        return next((pair for pair in self.of(policy) if spi in (pair.inbound_spi, pair.outbound_spi)), None)

    def newest(self, policy: str) -> SaPair | None:
        """What carries the traffic of ``policy`` (RFC 4430 §3.6)."""
        return next(reversed(self.of(policy)), None)

    def until(self, last: SaPair) -> list[SaPair]:
        """Standing pairs of the policy of ``last`` that are not younger than it, itself among them if it stands.

        Who replaces the newest replaces all. An older one of the peer's is doomed, with the DELETE on its way: a new
        pair that yielded to that one would leave nothing.
        """
        return [pair for pair in self.of(last.policy) if pair.established <= last.established]

    def by_outbound(self) -> dict[int, SaPair]:
        """Standing and unacknowledged pairs by outbound SPI."""
        return {**self._standing, **self._unacknowledged}

    def taken(self, now: float) -> set[int]:
        """Outbound SPIs that the peer may not name for a new pair (RFC 4430 §3.2)."""
        buried = [spi for spi, until in self._tombstones.items() if until > now]
        return {*self._standing, *self._unacknowledged, *buried}

    def superseded(self, policy: str, *, ours_yield: bool) -> list[SaPair]:
        """Standing pairs of ``policy`` that are to be deleted by this host.

        Args:
            ours_yield: where both hosts initiated a pair, ours goes.
        """
        standing = self.of(policy)
        if len(standing) < 2:
            return []
        ours = [pair for pair in standing if pair.initiated]
        theirs = [pair for pair in standing if not pair.initiated]
        return [*(ours if theirs and ours_yield else ours[:-1]), *theirs[:-MAX_OF_PEER]]

    # ------------------------------------------------------------ coming

    def establish(self, pair: SaPair) -> None:
        """Both directions stand."""
        self._forget(pair.outbound_spi)
        self._standing[pair.outbound_spi] = pair
        self._by_policy.setdefault(pair.policy, {})[pair.outbound_spi] = pair

    def await_ack(self, pair: SaPair) -> None:
        """Inbound stands, outbound waits for the ACK (RFC 4430 §3.2)."""
        self._unacknowledged[pair.outbound_spi] = pair

    def unacknowledged(self) -> list[SaPair]:
        """Pairs that wait for an ACK."""
        return list(self._unacknowledged.values())

    def crowded(self, more: int, policies: int) -> bool:
        """Whether ``more`` pairs are too many to wait for an ACK as well, of a peer with so many policies."""
        return len(self._unacknowledged) + more > MAX_UNACKNOWLEDGED + policies

    def settle(self, pair: SaPair) -> bool:
        """Whether ``pair`` waited for an ACK; it does no more. Where the ACK did not come it is still to be buried."""
        # The SPI alone will not do: a peer that restarted may choose one again that it used before.
        waited = self._unacknowledged.get(pair.outbound_spi) == pair
        if waited:
            del self._unacknowledged[pair.outbound_spi]
        return waited

    # ------------------------------------------------------------ going

    def remove(self, pair: SaPair, now: float) -> bool:
        """Forget and bury ``pair``; whether it stood."""
        self.bury(pair.outbound_spi, now)
        self.settle(pair)
        return self._forget(pair.outbound_spi)

    def _forget(self, spi: int) -> bool:
        pair = self._standing.pop(spi, None)
        if pair is None:
            return False
        of_policy = self._by_policy[pair.policy]
        del of_policy[spi]
        if not of_policy:
            del self._by_policy[pair.policy]
        return True

    def clear(self, now: float) -> None:
        """The peer has nothing left of any of them (RFC 4430 §3.7); all are buried."""
        for spi in self.by_outbound():
            self.bury(spi, now)
        self._standing.clear()
        self._by_policy.clear()
        self._unacknowledged.clear()
        self._undeleted.clear()

    def bury(self, spi: int, now: float) -> None:
        """Refuse outbound ``spi`` for a while: the CREATE that named it may come after its DELETE."""
        self._tombstones[spi] = now + TOMBSTONE_KEPT
        self._tombstones.move_to_end(spi)
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    def linger(self, spi: int, until: float, policies: int) -> int | None:
        """Inbound ``spi`` is to go at ``until`` (RFC 4430 §3.3, grace timer).

        Args:
            policies: of the peer, how many.

        Returns:
            An inbound SPI that is to go at once, to make room; or None.
        """
        self._graces.append((until, spi))
        return self._graces.popleft()[1] if len(self._graces) > MAX_LINGERING + 2 * policies else None

    def lapsed(self, now: float) -> list[int]:
        """Inbound SPIs whose grace is over, once."""
        due = [spi for until, spi in self._graces if until <= now]
        self._graces = deque((until, spi) for until, spi in self._graces if until > now)
        return due

    # ------------------------------------------------------------ what the peer was not told

    def owe(
        self,
        policy: str,
        spi: int,
        ends: float,
        stood: bool = True,
        protocol: SecurityProtocol = SecurityProtocol.ESP,
    ) -> int | None:
        """The DELETE of inbound ``spi`` found no answer; the peer's SA lives until ``ends`` at most.

        Args:
            stood: the pair did; else it was in a CREATE that the peer may never have heard of, as every one of a long
                outage is.

        Returns:
            An inbound SPI that is owed no longer, to make room: the oldest that never stood, if there is one; or None.
        """
        self._undeleted.setdefault(spi, (policy, ends, stood, protocol))
        if len(self._undeleted) <= MAX_UNDELETED:
            return None
        unlikely = (spi for spi, (_, _, stood, _) in self._undeleted.items() if not stood)
        forgotten = next(unlikely, next(iter(self._undeleted)))
        del self._undeleted[forgotten]
        return forgotten

    def undeleted(self) -> list[int]:
        """Inbound SPIs that are owed a DELETE."""
        return list(self._undeleted)

    def repaid(self, spi: int) -> bool:
        """Whether inbound ``spi`` was owed a DELETE; it is no more."""
        return self._undeleted.pop(spi, None) is not None

    def owed(self, now: float) -> tuple[str, int, float, bool, SecurityProtocol] | None:
        """What was owed by :meth:`owe`, of the next DELETE to send again."""
        for spi, (policy, ends, stood, protocol) in list(self._undeleted.items()):
            if ends > now:
                return policy, spi, ends, stood, protocol
            del self._undeleted[spi]
        return None
