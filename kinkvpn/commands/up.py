"""``kinkvpn up``: the daemon, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_config_option
from kinkvpn.commands.gateway import add_gateway_options, configuration_of
from kinkvpn.commands.outcome import CANNOT, DONE, FAILED, complain
from kinkvpn.config import engine_settings, load

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Runs the daemon in the foreground and logs to stderr. With a GATEWAY it needs no configuration: the tickets
that kinit got say who you are, and the gateway lends an address, routes and name servers. SIGTERM, Ctrl-C or `kinkvpn
down` make it delete its SAs, undo addresses and routes, and exit 0. What keeps it from starting is said in a line each,
exit code 2."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("up", help="run the daemon in the foreground", description=ABOUT)
    named = "a gateway's host name, in place of a configuration"
    command.add_argument("gateway", nargs="?", metavar="GATEWAY", help=named)
    add_config_option(command)
    add_gateway_options(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn up``."""
    configuration = None if asked.gateway else load(asked.config)

    import trio

    from esp.errors import EspError
    from kinkvpn.config import LogFormat, LogSettings
    from kinkvpn.service import log
    from kinkvpn.service.daemon import Daemon
    from kinkvpn.service.obstacles import StartRefused

    wanted = LogSettings() if configuration is None else configuration.log
    log.configure(sys.stderr, level=wanted.level.value, as_json=wanted.format is LogFormat.JSON)
    try:
        if configuration is None:
            configuration = trio.run(configuration_of, asked)
        engine = engine_settings(configuration.esp.engine, os.environ)
        trio.run(Daemon(configuration, engine, None if asked.gateway else asked.config).run)
    except StartRefused as refused:
        return complain(refused, CANNOT)
    except EspError as error:
        return complain(error, FAILED)
    return DONE
