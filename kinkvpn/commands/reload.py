"""``kinkvpn reload``: what was changed in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.outcome import CANNOT, DONE, complain
from kinkvpn.terminal import printable

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Has the running daemon read its configuration again, as SIGHUP does. Peers and policies that were added,
changed or removed are; all else goes on and loses no packet. If something in the file is wrong, or takes a restart,
all of it is said, exit code 2, and nothing changes."""


def add(commands: Subcommands) -> None:
    """Its options."""
    takes_over = "have a running daemon take over what was changed in its configuration"
    command = commands.add_parser("reload", help=takes_over, description=ABOUT)
    add_socket_options(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn reload``: a line for each kind of change."""
    from kinkvpn.api.client import Client
    from kinkvpn.api.control import CommandRefused

    with Client(socket_path(asked)) as daemon:
        try:
            answer = daemon.post("/v1/reload")
        except CommandRefused as refused:
            return complain(refused, CANNOT)
    kinds = ("added", "changed", "replaced", "removed")
    said = [printable(f"{what}: {', '.join(answer[what])}") for what in kinds if answer[what]]
    print("\n".join(said or ["no peer has changed"]))
    return DONE
