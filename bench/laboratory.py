"""A gateway, ``kinkvpn up`` as it is, a crowd of initiators, and a KDC, in two namespaces.

   crowd 192.0.2.1 ------------ 192.0.2.2 gateway
198.18.0.0/16, an address for each client (RFC 2544); the KDC, on port 88
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final, Self

from bench.crowd import Client, Done, Phase, Plan
from kinkvpn.api import client as api
from kinkvpn.api.control import NotRunning
from kinkvpn.demo.lab import POLL_SECONDS, START_SECONDS, kinkvpn
from kinkvpn.demo.namespace import LabFailed, Namespace, join
from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

WIRE: Final = "wire"
CROWD_ADDRESS, GATEWAY_ADDRESS = "192.0.2.1", "192.0.2.2"
CLIENTS: Final = "198.18.0.0/16"
INSIDE: Final = IPv4Address("100.64.0.0")  # of the clients' ends of the tunnels (RFC 6598)
SUBNET: Final = "10.0.0.0/16"  # behind the gateway
KDC_PORT: Final = 88
GATEWAY: Final = "kink/gateway.kinkvpn.test"
LOG_LINES: Final = 12
MEMORY: Final = "/dev/shm"  # noqa: S108 - private directories in it, made by tempfile

GATEWAY_CONFIGURATION: Final = """\
[host]
principal = "{principal}"
keytab = "{directory}/gateway.keytab"
krb5_config = "{krb5_conf}"

[kink]
listen = ["{address}"]

[tun]
name = "kink0"
addresses = ["10.0.0.1/16"]
routes = false  # thousands of them would be the kernel's measurement

[control]
socket = "{directory}/control"
"""
PEER_CONFIGURATION: Final = """
[[peer]]
name = "{name}"
principal = "{principal}"
address = "{address}"
[[peer.policy]]
local = ["{subnet}"]
remote = {inside}
"""


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A directory for a laboratory, in memory where there is such: kadmin syncs each of thousands of writes to disk."""
    return tempfile.TemporaryDirectory(prefix="kinkvpn-bench-", dir=MEMORY if os.path.isdir(MEMORY) else None)


class Laboratory:
    """Realm, namespaces, gateway and crowd, up and with tickets at hand; a context manager.

    Args:
        directory: where everything goes; the caller removes it.
        clients: principals that the gateway has as peers, and the crowd as clients.
        policies: of each of them.
        enctypes: of the realm's keys, by number.

    Raises:
        LabFailed, RealmFailed: it cannot be built; which part, and the end of its log.
    """

    def __init__(self, directory: Path, *, clients: int, policies: int, enctypes: tuple[int, ...] = (18,)) -> None:
        self._directory = directory
        self._undo = ExitStack()
        try:
            self._hosts = [self._undo.enter_context(Namespace(name)) for name in ("crowd", "gateway")]
            self._connect()
            self._realm = Realm(
                directory / "realm",
                KDC_PORT,
                addresses=(CROWD_ADDRESS,),
                enctypes=enctypes,
                prefix=self._hosts[0].prefix,
            )
            self._undo.enter_context(self._realm)
            plan = self._plan(clients, policies)
            self._add_principals(plan)
            self._gateway = self._start_gateway(plan)
            self._crowd = self._start_crowd(plan)
        except BaseException:
            self._undo.close()
            raise

    def _connect(self) -> None:
        crowd, gateway = self._hosts
        join(crowd, WIRE, gateway, WIRE)
        crowd.ip(f"address add {CROWD_ADDRESS}/30 dev {WIRE}", f"route add local {CLIENTS} dev lo")
        gateway.ip(f"address add {GATEWAY_ADDRESS}/30 dev {WIRE}", f"route add {CLIENTS} via {CROWD_ADDRESS}")

    def _plan(self, clients: int, policies: int) -> Plan:
        addresses = IPv4Address(CLIENTS.partition("/")[0])
        return Plan(
            gateway_principal=f"{GATEWAY}@{self._realm.name}",
            gateway_address=GATEWAY_ADDRESS,
            subnet=SUBNET,
            clients=tuple(
                Client(
                    principal=f"kink/client{number}.kinkvpn.test@{self._realm.name}",
                    keytab=str(self._directory / f"client{number}.keytab"),
                    address=str(addresses + number + 1),
                    inside=tuple(f"{INSIDE + number * policies + each}/32" for each in range(policies)),
                )
                for number in range(clients)
            ),
        )

    def _add_principals(self, plan: Plan) -> None:
        keytabs = {plan.gateway_principal: str(self._directory / "gateway.keytab")}
        keytabs |= {client.principal: client.keytab for client in plan.clients}
        self._realm.kadmin_session(
            command
            for principal, keytab in keytabs.items()
            for command in (f"addprinc -randkey {principal}", f"ktadd -k {keytab} -norandkey {principal}")
        )

    def _start_gateway(self, plan: Plan) -> subprocess.Popen[str]:
        configuration = self._directory / "gateway.toml"
        head = GATEWAY_CONFIGURATION.format(
            directory=self._directory,
            principal=plan.gateway_principal,
            krb5_conf=self._realm.krb5_conf,
            address=GATEWAY_ADDRESS,
        )
        peers = [
            PEER_CONFIGURATION.format(
                name=f"client{number}",
                principal=client.principal,
                address=client.address,
                subnet=SUBNET,
                inside=json.dumps(client.inside),
            )
            for number, client in enumerate(plan.clients)
        ]
        configuration.write_text(head + "".join(peers))
        with (self._directory / "gateway.log").open("w") as log:
            daemon = self._hosts[1].spawn(
                [*kinkvpn(), "up", "-c", str(configuration)],
                stdout=log,
                stderr=log,
                environment=self._realm.environment,
            )
        self._undo.callback(end, daemon)
        deadline = time.monotonic() + START_SECONDS
        while self._status() is None:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise self._failed("the gateway did not start", "gateway")
            time.sleep(POLL_SECONDS)
        return daemon

    def _start_crowd(self, plan: Plan) -> subprocess.Popen[str]:
        path = self._directory / "crowd.json"
        path.write_text(plan.to_json())
        with (self._directory / "crowd.log").open("w") as log:
            crowd = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                [*self._hosts[0].prefix, sys.executable, "-m", "bench.crowd", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._realm.environment,
            )
        self._undo.callback(end, crowd)
        self._crowd = crowd
        self._answer()
        return crowd

    def _answer(self) -> dict[str, Any]:
        assert self._crowd.stdout is not None
        line = self._crowd.stdout.readline()
        if not line:
            raise self._failed("the crowd did not do what it was told", "crowd")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def _failed(self, reason: str, who: str) -> LabFailed:
        log = (self._directory / f"{who}.log").read_text(errors="replace").splitlines()
        return LabFailed(reason, host=who, log=log[-LOG_LINES:])

    def _status(self) -> dict[str, Any] | None:
        try:
            with api.Client(self._directory / "control") as daemon:
                return daemon.status()
        except NotRunning:
            return None

    @property
    def gateway_pid(self) -> int:
        """Of the daemon."""
        return self._gateway.pid

    @property
    def crowd_pid(self) -> int:
        """Of the process with all initiators."""
        return self._crowd.pid

    def status(self) -> dict[str, Any]:
        """The gateway's. Raises LabFailed when it has ended."""
        status = self._status()
        if status is None:
            raise self._failed("the gateway has ended", "gateway")
        return status

    def perform(self, phase: Phase) -> Done:
        """Have the crowd do it. Raises LabFailed if not all of it was established in time."""
        assert self._crowd.stdin is not None
        self._crowd.stdin.write(json.dumps(asdict(phase)) + "\n")
        self._crowd.stdin.flush()
        answer = self._answer()
        return Done(**{**answer, "latencies": tuple(answer["latencies"])})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """At once, by its own pid: all that it has is in a namespace that goes too."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
