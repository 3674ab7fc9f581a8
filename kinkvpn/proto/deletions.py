"""Pairs on their way out: DELETEs under way, those that nobody answered, and inbound SAs in their grace time.

"KINK does not allow half-open SAs" (RFC 4430 §3.3), and a peer that was not told may go on sending on its half: an
inbound SA stays until the peer is heard again and told, or until its lifetime ends it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from kinkvpn.proto.delete import MAX_DOOMED, DeleteCommand, Doomed, answer_delete
from kinkvpn.proto.events import Count, RemoveInbound, RemoveOutbound, Tally, Tell, WakeAt
from kinkvpn.proto.outcome import Failed
from kinkvpn.proto.policies import LONGEST_RETRY
from kinkvpn.wire.isakmp import Delete

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from kinkvpn.proto.events import Effect
    from kinkvpn.proto.outcome import Completed
    from kinkvpn.proto.pairs import Pairs
    from kinkvpn.proto.quick_mode import SaPair
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.wire.isakmp import IsakmpPayload
    from kinkvpn.wire.kink import KinkPayload

# Ours. Between two DELETEs of SPIs that are not here. The first after a restart brings the new epoch and ends them all;
# what a forger can make of it is one short exchange between two honest hosts in ten seconds.
DENY_SECONDS = 10.0


class Deletions:
    """Of one peer.

    Args:
        settings: of the peer.
        pairs: with it.
        begin: starts an exchange.
        under_way: whether some DELETE of ours has not come to its end.
        most: pairs that one message may be about now.
    """

    def __init__(
        self,
        settings: PeerSettings,
        pairs: Pairs,
        begin: Callable[[DeleteCommand], list[Effect]],
        under_way: Callable[[], bool],
        most: Callable[[], int],
    ) -> None:
        self.closing = False  # the host goes: what finds no answer now is not sent again
        self.settings = settings
        self._pairs = pairs
        self._begin = begin
        self._most = most
        self._under_way = under_way
        self._again: float | None = None
        self._deny_at = -inf

    def tell(self, doomed: Sequence[Doomed]) -> list[Effect]:
        """Send as few DELETEs as name all of them."""
        most = 1 if self._most() == 1 else MAX_DOOMED
        commands = [DeleteCommand(*doomed[first : first + most]) for first in range(0, len(doomed), most)]
        return [effect for command in commands for effect in self._begin(command)]

    def delete(self, pairs: Sequence[SaPair], now: float) -> list[Effect]:
        """Drop the outbound SAs and tell the peer; the inbound ones follow (RFC 4430 §3.3)."""
        if not pairs:
            return []  # as after most CREATEs
        for pair in pairs:
            self._pairs.remove(pair, now)
        gone = [RemoveOutbound(pair.policy, pair.outbound_spi) for pair in pairs]
        return [*gone, *self.tell([Doomed.of(pair) for pair in pairs])]

    def end(self, policies: Container[str], now: float) -> list[Effect]:
        """As :meth:`delete`, all the pairs of ``policies``, and those that wait for an ACK."""
        half_open = [pair for pair in self._pairs.unacknowledged() if pair.policy in policies]
        for pair in half_open:
            self._pairs.remove(pair, now)
        told = self.tell([Doomed.of(pair) for pair in half_open])
        return [*self.delete([pair for pair in self._pairs.all() if pair.policy in policies], now), *told]

    def deny(self, spi: int, now: float) -> list[Effect]:
        """Tell the peer that ``spi`` has no SA here.

        Nobody vouches for the packet that had it, so it may cost little: a DELETE each ten seconds, of nothing that
        stands.
        """
        if now < self._deny_at:
            return [Count(Tally.SUPPRESSED_RETRY)]
        self._deny_at = now + DENY_SECONDS
        return self._begin(DeleteCommand(Doomed(f"unknown SPI {spi:#010x}", spi, now)))

    def abandon(self, pairs: Sequence[SaPair], now: float) -> list[Effect]:
        """Drop the outbound SAs of a peer that is dead; it is told when it is heard again, which it may be."""
        effects: list[Effect] = []
        for pair in pairs:
            self._pairs.remove(pair, now)
            effects += [RemoveOutbound(pair.policy, pair.outbound_spi), *self._owe(Doomed.of(pair))]
        return [*effects, *self._later(now)]

    def concluded(
        self, command: DeleteCommand, outcome: Completed | Failed, now: float, *, heard: bool
    ) -> list[Effect]:
        """A DELETE has come to its end.

        Args:
            heard: the peer has answered, whatever it said.
        """
        if not heard and not self.closing:
            return [*(effect for doomed in command.doomed for effect in self._owe(doomed)), *self._later(now)]
        effects: list[Effect] = []
        for doomed in command.doomed:
            self._pairs.repaid(doomed.spi)
            failed = isinstance(outcome, Failed)
            effects += [RemoveInbound(doomed.spi)] if failed else self.remove_after_grace(doomed.spi, now)
        return effects

    def answer(
        self, payloads: tuple[IsakmpPayload, ...], now: float
    ) -> tuple[tuple[KinkPayload, ...], list[SaPair], list[Effect]]:
        """The peer deletes: what to answer, which pairs are gone, and the effects before the REPLY leaves."""
        answers, gone = answer_delete(payloads, self._pairs.by_outbound())
        for payload in payloads:
            if isinstance(payload, Delete):
                for spi in payload.spis:
                    self._pairs.bury(int.from_bytes(spi, "big"), now)
        effects: list[Effect] = []
        for pair in gone:
            if self._pairs.remove(pair, now):
                effects.append(RemoveOutbound(pair.policy, pair.outbound_spi))
            effects += self.remove_after_grace(pair.inbound_spi, now)
            effects.append(Tell("sa_deleted_by_peer", (("peer", self.settings.name), ("policy", pair.policy))))
        return answers, gone, effects

    def wake(self, now: float) -> list[Effect]:
        """What is due."""
        effects: list[Effect] = [RemoveInbound(spi) for spi in self._pairs.lapsed(now)]
        if self._again is not None and self._again <= now:
            effects += self.send_owed(now)
        return effects

    def send_owed(self, now: float) -> list[Effect]:
        """Send the next DELETE that found no answer before, one at a time; an answer to it brings the one after."""
        if self.closing or self._under_way():
            return []
        self._again = None
        owed = self._pairs.owed(now)
        return [] if owed is None else self.tell([Doomed(*owed)])

    def remove_after_grace(self, spi: int, now: float) -> list[Effect]:
        """Packets in flight still arrive for a while (RFC 4430 §3.3)."""
        time = now + self.settings.delete_grace
        crowded_out = self._pairs.linger(spi, time, len(self.settings.policies))
        gone: list[Effect] = [] if crowded_out is None else [RemoveInbound(crowded_out)]
        return [*gone, WakeAt(time, self.settings.name)]

    def _owe(self, doomed: Doomed) -> list[Effect]:
        dropped = self._pairs.owe(*doomed)
        return [] if dropped is None else [RemoveInbound(dropped)]

    def _later(self, now: float) -> list[Effect]:
        self._again = now + LONGEST_RETRY
        return [WakeAt(self._again, self.settings.name)]
