"""Against a gateway's own responder on a loopback port, in a real realm."""

from __future__ import annotations

import itertools
import secrets
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
import trio

from esp.sa import Endpoint
from esp.wire import NON_ESP_MARKER
from kinkvpn.config.clear import Known
from kinkvpn.people import Wishes, configuration_for
from kinkvpn.proto.events import Path, SendMessage
from kinkvpn.proto.lease import Lease
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.responder import Responder
from kinkvpn.proto.settings import PeerSettings
from kinkvpn.service.obstacles import StartRefused
from kinkvpn.wire.kink import parse_message

if TYPE_CHECKING:
    from support.kdc import Lab

pytestmark = pytest.mark.kdc

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
        self.responder = Responder(kerberos=self.acceptor, peers={settings.principal: alice} if known else {}, epoch=1)
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


def asked(gateway: Gateway, ccache: str, **arguments: object) -> object:
    """The configuration, or the refusal."""

    async def ask() -> object:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                await nursery.start(gateway.run)
                name = f"127.0.0.1:{gateway.port}"
                try:
                    return await configuration_for(name, ccache=ccache, principal=GATEWAY, **arguments)  # type: ignore[arg-type]
                except StartRefused as refused:
                    return str(refused)
                finally:
                    nursery.cancel_scope.cancel()
        return None

    return trio.run(ask)


def test_a_configuration_without_a_file(lab: Lab, ccache: str) -> None:
    gateway = Gateway(lab)
    configuration = asked(gateway, ccache)
    assert configuration.host.principal == f"alice@{lab.realm.name}"
    assert configuration.host.ccache == ccache
    assert configuration.host.keytab is None
    assert list(map(str, configuration.tun.addresses)) == ["10.8.0.7/32", "fd00:8::7/128"]
    assert (configuration.dns.servers, configuration.dns.domains) == (("10.1.0.53",), ("example.com",))
    (peer,) = configuration.peers
    assert (peer.name, peer.principal, peer.address, peer.esp_port) == ("127.0.0.1", GATEWAY, "127.0.0.1", gateway.port)
    assert [(str(one.selector.local), str(one.selector.remote)) for one in peer.policies] == [
        ("10.8.0.7/32", "10.1.0.0/16"),
        ("fd00:8::7/128", "fd00:1::/48"),
    ]


def test_a_public_route_that_was_allowed_is_in_it(lab: Lab, ccache: str) -> None:
    configuration = asked(Gateway(lab), ccache, wishes=Wishes(routes=(ip_network("8.8.0.0/16"),)))
    assert "8.8.8.0/24" in [str(one.selector.remote) for one in configuration.policies]


def test_with_all_traffic_tickets_still_come_from_outside(lab: Lab, ccache: str) -> None:
    everything = Lease(LENT.addresses, (ip_network("0.0.0.0/0"), ip_network("::/0")), LENT.servers)
    configuration = asked(Gateway(lab, everything), ccache, wishes=Wishes(all_traffic=True))
    assert configuration.clear.bypass == (Known.KDC,)
    configuration = asked(Gateway(lab, everything), ccache, wishes=Wishes(all_traffic=True, dns=False))
    assert configuration.clear.bypass == (Known.KDC, Known.DNS)
    assert asked(Gateway(lab), ccache).clear.bypass == ()


def test_a_request_that_is_lost_is_sent_again(lab: Lab, ccache: str) -> None:
    assert asked(Gateway(lab, deaf=1), ccache).tun.addresses


@pytest.mark.parametrize(
    ("gateway", "words"),
    [
        ({"lease": None}, "127.0.0.1 lends nothing to alice@KINKVPN.TEST: it answers, and lends no address"),
        ({"known": False}, "NO-PROPOSAL-CHOSEN: no rule of its lets us in"),
        ({"lease": Lease(LENT.addresses, LENT.routes[2:])}, "127.0.0.1 offers 8.8.8.0/24, which is not private: --acc"),
        ({"lease": Lease(LENT.addresses)}, "127.0.0.1 offers no routes"),
    ],
)
def test_why_there_is_none(lab: Lab, ccache: str, gateway: dict[str, object], words: str) -> None:
    assert words in asked(Gateway(lab, **gateway), ccache)


def test_who_is_no_gateway_by_name(lab: Lab, ccache: str) -> None:
    async def ask(name: str) -> str:
        with pytest.raises(StartRefused) as refused:
            await configuration_for(name, ccache=ccache)
        return str(refused.value)

    for name in ("", "a b", "gw.example.com:x", "gw.example.com:0"):
        assert "expected a gateway's host name" in trio.run(ask, name)
