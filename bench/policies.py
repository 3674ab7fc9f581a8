"""``bench policies``: what a packet and a change cost with 10 policies and with 10,000.

A *hit* is a flow that has been decided about, a *miss* one that is new. Policies are what a gateway of many sites has:
remote subnets of some sizes, each third of them told apart by a port as well. CPU time of this process, medians.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from random import Random
from typing import TYPE_CHECKING

from bench import machine
from esp.policy import Policy, Selector
from esp.spd import Spd

if TYPE_CHECKING:
    import argparse

    from esp.inner import Flow

COUNTS = (10, 100, 1_000, 10_000)
LOCAL = ip_network("10.0.0.0/8")
ADDRESS = bytes([10, 9, 9, 9])
TCP = 6
FLOWS = 1_000  # looked up in one go, for the clock's sake


@dataclass(frozen=True, slots=True)
class Row:
    """Nanoseconds: of a lookup, and of adding or removing one policy among the others."""

    policies: int
    hit: float
    miss: float
    add: float
    remove: float


def policies(count: int) -> list[Policy]:
    """In 10.0.0.0/8: /20, /24 and /28 in turn."""
    found = []
    for number in range(count):
        subnet = ip_network((10 << 24 | number << 8, (20, 24, 28)[number % 3]), strict=False)
        found.append(Policy(str(number), Selector(LOCAL, subnet, *((TCP, 0, 443) if number % 3 == 0 else ()))))
    return found


def _flows(count: int, random: Random) -> list[Flow]:
    return [
        (TCP, ADDRESS + (10 << 24 | random.randrange(count) << 8 | 1).to_bytes(4), random.randrange(65_536) << 16 | 443)
        for _ in range(FLOWS)
    ]


def measure(count: int, rounds: int) -> Row:
    """One row."""
    random = Random(count)  # noqa: S311 - the same flows each time, not secrets
    samples: dict[str, list[float]] = {"hit": [], "miss": [], "add": [], "remove": []}
    for _ in range(rounds):
        spd, listed, flows = Spd(), policies(count), _flows(count, random)
        began = time.process_time_ns()
        for policy in listed:
            spd.add(policy)
        samples["add"].append((time.process_time_ns() - began) / count)
        for kind in ("miss", "hit"):
            began = time.process_time_ns()
            for flow in flows:
                spd.outbound.lookup(flow)
            samples[kind].append((time.process_time_ns() - began) / FLOWS)
        began = time.process_time_ns()
        for policy in listed:
            spd.remove(policy.name)
        samples["remove"].append((time.process_time_ns() - began) / count)
    return Row(count, **{kind: round(statistics.median(found), 1) for kind, found in samples.items()})


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line; the exit code."""
    rounds = 3 if options.quick else 11
    about = machine.describe()
    rows = [measure(count, rounds) for count in COUNTS]
    if options.json:
        print(json.dumps({"machine": about, "rounds": rounds, "rows": [asdict(row) for row in rows]}))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(f"nanoseconds, medians of {rounds} rounds, CPU time of one core\n")
    print(f"{'policies':>8}{'hit':>10}{'miss':>10}{'add':>10}{'remove':>10}")
    for row in rows:
        print(f"{row.policies:>8,}{row.hit:>10,.0f}{row.miss:>10,.0f}{row.add:>10,.0f}{row.remove:>10,.0f}")
    return 0


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``policies`` among the subcommands."""
    parser = measurements.add_parser("policies", help="lookups and changes of the SPD, from 10 to 10,000 policies")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.set_defaults(run=run)
