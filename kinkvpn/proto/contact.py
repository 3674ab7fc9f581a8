"""How a peer is reached and what it tells of itself: what of ``whereabouts`` and ``acquaintance`` is to be done."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from esp.policy import by_ports
from kinkvpn.proto.acquaintance import Acquaintance, Ourselves
from kinkvpn.proto.events import FollowPeer, InstallInbound, InstallOutbound, LimitMtu, Tell
from kinkvpn.proto.extensions import Capability
from kinkvpn.proto.outcome import Completed
from kinkvpn.proto.whereabouts import KinkOver, Whereabouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from esp.sa import Endpoint
    from kinkvpn.proto.events import Effect, Path
    from kinkvpn.proto.initiator import Initiator
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.wire.kink import KinkPayload

# Why there is no CREATE to a peer without an address in the configuration.
UNLOCATED = "the peer has no address in the configuration and has not been heard yet"


class Contact:
    """One peer's place and extensions. Every method takes what is authentic, and returns effects.

    Args:
        settings: the peer's.
        ourselves: what there is to tell it.
        carrying: policies whose SAs stand, once each or more often.
    """

    def __init__(self, settings: PeerSettings, ourselves: Ourselves, carrying: Callable[[], Iterable[str]]) -> None:
        self.whereabouts = Whereabouts(settings.kink, settings.esp, settings.kink_over)
        self.acquaintance = Acquaintance(ourselves, enabled=settings.extensions)
        self._name = settings.name
        self._carrying = carrying
        self._mtu = self._own_mtu = ourselves.inner_mtu

    def change(self, settings: PeerSettings) -> list[Effect]:
        """Other settings of the same peer at the same place; its new subnets are told what the others were."""
        self.whereabouts.go_over(settings.kink_over)
        self.acquaintance.enable(settings.extensions)
        return [] if self._mtu is None or self._mtu == self._own_mtu else [LimitMtu(self._name, self._mtu)]

    def heard(self, path: Path, authenticator: tuple[int, int], now: float) -> list[Effect]:
        """A command or an ACK came by ``path``, made at that time of the peer's clock (ctime, cusec)."""
        return self._follow() if self.whereabouts.heard(path, authenticator, now) else []

    def esp_moved(self, policy: str, endpoint: Endpoint, now: float) -> list[Effect]:
        """The newest packet that ``policy`` took came from ``endpoint``, and its SAs send there already."""
        self.whereabouts.esp_moved(endpoint, now)
        return self._follow(policy)

    def _follow(self, moved: str = "") -> list[Effect]:
        """Have everything that goes to the peer go where it is now, but for the policy that has ``moved`` already."""
        remote = self.whereabouts.esp
        fields = (("peer", self._name), ("address", remote.address), ("port", remote.port))
        others = [policy for policy in dict.fromkeys(self._carrying()) if policy != moved]
        return [Tell("endpoint_moved", fields), *(FollowPeer(policy, remote) for policy in others)]

    def place(self, effects: list[Effect]) -> list[Effect]:
        """``effects`` with the SAs among them where the peer is now, and as it has told that it takes them."""
        placed = self.whereabouts.place(effects)
        told = self.acquaintance.told
        if told is None or Capability.FRAGMENTS not in told.capabilities:
            return placed
        return [
            replace(effect, sa=replace(effect.sa, fragments=True))
            if isinstance(effect, InstallInbound | InstallOutbound) and by_ports(effect.sa.selector)
            else effect
            for effect in placed
        ]

    def asked(self, payloads: Sequence[KinkPayload], path: Path) -> tuple[bool, list[Effect]]:
        """A command of ``payloads`` came by ``path`` for the first time; whether it is to be answered alike."""
        told, counts = self.acquaintance.command_came(payloads, path)
        return told, [*counts, *self._acquainted()]

    def answered(self, exchange: Initiator, now: float) -> list[Effect]:
        """The first REPLY to ``exchange`` is in, and so is its outcome."""
        path = exchange.answered_by
        moved = path is not None and self.whereabouts.answered(path, exchange.first_sent, now)
        granted = exchange.sent if isinstance(exchange.outcome, Completed) else 0
        counts = self.acquaintance.reply_came(exchange.command.type, exchange.answer, path, granted=granted)
        return [*(self._follow() if moved else []), *counts, *self._acquainted()]

    def introduces(self, path: Path | None) -> bool:
        """Whether the peer should hear from our ESP port, now that an exchange came to its end by ``path``."""
        return self.whereabouts.over is not KinkOver.KINK_PORT and self.acquaintance.introduces(path)

    def _acquainted(self) -> list[Effect]:
        self.whereabouts.behind_nat = bool(self.acquaintance.behind_nat)
        octets = self.acquaintance.inner_mtu
        if octets is None or octets == self._mtu:
            return []
        self._mtu = octets
        return [LimitMtu(self._name, octets)]
