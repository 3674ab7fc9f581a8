"""Service tickets. (The source follows.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from kinkvpn.proto.ports import TicketRefusal


class TicketUnavailable(KinkvpnError):
    """There is no ticket; ``refusal`` says why."""

    def __init__(self, refusal: TicketRefusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
