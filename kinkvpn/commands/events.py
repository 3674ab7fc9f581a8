"""``kinkvpn events``: what a running daemon tells, as it tells it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.outcome import DONE

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """The newest thousand events of a running daemon's log, the oldest first. With --follow each that comes is
added, until the daemon or Ctrl-C ends it. Exit code 1 if no daemon answers."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("events", help="the newest events of a running daemon", description=ABOUT)
    command.add_argument("-f", "--follow", action="store_true", help="and each that comes")
    command.add_argument("--json", action="store_true", help="one JSON object an event and line")
    add_socket_options(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn events``."""
    from kinkvpn import listing
    from kinkvpn.api.client import Client

    with Client(socket_path(asked)) as daemon:
        for event in daemon.events(follow=asked.follow):
            if asked.json:
                print(json.dumps({"id": event.id, **event.data}))
            elif event.type == "lost":
                print(f"{event.data['lost']} events came too fast to be shown")
            else:
                print(listing.event(event.data))
            sys.stdout.flush()
    return DONE
