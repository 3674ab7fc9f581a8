"""``bench create``: where the time of a CREATE goes at the responder, step by step, in one process.

Real tickets of a real KDC and the daemon's own parts; the REPLY goes out through a real socket and nobody reads it.
The functions that do the steps are timed where they stand, each without what it calls of the others. CPU time, the
median of all rounds.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, closing, contextmanager, nullcontext
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from bench import machine
from esp.dataplane import Dataplane
from esp.engine import Engine
from esp.link import UdpLink
from esp.policy import Policy, Selector
from esp.sa import Endpoint
from esp.testing import MemoryTun
from kinkvpn.demo.realm import Realm, RealmFailed
from kinkvpn.demo.sandbox import complete_path
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.session import Acceptor, ServiceTicket, SessionKey, VerifiedRequest, patient_context
from kinkvpn.kerberos.tickets import TicketSource, fetch_ticket
from kinkvpn.proto import envelope, quick_mode
from kinkvpn.proto.create import CreateCommand
from kinkvpn.proto.events import Path as DatagramPath
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.quick_mode import QuickMode
from kinkvpn.proto.settings import PeerSettings, PolicySettings
from kinkvpn.service import keying as keying_module
from kinkvpn.service import log
from kinkvpn.service.daemon import spare_the_collector
from kinkvpn.service.keying import Keying
from kinkvpn.service.transport import KinkTransport
from kinkvpn.wire.kink import MessageType

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

GATEWAY = "kink/gateway.test"
CLIENTS, POLICIES = 100, 8  # of each client: a gateway that deletes superfluous pairs would be measured deleting
BATCH = 400
ROUNDS = 3
SUBNET = ip_network("10.0.0.0/16")
REST = "all else: dispatch, caches, counting"

# What is done, and who does it.
STEPS: tuple[tuple[str, tuple[tuple[Any, str], ...]], ...] = (
    ("read the message", ((keying_module, "parse_message"),)),
    ("accept the AP-REQ", ((Acceptor, "accept"),)),
    ("verify Cksum", ((SessionKey, "verify"),)),
    ("decrypt KINK_ENCRYPT", ((SessionKey, "decrypt"),)),
    ("read what was inside", ((envelope, "parse_plaintext"),)),
    ("choose, and describe the SAs", ((Peer, "respond"),)),
    ("KEYMAT of two SAs", ((quick_mode, "derive_keymat"),)),
    ("make the AP-REP", ((VerifiedRequest, "make_reply"),)),
    ("write the REPLY", ((envelope, "build_plaintext"), (envelope, "build_message"))),
    ("encrypt", ((SessionKey, "encrypt"),)),
    ("make Cksum", ((SessionKey, "checksum"),)),
    ("install two SAs", ((Dataplane, "install_inbound"), (Dataplane, "install_outbound"))),
    ("log it", ((logging.Logger, "log"),)),
    ("send", ((KinkTransport, "send"),)),
)


class Stopwatch:
    """Nanoseconds of each step, without those of the steps inside it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, int] = defaultdict(int)
        self._inside: list[int] = []

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, watched."""

        def watched(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
            self._inside.append(0)
            began = time.process_time_ns()
            try:
                return function(*arguments, **named)
            finally:
                took = time.process_time_ns() - began
                self.spent[step] += took - self._inside.pop()
                if self._inside:
                    self._inside[-1] += took

        return watched

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Every step is timed for the length of the block."""
        replaced = [(owner, name, getattr(owner, name)) for _, places in STEPS for owner, name in places]
        for step, places in STEPS:
            for owner, name in places:
                setattr(owner, name, self.timed(step, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, function in replaced:
                setattr(owner, name, function)


class Bench:
    """A gateway and tickets for it, in this process.

    Args:
        directory: for the realm; the caller removes it.
        realm: running, and this process believes in it.
        port: where all clients are, and their REPLYs go.
    """

    def __init__(self, directory: Path, realm: Realm, port: int) -> None:
        names = [f"kink/client{number}.test@{realm.name}" for number in range(CLIENTS)]
        gateway, keytab, clients = f"{GATEWAY}@{realm.name}", directory / "keytab", directory / "clients"
        realm.kadmin_session(
            f"{command} {name}"
            for name in (gateway, *names)
            for command in ("addprinc -randkey", f"ktadd -k {keytab if name == gateway else clients} -norandkey")
        )
        # Not one that has just been written, which is read again for each AP-REQ.
        os.utime(keytab, times=(0, 0))
        self._port, self._sent = port, 0
        fetched = [fetch_ticket(Credentials(name, keytab=clients), gateway) for name in names]
        self._tickets = [ServiceTicket(patient_context(), *each) for each in fetched]
        self._link, self._transport = UdpLink.bind(0, ["127.0.0.1"]), KinkTransport(["127.0.0.1"], 0)
        self._dataplane = Dataplane(
            Engine(random=secrets.token_bytes),
            MemoryTun(),
            self._link,
            receive_control=lambda datagram, source: None,
        )
        self._clients = [self._peer(number, name) for number, name in enumerate(names)]
        self._keying = Keying(
            principal=gateway,
            peers=self._clients,
            kerberos=Acceptor([gateway], keytab),
            tickets=TicketSource(Credentials(gateway, keytab=keytab)),
            transport=self._transport,
            dataplane=self._dataplane,
            epoch=1,
            random=secrets.token_bytes,
        )

    def _peer(self, number: int, principal: str) -> PeerSettings:
        address = f"127.0.1.{number + 1}"
        policies = tuple(
            PolicySettings(f"{number}/{each}", Selector(SUBNET, ip_network(f"100.64.{number}.{each}/32")))
            for each in range(POLICIES)
        )
        for policy in policies:
            self._dataplane.add_policy(Policy(policy.name, policy.selector))
        return PeerSettings(principal, principal, Endpoint(address, self._port), Endpoint(address, 4500), policies)

    def _command(self) -> tuple[bytes, DatagramPath]:
        self._sent += 1
        client = self._clients[self._sent % CLIENTS]
        ticket = self._tickets[self._sent % CLIENTS]
        policy = client.policies[self._sent // CLIENTS % POLICIES]
        mirrored = PolicySettings(policy.name, Selector(policy.selector.remote, policy.selector.local))
        asked = QuickMode(
            client,
            mirrored,
            spi=secrets.randbelow(2**31) + 2**30,
            nonce=secrets.token_bytes(16),
            fraction=0.5,
            taken=lambda now: (),
        )
        payloads = CreateCommand([asked]).payloads()
        datagram = envelope.seal_command(MessageType.CREATE, self._sent, 7, ticket.make_request(), ticket.key, payloads)
        return datagram, DatagramPath(client.kink, local="127.0.0.1")

    def close(self) -> None:
        """Give its sockets up."""
        self._link.close()
        self._transport.close()

    def round(self, watch: Stopwatch | None = None) -> float:
        """Nanoseconds of one CREATE, of a batch of them; where they go is for ``watch``.

        Raises:
            RuntimeError: one was not granted; then no figure is worth printing.
        """
        batch = [self._command() for _ in range(BATCH)]
        before = len(self._dataplane.statistics().sas)
        began = time.process_time_ns()
        with watch.watching() if watch else nullcontext():
            for datagram, path in batch:
                self._keying.receive(datagram, path)
        took = (time.process_time_ns() - began) / BATCH
        if len(self._dataplane.statistics().sas) - before != 2 * BATCH:
            raise RuntimeError("the gateway did not grant every CREATE")
        return took


def measure(rounds: int) -> dict[str, float]:
    """Microseconds of each step, and of the whole (``total``), medians. Each step's watch costs a part of one more.

    Raises:
        RealmFailed: there is no KDC on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="kinkvpn-bench-") as name, ExitStack() as held:
        directory = Path(name)
        sink = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind(("0.0.0.0", 0))  # noqa: S104 - never read: what comes when it is full is dropped
        realm = held.enter_context(Realm(directory / "realm", free_port(), enctypes=(18,)))
        held.callback(os.environ.update, os.environ.copy())
        held.callback(os.environ.clear)  # which goes first
        os.environ.update(realm.environment)
        handler = log.configure(held.enter_context((directory / "log").open("w")), level="info", as_json=False)
        held.callback(logging.getLogger().removeHandler, handler)
        return trio.run(_measured, directory, realm, sink.getsockname()[1], rounds)


async def _measured(directory: Path, realm: Realm, port: int, rounds: int) -> dict[str, float]:
    totals, watches = [], []
    with closing(Bench(directory, realm, port)) as bench:
        bench.round()  # warms up
        spare_the_collector()  # as the daemon does
        for _ in range(rounds):
            totals.append(bench.round() / 1000)
            watches.append(Stopwatch())
            bench.round(watches[-1])
    steps = {step: statistics.median(watch.spent[step] for watch in watches) / BATCH / 1000 for step, _ in STEPS}
    total = statistics.median(totals)
    steps[REST] = max(total - sum(steps.values()), 0.0)
    return {step: round(microseconds, 1) for step, microseconds in steps.items()} | {"total": round(total, 1)}


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line; the exit code."""
    complete_path()
    about = machine.describe()
    try:
        steps = measure(ROUNDS)
    except RealmFailed as error:
        print(f"bench create: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"machine": about, "microseconds": steps}))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print("a CREATE of two messages at the responder, enctype 18, AES-GCM; microseconds\n")
    for step, microseconds in steps.items():
        print(f"{step:<40}{microseconds:>8.1f}")
    return 0


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``create`` among the subcommands."""
    parser = measurements.add_parser("create", help="where the time of a CREATE goes at the responder")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.set_defaults(run=run)
