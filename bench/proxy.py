"""``bench proxy``: one stream through ``kinkvpn proxy``, by both stacks, over a path without delay and over a long one.

    iperf3 -- kinkvpn proxy -L ------ path, late ------ kinkvpn up -- iperf3 --server

The proxy has no capability; everything else is the laboratory's. One machine does all of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import iperf, machine
from bench.path import DEVICES, PathLab
from bench.relay import Odds, compiled
from kinkvpn.demo.lab import START_SECONDS, DaemonOptions, kinkvpn
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.sandbox import complete_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Lab
    from kinkvpn.demo.namespace import Namespace

STACKS: Final = ("kernel", "lwip")
POLL_SECONDS: Final = 0.02
# But for the one without which uid 0, of all users, may not be itself in a user namespace (user_namespaces(7)).
WITHOUT_CAPABILITIES: Final = ("setpriv", "--inh-caps", "-all", "--bounding-set", "-all,+setfcap", "--")
SOURCE: Final = Path(__file__).with_name("delay.c")


@dataclass(frozen=True, slots=True)
class Row:
    """Gbit/s that one stream carried, each time it was tried, and the load of the machine just before."""

    stack: str
    delay_ms: float
    direction: str
    gbit: tuple[float, ...]
    load: tuple[float, ...]


class LongLab(PathLab):
    """A laboratory whose path takes its time.

    Args:
        directory: for everything.
        delay: milliseconds, there and back together; 0 is a bridge.
    """

    def __init__(self, directory: Path, delay: float) -> None:
        super().__init__(directory, DaemonOptions(), odds=Odds(), seed=0, whole=True)
        self._delay = delay

    def _forward(self, path: Namespace) -> None:
        if not self._delay:
            super()._forward(path)
            return
        program = compiled(self._directory, SOURCE)
        command = [*path.prefix, str(program), *DEVICES, f"{self._delay * 500:.0f}"]
        process = self._undo.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        )
        self._undo.callback(process.kill)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise LabFailed("the path does not start")


@contextmanager
def proxy(lab: Lab, directory: Path, stack: str, target: str) -> Iterator[None]:
    """``kinkvpn proxy`` on host a, while the block runs. Raises LabFailed."""
    a = lab.hosts[0]
    directory.mkdir(mode=0o700, exist_ok=True)
    log = directory / f"{stack}.log"
    command = [*kinkvpn(), "proxy", "-c", str(a.configuration), "--stack", stack, "-L", f"5201:{target}:5201"]
    with log.open("w") as written:
        process = a.namespace.spawn(
            [*WITHOUT_CAPABILITIES, *command],
            stderr=written,
            environment={**lab.realm.environment, "XDG_RUNTIME_DIR": str(directory)},
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while " proxy " not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabFailed(f"kinkvpn proxy does not start: {log.read_text()[-500:]}")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        process.terminate()
        process.wait()


def measure(delay: float, rounds: int, seconds: float, stacks: tuple[str, ...]) -> Iterator[Row]:
    """Raises LabFailed."""
    with tempfile.TemporaryDirectory(prefix="kinkvpn-bench-") as directory, ExitStack() as held:
        lab = held.enter_context(LongLab(Path(directory), delay))
        lab.start_realm()
        lab.start_hosts()
        a, b = lab.hosts
        b.start()
        lab.wait_until(b.answers, START_SECONDS, b, "does not answer")
        held.enter_context(iperf.server(b.namespace))
        for stack in stacks:
            with proxy(lab, Path(directory, "run"), stack, b.site.inner_address(4)):
                for backwards in (False, True):
                    gbit, load = [], []
                    for _ in range(rounds):
                        load.append(round(os.getloadavg()[0], 1))
                        command = iperf.command("127.0.0.1", streams=1, backwards=backwards, seconds=seconds)
                        client = a.namespace.spawn(command, stdout=subprocess.PIPE)
                        gbit.append(round(iperf.parse(client.communicate()[0]).gbit_per_second, 3))
                    yield Row(stack, delay, "from there" if backwards else "to there", tuple(gbit), tuple(load))


def run(options: argparse.Namespace) -> int:
    """Print a line for each case, or with ``--json`` one object; the exit code."""
    complete_path()
    if os.geteuid() != 0:
        print("bench proxy: needs root for the namespaces of the laboratory: run it with sudo", file=sys.stderr)
        return 2
    rows = []
    for delay in (0.0, options.delay):
        for row in measure(delay, options.rounds, options.seconds, STACKS):
            rows.append(row)
            if not options.json:
                each = ", ".join(f"{one:.2f}" for one in row.gbit)
                where = f"{row.stack:7} {row.delay_ms:3.0f} ms {row.direction:10}"
                print(f"{where} {max(row.gbit):6.2f} Gbit/s   of {each}; load {max(row.load):.1f}", flush=True)
    if options.json:
        print(json.dumps({"machine": machine.describe(), "rows": [asdict(row) for row in rows]}))
    return 0


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``proxy`` among the subcommands."""
    parser = measurements.add_parser("proxy", help="one stream through kinkvpn proxy, by both stacks; as root")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--rounds", type=int, default=5, help="of each case (default: 5)")
    parser.add_argument("--seconds", type=float, default=3, help="of each of them (default: 3)")
    parser.add_argument("--delay", type=float, default=20, metavar="MS", help="there and back (default: 20)")
    parser.set_defaults(run=run)
