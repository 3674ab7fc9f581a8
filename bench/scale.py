"""Many peers at once: whether one responder answers them all, how long it takes, and what each costs in memory."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from bench.crowd import Phase
from bench.laboratory import INSIDE, SUBNET, Laboratory
from bench.processes import cpu_seconds, resident_kilobytes
from esp.engine import Engine
from esp.policy import Policy, Selector
from esp.sa import Endpoint, Lifetime, SaParameters
from esp.suite import DEFAULT_SUITES

if TYPE_CHECKING:
    from pathlib import Path

REMOTE = Endpoint("192.0.2.1", 4500)
REPLAY_WINDOW = 8192  # packets, as the configuration has it unless it is told otherwise
HARD_SECONDS = 28800.0


@dataclass(frozen=True, slots=True)
class Row:
    """``peers`` principals that sent a CREATE at once.

    Args:
        established: that the responder shows with a pair of SAs.
        seconds: until all had theirs.
        responder_cpu_ms: of one CREATE.
        kb_per_peer: the responder's memory of one that is established, over what it had of it before.
        kb_per_sa: of that, what the engine needs for a pair of SAs.
    """

    system: str
    operation: str
    peers: int
    established: int
    seconds: float
    responder_cpu_ms: float
    kb_per_peer: float
    kb_per_sa: float

    @property
    def kb_beside_sa(self) -> float:
        """What keying itself remembers of a peer."""
        return self.kb_per_peer - self.kb_per_sa

    def described(self) -> str:
        """One line for people."""
        return (
            f"{self.peers:,} peers at once: {self.established:,} established in {self.seconds:.2f} s,"
            f" {self.responder_cpu_ms:.3f} ms of CPU each at the responder,"
            f" {self.kb_per_peer:.1f} kB each, {self.kb_beside_sa:.1f} of them beside the SAs"
        )


def measure(directory: Path, peers: int) -> Row:
    """Raises LabFailed when not all of them are established within a minute."""
    directory.mkdir()
    with Laboratory(directory, clients=peers, policies=1) as laboratory:
        pid = laboratory.gateway_pid
        memory, cpu = resident_kilobytes(pid), cpu_seconds(pid)
        done = laboratory.perform(Phase("create", 0, peers, 0, in_flight=peers))
        cpu, memory = cpu_seconds(pid) - cpu, resident_kilobytes(pid) - memory
        states = [peer["state"] for peer in laboratory.status()["peers"]]
    return Row(
        system="kinkvpn",
        operation="create, all at once",
        peers=peers,
        established=states.count("established"),
        seconds=round(done.seconds, 3),
        responder_cpu_ms=round(1000 * cpu / peers, 4),
        kb_per_peer=round(memory / peers, 2),
        kb_per_sa=kilobytes_of_sas(peers),
    )


def kilobytes_of_sas(count: int) -> float:
    """Memory of a pair of SAs in the engine, one of ``count``, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.scale", str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - no shell


def main(count: int) -> None:
    """Print the kilobytes of a pair, in an engine that has the policies already."""
    engine = Engine(random=secrets.token_bytes)
    subnet = ip_network(SUBNET)
    selectors = {str(number): Selector(subnet, ip_network(f"{INSIDE + number}/32")) for number in range(count)}
    for name, selector in selectors.items():
        engine.add_policy(Policy(name, selector))
    before = resident_kilobytes(os.getpid())
    suite = DEFAULT_SUITES[0]
    for name, selector in selectors.items():
        for install in (engine.install_inbound, engine.install_outbound):
            install(
                SaParameters(
                    spi=engine.allocate_spi(),
                    suite=suite,
                    keymat=os.urandom(suite.keymat_octets),
                    policy=name,
                    selector=selector,
                    remote=REMOTE,
                    lifetime=Lifetime(hard_seconds=HARD_SECONDS, hard_packets=2**31),
                    replay_window=REPLAY_WINDOW,
                ),
                0.0,
            )
    print(round((resident_kilobytes(os.getpid()) - before) / count, 2))


if __name__ == "__main__":
    main(int(sys.argv[1]))
