"""What keying asks of the data plane and of the source of tickets: the daemon's, or those of a simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio

    from esp.events import EspEvent
    from esp.sa import Endpoint, SaParameters
    from kinkvpn.proto.ports import Ticket


class DataPlane(Protocol):
    """What keying asks of the data plane: ``esp.dataplane.Dataplane`` in the daemon."""

    events: trio.MemoryReceiveChannel[EspEvent]

    def allocate_spi(self) -> int: ...
    def release_spi(self, spi: int) -> None: ...
    def install_inbound(self, sa: SaParameters) -> None: ...
    def install_outbound(self, sa: SaParameters) -> None: ...
    def remove_inbound(self, spi: int) -> None: ...
    def remove_outbound(self, policy: str, spi: int) -> None: ...
    def follow(self, policy: str, remote: Endpoint) -> None: ...
    def send_control(self, datagram: bytes, remote: Endpoint, *, whole: bool = False) -> None: ...
    def confirm_path(self, address: str, octets: int) -> None: ...
    def last_heard(self, peer: str) -> float | None: ...


class Tickets(Protocol):
    """Where tickets come from: ``kerberos.tickets.TicketSource`` in the daemon."""

    async def get(self, server: str, *, deadline: float, fresh: bool = False, tgt: bytes | None = None) -> Ticket:
        """Raises TicketUnavailable at the latest ``deadline`` seconds from now."""
        ...

    def at_hand(self, server: str, *, tgt: bytes | None = None) -> Ticket | None:
        """What ``get`` would return at once; None where it would have to ask the KDC."""
        ...
