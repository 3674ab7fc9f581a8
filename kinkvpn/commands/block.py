"""``kinkvpn block``: the kill switch without a daemon, for the time before there is one."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_config_option
from kinkvpn.commands.outcome import CANNOT, DONE, complain
from kinkvpn.config import Block, load

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Keeps in what clear.block says must not leave in the clear, from now on, as `kinkvpn up` does first of all:
for the time between the boot of a machine and the start of its daemon, which takes over from it. `kinkvpn unblock`
undoes it."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("block", help="put the kill switch in place, without a daemon", description=ABOUT)
    add_config_option(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn block``."""
    configuration = load(asked.config)
    if configuration.clear.block is Block.NOTHING:
        return complain(f'{asked.config}: clear.block = "nothing": expected "protected" or "everything"', CANNOT)

    import trio

    from kinkvpn.api.control import NotRunning, connect
    from kinkvpn.service import kill_switch
    from kinkvpn.service.bypass import here

    with suppress(NotRunning), connect(configuration.control.socket):
        return complain("the daemon is running, and keeps it in: kinkvpn reload has it take over clear.block", CANNOT)
    try:
        trio.run(partial(kill_switch.block, here(configuration), running=False))
    except kill_switch.KillSwitchRefused as refused:
        return complain(refused, CANNOT)
    return DONE
