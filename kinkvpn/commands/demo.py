"""``kinkvpn demo``: all of it on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """A throwaway Kerberos realm and two hosts in network namespaces, a tunnel between them, pings, a
transfer, and a capture in which every packet is accounted for. Leaves nothing behind. Exit code 0 only if all of it
held."""


def add(commands: Subcommands) -> None:
    """Its options."""
    shows = "show it all on this machine, in namespaces; needs root"
    command = commands.add_parser("demo", help=shows, description=ABOUT)
    command.add_argument("--json", action="store_true", help="one JSON object at the end")
    command.add_argument(
        "--size", type=int, default=200, metavar="MB", help="what to transfer, in 10^6 octets; default 200"
    )
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn demo``."""
    from kinkvpn.demo.command import run as run_demo

    return run_demo(as_json=asked.json, megabytes=asked.size)
