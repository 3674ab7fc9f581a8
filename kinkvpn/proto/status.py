"""STATUS: is the peer alive, and is it still the one we knew (RFC 4430 §3.4, §3.7, §6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kinkvpn.wire.kink import KinkPayload, MessageType

if TYPE_CHECKING:
    from kinkvpn.proto.events import Effect, Path
    from kinkvpn.proto.outcome import Completed, Failed
    from kinkvpn.proto.ports import SessionKey
    from kinkvpn.wire.isakmp import IsakmpPayload


class Trial(NamedTuple):
    """A size, and a path that is to be seen to carry it (RFC 8899).

    Args:
        path: that every transmission takes.
        octets: of the message, which is filled up to them.
        whole: it may not be fragmented, here or on its way.
    """

    path: Path
    octets: int
    whole: bool


class StatusCommand:
    """The initiator's half: an AP-REQ and nothing else. The answer is the peer's epoch, in its AP-REP payload.

    Args:
        patience: seconds to wait for the answer; None for a full cycle. Of a trial, at the shortest round trip.
        trial: what its transmissions try; None for as short as they are, wherever the peer may be.
    """

    type = MessageType.STATUS
    subject = "status"

    def __init__(self, patience: float | None = None, trial: Trial | None = None) -> None:
        self.patience = patience
        self.trial = trial
        self.shortest = 0  # octets of a transmission; 0 where one was longer than the trial has it, or none was made
        self.outcome: Completed | Failed | None = None  # set by the peer's machine when it is over

    def payloads(self) -> tuple[KinkPayload, ...]:
        """None: what other implementations answer (RFC 4430 §6.5)."""
        return ()

    def transmitted(self, octets: int) -> None:
        """A transmission of that many octets goes out."""
        assert self.trial is not None
        self.shortest = 0 if octets > self.trial.octets else min(self.shortest or octets, octets)

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
