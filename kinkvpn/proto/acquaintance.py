"""How well one peer is known: what it and this host have told each other beyond RFC 4430, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinkvpn.proto.extensions import (
    UNDERSTOOD,
    UNDERSTOOD_BEHIND_NAT,
    Capability,
    Observed,
    Told,
    attach,
    build,
    machine_notify,
    read,
)
from kinkvpn.wire.kink import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kinkvpn.proto.events import Effect, Path
    from kinkvpn.wire.isakmp import Notify
    from kinkvpn.wire.kink import KinkPayload

# Ours. A peer that drops what it does not know, against RFC 4430 §5.5, and there is one, gets the third transmission
# without; 1.5 s once, for it is remembered as plain.
OFFERED_TO_STRANGERS = 2
# RFC 4430 §6.3, §6.5: [N] may be in these.
CARRIERS = frozenset({MessageType.CREATE, MessageType.STATUS})


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What this host knows of itself.

    Args:
        inner_mtu: of the TUN device, in octets; None where there is nothing to tell.
        kink_port, esp_port: that are bound here.
        owns: whether an address, in text form, is one of this host's.
        path_mtu: octets that leave for an address, in text form, in one IP packet.
        machine: which of its principal's it is, in 16 octets; empty where there is one only.
    """

    inner_mtu: int | None = None
    kink_port: int = 910
    esp_port: int = 4500
    owns: Callable[[str], bool] = lambda _: True
    path_mtu: Callable[[str], int] = lambda _: 1500
    machine: bytes = b""


ALONE = Ourselves()


class Acquaintance:
    """What one peer and this host have told each other.

    Args:
        ourselves: what there is to tell.
        enabled: whether anything is told at all; what a peer tells is read only then.
    """

    def __init__(self, ourselves: Ourselves, *, enabled: bool) -> None:
        self.told: Told | None = None
        self.plain = False  # it has answered an offer with nothing but what RFC 4430 asks for
        self.seen_at: Observed | None = None  # this host, by the peer, when it last said so
        self._ourselves = ourselves
        self._enabled = enabled
        self._machine = (machine_notify(ourselves.machine),) if ourselves.machine else ()
        self._introduced: str | None = None
        self._observed: Observed | None = None
        self._doubts = 0
        self._said: Told | None = None  # in the newest message of ours
        self._settled: Told | None = None  # what the peer has answered

    @property
    def behind_nat(self) -> bool | None:
        """Whether this host is; None while nobody has said how it looks from outside."""
        if self.seen_at is None:
            return None
        port = self._ourselves.esp_port if self.seen_at.marked else self._ourselves.kink_port
        return self.seen_at.endpoint.port != port or not self._ourselves.owns(self.seen_at.endpoint.address)

    @property
    def takes_padding(self) -> bool:
        """Whether the peer has said that it takes TFC padding (RFC 4303 §2.7: "MUST negotiate this service").

        With one that is told nothing and asked nothing, that is agreed on by those who wrote the configuration so.
        """
        return not self._enabled or (self.told is not None and Capability.TFC_PADDING in self.told.capabilities)

    @property
    def inner_mtu(self) -> int | None:
        """Of the two ends' the smaller, in octets; None while only one end has told."""
        if self.told is None or self.told.inner_mtu is None or self._ourselves.inner_mtu is None:
            return None
        return min(self.told.inner_mtu, self._ourselves.inner_mtu)

    def enable(self, enabled: bool) -> None:
        """Tell, or tell no more: then nothing is known of the peer either."""
        if enabled is not self._enabled:
            self._enabled = enabled
            self.forget()

    def forget(self) -> None:
        """The peer has restarted: it may be another program by now."""
        self.told, self.plain, self._doubts, self._settled = None, False, 0, None

    # ------------------------------------------------------------ telling

    def extend(self, kind: MessageType, payloads: Sequence[KinkPayload], transmission: int) -> tuple[KinkPayload, ...]:
        """The ``payloads`` of a command with what we tell, unless this peer had better not see it, or has answered the
        very same before: then it is left to STATUS, and a rekey is no larger than RFC 4430 has it. Which machine
        it comes from, if there are several, stands in every command.
        """
        named = attach(payloads, self._machine if self._enabled else ())
        stranger = self.told is None and (self.plain or transmission > OFFERED_TO_STRANGERS)
        known = kind is MessageType.CREATE and self._settled == self._current()
        return named if stranger or known or kind not in CARRIERS else attach(named, self._tell())

    def answer(self, asked: bool, payloads: Sequence[KinkPayload]) -> tuple[KinkPayload, ...]:
        """The ``payloads`` of a REPLY with what we tell, if the command was ``asked`` that way."""
        return attach(payloads, self._tell()) if asked else tuple(payloads)

    def _tell(self) -> tuple[Notify, ...]:
        if not self._enabled:
            return ()
        self._said = self._current()
        return build(self._said)

    def _current(self) -> Told:
        flags = UNDERSTOOD_BEHIND_NAT if self.behind_nat else UNDERSTOOD
        return Told(flags, self._observed, self._ourselves.inner_mtu)

    # ------------------------------------------------------------ being told

    def command_came(self, payloads: Sequence[KinkPayload], path: Path) -> tuple[bool, list[Effect]]:
        """An authentic command came by ``path``: whether it tells something, and what is to be counted."""
        self._observed = Observed(path.remote, path.marked)
        told, counts = read(payloads)
        if told is None or not self._enabled:
            return False, counts
        self._learn(told)
        return True, counts

    def reply_came(
        self, kind: MessageType, payloads: Sequence[KinkPayload], path: Path | None, *, granted: int
    ) -> list[Effect]:
        """An authentic REPLY to a command of ``kind`` came by ``path``: what is to be counted.

        Args:
            kind: of the command.
            payloads: of the REPLY.
            path: that it came by.
            granted: transmissions that the command took; 0 where it was refused, which says nothing of extensions.
        """
        if path is not None:
            self._observed = Observed(path.remote, path.marked)
        told, counts = read(payloads)
        if told is not None and self._enabled:
            self._learn(told)
            self._settled = self._said
        elif kind in CARRIERS and self.told is None and granted:
            # It saw the offer; or it saw the last transmission only, which had none: once is chance, twice is a habit.
            self._doubts += 2 if granted <= OFFERED_TO_STRANGERS else 1
            self.plain = self._doubts >= 2
        return counts

    def _learn(self, told: Told) -> None:
        self.told, self.plain = told, False
        self.seen_at = told.observed or self.seen_at

    def introduces(self, path: Path | None) -> bool:
        """Whether the peer should hear from our ESP port, once for each address that the NAT gives us: it has seen
        another port of ours, and what ESP looks like from there nobody can tell it but a message from that port.
        """
        if path is None or path.marked or self.seen_at is None or not self.behind_nat:
            return False
        address = self.seen_at.endpoint.address
        introduced, self._introduced = self._introduced, address
        return introduced != address
