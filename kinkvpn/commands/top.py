"""``kinkvpn top``: a running daemon, live."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.outcome import CANNOT, DONE, complain

if TYPE_CHECKING:
    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Tunnels with their rates and what is left of their SAs, drops and events of a running daemon, asked again
and again. Keys: s sorts, / filters, k gives the peer under the cursor new keys after a question, 1 2 3 show SAs, drops
and events where there is no room for all, q quits. It stays when the daemon goes, and goes on when one is back."""

SHORTEST_SECONDS = 0.1


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("top", help="watch a running daemon in a terminal", description=ABOUT)
    add_socket_options(command)
    command.add_argument(
        "--interval", type=seconds, default=1.0, metavar="SECONDS", help="between two looks; default 1"
    )
    command.set_defaults(run=run)


def seconds(text: str) -> float:
    """Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not SHORTEST_SECONDS <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds from {SHORTEST_SECONDS} to 3600")
    return value


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn top``."""
    path = socket_path(asked)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return complain("top needs a terminal; kinkvpn status --json is for programs", CANNOT)
    from kinkvpn.top.app import Top
    from kinkvpn.top.look import Observer

    Top(Observer(path), asked.interval).run()
    return DONE
