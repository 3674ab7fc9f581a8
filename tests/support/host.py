"""A whole host in memory: keying, reference engine and data plane over the simulated network and the fake realm.

``simulate(scenario, seed)`` runs an async scenario with a ``World`` whose every number comes from the seed.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio.testing
from support.network import CALM, Network, NetworkLink, NetworkTransport, Weather, repeatable

from esp.dataplane import Dataplane
from esp.engine import Engine
from esp.policy import Policy, Selector
from esp.sa import Endpoint
from esp.suite import SUITES
from esp.testing import MemoryTun
from esp.wire import NON_ESP_MARKER
from kinkvpn.kerberos.fake import FakeKerberos, FakeRealm, FakeTickets
from kinkvpn.key_exchange import KeyExchanges
from kinkvpn.proto.acquaintance import Ourselves
from kinkvpn.proto.events import Path
from kinkvpn.proto.settings import Esn, PeerSettings, PolicySettings, Start
from kinkvpn.service.keying import Keying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from support.network import Flight

    from esp.sa import SaParameters
    from esp.suite import Suite
    from kinkvpn.wire.ipsec_doi import Group

Result = TypeVar("Result")

KINK_PORT, ESP_PORT = 910, 4500
# POSIX time at which every simulation begins.
BEGINNING = 1_700_000_000.0
# RFC 3692: an IP protocol number for experiments. It has no ports.
EXPERIMENT = 253
# Seconds; as in a configuration that does not say otherwise.
PROBE_AFTER = 10.0
NAMES = ("west", "east", "south")

_speaker: ContextVar[str] = ContextVar("speaker", default="scenario")


def address_of(name: str) -> str:
    """Outer address of a host."""
    return f"192.0.2.{NAMES.index(name) + 1}"


def principal_of(name: str) -> str:
    """Kerberos principal of a host; south is the greatest, then west, then east."""
    return f"kink/{ {'west': 'm', 'east': 'a', 'south': 'z'}[name] }.example.com@EXAMPLE.COM"


def kink_of(flight: Flight) -> bytes | None:
    """The KINK message that a datagram between two hosts without a NAT carries, on either port."""
    if flight.destination.port == KINK_PORT:
        return flight.datagram
    return flight.datagram[len(NON_ESP_MARKER) :] if flight.datagram.startswith(NON_ESP_MARKER) else None


def packet(source: str, destination: str, payload: bytes) -> bytes:
    """An IPv4 packet (RFC 791) of protocol 253, its header checksum right."""
    header = bytearray(20)
    header[0], header[8], header[9] = 0x45, 64, EXPERIMENT
    header[2:4] = (20 + len(payload)).to_bytes(2, "big")
    header[12:16] = bytes(map(int, source.split(".")))
    header[16:20] = bytes(map(int, destination.split(".")))
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
    return bytes(header) + payload


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One policy between two hosts, as both see it.

    Args:
        number: from 0 to 255, makes name and subnets.
        ends: names of the two hosts.
        boot: which of them negotiate at the start.
        nonces: which of them add Nr when they respond: 3-way (RFC 4430 §3.2.1).
        suites: of each end, in its order; where the orders differ the second transform is taken: 3-way too.
        lifetime: seconds, hard.
        pfs: groups of each end.
        esn: of each end.
    """

    number: int
    ends: tuple[str, str] = ("west", "east")
    boot: frozenset[str] = frozenset()
    nonces: frozenset[str] = frozenset()
    suites: tuple[tuple[Suite, ...], tuple[Suite, ...]] = ((SUITES["aes256-gcm16"],),) * 2
    lifetime: int = 28_800
    pfs: tuple[tuple[Group, ...], tuple[Group, ...]] = ((), ())
    esn: tuple[Esn, Esn] = (Esn.AUTO, Esn.AUTO)

    @property
    def name(self) -> str:
        """Of the policy, at both ends."""
        return f"tunnel{self.number}"

    def inner(self, name: str) -> str:
        """An address behind host ``name``."""
        return f"10.{NAMES.index(name) + 1}.{self.number}.1"

    def other(self, name: str) -> str:
        """The other end."""
        return self.ends[1 - self.ends.index(name)]

    def selector(self, name: str) -> Selector:
        """As host ``name`` sees it."""
        local, remote = (IPv4Network(f"{self.inner(end)}/24", strict=False) for end in (name, self.other(name)))
        return Selector(local, remote)

    def settings(self, name: str) -> PolicySettings:
        """As host ``name`` is configured."""
        return PolicySettings(
            self.name,
            self.selector(name),
            suites=self.suites[self.ends.index(name)],
            lifetime_seconds=self.lifetime,
            start=Start.BOOT if name in self.boot else Start.DEMAND,
            responder_nonce=name in self.nonces,
            pfs=self.pfs[self.ends.index(name)],
            esn=self.esn[self.ends.index(name)],
        )

    def packet(self, sender: str, payload: bytes) -> bytes:
        """A packet that this policy protects, from behind ``sender``."""
        return packet(self.inner(sender), self.inner(self.other(sender)), payload)


class WitnessedDataplane(Dataplane):
    """Remembers with which parameters SAs were installed, so that the keys of two hosts can be compared."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.installed: dict[tuple[str, int, bool], SaParameters] = {}

    def install_inbound(self, sa: SaParameters) -> None:
        """As Dataplane's."""
        super().install_inbound(sa)
        self.installed[sa.policy, sa.spi, True] = sa

    def install_outbound(self, sa: SaParameters) -> None:
        """As Dataplane's."""
        super().install_outbound(sa)
        self.installed[sa.policy, sa.spi, False] = sa


class Host:
    """One host, from its start to its end; a restarted one is a new object.

    Args:
        name: one of NAMES.
        world: where it lives.
        tunnels: those of which it is an end.
        kerberos: keeps a replay cache, so a restarted host takes over its predecessor's, as from a file.
        kdc_latency: seconds that its KDC takes, asked anew for each ticket; may be changed.
        changes: to the settings of its peers.
    """

    def __init__(
        self,
        name: str,
        world: World,
        tunnels: Sequence[Tunnel],
        kerberos: FakeKerberos,
        kdc_latency: Callable[[], float],
        changes: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.kerberos = kerberos
        self.tunnels = {tunnel.name: tunnel for tunnel in tunnels if name in tunnel.ends}
        self.kdc_latency = kdc_latency
        random = Random(f"{name} {world.seed} {trio.current_time()}").randbytes
        engine = Engine(random=random)
        for tunnel in self.tunnels.values():
            engine.add_policy(self._policy(tunnel))
        self.tun = MemoryTun(name)
        self.link = NetworkLink(world.network, Endpoint(address_of(name), ESP_PORT))
        self.transport = NetworkTransport(world.network, Endpoint(address_of(name), KINK_PORT))
        self.dataplane = WitnessedDataplane(engine, self.tun, self.link, receive_control=self._receive_control)
        self.keying = Keying(
            principal=principal_of(name),
            peers=self._peers(self.tunnels.values(), world.addresses, changes),
            kerberos=kerberos,
            tickets=FakeTickets(world.realm, principal_of(name), latency=lambda: self.kdc_latency()),
            transport=self.transport,
            dataplane=self.dataplane,
            epoch=int(world.realm.clock()) & 0xFFFFFFFF,
            random=random,
            key_exchange=KeyExchanges(),
            ourselves=Ourselves(1400, KINK_PORT, ESP_PORT, owns=lambda address: address == address_of(name)),
        )
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def _policy(self, tunnel: Tunnel) -> Policy:
        return Policy(tunnel.name, tunnel.selector(self.name), peer=tunnel.other(self.name), answer_within=PROBE_AFTER)

    def add(self, *tunnels: Tunnel, **changes: Any) -> None:
        """The peers of ``tunnels``, which are new here."""
        self.tunnels |= {tunnel.name: tunnel for tunnel in tunnels}
        self.dataplane.change_policies((), map(self._policy, tunnels))
        for settings in self._peers(tunnels, {}, changes):
            self.keying.add_peer(settings)

    def remove(self, other: str) -> None:
        """The peer ``other`` and its tunnels."""
        self.keying.remove_peer(other)
        gone = [tunnel.name for tunnel in self.tunnels.values() if other in tunnel.ends]
        self.dataplane.change_policies(gone, ())
        for name in gone:
            del self.tunnels[name]

    def _peers(
        self, tunnels: Collection[Tunnel], addresses: Mapping[str, str], changes: Mapping[str, Any]
    ) -> list[PeerSettings]:
        others = dict.fromkeys(tunnel.other(self.name) for tunnel in tunnels)
        return [
            PeerSettings(
                other,
                principal_of(other),
                kink=Endpoint(addresses.get(other, address_of(other)), KINK_PORT),
                esp=Endpoint(addresses.get(other, address_of(other)), ESP_PORT),
                policies=tuple(t.settings(self.name) for t in tunnels if other in t.ends),
                **changes,
            )
            for other in others
        ]

    def _receive_control(self, datagram: bytes, source: Endpoint) -> None:
        self.keying.receive(datagram, Path(source, marked=True))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until ``crash``."""
        _speaker.set(self.name)
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.dataplane.run)
                await nursery.start(self.keying.run)
                task_status.started()
        self.link.close()
        self.transport.close()
        self.tun.close()
        self._ended.set()

    async def crash(self) -> None:
        """Gone without a word."""
        self._scope.cancel()
        await self._ended.wait()

    def emit(self, tunnel: Tunnel, payload: bytes) -> None:
        """Somebody behind this host sends."""
        assert self.tun.emit(tunnel.packet(self.name, payload))

    def keys(self) -> tuple[dict[tuple[str, int], bytes], dict[tuple[str, int], bytes]]:
        """Of the SAs that the engine has now, by policy and SPI: outbound ones, inbound ones."""
        found: tuple[dict[tuple[str, int], bytes], dict[tuple[str, int], bytes]] = {}, {}
        for sa in self.dataplane.statistics().sas:
            found[sa.inbound][sa.policy, sa.spi] = self.dataplane.installed[sa.policy, sa.spi, sa.inbound].keymat
        return found

    def sas(self, *, inbound: bool) -> dict[tuple[str, int], bytes]:
        """As ``keys``, one way."""
        return self.keys()[inbound]

    def counters(self) -> dict[str, int]:
        """Keying's."""
        counters = self.keying.counted()["counters"]
        assert isinstance(counters, dict)
        return counters

    @property
    def at_rest(self) -> bool:
        """No exchange under way, no ACK awaited, and no SA that its pair has left behind."""
        peers = self.keying.peers.values()
        if any(peer.busy or peer.half_open for peer in peers):
            return False
        if any(state.yield_at is not None for peer in peers for state in peer.policies.values()):
            return False
        pairs = [pair for peer in peers for name in peer.policies for pair in peer.pairs(name)]
        outbound, inbound = self.keys()
        return inbound.keys() == {(pair.policy, pair.inbound_spi) for pair in pairs} and outbound.keys() == {
            (pair.policy, pair.outbound_spi) for pair in pairs
        }


def unmatched(one: Host, other: Host) -> list[str]:
    """Outbound SAs of either host towards the other for which that has no inbound SA with the same keys."""
    (ours_out, ours_in), (theirs_out, theirs_in) = one.keys(), other.keys()
    shared = one.tunnels.keys() & other.tunnels.keys()
    return [
        f"{name} {policy} {spi:#010x}"
        for name, outbound, inbound in ((one.name, ours_out, theirs_in), (other.name, theirs_out, ours_in))
        for (policy, spi), keymat in outbound.items()
        if policy in shared and inbound.get((policy, spi)) != keymat
    ]


@dataclass(slots=True)
class World:
    """Everything that two hosts share, and the hosts.

    Args:
        seed: of everything.
        network: between the hosts.
        nursery: of the hosts.
        addresses: of hosts as their peers have them, where they differ from the real ones; empty for none.
        told: (time, speaker, event, fields) of every Tell.
        spoke: set, and made anew, at every Tell.
        defects: hosts that are to meet a defect of their own program; none but in the test of that.
    """

    seed: object
    network: Network
    nursery: trio.Nursery
    told: list[tuple[float, str, str, dict[str, object]]] = field(default_factory=list)
    hosts: dict[str, Host] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    spoke: trio.Event = field(default_factory=trio.Event)
    defects: list[str] = field(default_factory=list)
    chance: Random = field(init=False)
    realm: FakeRealm = field(init=False)

    def __post_init__(self) -> None:
        self.chance = Random(f"scenario {self.seed}")
        self.realm = FakeRealm(
            map(principal_of, NAMES),
            clock=lambda: BEGINNING + trio.current_time(),
            random=Random(f"realm {self.seed}").randbytes,
        )

    async def start(
        self,
        name: str,
        tunnels: Sequence[Tunnel],
        *,
        kdc_latency: Callable[[], float] | None = None,
        kerberos: FakeKerberos | None = None,
        **changes: Any,
    ) -> Host:
        """Start a host, or start it again after a crash; its KDC takes up to 0.3 s unless something else is asked."""
        before = self.hosts.get(name)
        if kerberos is None:
            kerberos = FakeKerberos(self.realm, principal_of(name)) if before is None else before.kerberos
        latency = (lambda: self.chance.uniform(0.0, 0.3)) if kdc_latency is None else kdc_latency
        host = self.hosts[name] = Host(name, self, tunnels, kerberos, latency, changes)
        await self.nursery.start(host.run)
        return host

    async def pair(self, tunnels: Sequence[Tunnel]) -> tuple[Host, Host]:
        """West and east."""
        return await self.start("west", tunnels), await self.start("east", tunnels)

    async def wait_until(self, condition: Callable[[], bool], *, within: float, step: float = 0.05) -> None:
        """Let time pass until ``condition`` holds; it has ``within`` seconds."""
        deadline = trio.current_time() + within
        while not condition():
            assert trio.current_time() < deadline, f"not within {within} s"
            await trio.sleep(step)

    async def wait_told(self, event: str, speaker: str, *, times: int = 1, within: float) -> None:
        """Until ``speaker`` has told of ``event`` that many times; returns at that very time."""
        with trio.fail_after(within):
            while len(self.tells(event, speaker)) < times:
                await self.spoke.wait()

    async def wait_at_rest(self, *, within: float) -> None:
        """Let time pass until every host is at rest."""
        await self.wait_until(lambda: all(host.at_rest for host in self.hosts.values()), within=within, step=0.2)

    def tells(self, event: str, speaker: str | None = None) -> list[dict[str, object]]:
        """Fields of every Tell of that name."""
        return [fields for _, who, what, fields in self.told if what == event and speaker in (None, who)]


class _Witness(logging.Handler):
    """Writes down what hosts tell their operators."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        fields = record.__dict__["fields"]
        self._world.told.append((trio.current_time(), _speaker.get(), record.getMessage(), fields))
        self._world.spoke.set()
        self._world.spoke = trio.Event()
        self._world.network.note(f"{_speaker.get()} tells {record.getMessage()} {fields}")


@contextmanager
def _witnessed(world: World) -> Iterator[None]:
    logger = logging.getLogger("kinkvpn.service.keying")
    witness, level, propagate = _Witness(world), logger.level, logger.propagate
    logger.addHandler(witness)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(witness)
        logger.setLevel(level)
        logger.propagate = propagate


def simulate(scenario: Callable[[World], Awaitable[Result]], seed: object, weather: Weather = CALM) -> Result:
    """Run ``scenario`` in a world of its own, on a clock that jumps."""

    async def main() -> Result:
        async with trio.open_nursery() as nursery:
            network = Network(seed, weather)
            world = World(seed, network, nursery)
            nursery.start_soon(network.run)
            with _witnessed(world):
                result = await scenario(world)
            defects = [name for name, host in world.hosts.items() if "defect" in host.counters()]
            assert defects == world.defects, f"the program went wrong on datagrams: {defects}"
            nursery.cancel_scope.cancel()
        return result

    with repeatable(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
