"""A gateway for people of its own responder on a loopback port, in a real realm, and what somebody gets of it."""

from __future__ import annotations

import itertools
import secrets
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import trio

from esp.sa import Endpoint
from esp.wire import NON_ESP_MARKER
from kinkvpn.people import configuration_for
from kinkvpn.proto.events import Path, SendMessage
from kinkvpn.proto.lease import Lease
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.responder import Responder, nobody
from kinkvpn.proto.settings import PeerSettings
from kinkvpn.service.obstacles import StartRefused
from kinkvpn.wire.kink import parse_message

if TYPE_CHECKING:
    from support.kdc import Lab

    from kinkvpn.proto.ports import AcceptedRequest

MACHINE = bytes(range(16))
GATEWAY = "kink/127.0.0.1@KINKVPN.TEST"
SECONDS = 60.0
LENT = Lease(
    (ip_address("10.8.0.7"), ip_address("fd00:8::7")),
    (ip_network("10.1.0.0/16"), ip_network("fd00:1::/48"), ip_network("8.8.8.0/24")),
    (ip_address("10.1.0.53"),),
    ("example.com",),
)


class Gateway:
    """What answers on a port, which it reads until cancelled.

    Args:
        lab: the realm.
        lease: that it lends to alice; whom it does not know if there is no ``known``.
        known: whether alice is a peer.
        deaf: datagrams to leave unanswered first.
    """

    def __init__(self, lab: Lab, lease: Lease | None = LENT, *, known: bool = True, deaf: int = 0) -> None:
        self.acceptor = lab.acceptor(GATEWAY)
        nowhere, numbers = Endpoint("", 4500), itertools.count(1)
        settings = PeerSettings("alice", f"alice@{lab.realm.name}", nowhere, nowhere, (), lease=lease)
        alice = Peer(
            settings,
            principal=GATEWAY,
            epoch=1,
            kerberos=self.acceptor,
            random=secrets.token_bytes,
            allocate_spi=lambda: next(numbers),
            next_xid=lambda: next(numbers),
        )

        def welcome(_accepted: AcceptedRequest, _machine: bytes, _wished: object) -> Peer:
            self.responder.admit(alice)
            return alice

        self.responder = Responder(kerberos=self.acceptor, peers={}, epoch=1, welcome=welcome if known else nobody)
        self.deaf = deaf
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
            task_status.started()
            for number in itertools.count():
                datagram, source = await sock.recvfrom(65535)
                assert datagram.startswith(NON_ESP_MARKER)
                message = parse_message(datagram[4:])
                if number < self.deaf:
                    continue
                path = Path(Endpoint(*source), marked=True)
                for effect in self.responder.receive(message, datagram[4:], path, trio.current_time()):
                    if isinstance(effect, SendMessage):
                        await sock.sendto(NON_ESP_MARKER + effect.datagram, source)


def asked(gateway: Gateway, ccache: str, **arguments: object) -> Any:
    """The configuration, or the refusal."""

    async def ask() -> Any:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                await nursery.start(gateway.run)
                name = f"127.0.0.1:{gateway.port}"
                try:
                    return await configuration_for(name, machine=MACHINE, ccache=ccache, principal=GATEWAY, **arguments)
                except StartRefused as refused:
                    return str(refused)
                finally:
                    nursery.cancel_scope.cancel()
        return None

    return trio.run(ask)
