"""``kinkvpn up``: the daemon, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_config_option
from kinkvpn.commands.outcome import CANNOT, DONE, FAILED, complain
from kinkvpn.config import engine_settings, load

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Runs the daemon in the foreground and logs to stderr. SIGTERM, Ctrl-C or `kinkvpn down` make it delete
its SAs, undo addresses and routes, and exit 0. What keeps it from starting is said in a line each, exit code 2."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("up", help="run the daemon in the foreground", description=ABOUT)
    add_config_option(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn up``."""
    configuration = load(asked.config)
    engine = engine_settings(configuration.esp.engine, os.environ)

    import trio

    from esp.errors import EspError
    from kinkvpn.config import LogFormat
    from kinkvpn.service import log
    from kinkvpn.service.daemon import Daemon
    from kinkvpn.service.obstacles import StartRefused

    log.configure(sys.stderr, level=configuration.log.level.value, as_json=configuration.log.format is LogFormat.JSON)
    try:
        trio.run(Daemon(configuration, engine).run)
    except StartRefused as refused:
        return complain(refused, CANNOT)
    except EspError as error:
        return complain(error, FAILED)
    return DONE
