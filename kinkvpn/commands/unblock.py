"""``kinkvpn unblock``: the end of the kill switch, which outlives the daemon on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_config_option
from kinkvpn.commands.outcome import CANNOT, DONE, complain
from kinkvpn.config import load

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Takes away what `kinkvpn up` or `kinkvpn block` has put in place to keep traffic in, and what stays when the
daemon crashes or is stopped by a signal; `kinkvpn down` does the same. Done is also what was done already."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("unblock", help="let out what the kill switch keeps in", description=ABOUT)
    add_config_option(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn unblock``."""
    configuration = load(asked.config)

    import trio

    from kinkvpn.service import kill_switch

    try:
        trio.run(kill_switch.unblock, configuration.tun.name)
    except kill_switch.KillSwitchRefused as refused:
        return complain(refused, CANNOT)
    return DONE
