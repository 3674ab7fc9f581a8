"""``kinkvpn up``: the daemon, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.gateway import add_gateway_options, configuration_of
from kinkvpn.commands.outcome import CANNOT, DONE, FAILED, complain
from kinkvpn.commands.person import Person
from kinkvpn.config import DEFAULT_PATH, engine_settings, load
from kinkvpn.document import DocumentError
from kinkvpn.terminal import width_of

if TYPE_CHECKING:
    import argparse

    from kinkvpn.api.client import Client
    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Runs the daemon in the foreground and logs to stderr. With a GATEWAY it needs no configuration: the tickets
that kinit got say who you are, and the gateway lends an address, routes and name servers; at a terminal a few lines say
how it goes, and the log's warnings. SIGTERM, Ctrl-C or `kinkvpn
down` make it delete its SAs, undo addresses and routes, and exit 0. What keeps it from starting is said in a line each,
exit code 2. Where a daemon runs already, the name is that of a PEER of it, whose SAs are made now: what `kinkvpn down
PEER` has ended begins again."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("up", help="run the daemon in the foreground", description=ABOUT)
    named = "a gateway's host name, in place of a configuration; or a peer of the daemon that runs"
    command.add_argument("gateway", nargs="?", metavar="GATEWAY|PEER", help=named)
    add_socket_options(command)
    add_gateway_options(command)
    whole = "at a terminal, with a GATEWAY, show the whole log"
    command.add_argument("-v", "--verbose", action="store_true", help=whole)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn up``."""
    if asked.gateway and (running := daemon_of(asked)):
        return bring_up(running, asked.gateway)
    configuration = None if asked.gateway else load(asked.config or DEFAULT_PATH)

    import logging
    from contextlib import nullcontext

    import trio

    from esp.errors import EspError
    from kinkvpn.config import LogFormat, LogSettings
    from kinkvpn.people.identity import this_machine
    from kinkvpn.service import log
    from kinkvpn.service.daemon import Daemon
    from kinkvpn.service.obstacles import StartRefused

    wanted = LogSettings() if configuration is None else configuration.log
    handler = log.configure(sys.stderr, level=wanted.level.value, as_json=wanted.format is LogFormat.JSON)
    seated = asked.gateway and not asked.verbose and width_of(sys.stderr) is not None
    if seated:
        handler.setLevel(logging.WARNING)
    try:
        with log.told_to(Person(sys.stderr).take) if seated else nullcontext():
            if configuration is None:
                configuration = trio.run(configuration_of, asked, this_machine())
            engine = engine_settings(configuration.esp.engine, os.environ)
            trio.run(Daemon(configuration, engine, None if asked.gateway else asked.config).run)
    except StartRefused as refused:
        return complain(refused, CANNOT)
    except EspError as error:
        return complain(error, FAILED)
    return DONE


def daemon_of(asked: argparse.Namespace) -> Client | None:
    """The one that runs, if one does and we may ask it. Raises where one was named, and is not there."""
    from kinkvpn.api.client import Client
    from kinkvpn.api.control import ControlUnavailable, NotRunning

    try:
        return Client(socket_path(asked))
    except (NotRunning, ControlUnavailable, DocumentError):
        if asked.config is not None or asked.socket is not None:
            raise
        return None


def bring_up(running: Client, peer: str) -> int:
    """A line for each policy of ``peer``."""
    from kinkvpn.api.client import peer_path
    from kinkvpn.listing import established

    with running as daemon:
        answer = daemon.post(f"{peer_path(peer)}/up")
    for line in established(answer):
        print(line)
    return DONE
