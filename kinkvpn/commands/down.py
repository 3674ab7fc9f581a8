"""``kinkvpn down``: the end of a running daemon."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.outcome import DONE, FAILED, complain

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

# Stopping takes two seconds at most; a machine that swaps gets more before we say that it did not work.
DOWN_SECONDS = 10.0

ABOUT = """Tells the daemon to delete its SAs, undo addresses and routes and end; returns when its process is
gone. With a PEER the daemon stays: only the SAs with that one are deleted, and none is made until `kinkvpn up PEER`,
whatever packets or the peer ask for."""


def add(commands: Subcommands) -> None:
    """Its options."""
    stops = "stop a running daemon, or its SAs with one peer"
    command = commands.add_parser("down", help=stops, description=ABOUT)
    command.add_argument("peer", nargs="?", metavar="PEER", help="only the SAs with this one; default the daemon")
    add_socket_options(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn down``: over when the process is gone, so that the next ``up`` finds nothing in its way."""
    from kinkvpn.api.client import Client, peer_path
    from kinkvpn.api.control import ControlUnavailable

    with Client(socket_path(asked)) as daemon:
        if asked.peer is not None:
            daemon.post(f"{peer_path(asked.peer)}/down")
            return DONE
        process = os.pidfd_open(daemon.pid)
        try:
            with suppress(ControlUnavailable):  # it may be gone before we have read its answer
                daemon.post("/v1/stop")
            ended, _, _ = select.select([process], [], [], DOWN_SECONDS)
        finally:
            os.close(process)
    if not ended:
        return complain(
            f"the daemon, pid {daemon.pid}, still runs {DOWN_SECONDS:g} s after it was told to stop", FAILED
        )
    return DONE
