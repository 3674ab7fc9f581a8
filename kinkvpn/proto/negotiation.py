"""Policies put into CREATEs: which together, with KE or without, and no more in one than the peer takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.proto.create import CreateCommand, batches
from kinkvpn.proto.lifetime import draw_fraction
from kinkvpn.proto.quick_mode import NONCE_OCTETS, QuickMode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from kinkvpn.proto.events import Effect
    from kinkvpn.proto.policies import PolicyState
    from kinkvpn.proto.ports import Ephemeral, KeyExchange
    from kinkvpn.proto.settings import PeerSettings, PolicySettings


class Negotiation:
    """What is asked of one peer, and how.

    Args:
        settings: of the peer.
        policies: by name.
        random: octets.
        allocate_spi: reserves an inbound SPI.
        taken: SPIs that the peer may not name at a given time.
        key_exchange: makes private keys for PFS; None where this host does none.
    """

    def __init__(
        self,
        settings: PeerSettings,
        policies: Mapping[str, PolicyState],
        *,
        random: Callable[[int], bytes],
        allocate_spi: Callable[[], int],
        taken: Callable[[float], Collection[int]],
        key_exchange: KeyExchange | None,
    ) -> None:
        self.singly = False  # the peer was seen to answer one Quick Mode of several
        self._policies = policies
        self._random = random
        self._allocate_spi = allocate_spi
        self._taken = taken
        self._key_exchange = key_exchange
        self.change(settings)

    def change(self, settings: PeerSettings) -> None:
        """Other ones of the same peer."""
        self._settings = settings
        # Without IDci and IDcr nothing in a Quick Mode says which policy it is for.
        self._at_most = settings.sas_per_create if all(policy.send_ids for policy in settings.policies) else 1

    @property
    def most(self) -> int:
        """Pairs that one message may be about, with this peer."""
        return 1 if self.singly else self._at_most

    def commands(
        self, policies: Sequence[str], *, along: Sequence[str] = (), pfs: bool = True
    ) -> tuple[list[CreateCommand], list[Effect]]:
        """As few CREATEs as ``policies`` fit into, and the effects of not sending what found no room.

        Args:
            policies: names.
            along: others that come along in the first CREATE as far as there is room, and else not at all.
            pfs: with KE where the policy has it.
        """
        alone = [[self._quick_mode(name, pfs)] for name in policies if self._policies[name].alone]
        asked = [self._quick_mode(name, pfs) for name in policies if not self._policies[name].alone]
        # No more than can come along: each of them reserves an SPI.
        extra = [self._quick_mode(name, pfs) for name in along[: self.most - 1]] if asked else []
        packed = alone + batches([*asked, *extra], self.most)
        left = [quick_mode for batch in packed if batch[0] in extra for quick_mode in batch]
        commands = [CreateCommand(batch) for batch in packed if batch[0] not in extra]
        return commands, [effect for quick_mode in left for effect in quick_mode.withdraw()]

    def _quick_mode(self, name: str, pfs: bool) -> QuickMode:
        policy = self._policies[name].settings
        return QuickMode(
            self._settings,
            policy,
            spi=self._allocate_spi(),
            nonce=self._random(NONCE_OCTETS),
            fraction=draw_fraction(self._random),
            taken=self._taken,
            ephemeral=self._ephemeral(policy) if pfs else None,
        )

    def _ephemeral(self, policy: PolicySettings) -> Ephemeral | None:
        if self._key_exchange is None or not policy.pfs:
            return None
        return self._key_exchange.generate(policy.pfs[0])
