"""The daemon's configuration: TOML in, frozen validated objects out, every error at once with its key and line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from esp.offload import Offload, Offloads
from esp.policy import covers
from esp.sa import Endpoint, Mode, SecurityProtocol
from kinkvpn import values
from kinkvpn.document import Document, DocumentError, Problem, Table, Unexpected, read_file
from kinkvpn.options import Options, read_options
from kinkvpn.proto.create import MAX_QUICK_MODES
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.proto.settings import Esn, PeerSettings, PolicySettings, PrfForm, Start, UserToUser
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.traffic import (
    MAXIMUM_POLICIES,
    Order,
    check_hosts,
    overlaps,
    read_policy,
    read_selectors,
    show_selector,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esp.policy import Policy, Selector
    from kinkvpn.values import Interface

E = TypeVar("E", bound=Enum)

DEFAULT_PATH = Path("/etc/kinkvpn/kinkvpn.toml")

# specification
KINK_PORT = 910  # RFC 4430 §9
ESP_PORT = 4500  # RFC 3947 §4, RFC 3948 §2.2
IPV4_MINIMUM_MTU = 576  # every host takes a datagram of this size (RFC 791 §3.1)
IPV6_MINIMUM_MTU = 1280  # RFC 8200 §5

# ours
MAXIMUM_MTU = 65400  # sealed with the widest suite it still fits the 65,507 octets of a UDP datagram over IPv4
MAXIMUM_QUEUES = 16  # as the native engine has it (MAX_LANES)
MAXIMUM_SILENCE = 3600  # seconds; a peer that may be dead for longer than an hour need not be watched


class EngineChoice(Enum):
    """Which ESP engine runs."""

    AUTO = "auto"
    PORTABLE = "portable"
    NATIVE = "native"


class CipherLibrary(Enum):
    """Who seals and opens for the native engine."""

    AUTO = "auto"
    OPENSSL = "openssl"
    IPSEC_MB = "ipsec-mb"


class LogLevel(Enum):
    """Least severe record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """This host in Kerberos. At least one of ``keytab``, ``client_keytab`` and ``ccache`` is there.

    Args:
        principal: ``primary/instance@REALM`` or ``name@REALM``.
        keytab: what AP-REQs are accepted with, and credentials got with where nothing else is given. Without it this
            host answers to user-to-user tickets alone.
        client_keytab: what credentials are got with when it is not ``keytab``.
        ccache: a credential cache as libkrb5 names it.
        krb5_config: instead of the system's krb5.conf.
        kdc_timeout: seconds that one KDC exchange may take.
        replay_cache: a libkrb5 replay cache name.
    """

    principal: str
    keytab: Path | None = None
    client_keytab: Path | None = None
    ccache: str | None = None
    krb5_config: Path | None = None
    kdc_timeout: float = 5.0
    replay_cache: str = "dfl:"

    @property
    def initiator_keytab(self) -> Path | None:
        """What credentials are got with. A ``ccache`` alone is somebody else's to keep fresh; with a
        ``client_keytab`` it is where ours go.
        """
        return self.client_keytab or (None if self.ccache else self.keytab)


@dataclass(frozen=True, slots=True)
class KinkSettings:
    """Where KINK listens.

    Args:
        listen: addresses.
        port: for KINK by itself; KINK behind the non-ESP marker comes to the ESP port.
        over: what a peer's ``kink_over`` is where it says nothing; ESP_PORT leaves ``port`` alone altogether.
    """

    listen: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 # a VPN gateway is reached from anywhere
    port: int = KINK_PORT
    over: KinkOver = KinkOver.AUTO


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Which engine moves packets.

    Args:
        choice: AUTO takes the native one where it is built.
        library: of the native one; AUTO is the fastest for each suite.
        queues: of the native one, each a thread; None is one for each core.
    """

    choice: EngineChoice = EngineChoice.AUTO
    library: CipherLibrary = CipherLibrary.AUTO
    queues: int | None = 1


@dataclass(frozen=True, slots=True)
class EspSettings:
    """Where ESP listens and what moves it."""

    port: int = ESP_PORT
    engine: EngineSettings = EngineSettings()
    hop_limit: int | None = None  # of outer headers; None is the kernel's


class Switch(Enum):
    """Whether something is used where it is of use."""

    AUTO = "auto"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class TunSettings:
    """The TUN device.

    Args:
        mtu: octets; None is what the paths to the peers leave room for.
        routes: every policy's remote subnet is routed into it.
        table: of those routes, where the main table does not do, and the priority of the rules that go with it.
    """

    name: str = "kink0"
    addresses: tuple[Interface, ...] = ()
    mtu: int | None = None
    clamp_mss: bool = True
    routes: bool = True
    table: int = 910


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where ``kinkvpn status`` and ``kinkvpn down`` find the daemon."""

    socket: Path = Path("/run/kinkvpn/kinkvpn.sock")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how. ``keys``: a file for the keys of every SA, which is nobody's normal wish."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.TEXT
    keys: Path | None = None


@dataclass(frozen=True, slots=True)
class PeerConfiguration:
    """A peer as it was written down: ``address`` may still be a DNS name, and is empty where there is none."""

    name: str
    principal: str
    address: str
    port: int
    esp_port: int
    prf: PrfForm
    user_to_user: UserToUser
    delete_grace: float
    kink_over: KinkOver
    extensions: bool
    sas_per_create: int
    probe_after: float | None
    dead_after: float
    path_probe: bool
    policies: tuple[PolicySettings, ...]

    def settings(self, address: str) -> PeerSettings:
        """What the machines use, with ``address`` in text form, IPv4 or IPv6, or empty."""
        return PeerSettings(
            name=self.name,
            principal=self.principal,
            kink=Endpoint(address, self.port),
            esp=Endpoint(address, self.esp_port),
            policies=self.policies,
            prf=self.prf,
            user_to_user=self.user_to_user,
            delete_grace=self.delete_grace,
            kink_over=self.kink_over,
            extensions=self.extensions,
            sas_per_create=self.sas_per_create,
            probe_after=self.probe_after,
            dead_after=self.dead_after,
            path_probe=self.path_probe,
        )


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
    kink = _kink(root.table("kink"))
    taken = _Taken()
    before, after = _exceptions(root, taken)
    configuration = Configuration(
        host=_host(root.table("host"), source.parent),
        kink=kink,
        esp=_esp(root.table("esp")),
        tun=read_tun(root.table("tun")),
        offload=read_offload(root.table("offload")),
        control=_control(root.table("control"), source.parent),
        log=_log(root.table("log"), source.parent),
        peers=_peers(root, kink, taken),
        before=before,
        after=after,
    )
    if configuration.kink.port == configuration.esp.port:
        written = "esp" if "port" in document.root.get("esp", {}) else "kink"
        root.report(f"kink.port and esp.port are both {configuration.esp.port}: expected two ports", (written, "port"))
    root.close()
    document.raise_problems()
    return configuration


def engine_settings(configured: EngineSettings, environment: Mapping[str, str]) -> EngineSettings:
    """``configured``, unless ESP_ENGINE or ESP_CIPHER_LIBRARY in the environment say otherwise.

    Raises:
        DocumentError: they name nothing that there is; both at once.
    """
    problems: list[Problem] = []

    def chosen(name: str, configured: E) -> E:
        value = environment.get(name)
        try:
            return values.one_of(type(configured))(value) if value else configured
        except Unexpected as expected:
            problems.append(Problem(0, f'{name} = "{value}": expected {expected}'))
            return configured

    settings = replace(
        configured,
        choice=chosen("ESP_ENGINE", configured.choice),
        library=chosen("ESP_CIPHER_LIBRARY", configured.library),
    )
    if problems:
        raise DocumentError("environment", problems)
    return settings


# Sections.


def _host(table: Table, directory: Path) -> HostSettings:
    path = values.file_path(directory)
    host = HostSettings(
        principal=table.require("principal", values.principal, "", "one such as kink/gw.example.com@EXAMPLE.COM"),
        keytab=table.get("keytab", path, None),
        client_keytab=table.get("client_keytab", path, None),
        ccache=table.get("ccache", values.cache_name, None),
        krb5_config=table.get("krb5_config", path, None),
        kdc_timeout=table.get("kdc_timeout", values.seconds(0.1, 60), 5.0),
        replay_cache=table.get("replay_cache", values.replay_cache, "dfl:"),
    )
    if not any(key in table for key in ("keytab", "client_keytab", "ccache")):
        table.report('host.keytab is missing: expected keytab = "/etc/krb5.keytab", or client_keytab, or ccache')
    table.close()
    return host


def _kink(table: Table) -> KinkSettings:
    default = KinkSettings()
    settings = KinkSettings(
        listen=table.items("listen", values.ip_address, default.listen),
        port=table.get("port", values.port, default.port),
        over=table.get("over", values.one_of(KinkOver), default.over),
    )
    table.close()
    return settings


def _esp(table: Table) -> EspSettings:
    settings = EspSettings(
        port=table.get("port", values.port, ESP_PORT),
        engine=read_engine(table),
        hop_limit=table.get("hop_limit", values.integer(1, 255), None),
    )
    table.close()
    return settings


def read_engine(table: Table) -> EngineSettings:
    """What [esp], of any file that has one, says of the engine."""
    default = EngineSettings()
    return EngineSettings(
        table.get("engine", values.one_of(EngineChoice), default.choice),
        table.get("cipher_library", values.one_of(CipherLibrary), default.library),
        table.get("queues", values.automatic(1, MAXIMUM_QUEUES), default.queues),
    )


def read_tun(table: Table) -> TunSettings:
    """[tun], of any file that has one."""
    default = TunSettings()
    addresses = table.items("addresses", values.interface)
    least = IPV6_MINIMUM_MTU if any(address.version == 6 for address in addresses) else IPV4_MINIMUM_MTU
    settings = TunSettings(
        name=table.get("name", values.device_name, default.name),
        addresses=addresses,
        mtu=table.get("mtu", values.automatic(least, MAXIMUM_MTU), default.mtu),
        clamp_mss=table.get("clamp_mss", values.boolean, default.clamp_mss),
        routes=table.get("routes", values.boolean, default.routes),
        table=table.get("table", values.routing_table, default.table),
    )
    table.close()
    return settings


def read_offload(table: Table) -> Offloads:
    """[offload], of any file that has one: those that may be used."""
    switches = {each.value: table.get(each.value, values.one_of(Switch), Switch.AUTO) for each in Offload}
    table.close()
    return Offloads(**{name: switch is Switch.AUTO for name, switch in switches.items()})


def _control(table: Table, directory: Path) -> ControlSettings:
    settings = ControlSettings(socket=table.get("socket", values.socket_path(directory), ControlSettings().socket))
    table.close()
    return settings


def _log(table: Table, directory: Path) -> LogSettings:
    settings = LogSettings(
        level=table.get("level", values.one_of(LogLevel), LogLevel.INFO),
        format=table.get("format", values.one_of(LogFormat), LogFormat.TEXT),
        keys=table.get("keys", values.file_path(directory), None),
    )
    table.close()
    return settings


# Peers and policies.


@dataclass(slots=True)
class _Taken:
    """What one peer or policy of a file may have only, and who has it."""

    values: dict[tuple[str, str, str | Endpoint], str] = field(default_factory=dict)
    policies: list[tuple[PolicySettings, Table]] = field(default_factory=list)
    before: list[tuple[Policy, Table]] = field(default_factory=list)

    def claim(self, table: Table, key: str, value: str | Endpoint, owner: str, kind: str = "peer") -> None:
        """``owner``, one of its ``kind``, wants ``value`` for ``key``. An empty one was reported already."""
        shown = value.address if isinstance(value, Endpoint) else value
        holder = self.values.get((kind, key, value))
        if shown and holder:
            table.report_value((key,), shown, f"one of its own; {holder} has this one")
        self.values[kind, key, value] = holder or owner


def _exceptions(root: Table, taken: _Taken) -> tuple[tuple[Policy, ...], tuple[Policy, ...]]:
    """What does not protect: ahead of the peers' policies, and behind them."""
    listed: dict[Order, list[Policy]] = {order: [] for order in Order}
    for number, entry in enumerate(root.tables("policy"), 1):
        found = read_policy(entry, number)
        if found is not None:
            policy, order = found
            taken.claim(entry, "name", policy.name, entry.name, kind="policy")
            listed[order].append(policy)
            if order is Order.BEFORE:
                taken.before.append((policy, entry))
    return tuple(listed[Order.BEFORE]), tuple(listed[Order.AFTER])


def _peers(root: Table, kink: KinkSettings, taken: _Taken) -> tuple[PeerConfiguration, ...]:
    tables = root.tables("peer")
    if "peer" not in root:
        root.report("peer is missing: expected at least one [[peer]]")
    peers = tuple(_peer(table, taken, kink) for table in tables)
    _check_overlaps(taken.policies)
    _check_reached(taken)
    return peers


def _peer(table: Table, taken: _Taken, kink: KinkSettings) -> PeerConfiguration:
    name = table.require("name", values.label, "", "a short name for this peer")
    taken.claim(table, "name", name, table.name)
    namespace = name if table.sound else table.name  # what follows from a bad name is not worth a line of its own
    extensions = table.get("extensions", values.boolean, True)
    peer = PeerConfiguration(
        name=name,
        principal=table.require("principal", values.principal, "", "one such as kink/gw.example.com@EXAMPLE.COM"),
        address=table.get("address", values.host_address, ""),
        port=table.get("port", values.port, KINK_PORT),
        esp_port=table.get("esp_port", values.port, ESP_PORT),
        prf=table.get("prf", values.one_of(PrfForm), PrfForm.RFC3961),
        user_to_user=table.get("user_to_user", values.one_of(UserToUser), UserToUser.AUTO),
        delete_grace=table.get("delete_grace", values.seconds(0, 300), 5.0),
        kink_over=table.get("kink_over", values.one_of(KinkOver), kink.over),
        extensions=extensions,
        sas_per_create=table.get("sas_per_create", values.integer(1, MAX_QUICK_MODES), MAX_QUICK_MODES),
        # 0 has a meaning of its own: never.
        probe_after=table.get("probe_after", values.seconds(0, MAXIMUM_SILENCE), 10.0) or None,
        dead_after=table.get("dead_after", values.seconds(1, MAXIMUM_SILENCE), FULL_CYCLE),
        path_probe=table.get("path_probe", values.boolean, True),
        policies=_policies(table, namespace, taken, extensions=extensions),
    )
    _check_reachable(table, peer, kink)
    taken.claim(table, "principal", peer.principal, f"peer {peer.name}")
    taken.claim(table, "address", Endpoint(peer.address, peer.port), f"peer {peer.name}")
    table.close()
    return peer


def _check_reachable(table: Table, peer: PeerConfiguration, kink: KinkSettings) -> None:
    """What cannot come about: nothing is sent to who has no address, nor from a port that is not bound."""
    booted = any(policy.start is Start.BOOT for policy in peer.policies)
    if "address" not in table and booted:
        table.report(f'{table.name}.address is missing: expected one, for start = "boot" sends the first message there')
    covered = any(each.protocol is SecurityProtocol.AH and each.mode is Mode.TUNNEL for each in peer.policies)
    if "address" not in table and covered:
        table.report(f'{table.name}.address is missing: expected one, for ipsec = "ah" covers the way there')
    if not peer.extensions and any(policy.aggregation for policy in peer.policies):
        table.report_value(("extensions",), False, "true, for iptfs_rate is agreed on by an extension")
    if kink.over is KinkOver.ESP_PORT and peer.kink_over is KinkOver.KINK_PORT:
        table.report_value(("kink_over",), peer.kink_over.value, 'another, for kink.over = "4500" opens no port 910')


def _policies(table: Table, peer: str, taken: _Taken, *, extensions: bool) -> tuple[PolicySettings, ...]:
    """One policy per pair of subnets of one family."""
    # Attribute 11 is none of RFC 4430 §5.1, which is all that a peer without extensions is to see.
    inherited = read_options(table, Options(esn=Esn.AUTO if extensions else Esn.NEVER))
    send_ids = table.get("send_ids", values.boolean, True)
    entries = table.tables("policy")
    if not entries and table.sound:
        table.report(f"{table.name}.policy is missing: expected at least one [[peer.policy]]")
    policies: list[PolicySettings] = []
    for entry in entries:
        options = read_options(entry, inherited)
        given = entry.get("name", values.label, "")
        selectors = read_selectors(entry, MAXIMUM_POLICIES - len(taken.policies))
        if options.mode is Mode.TRANSPORT:
            check_hosts(entry, selectors)
        entry.close()
        for number, selector in enumerate(selectors, 1):
            own = f"{given}/{number}" if len(selectors) > 1 else given
            name = own if given else f"{peer}/{len(policies) + 1}"
            together = entry.name if options.together else ""
            policy = _policy(name, selector, options, send_ids=send_ids, entry=together)
            taken.claim(entry, "name", policy.name, entry.name, kind="policy")
            taken.policies.append((policy, entry))
            policies.append(policy)
    return tuple(policies)


def _policy(name: str, selector: Selector, options: Options, *, send_ids: bool, entry: str) -> PolicySettings:
    return PolicySettings(
        name=name,
        selector=selector,
        suites=options.suites,
        legacy=options.legacy,
        protocol=options.ipsec,
        mode=options.mode,
        encapsulation=options.encapsulation,
        lifetime_seconds=options.lifetime,
        lifetime_kilobytes=options.lifetime_kilobytes,
        lifetime_packets=options.lifetime_packets,
        replay_window=options.replay_window,
        esn=options.esn if options.replay_window else Esn.NEVER,
        start=options.start,
        confidentiality=options.shape.confidentiality(),
        aggregation=options.shape.aggregation(),
        headers=options.headers,
        pfs=options.pfs,
        pfs_required=options.pfs_required,
        responder_nonce=options.responder_nonce,
        send_ids=send_ids,
        entry=entry,
    )


def _check_reached(taken: _Taken) -> None:
    """What somebody thinks is protected would go in the clear where something before it has all of it."""
    for passing, entry in taken.before:
        for policy, _ in taken.policies:
            if any(covers(one, policy.selector) for one in passing.selectors):
                entry.report(
                    f"{entry.name}: leaves nothing of policy {policy.name} ({show_selector(policy.selector)}): "
                    'expected a part of it, or order = "after"'
                )


def _check_overlaps(policies: list[tuple[PolicySettings, Table]]) -> None:
    """Traffic that two policies want belongs to neither for certain."""
    order = {id(policy): index for index, (policy, _) in enumerate(policies)}
    for pair in overlaps(policies, lambda claimed: claimed[0].selector):
        (first, _), (second, entry) = sorted(pair, key=lambda item: order[id(item[0])])
        entry.report(
            f"{entry.name}: policy {second.name} ({show_selector(second.selector)}) overlaps "
            f"policy {first.name} ({show_selector(first.selector)}): expected traffic that one policy has"
        )
