"""``bench keying``: what a CREATE and a rekey cost, and how long they take, beside strongSwan in the same run.

Ours is ``kinkvpn up`` as the responder, a process that runs the daemon's parts for many principals as the initiator
(:mod:`bench.crowd`), MIT krb5kdc and libkrb5, UDP over a veth pair. Theirs is two charons (:mod:`bench.strongswan`).
Rounds alternate, ours, theirs, ours, so that a noisy moment of the machine falls on both. CPU is that of the daemons'
processes. Latency is that of one negotiation at a time: ours from the event that asks for an SA until the outbound SA
is installed, theirs from the vici command to its answer (docs/keying.md).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench import machine, scale, strongswan
from bench.crowd import Done, Phase
from bench.laboratory import Laboratory, scratch
from bench.processes import cpu_seconds
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.realm import RealmFailed
from kinkvpn.demo.sandbox import complete_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

IN_FLIGHT = 16  # what two cores need to be busy; more only waits in queues
PAUSE = 0.005  # seconds between two negotiations of an idle responder
MILLISECONDS = 1000.0
CREATE, REKEY, IDLE = "create", "rekey", "create, idle"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: ``rounds`` after one to warm up; negotiations of a round under load, and one at a time."""

    rounds: int
    loaded: int
    idle: int
    peers: int  # that CREATE at once, for the memory of each


FULL = Effort(rounds=7, loaded=300, idle=100, peers=2000)
QUICK = Effort(rounds=3, loaded=150, idle=50, peers=500)


class Side(Protocol):
    """Ours or theirs."""

    name: str

    @property
    def responder_pid(self) -> int: ...
    def run(self, operation: str, number: int) -> Done:
        """``operation`` in round ``number``, which counts from 0."""
        ...


class Kinkvpn:
    """Each round has a policy of its own for every client, so that no CREATE is the rekey of another."""

    name = "kinkvpn"

    def __init__(self, laboratory: Laboratory, effort: Effort) -> None:
        self._laboratory, self._effort = laboratory, effort
        self.responder_pid = laboratory.gateway_pid

    def run(self, operation: str, number: int) -> Done:
        everybody = self._effort.idle + self._effort.loaded
        phases = {
            IDLE: Phase("create", 0, self._effort.idle, number, 1, PAUSE),
            CREATE: Phase("create", self._effort.idle, everybody, number, IN_FLIGHT),
            REKEY: Phase("rekey", 0, everybody, number, IN_FLIGHT),
        }
        return self._laboratory.perform(phases[operation])


class Theirs:
    """Each round ends with none of its SAs left: libipsec searches them one by one."""

    name = "strongSwan"

    def __init__(self, pair: strongswan.StrongSwan, effort: Effort) -> None:
        self._pair, self._effort = pair, effort
        self.responder_pid = pair.responder_pid

    def run(self, operation: str, number: int) -> Done:
        if operation == IDLE:
            return self._pair.create_idle(self._effort.idle, PAUSE)
        if operation == CREATE:
            return self._pair.create(self._effort.loaded, IN_FLIGHT)
        done = self._pair.rekey(IN_FLIGHT)
        self._pair.clear()
        return done


@dataclass
class Case:
    """One side and one operation; a figure for each round, every latency."""

    side: Side
    operation: str
    per_second: list[float] = field(default_factory=list)
    responder_ms: list[float] = field(default_factory=list)
    initiator_ms: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def round(self, number: int) -> None:
        """Measure once."""
        before = cpu_seconds(self.side.responder_pid)
        done = self.side.run(self.operation, number)
        used = cpu_seconds(self.side.responder_pid) - before
        self.per_second.append(done.count / done.seconds)
        self.responder_ms.append(MILLISECONDS * used / done.count)
        self.initiator_ms.append(MILLISECONDS * done.cpu_seconds / done.count)
        self.latencies += [MILLISECONDS * seconds for seconds in done.latencies]

    def forget(self) -> None:
        """What was measured so far was to warm up."""
        for samples in (self.per_second, self.responder_ms, self.initiator_ms, self.latencies):
            samples.clear()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the result: medians over the rounds, CPU of one negotiation in milliseconds.

    Args:
        noise: interquartile range over median of the responder's CPU.
        ms_p50, ms_p99: latency, of all rounds together; None where several were under way at a time.
    """

    system: str
    operation: str
    per_second: float
    responder_cpu_ms: float
    initiator_cpu_ms: float
    noise: float
    ms_p50: float | None
    ms_p99: float | None


def row_of(case: Case) -> Row:
    """Medians and percentiles of a case with at least two rounds."""
    low, middle, high = statistics.quantiles(case.responder_ms, n=4, method="inclusive")
    idle = case.operation == IDLE
    percentiles = statistics.quantiles(case.latencies, n=100, method="inclusive") if idle else []
    return Row(
        system=case.side.name,
        operation=case.operation,
        per_second=round(statistics.median(case.per_second), 1),
        responder_cpu_ms=round(middle, 4),
        initiator_cpu_ms=round(statistics.median(case.initiator_ms), 4),
        noise=round((high - low) / middle, 3),
        ms_p50=round(percentiles[49], 3) if idle else None,
        ms_p99=round(percentiles[98], 3) if idle else None,
    )


def measure(sides: Sequence[Side], rounds: int) -> list[Row]:
    """Rows of each side, idle before loaded before rekeys; one round more goes ahead to warm up."""
    cases = [Case(side, operation) for side in sides for operation in (IDLE, CREATE, REKEY)]
    for number in range(rounds + 1):
        for case in cases:
            case.round(number)
            if number == 0:
                case.forget()
    return [row_of(case) for case in cases]


def summary(rows: Sequence[Row]) -> dict[str, float | None]:
    """The few figures that everything is about; a comparison is None where strongSwan was not measured."""
    found = {(row.system, row.operation): row for row in rows}

    def ratio(operation: str, figure: Callable[[Row], float | None]) -> float | None:
        ours, theirs = found["kinkvpn", operation], found.get(("strongSwan", operation))
        if theirs is None:
            return None
        ours_is, theirs_is = figure(ours), figure(theirs)
        assert ours_is is not None
        assert theirs_is is not None
        return round(ours_is / theirs_is, 3)

    idle = found["kinkvpn", IDLE]
    return {
        "responder_cpu_vs_strongswan": ratio(CREATE, lambda row: row.responder_cpu_ms),
        "initiator_cpu_vs_strongswan": ratio(CREATE, lambda row: row.initiator_cpu_ms),
        "create_ms_p50": idle.ms_p50,
        "create_ms_p99": idle.ms_p99,
        "create_latency_vs_strongswan": ratio(IDLE, lambda row: row.ms_p50),
        "creates_per_s": found["kinkvpn", CREATE].per_second,
        "rekeys_per_s": found["kinkvpn", REKEY].per_second,
    }


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line; the exit code."""
    complete_path()
    if os.geteuid() != 0:
        print("bench keying: needs root for namespaces and TUN devices: run it with sudo", file=sys.stderr)
        return 2
    lacking = strongswan.missing()
    for remedy in lacking:
        print(f"bench keying: strongSwan is left out: {remedy}", file=sys.stderr)
    effort = QUICK if options.quick else FULL
    try:
        with scratch() as directory:
            rows = _rows(Path(directory), effort, beside=not lacking)
            crowd = scale.measure(Path(directory) / "scale", effort.peers)
    except (LabFailed, RealmFailed) as error:
        host, log = getattr(error, "host", ""), getattr(error, "log", ())
        print(f"bench keying: {host}: {error}", *log, sep="\n", file=sys.stderr)
        return 1
    _show(rows, crowd, effort, as_json=options.json)
    return 0


def _rows(directory: Path, effort: Effort, *, beside: bool) -> list[Row]:
    with ExitStack() as held:
        ours = directory / "ours"
        ours.mkdir()
        clients = effort.idle + effort.loaded
        laboratory = held.enter_context(Laboratory(ours, clients=clients, policies=effort.rounds + 1))
        sides: list[Side] = [Kinkvpn(laboratory, effort)]
        if beside:
            theirs = directory / "theirs"
            theirs.mkdir()
            sides.append(Theirs(held.enter_context(strongswan.StrongSwan(theirs)), effort))
        return measure(sides, effort.rounds)


def _show(rows: Sequence[Row], crowd: scale.Row, effort: Effort, *, as_json: bool) -> None:
    about, figures = machine.describe(), summary(rows)
    if as_json:
        listed = [*map(asdict, rows), asdict(crowd)]
        print(json.dumps({"machine": about, **asdict(effort), **figures, "rows": listed}))
        return
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(f"medians of {effort.rounds} rounds; CPU of the daemons' processes; {IN_FLIGHT} under way at a time\n")
    print(
        f"{'system':<12}{'operation':<14}{'per s':>8}{'responder ms':>14}{'initiator ms':>14}{'noise':>8}  latency ms"
    )
    for row in rows:
        latency = "" if row.ms_p50 is None else f"  p50 {row.ms_p50:.2f}, p99 {row.ms_p99:.2f}"
        print(
            f"{row.system:<12}{row.operation:<14}{row.per_second:>8,.0f}{row.responder_cpu_ms:>14.3f}"
            f"{row.initiator_cpu_ms:>14.3f}{row.noise:>8.1%}{latency}"
        )
    print(f"\n{crowd.described()}\n")
    for name, figure in figures.items():
        print(f"{name} {'not measured' if figure is None else figure}")


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``keying`` among the subcommands."""
    parser = measurements.add_parser("keying", help="CREATE and rekey of two daemons, beside strongSwan")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.set_defaults(run=run)
