"""``kinkvpn doctor``: what keeps tunnels from working, and the command that mends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.config import DEFAULT_PATH

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Looks at this host, its keys, its KDC and the ways to its peers, and says of everything that is wrong why,
and what mends it: a command, or a line for a configuration. What it can try, it tries: ports are bound, tickets are
got, peers are asked. Where a daemon runs it is asked, and nothing is taken from it. Takes a second, or as long as those
need that do not answer, each with a limit. Exit code 0 if nothing is wrong, 1 with warnings, 2 with errors or bad
input."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("doctor", help="find what is wrong, and say what mends it", description=ABOUT)
    named = "only this one; default all. Without a configuration: a gateway's host name, with the tickets of kinit"
    command.add_argument("peer", nargs="?", metavar="PEER|GATEWAY", help=named)
    command.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"default {DEFAULT_PATH}, if it is there")
    command.add_argument("--json", action="store_true", help="one JSON object; docs/doctor.md has its names")
    wrong = "also what is as it should be, where something is wrong"
    command.add_argument("-v", "--verbose", action="store_true", help=wrong)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn doctor``."""
    from kinkvpn.commands.outcome import CANNOT, complain
    from kinkvpn.doctor import command

    try:
        return command.run(asked.config, asked.peer, as_json=asked.json, out=sys.stdout, verbose=asked.verbose)
    except command.NoSuchPeer as error:
        return complain(error, CANNOT)
