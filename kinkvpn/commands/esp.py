"""``kinkvpn esp``: the engine with keys of a file."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.commands.outcome import CANNOT, DONE, FAILED, complain
from kinkvpn.config import engine_settings
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Runs the ESP engine with the SAs of a file, whose keys somebody has written down: for trying it against
other implementations, for measuring and for debugging. Nobody makes new keys: where a lifetime ends, the traffic does.
SIGUSR1 prints statistics, and so does the end, which SIGTERM or Ctrl-C brings. With --print nothing runs: the same SAs
come as commands for a Linux host, as a table for Wireshark or as JSON, keys and all."""


def add(commands: Subcommands) -> None:
    """Its options."""
    esp = commands.add_parser("esp", help="run the ESP engine with keys of a file", description=ABOUT)
    esp.add_argument("--manual", type=Path, required=True, metavar="FILE", help="the SAs: docs/manual.md has its keys")
    forms = "xfrm", "wireshark", "json"
    esp.add_argument("--print", choices=forms, dest="form", help="print the SAs, with their keys, and run nothing")
    esp.add_argument("--peer", action="store_true", help="with --print: as the other end has them")
    esp.add_argument("--json", action="store_true", help="statistics as one JSON object a line")
    esp.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn esp``."""
    from kinkvpn.manual import file, printing

    if asked.peer and not asked.form:
        return complain("--peer goes with --print", CANNOT)
    manual = file.load(asked.manual)
    engine = engine_settings(manual.engine, os.environ)
    if asked.form:
        pairs = [pair.turned_about() for pair in manual.pairs] if asked.peer else manual.pairs
        for line in printing.lines(pairs, printing.Form(asked.form)):
            print(line)
        return DONE

    import trio

    from esp.errors import EspError
    from kinkvpn.manual.run import run as run_manual
    from kinkvpn.service import log
    from kinkvpn.service.obstacles import StartRefused, first_leaf

    log.configure(sys.stderr, level="info", as_json=False)
    failure: KinkvpnError | EspError | None = None
    try:
        trio.run(partial(run_manual, manual, engine, sys.stdout, as_json=asked.json))
    except* (KinkvpnError, EspError) as group:
        failure = first_leaf(group)
    if failure is None:
        return DONE
    return complain(failure, CANNOT if isinstance(failure, StartRefused) else FAILED)
