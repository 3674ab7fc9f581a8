"""``bench datapath``: what two daemons carry, and at what cost, beside OpenVPN, strongSwan, wireguard-go and the wire.

Every contestant has two namespaces of its own with a veth pair between them, and all of them are up for the whole run;
the loads go round from one to the next (docs/performance.md). The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import figure, machine, table
from bench.cases import ASIDE, CASES, QUICK
from bench.contestants import CONTESTANTS
from bench.contestants.contestant import Setting
from bench.load import Load
from bench.rounds import Effort, Findings, Rounds, noise
from kinkvpn.demo.progress import Progress
from kinkvpn.demo.sandbox import TOOLS, complete_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.cases import Case
    from bench.contestants.contestant import Contestant
    from bench.rounds import Row

RESULTS: Final = Path(__file__).parent / "results"
NEEDED: Final = TOOLS | {"iperf3": "iperf3", "ethtool": "ethtool"}
FULL: Final = Effort(rounds=5, seconds=2, trials=2)
QUICKLY: Final = Effort(rounds=2, seconds=1, trials=1)
USUAL: Final = Setting()
SETTINGS: Final = (USUAL, Setting("aes256-gcm16"), Setting(outer=6))
INTERRUPTED: Final = 128 + signal.SIGINT
OURS, OPENVPN, STRONGSWAN, CEILING = "kinkvpn", "openvpn", "strongswan", "ceiling"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of ours over that of another, or by itself where there is nobody else."""

    name: str
    case: str
    figure: str
    over: str | None


RATIOS: Final = (
    Ratio("tcp1_vs_openvpn", "tcp1", "gbit", OPENVPN),
    Ratio("tcp1_vs_strongswan", "tcp1", "gbit", STRONGSWAN),
    Ratio("sender_cpu_vs_openvpn", "tcp1", "sender_cpu", OPENVPN),
    Ratio("receiver_cpu_vs_openvpn", "tcp1", "receiver_cpu", OPENVPN),
    Ratio("rtt_vs_openvpn", "rtt-idle", "p50_us", OPENVPN),
    Ratio("pps64_vs_openvpn", "pps64", "received_per_s", OPENVPN),
    Ratio("udp1500_loss", "udp-1500", "loss", None),
    Ratio("split_vs_openvpn", "tcp1-split", "gbit", OPENVPN),
    Ratio("ceiling_share", "tcp1", "gbit", CEILING),
)


def ratios(rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The few figures that everything is about, and their noise.

    Each is the median of the ratios of every round, in which both were measured one after the other; its noise is that
    of those. None where one of both was not measured; loss is a fraction. CPU, sender and
    receiver, is a pair.
    """
    found = {(row.contestant, row.case, row.figure): row.samples for row in rows if row.setting == USUAL}
    values: dict[str, Any] = {}
    noises: dict[str, Any] = {}
    for ratio in RATIOS:
        ours = found.get((OURS, ratio.case, ratio.figure))
        theirs = found.get((ratio.over, ratio.case, ratio.figure)) if ratio.over else (1.0,) * len(ours or ())
        paired = [one / other for one, other in zip(ours or (), theirs or (), strict=False) if other]
        values[ratio.name] = float(f"{statistics.median(paired):.4g}") if paired else None
        noises[ratio.name] = noise(paired, ratio.figure) if paired else None
    for figures in (values, noises):
        figures["cpu_vs_openvpn"] = [figures.pop(f"{side}_cpu_vs_openvpn") for side in ("sender", "receiver")]
    return values, noises


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line, and keep both that and a plot; the exit code."""
    complete_path()
    if os.geteuid() != 0:
        return _give_up("needs root for namespaces and TUN devices: run it with sudo")
    missing = sorted({package for tool, package in NEEDED.items() if shutil.which(tool) is None})
    if missing:
        return _give_up(f"tools are missing: apt-get install {' '.join(missing)}")
    effort = _effort(options)
    chosen = [each for each in CONTESTANTS if not options.only or each.name in options.only]
    findings = Findings()
    about = machine.describe()
    try:
        _measure(chosen, effort, findings, quick=options.quick)
    except KeyboardInterrupt:
        print("\nbench datapath: interrupted; nothing is kept, and nothing still runs", file=sys.stderr)
        return INTERRUPTED
    for name, reason in findings.left_out.items():
        print(f"bench datapath: {name} is left out: {reason}", file=sys.stderr)
    values, noises = ratios(findings.rows)
    result = {
        "machine": about,
        **asdict(effort),
        "programs": findings.descriptions,
        "left_out": findings.left_out,
        "ratios": values,
        "noise": noises,
        "rows": [asdict(row) for row in findings.rows],
    }
    _keep(result, findings.rows, options.results)
    print(json.dumps(result) if options.json else table.of(result, findings.rows))
    return 0 if findings.rows else 1


def _give_up(reason: str) -> int:
    print(f"bench datapath: {reason}", file=sys.stderr)
    return 2


def _effort(options: argparse.Namespace) -> Effort:
    usual = QUICKLY if options.quick else FULL
    trials = usual.trials if options.trials is None else options.trials
    return Effort(options.rounds or usual.rounds, options.seconds or usual.seconds, trials)


def _measure(chosen: Sequence[Contestant], effort: Effort, findings: Findings, *, quick: bool) -> None:
    progress = Progress(sys.stderr)
    findings.left_out |= {each.name: reason for each in chosen if (reason := each.obstacle())}
    for setting in SETTINGS[:1] if quick else SETTINGS:
        cases: Sequence[Case] = QUICK if quick else CASES if setting == USUAL else ASIDE
        able = [each for each in chosen if each.takes(setting) and each.name not in findings.left_out]
        with progress.step(str(setting), str(setting)), started(able, setting, findings) as loads:
            rounds = Rounds(loads, setting, effort=effort, findings=findings, progress=progress.fraction)
            rounds.measure(cases)


@contextmanager
def started(able: Sequence[Contestant], setting: Setting, findings: Findings) -> Iterator[dict[str, Load]]:
    """Tunnels of all that start, and get something through, ready to be loaded."""
    loads = {}
    with tempfile.TemporaryDirectory(prefix="kinkvpn-bench-") as directory, ExitStack() as held:
        for contestant in able:
            with findings.blaming(contestant.name):
                own = Path(directory, contestant.name)
                own.mkdir()
                loads[contestant.name] = load = held.enter_context(_loaded(contestant, setting, own))
                findings.descriptions[contestant.name] = load.tunnel.description
        yield loads


@contextmanager
def _loaded(contestant: Contestant, setting: Setting, directory: Path) -> Iterator[Load]:
    with contestant.tunnel(setting, directory) as tunnel:
        tunnel.wait_through()
        with Load(tunnel) as load:
            yield load


def _keep(result: dict[str, Any], rows: Sequence[Row], directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    commit = str(result["machine"]["commit"]).replace("+", "-dirty")
    stem = directory / f"datapath-{time.strftime('%Y%m%d-%H%M%S')}-{commit}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    try:
        figure.draw(rows, result["machine"], stem.with_suffix(".png"))
    except ImportError:
        print("bench datapath: no plot: pip install matplotlib", file=sys.stderr)
    print(f"bench datapath: kept as {stem}.json", file=sys.stderr)


def contestants(text: str) -> list[str]:
    """Names, as ``--only`` takes them. Raises argparse.ArgumentTypeError."""
    known, named = [each.name for each in CONTESTANTS], text.split(",")
    if unknown := [name for name in named if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (choose from {', '.join(known)})")
    return named


def whole(least: int) -> Callable[[str], int]:
    """A number that is at least so much."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"{text}: expected {least} or more")
        return number

    return parse


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``datapath`` among the subcommands."""
    parser = measurements.add_parser("datapath", help="what a tunnel carries, beside other VPNs; as root")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="fewer cases, fewer and shorter rounds")
    parser.add_argument("--only", type=contestants, metavar="NAME,...", help="these contestants and no others")
    parser.add_argument("--rounds", type=whole(1), help=f"of each case (default: {FULL.rounds})")
    parser.add_argument("--seconds", type=whole(1), help=f"of each load (default: {FULL.seconds})")
    parser.add_argument("--trials", type=whole(0), help=f"of each placement (default: {FULL.trials}); 0: never pinned")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the result is kept")
    parser.set_defaults(run=run)
