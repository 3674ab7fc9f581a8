"""``bench offload``: what cutting a large packet and putting one together take in C, for each segment.

The C files alone, without Python, kernel and cipher: a small program is compiled for it. CPU time of its thread,
medians.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import machine

if TYPE_CHECKING:
    import argparse

HERE = Path(__file__).parent
NATIVE = HERE.parent / "esp" / "native"
ROOMS = ("checksum.c", "coalesce.c", "segment.c")
PROTOCOLS = {6: "TCP", 17: "UDP"}


@dataclass(frozen=True, slots=True)
class Row:
    """``octets`` of a segment with its headers; nanoseconds for one: its sum alone, cut, put together again."""

    version: int
    protocol: str
    octets: int
    checksum: int
    cut: int
    coalesce: int


def measure(rounds: int) -> list[Row]:
    """A row for each version of IP, protocol and size.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler, or it says why not.
    """
    with TemporaryDirectory() as directory:
        program = Path(directory, "offload")
        sources = [HERE / "offload.c", *(NATIVE / room for room in ROOMS)]
        flags = ["-std=gnu11", "-O3", "-fno-strict-aliasing", f"-I{NATIVE}"]
        subprocess.run(["cc", *flags, "-o", program, *sources], check=True)  # noqa: S603, S607 - our own sources
        told = subprocess.run([program, str(rounds)], check=True, capture_output=True, text=True).stdout  # noqa: S603
    rows = []
    for line in told.splitlines():
        version, protocol, *figures = map(int, line.split())
        rows.append(Row(version, PROTOCOLS[protocol], *figures))
    return rows


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line; the exit code."""
    rounds = 100 if options.quick else 1_000
    about = machine.describe()
    rows = measure(rounds)
    if options.json:
        print(json.dumps({"machine": about, "rounds": rounds, "rows": [asdict(row) for row in rows]}))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(f"nanoseconds for a segment, medians of {rounds} batches, CPU time of one core\n")
    print(f"{'packet':12}{'octets':>8}{'checksum':>10}{'cut':>8}{'coalesce':>10}")
    for row in rows:
        kind = f"IPv{row.version} {row.protocol}"
        print(f"{kind:12}{row.octets:8,}{row.checksum:10,}{row.cut:8,}{row.coalesce:10,}")
    return 0


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``offload`` among the subcommands."""
    parser = measurements.add_parser("offload", help="cutting large packets and putting them together, in C")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.set_defaults(run=run)
