"""The laboratory: a KDC and two hosts, each in a network namespace of its own, and the daemons on the hosts.

                      KDC 198.51.100.88
                     /                 \\
       198.51.100.1 /                   \\ 198.51.100.2
              host a ------- wire ------- host b
         10.1.0.1     192.0.2.1  192.0.2.2     10.2.0.1
        fd00:1::1                              fd00:2::1

Kerberos has its own cables, so what passes on the wire is between the two hosts. The KDC's namespace forwards nothing:
there is no way around the wire. Addresses are those of RFC 5737 and RFC 4193.

Needs root. All that it makes is held by processes that die with their parent; the directory is the caller's.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, Final, Self

from kinkvpn.demo.namespace import LabFailed, Namespace, join
from kinkvpn.demo.realm import KerberosRealm, Realm, RealmFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from esp.policy import Network

KDC_ADDRESS: Final = "198.51.100.88"
KDC_PORT: Final = 88
WIRE: Final = "wire"
UPLINK: Final = "kdc"

START_SECONDS: Final = 60.0  # half a second on an idle machine; four were seen on a busy one of two cores
STATUS_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0  # two are promised, on a machine with nothing else to do
POLL_SECONDS: Final = 0.05
LOG_LINES: Final = 12  # the cause of most failures and the lines before it, on one screen

CONFIGURATION: Final = """\
[host]
principal = "{principal}"
keytab = "{directory}/keytab"
krb5_config = "{krb5_conf}"

[kink]
listen = ["{wire}"]

[esp]
engine = "{engine}"
queues = {queues}

[tun]
name = "kink0"
addresses = {inner}

[control]
socket = "{directory}/control"

[log]
level = "{level}"

[[peer]]
name = "{peer}"
principal = "{peer_principal}"
address = "{peer_wire}"
start = "{start}"
suites = {suites}

[[peer.policy]]
local = {local}
remote = {remote}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a host is: addresses on the wire, towards the KDC and inside the tunnel (with prefix length)."""

    name: str
    wire: str
    uplink: str
    inner: tuple[str, ...]

    @property
    def service(self) -> str:
        """Principal without its realm (RFC 4430 §4.2.1)."""
        return f"kink/{self.name}.kinkvpn.test"

    @property
    def wire_interface(self) -> str:
        """As ``ip address add`` takes it: two hosts, and nobody else to ask whether an IPv6 address is taken."""
        return f"{self.wire}/126 nodad" if ":" in self.wire else f"{self.wire}/30"

    @property
    def subnets(self) -> tuple[Network, ...]:
        return tuple(ip_interface(address).network for address in self.inner)

    def inner_address(self, version: int) -> str:
        """The one of that IP version, 4 or 6."""
        return next(str(a.ip) for a in map(ip_interface, self.inner) if a.version == version)


SITES: Final = (
    Site("a", "192.0.2.1", "198.51.100.1", ("10.1.0.1/24", "fd00:1::1/64")),
    Site("b", "192.0.2.2", "198.51.100.2", ("10.2.0.1/24", "fd00:2::1/64")),
)


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """What the daemons are told beyond who and where they are."""

    start: str = "demand"
    suites: tuple[str, ...] = ("aes256-gcm16",)
    engine: str = "auto"
    queues: int = 1
    level: str = "info"


def one_realm(directory: Path, prefix: Sequence[str]) -> Sequence[KerberosRealm]:
    """The laboratory's usual realm, with its KDC behind ``prefix``."""
    return (Realm(directory / "realm", KDC_PORT, addresses=(KDC_ADDRESS,), prefix=prefix),)


class Host:
    """One host of the laboratory, with its namespace, its keytab and its daemon.

    Args:
        site: where it is.
        directory: its files; exists already.
        namespace: already connected.
        realm: the realm that ``keytab`` in ``directory`` is of.
    """

    def __init__(self, site: Site, directory: Path, namespace: Namespace, realm: KerberosRealm) -> None:
        self.site = site
        self.namespace = namespace
        self.principal = f"{site.service}@{realm.name}"
        self.configuration = directory / "kinkvpn.toml"
        self.log = directory / "log"
        self._directory = directory
        self._realm = realm
        self._daemon: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def pid(self) -> int | None:
        """Of the daemon, from :meth:`start` to :meth:`stop`."""
        return self._daemon.pid if self._daemon else None

    def configure(self, peer: Host, options: DaemonOptions) -> None:
        """Writes the configuration file."""
        text = CONFIGURATION.format(
            directory=self._directory,
            krb5_conf=self._realm.krb5_conf,
            principal=self.principal,
            wire=self.site.wire,
            inner=json.dumps(self.site.inner),
            local=json.dumps([str(subnet) for subnet in self.site.subnets]),
            peer=peer.name,
            peer_principal=peer.principal,
            peer_wire=peer.site.wire,
            remote=json.dumps([str(subnet) for subnet in peer.site.subnets]),
            engine=options.engine,
            queues=options.queues,
            level=options.level,
            start=options.start,
            suites=json.dumps(options.suites),
        )
        self.configuration.write_text(text)

    def start(self, prefix: Sequence[str] = ()) -> None:
        """Starts ``kinkvpn up``, behind ``prefix`` if there is one; :meth:`status` answers a little later."""
        with self.log.open("a") as log:
            self._daemon = self.namespace.spawn(
                [*prefix, *kinkvpn(), "up", "-c", str(self.configuration)],
                stdout=log,
                stderr=log,
                environment=self._realm.environment | {"PYTHONUNBUFFERED": "1"},
            )

    def status(self) -> dict[str, Any] | None:
        """What ``kinkvpn status --json`` prints, or None while the daemon does not answer.

        Raises:
            LabFailed: the daemon has ended.
        """
        self.check_alive()
        command = [*kinkvpn(), "status", "--json", "-c", str(self.configuration)]
        asked = self.namespace.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            answer, _ = asked.communicate(timeout=STATUS_SECONDS)
        except subprocess.TimeoutExpired:
            asked.kill()
            asked.communicate()
            raise self.failed(f"no status within {STATUS_SECONDS:.0f} s") from None
        if asked.returncode:
            return None
        status = json.loads(answer)
        assert isinstance(status, dict)
        return status

    def answers(self) -> bool:
        """Whether the daemon is up. Raises LabFailed if it has ended."""
        return self.status() is not None

    def check_alive(self) -> None:
        """Raises LabFailed, with the end of its log, if the daemon was started and has ended by itself."""
        code = self._daemon.poll() if self._daemon else None
        if code is not None:
            raise self.failed(f"the daemon ended with exit code {code}")

    def stop(self, how: signal.Signals | None = signal.SIGTERM) -> float:
        """Sends the signal, unless something else has ended the daemon (None). Returns the seconds until it ended.

        Raises:
            LabFailed: it took longer than STOP_SECONDS or ended with another exit code than 0.
        """
        asked = how.name if how else "it was told to end"
        assert self._daemon is not None
        start = time.monotonic()
        if how:
            self.check_alive()
            self._daemon.send_signal(how)
        try:
            code = self._daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self.failed(f"the daemon still ran {STOP_SECONDS:.0f} s after {asked}") from None
        seconds = time.monotonic() - start
        self._daemon = None
        if code:
            raise self.failed(f"the daemon ended with exit code {code} after {asked}")
        return seconds

    def kill(self) -> None:
        """SIGKILL, if it runs: a crash, or the end of the laboratory."""
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            daemon.kill()
            daemon.wait()

    def failed(self, reason: str, advice: str = "") -> LabFailed:
        """The error to raise when this host is at fault, with the end of its daemon's log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return LabFailed(reason, host=self.name, advice=advice, log=lines[-LOG_LINES:])


class Lab:
    """Realm, namespaces and hosts; :meth:`close`, or the end of a ``with`` block, ends all of it.

    Steps in order: :meth:`start_realm`, :meth:`start_hosts`, :meth:`start_daemons`. From one thread that outlives it.

    Args:
        directory: where everything goes; the caller removes it.
        options: for the daemons.
        realms: makes them, for a directory and what to put before the command line of a KDC. Of two, host a is in
            the first and host b in the second.
        sites: where its hosts are.
        waiting: called every POLL_SECONDS while the laboratory waits for something.
    """

    def __init__(
        self,
        directory: Path,
        options: DaemonOptions | None = None,
        *,
        realms: Callable[[Path, Sequence[str]], Sequence[KerberosRealm]] = one_realm,
        sites: tuple[Site, Site] = SITES,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._options = options or DaemonOptions()
        self._sites = sites
        self._waiting = waiting
        self._undo = ExitStack()
        self.kdc = self._undo.enter_context(Namespace("kdc"))
        self.realms = realms(directory, self.kdc.prefix)
        self.realm = self.realms[0]
        self._realm_of = {site: self.realms[index % len(self.realms)] for index, site in enumerate(sites)}
        self.hosts: tuple[Host, Host]

    def start_realm(self) -> None:
        """The realms with a principal for each host, and their KDCs. Raises LabFailed."""
        self.kdc.ip(f"address add {KDC_ADDRESS} dev lo")
        try:
            for realm in self.realms:
                self._undo.callback(realm.stop)
                realm.start()
            for site, realm in self._realm_of.items():
                (self._directory / site.name).mkdir(mode=0o700)
                realm.add_service(site.service)
                realm.write_keytab(site.service, self._directory / site.name / "keytab")
        except RealmFailed as error:
            raise LabFailed(str(error), host="kdc") from error

    def start_hosts(self) -> None:
        """Both hosts, connected, configured. Raises LabFailed."""
        a, b = (self._host(site) for site in self._sites)
        join(a.namespace, WIRE, b.namespace, WIRE)
        a.configure(b, self._options)
        b.configure(a, self._options)
        for host in (a, b):
            host.namespace.ip(f"address add {host.site.wire_interface} dev {WIRE}")
        self.hosts = a, b

    def _host(self, site: Site) -> Host:
        namespace = self._undo.enter_context(Namespace(site.name))
        join(namespace, UPLINK, self.kdc, site.name)
        namespace.ip(f"address add {site.uplink} peer {KDC_ADDRESS} dev {UPLINK}")
        self.kdc.ip(f"address add {KDC_ADDRESS} peer {site.uplink} dev {site.name}")
        host = Host(site, self._directory / site.name, namespace, self._realm_of[site])
        self._undo.callback(host.kill)
        return host

    def start_daemons(self, prefix: Sequence[str] = ()) -> None:
        """Both daemons, behind ``prefix`` if there is one; returns when both answer. Raises LabFailed."""
        for host in self.hosts:
            host.start(prefix)
        for host in self.hosts:
            self.wait_until(host.answers, START_SECONDS, host, "does not answer")

    def wait_until(self, holds: Callable[[], bool], seconds: float, host: Host, otherwise: str) -> None:
        """Returns once ``holds()``; what that raises passes. Raises LabFailed, ``otherwise``, after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise host.failed(f"the daemon {otherwise} after {seconds:.0f} s")
            self._waiting()
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Ends daemons, KDC and namespaces, in this order."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def kinkvpn() -> Sequence[str]:
    """The command ``kinkvpn`` of this very installation."""
    return sys.executable, "-m", "kinkvpn"


def policies(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Every policy of every peer in a daemon's status."""
    return [policy for peer in status["peers"] for policy in peer["policies"]]


def inbound_spis(status: dict[str, Any]) -> frozenset[int]:
    """Every inbound SPI that a daemon's status names."""
    return frozenset(int(policy["spi_in"], 16) for policy in policies(status) if policy["spi_in"] is not None)
