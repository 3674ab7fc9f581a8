"""``bench engine``: protect and unprotect alone, per engine, suite and size, in memory: no TUN, no socket, no loop.

The compiled engine is measured with each of its libraries, and once without a cipher, from a build of its own that
protects nothing: the ceiling. Packets go in and come out as Python's, which is most of what that one costs; its loop
has no Python in it.

Each round seals fresh batches with one engine and opens them with another. Rounds go over all cases in turn, so that a
noisy moment of the machine falls on all alike. What counts is CPU time of this process: turns of others are not ours.
The garbage collector stays on, as it does in the daemon.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from bench import machine
from bench.contestants.kinkvpn import build_without_cipher
from esp.datagram import Incoming
from esp.engine import Engine
from esp.native import libraries, why_missing
from esp.policy import Policy, Selector
from esp.sa import Endpoint, SaParameters
from esp.suite import SUITES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from esp.suite import Suite

SIZES = (64, 576, 1420)  # octets of the inner packet: small, RFC 791's least reassembly, full at an outer MTU of 1,500
BATCH = 64  # packets a call, as the portable loop hands them over
# What is measured where no suite is named: each cipher, and each integrity algorithm.
KINDS = (
    *("aes256-gcm16", "aes128-gcm16", "aes256-gcm8", "chacha20-poly1305", "aes256-ccm16", "aes256-gmac"),
    *("aes256-cbc-sha256", "aes256-cbc-sha384", "aes256-cbc-sha512", "aes256-cbc-xcbc", "aes256-cbc-sha1"),
    *("aes256-ctr-sha256", "camellia256-cbc-sha256", "null-sha256", "3des-cbc-md5"),
)
HERE, THERE = Endpoint("192.0.2.1", 4500), Endpoint("192.0.2.2", 4500)


@dataclass
class Case:
    """One suite at one size; CPU nanoseconds a packet of each round."""

    engine: str
    suite: Suite
    size: int
    protect: list[float] = field(default_factory=list)
    unprotect: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sender = _engine(self.engine, "10.0.1.0/24", "10.0.2.0/24")
        self._receiver = _engine(self.engine, "10.0.2.0/24", "10.0.1.0/24")
        keymat = os.urandom(self.suite.keymat_octets)
        spi = self._receiver.allocate_spi()
        outbound = _sa(spi, self.suite, keymat, "10.0.1.0/24", "10.0.2.0/24", THERE)
        self._sender.install_outbound(outbound, 0.0)
        self._receiver.install_inbound(_sa(spi, self.suite, keymat, "10.0.2.0/24", "10.0.1.0/24", HERE), 0.0)
        self._packets = [_udp_packet(self.size)] * BATCH

    def round(self, batches: int) -> None:
        """Seal and open ``batches`` batches.

        Raises:
            RuntimeError: a packet did not come back as it went in; then no figure is worth printing.
        """
        sealed: list[list[Incoming]] = []
        began = time.process_time_ns()
        protected = [self._sender.protect(self._packets, 0.0) for _ in range(batches)]
        self.protect.append((time.process_time_ns() - began) / (batches * BATCH))
        sealed = [[Incoming(each.datagram, HERE) for each in batch] for batch in protected]
        began = time.process_time_ns()
        opened = [self._receiver.unprotect(batch, 0.0) for batch in sealed]
        self.unprotect.append((time.process_time_ns() - began) / (batches * BATCH))
        if any(batch != self._packets for batch in opened):
            raise RuntimeError(f"{self.suite.name}: packets were lost or changed")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the result: medians over the rounds. ``noise`` is the interquartile range over the median."""

    engine: str
    suite: str
    octets: int
    operation: str
    ns_per_packet: float
    packets_per_second: float
    gbit_per_second: float
    noise: float


def engines() -> list[str]:
    """The engines that there are: the portable one, and the compiled one with each library."""
    return ["portable", *(libraries() if why_missing() is None else ())]


def _has(engine: str, suite: Suite) -> bool:
    """Whether ``engine`` does ``suite`` by itself."""
    if engine == "portable":
        return True
    from esp.native import _core
    from esp.native.engine import LIBRARIES

    return _core.offered(suite, LIBRARIES[engine])


def _make(engine: str) -> Engine:
    if engine == "portable":
        return Engine(random=os.urandom)
    from esp.native.engine import NativeEngine

    return NativeEngine(random=os.urandom, library=engine)


def _engine(name: str, local: str, remote: str) -> Engine:
    engine = _make(name)
    engine.add_policy(Policy("bench", _selector(local, remote)))
    return engine


def _selector(local: str, remote: str) -> Selector:
    return Selector(ip_network(local), ip_network(remote))


def _sa(spi: int, suite: Suite, keymat: bytes, local: str, remote: str, endpoint: Endpoint) -> SaParameters:
    traffic = _selector(local, remote)
    return SaParameters(spi, suite, keymat, "bench", traffic, endpoint, legacy=suite.legacy)


def _udp_packet(octets: int) -> bytes:
    """An IPv4 UDP packet of 10.0.1.1 to 10.0.2.1 (RFC 791 §3.1); checksums are nothing the engine looks at."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, octets, 0, 0, 64, 17, 0)
    addresses = socket.inet_aton("10.0.1.1") + socket.inet_aton("10.0.2.1")
    return header + addresses + struct.pack("!HHHH", 1024, 9, octets - 20, 0) + os.urandom(octets - 28)


def measure(
    names: Sequence[str], suites: Sequence[Suite], sizes: Sequence[int], *, rounds: int, batches: int
) -> list[Row]:
    """Rows for every suite, size and engine, protect before unprotect; one round more goes ahead to warm up."""
    cases = [Case(name, suite, size) for suite in suites for size in sizes for name in names if _has(name, suite)]
    for number in range(rounds + 1):
        for case in cases:
            case.round(batches)
            if number == 0:
                case.protect.clear()
                case.unprotect.clear()
    return [row for case in cases for row in (_row(case, "protect"), _row(case, "unprotect"))]


def _row(case: Case, operation: str) -> Row:
    samples = case.protect if operation == "protect" else case.unprotect
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Row(
        engine=case.engine,
        suite=case.suite.name,
        octets=case.size,
        operation=operation,
        ns_per_packet=round(middle, 1),
        packets_per_second=round(1e9 / middle),
        gbit_per_second=round(case.size * 8 / middle, 3),
        noise=round((high - low) / middle, 3),
    )


def ceiling(suites: Sequence[Suite], *, quick: bool) -> list[Row]:
    """The compiled engine without its cipher, built for this.

    Raises:
        LabFailed: it cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="kinkvpn-bench-") as directory:
        build_without_cipher(Path(directory))
        command = [sys.executable, "-m", "bench", "engine", "--json", "--engine", "openssl"]
        command += [f"--suite={suite.name}" for suite in suites] + ["--quick"] * quick
        environment = {**os.environ, "PYTHONPATH": directory}
        (Path(directory) / "bench").symlink_to(Path(__file__).parent)
        done = subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    return [replace(Row(**row), engine="ceiling") for row in json.loads(done.stdout)["rows"]]


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line; the exit code."""
    effort = {"rounds": 5, "batches": 4} if options.quick else {"rounds": 15, "batches": 16}
    suites = [SUITES[name] for name in options.suite or KINDS]
    about = machine.describe()
    names = options.engine or engines()
    rows = measure(names, suites, SIZES, **effort)
    if options.ceiling:
        rows += ceiling(suites, quick=options.quick)
    if options.json:
        print(json.dumps({"machine": about, **effort, "batch": BATCH, "rows": [asdict(row) for row in rows]}))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(f"batches of {BATCH}, medians of {effort['rounds']} rounds, CPU time of one core\n")
    print(
        f"{'suite':<24}{'octets':>7}  {'operation':<10}{'engine':<10}"
        f"{'ns/packet':>10}{'packets/s':>12}{'Gbit/s':>8}{'noise':>8}"
    )
    for row in rows:
        print(
            f"{row.suite:<24}{row.octets:>7}  {row.operation:<10}{row.engine:<10}{row.ns_per_packet:>10,.0f}"
            f"{row.packets_per_second:>12,}{row.gbit_per_second:>8.2f}{row.noise:>8.1%}"
        )
    return 0


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``engine`` among the subcommands."""
    parser = measurements.add_parser("engine", help="protect and unprotect alone, per suite and size")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--suite", action="append", choices=SUITES, help="this one instead of one of each kind; may be repeated"
    )
    parser.add_argument(
        "--engine", action="append", choices=engines(), help="this one instead of all that are built; may be repeated"
    )
    parser.add_argument("--ceiling", action="store_true", help="build one without a cipher too, and measure that")
    parser.set_defaults(run=run)
