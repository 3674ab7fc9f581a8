"""A daemon that is up: what there is to say of it, and what it may be asked to do. What the API is about."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from kinkvpn import __version__
from kinkvpn.service.keying import ProbeFailed, RekeyFailed
from kinkvpn.service.report import counters, offload_status, peers_status, sas_status, spell

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection

    from esp.dataplane import Dataplane
    from esp.link import UdpLink
    from esp.raw import Links
    from esp.tun import PacketDevice
    from kinkvpn.api.answers import Counters, Listeners, NegotiatedPolicy, Peer, Reloaded, Sa, Status, Tun
    from kinkvpn.api.control import ControlSocket
    from kinkvpn.api.events import Events
    from kinkvpn.config import Configuration, TunSettings
    from kinkvpn.kerberos.tickets import TicketSource
    from kinkvpn.keylog import KeyLog
    from kinkvpn.proto.settings import PeerSettings
    from kinkvpn.service.engines import ChosenEngine
    from kinkvpn.service.keying import Keying
    from kinkvpn.service.paths import PathMtus
    from kinkvpn.service.place import Configured
    from kinkvpn.service.reload import Reload
    from kinkvpn.service.transport import KinkTransport

log = logging.getLogger(__name__)

# Ours. STATUS is sent again after one second, two and four (RFC 4430 §9): three chances, then the operator is told.
PROBE_SECONDS = 10.0

# Ours. A CREATE takes milliseconds; with three retransmissions it may take this long, then the operator is told.
REKEY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What was got from the host, and goes back to it at the end. ``tun_settings`` has the MTU that was settled on."""

    control: ControlSocket
    peers: tuple[PeerSettings, ...]
    transport: KinkTransport
    link: UdpLink | Links
    tun: PacketDevice
    tun_settings: TunSettings
    paths: PathMtus
    tickets: TicketSource
    network: Configured
    keys: KeyLog | None
    metrics: socket.socket | None


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon behind ``api.app``.

    Args:
        reloading: what it runs by, and how that becomes another.
        started: of time.monotonic.
        stopping: set, it ends.
        events: its log's.
    """

    reloading: Reload
    engine: ChosenEngine
    started: float
    stopping: trio.Event
    events: Events
    resources: Resources
    dataplane: Dataplane
    keying: Keying

    @property
    def configuration(self) -> Configuration:
        """That it runs by now."""
        return self.reloading.configuration

    def headline(self) -> dict[str, object]:
        """Who and where we are, for the log."""
        tun = self._tun()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "principal": self.configuration.host.principal,
            **self.engine.fields,
            "tun": tun["name"],
            "mtu": tun["mtu"],
            "addresses": tun["addresses"],
            **self._listeners(),
            "peers": len(self.peers),
        }

    def introduction(self) -> dict[str, str]:
        """What every hook is told."""
        return {
            "principal": self.configuration.host.principal,
            "device": self.resources.tun.name,
            "mtu": str(self.resources.tun_settings.mtu),
            "addresses": " ".join(map(str, self.configuration.tun.addresses)),
            "socket": str(self.configuration.control.socket),
        }

    def summary(self) -> str:
        """One line for a service manager."""
        peers = self.keying.peers.values()
        reached = sum(any(peer.pairs(policy) for policy in peer.policies) for peer in peers)
        return f"{reached} of {len(peers)} peers have SAs; {self.resources.tun.name}, {self.engine.headline}"

    @property
    def peers(self) -> Collection[str]:
        """Names."""
        return self.keying.peers.keys()

    async def status(self) -> Status:
        """What ``kinkvpn status --json`` shows: free of secrets."""
        resources = self.resources
        return {
            "version": __version__,
            "pid": os.getpid(),
            "principal": self.configuration.host.principal,
            **self.engine.fields,
            "uptime": round(time.monotonic() - self.started, 3),
            "tun": self._tun(),
            "offloads": offload_status(
                self.configuration.offload, self.engine.unsuited, resources.tun.grant, resources.link.grant
            ),
            "key_log": None if resources.keys is None else str(resources.keys.path),
            "listeners": self._listeners(),
            "tickets": resources.tickets.status(),
            "peers": await peers_status(tuple(self.keying.peers.values()), self.dataplane),
            "counters": self.counters(),
        }

    def _tun(self) -> Tun:
        mtu = self.resources.tun_settings.mtu
        assert mtu is not None, "settled at the start"
        addresses = [str(address) for address in self.configuration.tun.addresses]
        return {"name": self.resources.tun.name, "mtu": mtu, "addresses": addresses}

    def _listeners(self) -> Listeners:
        return {
            "kink": [spell(endpoint) for endpoint in self.resources.transport.local],
            "esp": list(dict.fromkeys(map(spell, self.resources.link.local))),
        }

    def counters(self) -> Counters:
        """What both planes counted."""
        return counters(self.keying.counted(), self.dataplane.totals(), self.dataplane.link_statistics())

    async def peer(self, name: str) -> Peer:
        """One of ``peers``."""
        (found,) = await peers_status([self.keying.peers[name]], self.dataplane)
        return found

    async def sas(self) -> list[Sa]:
        """Those that are installed, with what keying knows of each."""
        return await sas_status(self.dataplane, self.keying.whose)

    async def probe(self, peer: str) -> float:
        """Seconds that its STATUS took. Raises ProbeFailed."""
        with trio.move_on_after(PROBE_SECONDS):
            return await self.keying.probe(peer)
        raise ProbeFailed(f"no answer within {PROBE_SECONDS:g} s")

    async def rekey(self, peer: str | None) -> list[NegotiatedPolicy]:
        """What has new SAs now. Raises RekeyFailed."""
        with trio.move_on_after(REKEY_SECONDS):
            return await self.keying.rekey(peer)
        raise RekeyFailed(f"no answer within {REKEY_SECONDS:g} s; the daemon goes on trying")

    async def up(self, peer: str) -> list[NegotiatedPolicy]:
        """How its policies stand, all of them with SAs. Raises RekeyFailed."""
        with trio.move_on_after(REKEY_SECONDS):
            return await self.keying.up(peer)
        raise RekeyFailed(f"no answer within {REKEY_SECONDS:g} s; the daemon goes on trying")

    async def down(self, peer: str) -> None:
        """No SAs with it, until :meth:`up`."""
        self.keying.down(peer)

    async def reload(self) -> Reloaded:
        """What has become of each peer. Raises ReloadRefused."""
        return await self.reloading()

    async def stop(self) -> int:
        """Have it end in order; its pid, to wait for."""
        log.info("down")
        self.stopping.set()
        return os.getpid()
