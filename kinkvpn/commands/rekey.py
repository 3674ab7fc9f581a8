"""``kinkvpn rekey``: new keys now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.outcome import DONE

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Makes a new pair of SAs for every established policy, moves the traffic onto it and deletes the old
pair. Exit code 1 if no daemon answers, if nothing is established, or if a peer does not agree: then the old pair
stays."""


def add(commands: Subcommands) -> None:
    """Its options."""
    renews = "give a running daemon's tunnels new keys now, without losing a packet"
    command = commands.add_parser("rekey", help=renews, description=ABOUT)
    command.add_argument("peer", nargs="?", metavar="PEER", help="only this peer's; default all")
    add_socket_options(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn rekey``: a line for each policy."""
    from kinkvpn.api.client import Client, peer_path
    from kinkvpn.listing import established

    with Client(socket_path(asked)) as daemon:
        answer = daemon.post("/v1/rekey" if asked.peer is None else f"{peer_path(asked.peer)}/rekey")
    for line in established(answer):
        print(line)
    return DONE
