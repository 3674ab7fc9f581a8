"""A gateway for people on the laboratory's host b, and alice's laptop in place of host a: nothing of ours is configured
there, and she has its files for herself (/etc/hosts, /etc/resolv.conf, /run/kinkvpn), in a mount namespace.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from support.lab import kinit, status, wait
from support.unprivileged import USER, wrapper

from kinkvpn.api.client import Client
from kinkvpn.api.control import ControlUnavailable, NotRunning
from kinkvpn.demo.lab import KDC_ADDRESS, START_SECONDS, UPLINK, WIRE, Host, kinkvpn
from kinkvpn.demo.namespace import Namespace, join

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kinkvpn.demo.lab import Lab
    from kinkvpn.demo.realm import Realm

GATEWAY = "b.kinkvpn.test"
PASSWORD = "Correct horse, 7 battery staples"  # which Active Directory finds complex enough
HOST_S_DNS = "nameserver 192.0.2.53\n"
LENT = "10.8.0.0/24"
COMMAND_SECONDS = 60.0
PEOPLE = """
[people]
addresses = ["10.8.0.0/24", "fd00:8::/64"]
routes = ["10.2.0.0/24", "fd00:2::/64"]
dns = "10.2.0.53"
domains = "kinkvpn.test"
{more}
[[people.allow]]
{rule}
"""


def open_gateway(host: Host, rule: str = 'who = "*@KINKVPN.TEST"', more: str = "") -> None:
    """Has ``host`` know no peers, and let in whom the rule says."""
    text = re.sub(r"^\[\[peer\]\].*", "", host.configuration.read_text(), flags=re.MULTILINE | re.DOTALL)
    host.configuration.write_text(text + PEOPLE.format(rule=rule, more=more))


class Laptop:
    """Somebody's, who has nothing but what kinit gets her.

    Args:
        lab: where they are.
        name: of the person, in the laboratory's realm.
        host: where the laptop is on the network; None for host a.
    """

    def __init__(self, lab: Lab, name: str = "alice", host: Host | None = None) -> None:
        self.lab, self.host, self.name = lab, host or lab.hosts[0], name
        self.principal = f"{name}@{lab.realm.name}"
        self.directory = self.host.configuration.parent / name
        self.directory.mkdir(exist_ok=True)
        self.ccache = self.directory / "ccache"
        self.resolv_conf = self.directory / "resolv.conf"
        self.log = self.host.log
        self.process: subprocess.Popen[str] | None = None
        run = self.directory / "run"
        run.mkdir(exist_ok=True)
        self.socket = run / "kinkvpn.sock"
        self.resolv_conf.write_text(HOST_S_DNS)
        machine = hashlib.sha256(f"{self.host.name} of {name}".encode()).hexdigest()[:32]
        (self.directory / "machine-id").write_text(f"{machine}\n")
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost\n{lab.hosts[1].site.wire} {GATEWAY}\n")

    def exists(self) -> None:
        """In an MIT realm."""
        realm = cast("Realm", self.lab.realm)
        if self.principal not in realm.kadmin("listprincs").splitlines():
            realm.kadmin("addprinc", "-pw", PASSWORD, self.principal)

    def kinit(self, *arguments: str) -> None:
        """As she types it."""
        kinit(self.lab, self.host, self.ccache, *arguments, self.principal, stdin=f"{PASSWORD}\n")

    def command(self, *arguments: str) -> list[str]:
        """``kinkvpn`` with these, where her files are hers."""
        mounts = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf", "run": "/run/kinkvpn"}
        mounts["machine-id"] = "/etc/machine-id"
        lines = ["mkdir -p /run/kinkvpn", "[ -e /etc/machine-id ] || : >/etc/machine-id"]
        lines += [f"mount --bind {self.directory / name} {place}" for name, place in mounts.items()]
        script = "; ".join(["set -e", *lines, f"exec {shlex.join([*kinkvpn(), *arguments])}"])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    @property
    def environment(self) -> dict[str, str]:
        """Hers."""
        return self.lab.realm.environment | {"KRB5CCNAME": f"FILE:{self.ccache}", "PYTHONUNBUFFERED": "1"}

    def up(self, *arguments: str) -> None:
        """``kinkvpn up GATEWAY``; it answers a little later."""
        self.run("up", GATEWAY, *arguments)

    def run(self, *arguments: str, end: int | None = None) -> None:
        """``kinkvpn`` with these, in the background; it writes to its log, or to that ``end`` of a terminal."""
        with self.log.open("a") as log:
            out = log.fileno() if end is None else end
            self.process = self.host.namespace.spawn(
                self.command(*arguments), stdout=out, stderr=out, environment=self.environment
            )

    def refused(self, *arguments: str) -> str:
        """What it says instead, exit code 2."""
        done = self.host.namespace.spawn(
            self.command("up", GATEWAY, *arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            environment=self.environment,
        )
        _, errors = done.communicate(timeout=60)
        assert done.returncode == 2, errors
        return errors

    def status(self) -> dict[str, Any] | None:
        """Of her daemon; None while it does not answer."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            with Client(self.socket) as daemon:
                return daemon.status()
        except (NotRunning, ControlUnavailable):
            return None

    def established(self) -> bool:
        """Whether every policy of hers is."""
        status = self.status()
        return bool(status) and all(
            policy["state"] == "established" for peer in status["peers"] for policy in peer["policies"]
        )

    def wait_up(self) -> None:
        """Until it is."""
        wait(self.lab, self.host, self.established, "is not in the gateway's network", START_SECONDS)

    def address(self, version: int = 4) -> str:
        """That was lent."""
        status = self.status()
        assert status is not None
        addresses: Sequence[str] = status["tun"]["addresses"]
        return next(one.partition("/")[0] for one in addresses if (":" in one) == (version == 6))

    def stop(self) -> None:
        """Ctrl-C."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, self.log.read_text()

    def kill(self) -> None:
        """The machine is gone."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()


@contextmanager
def laptop(lab: Lab, name: str = "alice", host: Host | None = None) -> Iterator[Laptop]:
    """One that is gone at the end, however that comes."""
    found = Laptop(lab, name, host)
    try:
        yield found
    finally:
        found.kill()


class Walker:
    """Somebody on the laptop's host with a number and no account, no capability, and nothing but what kinit gets.

    Args:
        lab: where they are.
        directory: for files; others may enter it.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.host = lab.hosts[0]
        self.home = directory / "home"
        mounts = directory / "mounts"
        for each in (self.home, mounts):
            each.mkdir()
        os.chown(self.home, USER, USER)
        (self.home / "hosts").write_text(f"127.0.0.1 localhost\n{lab.hosts[1].site.wire} {GATEWAY}\n")
        (self.home / "krb5.conf").write_text(lab.realm.krb5_conf.read_text())
        before = [f"mount --bind {self.home}/hosts /etc/hosts"]
        self._prefix = [*self.host.namespace.prefix, *wrapper(mounts, before=before)]
        self.environment = lab.realm.environment | {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home),
            "KRB5_CONFIG": f"{self.home}/krb5.conf",
            "KRB5CCNAME": f"FILE:{self.home}/ccache",
        }

    def types(self, *command: str, stdin: str = "") -> str:
        """What it writes, once it is done and so are those who hold its output."""
        with self.typing(*command) as process:
            output, errors = process.communicate(stdin, COMMAND_SECONDS)
        assert process.returncode == 0, errors
        return output

    @contextmanager
    def typing(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """While the block runs."""
        process = subprocess.Popen(
            [*self._prefix, *command],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@contextmanager
def another_host(lab: Lab) -> Iterator[Host]:
    """A further one, on a network of its own behind host b, and with its own way to the KDC."""
    gateway = lab.hosts[1]
    site = replace(lab.hosts[0].site, name="desk", wire="203.0.113.2", uplink="198.51.100.44")
    directory = lab.hosts[0].configuration.parent.parent / site.name
    directory.mkdir(exist_ok=True)
    with Namespace(site.name) as namespace:
        join(namespace, UPLINK, lab.kdc, site.name)
        namespace.ip(f"address add {site.uplink} peer {KDC_ADDRESS} dev {UPLINK}")
        lab.kdc.ip(f"address add {KDC_ADDRESS} peer {site.uplink} dev {site.name}")
        join(namespace, WIRE, gateway.namespace, site.name)
        gateway.namespace.ip(f"address add 203.0.113.1/30 dev {site.name}")
        namespace.ip(f"address add {site.wire}/30 dev {WIRE}", f"route add {gateway.site.wire} via 203.0.113.1")
        yield Host(site, directory, namespace, lab.realm)


def guests(gateway: Host) -> list[str]:
    """Principals that the gateway's daemon has as peers."""
    return [str(peer["principal"]) for peer in status(gateway)["peers"]]
