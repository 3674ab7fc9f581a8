"""One exchange without a daemon: asking a gateway for a lease.

What it lends decides what the TUN device and the policies are to be, so there are none of them yet, and no SAs. One
socket, from whatever port there is, and no privilege.
"""

from __future__ import annotations

import heapq
import logging
import secrets
from typing import TYPE_CHECKING

import trio

from esp.wire import NON_ESP_MARKER
from kinkvpn.errors import KinkvpnError, MalformedMessage
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.proto.acquaintance import Ourselves
from kinkvpn.proto.events import Effect, FetchTicket, SendMessage, WakeAt
from kinkvpn.proto.outcome import Cause, Failed
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.status import LeaseCommand
from kinkvpn.service.epoch import epoch
from kinkvpn.wire.kink import MessageType, parse_message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kinkvpn.kerberos.session import Acceptor
    from kinkvpn.kerberos.tickets import TicketSource
    from kinkvpn.proto.events import Path
    from kinkvpn.proto.lease import Lease, Wanted
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.service.transport import KinkTransport

log = logging.getLogger(__name__)


class NothingLent(KinkvpnError):
    """The gateway lends nothing: it does not answer, does not let us in, or is no gateway."""


class GatewaySilent(NothingLent):
    """It does not answer."""


class Errand:
    """The client's side of it.

    Args:
        gateway: as a peer without policies.
        principal: ours.
        machine: which of its machines this is.
        kerberos: reads KRB-ERRORs.
        tickets: for the gateway.
        transport: a socket.
        ticket_deadline: seconds that the KDC may take.
    """

    def __init__(
        self,
        gateway: PeerSettings,
        principal: str,
        machine: bytes,
        *,
        kerberos: Acceptor,
        tickets: TicketSource,
        transport: KinkTransport,
        ticket_deadline: float,
    ) -> None:
        self._peer = Peer(
            gateway,
            principal=principal,
            epoch=epoch(),
            kerberos=kerberos,
            random=secrets.token_bytes,
            allocate_spi=_no_spi,
            ourselves=Ourselves(machine=machine),
            # Random, so that nobody can forge answers from afar (RFC 4430 §4 leaves the choice).
            next_xid=lambda: secrets.randbits(32),
        )
        self._tickets, self._transport, self._ticket_deadline = tickets, transport, ticket_deadline
        self._wakes: list[float] = []

    async def ask(self, wanted: Wanted, patience: float) -> Lease:
        """What the gateway lends.

        Args:
            wanted: what to ask for.
            patience: seconds to wait for its answer.

        Raises:
            NothingLent, GatewaySilent: why.
        """
        command = LeaseCommand(wanted, patience)
        await self._perform(self._peer.probe(command)[1])
        while command.outcome is None:
            with trio.move_on_at(self._wakes[0] if self._wakes else float("inf")) as waiting:
                for datagram, path in await self._transport.receive():
                    await self._receive(datagram, path)
            if waiting.cancelled_caught:
                heapq.heappop(self._wakes)
                await self._perform(self._peer.wake(trio.current_time()))
        if isinstance(command.outcome, Failed):
            silent = command.outcome.cause is Cause.SILENCE
            raise (GatewaySilent if silent else NothingLent)(command.outcome.reason)
        if command.lease is None:
            raise NothingLent("it answers, and lends no address: it is no gateway for people")
        return command.lease

    async def _receive(self, datagram: bytes, path: Path) -> None:
        """Both kinds come to one socket. A message never begins with the marker: its first octet is its type, and that
        is not 0 (RFC 4430 §4).
        """
        if datagram.startswith(NON_ESP_MARKER):
            datagram, path = datagram[len(NON_ESP_MARKER) :], path._replace(marked=True)
        try:
            message = parse_message(datagram)
        except MalformedMessage:
            return
        if message.type is MessageType.REPLY and self._peer.owns(message.xid):
            await self._perform(self._peer.replied(message, datagram, trio.current_time(), path))

    async def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage(datagram, path):
                    self._send(NON_ESP_MARKER + datagram if path.marked else datagram, path)
                case WakeAt(wake):
                    heapq.heappush(self._wakes, wake)
                case FetchTicket():
                    await self._perform(await self._fetch(effect))
                case _:
                    pass  # no SAs, and nobody looks at counters

    def _send(self, datagram: bytes, path: Path) -> None:
        try:
            self._transport.send(datagram, path)
        except OSError as error:
            log.debug("send_failed", extra={"fields": {"address": path.remote.address, "reason": str(error)}})

    async def _fetch(self, wanted: FetchTicket) -> list[Effect]:
        try:
            ticket = await self._tickets.get(
                wanted.server, deadline=self._ticket_deadline, fresh=wanted.fresh, tgt=wanted.tgt
            )
        except TicketUnavailable as unavailable:
            return self._peer.ticket_refused(wanted.xid, unavailable.refusal, trio.current_time())
        return self._peer.ticket_ready(wanted.xid, ticket, trio.current_time())


def _no_spi() -> int:
    raise AssertionError("nothing is negotiated on an errand")
