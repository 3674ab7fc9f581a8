"""Many initiators in one process: the load of ``bench keying``, and of the test with 2,000 peers.

Each client is a principal with a keytab, an address and tickets of its own, run by the daemon's own parts: Keying,
KinkTransport, TicketSource. They share one ESP engine, TUN and link, as the policies of one daemon do. What makes a
client negotiate is what makes a daemon do it: ``Acquired`` for a CREATE, ``SoftExpired`` for a rekey.

``python -m bench.crowd FILE`` inside the namespace. FILE is a :class:`Plan` as JSON; commands come in and answers go
out as one JSON object a line.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from esp.dataplane import Dataplane
from esp.engine import Engine
from esp.events import Acquired, EspEvent, SoftExpired
from esp.link import UdpLink
from esp.policy import Policy, Selector
from esp.sa import Endpoint
from esp.tun import TunDevice
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.session import Acceptor
from kinkvpn.kerberos.tickets import TicketSource
from kinkvpn.proto.settings import PeerSettings, PolicySettings
from kinkvpn.service.daemon import spare_the_collector
from kinkvpn.service.keying import Keying
from kinkvpn.service.transport import KINK_PORT, KinkTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from esp.sa import SaParameters

ESP_PORT = 4500
# Fetching a ticket takes the KDC and a thread a millisecond or two; two thousand at once wait for each other.
TICKET_SECONDS = 60.0
# A CREATE that was lost comes again after 1, 3, 7, 15 s (RFC 4430 §9). What takes longer than this is broken.
PHASE_SECONDS = 60.0
# Between two looks at whether the last DELETE has been answered.
SETTLE_SECONDS = 0.002
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Client:
    """One initiator: ``inside`` are its addresses in the tunnel, a policy each."""

    principal: str
    keytab: str
    address: str
    inside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Who initiates, and to whom. ``subnet`` is what the gateway protects."""

    gateway_principal: str
    gateway_address: str
    subnet: str
    clients: tuple[Client, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        fields = json.loads(text)
        clients = tuple(Client(**{**each, "inside": tuple(each["inside"])}) for each in fields.pop("clients"))
        return cls(**fields, clients=clients)


class Share:
    """One client's part of the engine that all share: its own events in, and word of each new outbound SA."""

    def __init__(self, dataplane: Dataplane) -> None:
        self._tell, self.events = trio.open_memory_channel[EspEvent](0)
        self._awaited: dict[str, trio.Event] = {}
        self._dataplane = dataplane
        self.allocate_spi = dataplane.allocate_spi
        self.release_spi = dataplane.release_spi
        self.install_inbound = dataplane.install_inbound
        self.remove_inbound = dataplane.remove_inbound
        self.remove_outbound = dataplane.remove_outbound
        self.send_control = dataplane.send_control
        self.confirm_path = dataplane.confirm_path
        self.follow = dataplane.follow
        self.last_heard = dataplane.last_heard

    def install_outbound(self, sa: SaParameters) -> None:
        self._dataplane.install_outbound(sa)
        awaited = self._awaited.pop(sa.policy, None)
        if awaited is not None:
            awaited.set()

    async def negotiate(self, event: Acquired | SoftExpired) -> float:
        """Have ``event`` happen; seconds from there until the outbound SA that it leads to is installed."""
        installed = self._awaited[event.policy] = trio.Event()
        began = time.perf_counter()
        await self._tell.send(event)
        await installed.wait()
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Member:
    """A client at work."""

    keying: Keying
    share: Share
    tickets: TicketSource
    policies: tuple[str, ...]

    async def fetch_ticket(self, gateway: str) -> None:
        """Have it at hand, as a host has that spoke to this peer before."""
        await self.tickets.get(gateway, deadline=TICKET_SECONDS)

    async def negotiate(self, operation: str, number: int) -> float:
        """Seconds that it took."""
        policy = self.policies[number]
        if operation == "create":  # a packet wants out, and there is no SA
            return await self.share.negotiate(Acquired(policy))
        newest = self.keying.peers[GATEWAY].pairs(policy)[-1]  # has reached its soft lifetime
        return await self.share.negotiate(SoftExpired(policy, newest.outbound_spi, inbound=False))

    @property
    def busy(self) -> bool:
        return self.keying.peers[GATEWAY].busy


def join_crowd(plan: Plan, client: Client, dataplane: Dataplane, acceptor: Acceptor) -> Member:
    """The parts of one client, put together as ``kinkvpn.service.daemon.compose`` does."""
    remote = ip_network(plan.subnet)
    policies = [
        PolicySettings(f"{client.address}/{number}", Selector(ip_network(inside), remote))
        for number, inside in enumerate(client.inside)
    ]
    for policy in policies:
        dataplane.add_policy(Policy(policy.name, policy.selector))
    gateway = PeerSettings(
        name=GATEWAY,
        principal=plan.gateway_principal,
        kink=Endpoint(plan.gateway_address, KINK_PORT),
        esp=Endpoint(plan.gateway_address, ESP_PORT),
        policies=tuple(policies),
    )
    tickets = TicketSource(Credentials(client.principal, keytab=Path(client.keytab)))
    share = Share(dataplane)
    keying = Keying(
        principal=client.principal,
        peers=[gateway],
        kerberos=acceptor,  # nobody sends an initiator a command; it reads KRB-ERRORs, and needs no keys for that
        tickets=tickets,
        transport=KinkTransport([client.address]),
        dataplane=share,
        epoch=int(time.time()) & 0xFFFFFFFF,
        random=secrets.token_bytes,
    )
    return Member(keying, share, tickets, tuple(policy.name for policy in policies))


@dataclass(frozen=True, slots=True)
class Phase:
    """What the crowd is told to do.

    Args:
        operation: ``create`` or ``rekey``.
        first, last: clients from ``first`` up to, not including, ``last``.
        policy: number of the policy that each of them negotiates.
        in_flight: how many at a time.
        pause: seconds between two; for the latency of an idle gateway.
    """

    operation: str
    first: int
    last: int
    policy: int
    in_flight: int
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a phase: all of it is established, the DELETEs of a rekey are answered.

    Args:
        count: negotiations.
        seconds: wall time.
        cpu_seconds: of the initiator's process.
        latencies: seconds of each negotiation, or empty.
    """

    count: int
    seconds: float
    cpu_seconds: float
    latencies: tuple[float, ...] = ()


class Crowd:
    """All clients of ``plan``, to be run in the namespace that has their addresses."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        link = UdpLink.bind(ESP_PORT, ["0.0.0.0"])  # noqa: S104 - a namespace of our own
        self._dataplane = Dataplane(
            Engine(random=secrets.token_bytes), TunDevice("crowd0"), link, receive_control=lambda datagram, source: None
        )
        acceptor = Acceptor([plan.clients[0].principal], Path(plan.clients[0].keytab))
        self._members = [join_crowd(plan, client, self._dataplane, acceptor) for client in plan.clients]

    async def run(self, commands: Callable[[], Awaitable[str]], answer: Callable[[object], None]) -> None:
        """Get the tickets, say so, and do as told until there are no more commands."""
        async with trio.open_nursery() as nursery:
            for member in self._members:
                nursery.start_soon(member.fetch_ticket, self._plan.gateway_principal)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._dataplane.run)
            for member in self._members:
                await nursery.start(member.keying.run)
            spare_the_collector()  # as the daemon does
            answer({"ready": len(self._members)})
            while line := await commands():
                answer(asdict(await self._perform(Phase(**json.loads(line)))))
            nursery.cancel_scope.cancel()

    async def _perform(self, phase: Phase) -> Done:
        members = self._members[phase.first : phase.last]
        waiting = iter(members)
        latencies: list[float] = []

        async def work() -> None:
            for member in waiting:
                latencies.append(await member.negotiate(phase.operation, phase.policy))
                if phase.pause:
                    await trio.sleep(phase.pause)

        began, cpu_began = time.perf_counter(), time.process_time()
        with trio.fail_after(PHASE_SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(phase.in_flight):
                    nursery.start_soon(work)
            while any(member.busy for member in members):  # noqa: ASYNC110 - the last DELETE tells nobody
                await trio.sleep(SETTLE_SECONDS)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        return Done(len(latencies), seconds, cpu_seconds, tuple(latencies))


def main(path: str) -> None:
    """Be the crowd of the plan at ``path``."""
    logging.basicConfig(level=logging.WARNING)
    crowd = Crowd(Plan.from_json(Path(path).read_text()))
    commands = trio.wrap_file(sys.stdin)
    trio.run(crowd.run, commands.readline, lambda said: print(json.dumps(said), flush=True))


if __name__ == "__main__":
    main(sys.argv[1])
