"""The daemon's configuration: TOML in, frozen validated objects out, every error at once with its key and line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.config.claims import Claims
from kinkvpn.config.clear import Block, ClearSettings, read_clear
from kinkvpn.config.control import ControlSettings, read_control
from kinkvpn.config.dns import NO_DNS, DnsSettings, read_dns
from kinkvpn.config.esp import EspSettings, read_esp
from kinkvpn.config.files import Root, read_files, read_text
from kinkvpn.config.hooks import HookSettings, read_hooks
from kinkvpn.config.host import HostSettings, read_host, realm_of
from kinkvpn.config.kink import KinkSettings, read_kink
from kinkvpn.config.log import LogSettings, read_log
from kinkvpn.config.metrics import MetricsSettings, read_metrics
from kinkvpn.config.offload import read_offload
from kinkvpn.config.peer import PeerConfiguration, read_peer
from kinkvpn.config.people import NOBODY, PeopleSettings, read_people
from kinkvpn.config.tun import TunSettings, read_tun
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
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    dns: DnsSettings = NO_DNS
    hooks: HookSettings = field(default_factory=HookSettings)
    people: PeopleSettings = NOBODY
    clear: ClearSettings = field(default_factory=ClearSettings)

    @property
    def policies(self) -> tuple[PolicySettings, ...]:
        """Every peer's, in order."""
        return tuple(policy for peer in self.peers for policy in peer.policies)


def load(path: Path) -> Configuration:
    """Read the file at ``path``.

    Raises:
        DocumentError: it cannot be read or is not a valid configuration; every problem at once.
    """
    return _configuration(read_files(path))


def parse(text: str, source: Path) -> Configuration:
    """Validate ``text``; relative paths in it start at the directory of ``source``.

    Raises:
        DocumentError: every problem at once.
    """
    return _configuration(read_text(text, source))


def _configuration(root: Root) -> Configuration:
    at_kink, at_esp = root.table("kink"), root.table("esp")
    kink = read_kink(at_kink)
    claims = Claims()
    before, after = _exceptions(root, claims)
    host = read_host(root.table("host"))
    people = read_people(root.table("people"))
    claims.lent = people.lent()
    configuration = Configuration(
        host=host,
        kink=kink,
        esp=read_esp(at_esp),
        tun=replace(read_tun(root.table("tun")), lent=people.pool),
        offload=read_offload(root.table("offload")),
        control=read_control(root.table("control")),
        log=read_log(root.table("log")),
        peers=_peers(root, kink, host, claims),
        before=before,
        after=after,
        metrics=read_metrics(root.table("metrics")),
        dns=read_dns(root.table("dns")),
        hooks=read_hooks(root.table("hooks")),
        people=people,
        clear=read_clear(root.table("clear")),
    )
    if configuration.kink.port == configuration.esp.port:
        written = at_esp if "port" in at_esp else at_kink
        written.report(f"kink.port and esp.port are both {configuration.esp.port}: expected two ports", ("port",))
    if configuration.clear.block is not Block.NOTHING and not configuration.esp.port:
        at_esp.report_value(("port",), "any", "a number, for clear.block lets out what leaves from it")
    root.close()
    return configuration


def _exceptions(root: Root, claims: Claims) -> tuple[tuple[Policy, ...], tuple[Policy, ...]]:
    """What does not protect: ahead of the peers' policies, and behind them."""
    listed: dict[Order, list[Policy]] = {order: [] for order in Order}
    for number, entry in enumerate(root.tables("policy"), 1):
        found = read_policy(entry, number)
        if found is not None:
            policy, order = found
            claims.claim(entry, "name", policy.name, kind="policy")
            listed[order].append(policy)
            if order is Order.BEFORE:
                claims.before.append((policy, entry))
    return tuple(listed[Order.BEFORE]), tuple(listed[Order.AFTER])


def _peers(root: Root, kink: KinkSettings, host: HostSettings, claims: Claims) -> tuple[PeerConfiguration, ...]:
    tables = root.tables("peer")
    if "peer" not in root and "people" not in root:
        root.report("peer is missing: expected at least one [[peer]]")
    peers = tuple(read_peer(table, claims, kink, realm_of(host.principal)) for table in tables)
    claims.check()
    return peers
