"""The command ``kinkvpn demo``: checks the machine, runs the journey in a sandbox, and answers for the exit code.

Exit codes: 0 all of it held, 1 a step failed, 2 the machine lacks something, 128 + N ended by signal N.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Final

from kinkvpn.demo.journey import MEGABYTE, Findings, Journey
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.progress import Progress
from kinkvpn.demo.report import failure, summary, table
from kinkvpn.demo.sandbox import (
    CannotRun,
    Interrupted,
    check_machine,
    complete_path,
    leave_on_sigterm,
    mount_scratch,
    run_inside,
)

HELD: Final = 0
FAILED: Final = 1
CANNOT_RUN: Final = 2
# PID 1 adds this to its exit code when it has told the user what happened. Without it (Python's own 1, a signal, the
# 1 of an unshare(1) whose child was killed) nobody has told yet.
TOLD: Final = 100
DEFAULT_MEGABYTES: Final = 200
# The capture lies in memory with a quarter of the traffic's size.
MAXIMUM_MEGABYTES: Final = 4000


def run(*, as_json: bool = False, megabytes: int = DEFAULT_MEGABYTES) -> int:
    """The whole demo. Progress goes to stderr, the table or the JSON object to stdout.

    Args:
        as_json: one JSON object at the end instead of the table.
        megabytes: 10^6 octets each, 1 to MAXIMUM_MEGABYTES.

    Returns:
        The exit code.
    """
    complete_path()
    try:
        if not 1 <= megabytes <= MAXIMUM_MEGABYTES:
            raise CannotRun(f"size {megabytes}: expected 1 to {MAXIMUM_MEGABYTES} MB")
        check_machine()
        code = run_inside([sys.executable, "-m", "kinkvpn.demo", "json" if as_json else "table", str(megabytes)])
    except CannotRun as error:
        return give_up(str(error), CANNOT_RUN, as_json=as_json)
    except Interrupted as signalled:
        sys.stderr.write("\n")
        return give_up(f"ended by {signalled}, nothing is left behind", 128 + signalled.number, as_json=as_json)
    if HELD <= code - TOLD <= CANNOT_RUN:
        return code - TOLD
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return give_up(f"the demo itself broke ({how}); nothing is left behind", FAILED, as_json=as_json)


def give_up(reason: str, code: int, *, as_json: bool) -> int:
    sys.stderr.write(f"kinkvpn demo: {reason}\n")
    if as_json:
        print(json.dumps(summary(Findings(), {}, reason)), flush=True)
    return code


def inside(*, as_json: bool, megabytes: int) -> int:
    """The journey and its report, as PID 1 of the sandbox. Returns TOLD and the exit code."""
    leave_on_sigterm()
    progress = Progress(sys.stderr)
    try:
        journey = Journey(mount_scratch(), megabytes * MEGABYTE, progress)
    except CannotRun as error:
        return TOLD + give_up(str(error), CANNOT_RUN, as_json=as_json)
    try:
        journey.run()
    except LabFailed as error:
        sys.stderr.write(failure(progress.current, error) + "\n")
        problem = f"{progress.current}{f' on host {error.host}' if error.host else ''}: {error}"
        if as_json:
            print(json.dumps(summary(journey.findings, progress.seconds, problem)), flush=True)
        return TOLD + FAILED
    print(json.dumps(summary(journey.findings, progress.seconds)) if as_json else table(journey.findings), flush=True)
    return TOLD + HELD
