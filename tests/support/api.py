"""A daemon in memory behind the real API: keying, engine and data plane of a simulated host, on the real clock."""

from __future__ import annotations

import os
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from support.host import Tunnel, World
from support.network import CALM, Network

from kinkvpn.api.app import application
from kinkvpn.api.control import ControlSocket
from kinkvpn.api.events import Events
from kinkvpn.api.server import local_client_may_change, serve
from kinkvpn.service.report import counters, peers_status, sas_status

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from support.host import Host

    from kinkvpn.api.answers import Counters, NegotiatedPolicy, Peer, Reloaded, Sa, Status
    from kinkvpn.api.app import Daemon


@dataclass
class Simulated:
    """A ``Daemon`` whose peer, tunnels and counters are those of ``host``; the rest is as of a small installation."""

    host: Host
    events: Events = field(default_factory=lambda: Events(0x5EED))
    stopping: trio.Event = field(default_factory=trio.Event)

    @property
    def peers(self) -> Collection[str]:
        """Names."""
        return self.host.keying.peers.keys()

    async def status(self) -> Status:
        """As ``service.running.Running`` makes it."""
        return {
            "version": "0.0",
            "pid": os.getpid(),
            "principal": "kink/west.example.com@EXAMPLE.COM",
            "engine": "portable",
            "engine_reason": "in memory",
            "ciphers": "OpenSSL",
            "queues": 1,
            "uptime": 61.0,
            "tun": {"name": "kink0", "mtu": 1400, "addresses": ["10.1.0.1/24"]},
            "offloads": {"tso": None, "uso": "off in the configuration"},
            "key_log": None,
            "listeners": {"kink": ["192.0.2.1:910"], "esp": ["192.0.2.1:4500"]},
            "tickets": {"kept": 1, "first_ends": 18000.0, "not_renewed": 0, "ends": {}},
            "peers": await peers_status(tuple(self.host.keying.peers.values()), self.host.dataplane),
            "counters": self.counters(),
        }

    def counters(self) -> Counters:
        """Of both planes."""
        dataplane = self.host.dataplane
        return counters(self.host.keying.counted(), dataplane.totals(), dataplane.link_statistics())

    async def peer(self, name: str) -> Peer:
        """By its name."""
        (found,) = await peers_status([self.host.keying.peers[name]], self.host.dataplane)
        return found

    async def sas(self) -> list[Sa]:
        """Those of the engine."""
        return await sas_status(self.host.dataplane, self.host.keying.whose)

    async def probe(self, peer: str) -> float:
        """Keying's."""
        return await self.host.keying.probe(peer)

    async def rekey(self, peer: str | None) -> list[NegotiatedPolicy]:
        """Keying's."""
        return await self.host.keying.rekey(peer)

    async def up(self, peer: str) -> list[NegotiatedPolicy]:
        """Keying's."""
        return await self.host.keying.up(peer)

    async def down(self, peer: str) -> None:
        """Keying's."""
        self.host.keying.down(peer)

    async def reload(self) -> Reloaded:
        """There is no file: nothing is another than it was."""
        nothing: list[str] = []
        peers = list(self.host.keying.peers)
        return {"added": nothing, "changed": nothing, "replaced": nothing, "removed": nothing, "unchanged": peers}

    async def stop(self) -> int:
        """Only says so."""
        self.stopping.set()
        return os.getpid()


@asynccontextmanager
async def simulated() -> AsyncIterator[Simulated]:
    """West, whose peer is east: one tunnel stands, one waits for a packet."""
    async with trio.open_nursery() as nursery:
        network = Network("api", CALM)
        nursery.start_soon(network.run)
        world = World("api", network, nursery)
        tunnels = [Tunnel(0, boot=frozenset({"west"})), Tunnel(1)]
        west, east = [await world.start(name, tunnels, kdc_latency=lambda: 0.0) for name in ("west", "east")]
        await world.wait_until(lambda: bool(west.keys()[0]) and west.at_rest and east.at_rest, within=30)
        yield Simulated(west)
        nursery.cancel_scope.cancel()


# What comes from the network, a principal say, tries to be: HTML, a terminal's escape sequences, rich's and textual's
# markup, a shell's.
HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\x1b]0;owned\x07[red]x[/red][link=http://evil]y[/nope]$(reboot)\u202e@R"


class Crowd:
    """A daemon whose peers have ``names``, as people have; all are like the simulated one's, and the last is down."""

    def __init__(self, names: Sequence[str]) -> None:
        self.peers = tuple(names)
        self.events = Events(1)
        self._status, self._sas = trio.run(self._seen)
        if names:
            self.events.add({"time": "T", "level": "warning", "event": "guest_came", "peer": names[0]})

    async def _seen(self) -> tuple[Status, list[Sa]]:
        async with simulated() as found:
            status, sas = await found.status(), await found.sas()
        up, idle = status["peers"][0]["policies"]
        down: Any = {**idle, "state": "down", "failures": 3, "last_error": "no answer"}
        status["peers"] = [
            {
                **status["peers"][0],
                "name": name,
                "principal": name,
                "policies": [{**(up if more else down), "name": name}],
            }
            for more, name in zip(range(len(self.peers) - 1, -1, -1), self.peers, strict=True)
        ]
        return status, [{**sa, "policy": name, "peer": name} for name in self.peers[:-1] for sa in sas]

    async def status(self) -> Status:
        """Of them all."""
        return self._status

    async def sas(self) -> list[Sa]:
        """Two of each that is up."""
        return self._sas

    def counters(self) -> Counters:
        """Those of the simulated one."""
        return self._status["counters"]

    async def reload(self) -> Reloaded:
        """All are new."""
        return {"added": list(self.peers), "changed": [], "replaced": [], "removed": [], "unchanged": []}

    async def down(self, _peer: str) -> None:
        """Nobody is."""

    async def rekey(self, _peer: str | None) -> list[NegotiatedPolicy]:
        """Whoever has SAs has new ones, which are as before."""
        return [policy for peer in self._status["peers"] for policy in peer["policies"] if policy["spi_in"]]


@contextmanager
def served(path: Path, daemon: Callable[[], Daemon] | None = None) -> Iterator[Path]:
    """The control socket at ``path``, served by a thread with a loop of its own; without a ``daemon`` by a simulated
    one.
    """

    async def live(ready: Callable[[], None]) -> None:
        if daemon is not None:
            await answering(path, daemon(), ready)
            return
        async with simulated() as found:
            await answering(path, found, ready)

    with looping(live):
        yield path


async def answering(path: Path, daemon: Daemon, ready: Callable[[], None]) -> None:
    """The API over ``daemon``; ``ready`` is called once it is there."""
    control = ControlSocket(path)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(served_on, control.listener(), daemon)
            ready()
    finally:
        control.close()


async def served_on(
    listener: socket.socket, daemon: Daemon, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The API on a socket of whatever family; who comes over IP may change things too."""

    def may_change(stream: trio.SocketStream) -> bool:
        return stream.socket.family != trio.socket.AF_UNIX or local_client_may_change(stream)

    await partial(serve, listener, application(daemon), may_change=may_change)(task_status=task_status)


@contextmanager
def looping(live: Callable[[Callable[[], None]], object]) -> Iterator[None]:
    """``live`` in a thread, with Trio, until the block ends; it calls what it is given once it is ready."""
    scope, started = trio.CancelScope(), threading.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        def ready() -> None:
            tokens.append(trio.lowlevel.current_trio_token())
            started.set()

        with scope:
            await live(ready)

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert started.wait(60)
        yield
    finally:
        if tokens:
            trio.from_thread.run_sync(scope.cancel, trio_token=tokens[0])
        thread.join()


def undescribed(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Keys in ``value`` that ``schema``, which is a part of ``document``, does not have where they are."""
    reference = schema.get("$ref", "").rpartition("/")[2]
    if reference:
        return undescribed(value, document["components"]["schemas"][reference], document)
    if isinstance(value, list):
        return [key for one in value for key in undescribed(one, schema.get("items", {}), document)]
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        inside = [
            key for each in value.keys() & known.keys() for key in undescribed(value[each], known[each], document)
        ]
        return [*(value.keys() - known.keys()), *inside]
    return []
