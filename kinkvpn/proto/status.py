"""STATUS: is the peer alive, and is it still the one we knew (RFC 4430 §3.4, §3.7, §6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.wire.kink import KinkPayload, MessageType

if TYPE_CHECKING:
    from kinkvpn.proto.events import Effect
    from kinkvpn.proto.outcome import Completed, Failed
    from kinkvpn.proto.ports import SessionKey
    from kinkvpn.wire.isakmp import IsakmpPayload


class StatusCommand:
    """The initiator's half: an AP-REQ and nothing else. The answer is the peer's epoch, in its AP-REP payload.

    Args:
        patience: seconds to wait for the answer; None for a full cycle.
    """

    type = MessageType.STATUS
    subject = "status"

    def __init__(self, patience: float | None = None) -> None:
        self.patience = patience
        self.outcome: Completed | Failed | None = None  # set by the peer's machine when it is over

    def payloads(self) -> tuple[KinkPayload, ...]:
        """None: what other implementations answer (RFC 4430 §6.5)."""
        return ()

    def begin(self, _key: SessionKey, _now: float) -> list[Effect]:
        """Nothing to prepare."""
        return []

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        """Any authentic answer is good news; notifies in it are ignored (RFC 4430 §5.5)."""
        del answers, ackreq, key, now
        return []

    def withdraw(self) -> list[Effect]:
        """Nothing to undo."""
        return []
