"""The daemon's configuration: TOML in, frozen validated objects out, every error at once with its key and line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.config.claims import Claims
from kinkvpn.config.control import ControlSettings, read_control
from kinkvpn.config.dns import NO_DNS, DnsSettings, read_dns
from kinkvpn.config.esp import EspSettings, read_esp
from kinkvpn.config.hooks import HookSettings, read_hooks
from kinkvpn.config.host import HostSettings, read_host
from kinkvpn.config.kink import KinkSettings, read_kink
from kinkvpn.config.log import LogSettings, read_log
from kinkvpn.config.offload import read_offload
from kinkvpn.config.peer import PeerConfiguration, read_peer
from kinkvpn.config.people import NOBODY, PeopleSettings, read_people
from kinkvpn.config.tun import TunSettings, read_tun
from kinkvpn.document import Document, Table, read_file
from kinkvpn.traffic import Order, read_policy

if TYPE_CHECKING:
    from esp.offload import Offloads
    from esp.policy import Policy
    from kinkvpn.proto.settings import PolicySettings

DEFAULT_PATH = Path("/etc/kinkvpn/kinkvpn.toml")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that a daemon is told.

    Args:
        before, after: what is bypassed or discarded, in order, ahead of the peers' policies and behind them.
    """

    host: HostSettings
    kink: KinkSettings
    esp: EspSettings
    tun: TunSettings
    offload: Offloads
    control: ControlSettings
    log: LogSettings
    peers: tuple[PeerConfiguration, ...]
    before: tuple[Policy, ...] = ()
    after: tuple[Policy, ...] = ()
    dns: DnsSettings = NO_DNS
    hooks: HookSettings = field(default_factory=HookSettings)
    people: PeopleSettings = NOBODY

    @property
    def policies(self) -> tuple[PolicySettings, ...]:
        """Every peer's, in order."""
        return tuple(policy for peer in self.peers for policy in peer.policies)


def load(path: Path) -> Configuration:
    """Read the file at ``path``.

    Raises:
        DocumentError: it cannot be read or is not a valid configuration; every problem at once.
    """
    return parse(read_file(path, "configuration"), path)


def parse(text: str, source: Path) -> Configuration:
    """Validate ``text``; relative paths in it start at the directory of ``source``.

    Raises:
        DocumentError: every problem at once.
    """
    document = Document.parse(text, str(source))
    root = Table(document, (), document.root)
    kink = read_kink(root.table("kink"))
    claims = Claims()
    before, after = _exceptions(root, claims)
    people = read_people(root.table("people"))
    configuration = Configuration(
        host=read_host(root.table("host"), source.parent),
        kink=kink,
        esp=read_esp(root.table("esp")),
        tun=replace(read_tun(root.table("tun")), lent=people.pool),
        offload=read_offload(root.table("offload")),
        control=read_control(root.table("control"), source.parent),
        log=read_log(root.table("log"), source.parent),
        peers=_peers(root, kink, claims),
        before=before,
        after=after,
        dns=read_dns(root.table("dns"), source.parent),
        hooks=read_hooks(root.table("hooks")),
        people=people,
    )
    if configuration.kink.port == configuration.esp.port:
        written = "esp" if "port" in document.root.get("esp", {}) else "kink"
        root.report(f"kink.port and esp.port are both {configuration.esp.port}: expected two ports", (written, "port"))
    root.close()
    document.raise_problems()
    return configuration


def _exceptions(root: Table, claims: Claims) -> tuple[tuple[Policy, ...], tuple[Policy, ...]]:
    """What does not protect: ahead of the peers' policies, and behind them."""
    listed: dict[Order, list[Policy]] = {order: [] for order in Order}
    for number, entry in enumerate(root.tables("policy"), 1):
        found = read_policy(entry, number)
        if found is not None:
            policy, order = found
            claims.claim(entry, "name", policy.name, entry.name, kind="policy")
            listed[order].append(policy)
            if order is Order.BEFORE:
                claims.before.append((policy, entry))
    return tuple(listed[Order.BEFORE]), tuple(listed[Order.AFTER])


def _peers(root: Table, kink: KinkSettings, claims: Claims) -> tuple[PeerConfiguration, ...]:
    tables = root.tables("peer")
    if "peer" not in root and "people" not in root:
        root.report("peer is missing: expected at least one [[peer]]")
    peers = tuple(read_peer(table, claims, kink) for table in tables)
    claims.check()
    return peers
