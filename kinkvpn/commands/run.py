"""``kinkvpn run``: a command whose only way out is the tunnel, without root."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.commands.gateway import add_gateway_options, configuration_of
from kinkvpn.commands.outcome import CANNOT, complain
from kinkvpn.config import DEFAULT_PATH, DeviceKind, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kinkvpn.commands.subcommands import Subcommands
    from kinkvpn.config import Configuration

ABOUT = """Runs COMMAND in a network of its own whose only way out is the tunnel: what has no policy goes nowhere, and
if the tunnel fails nothing leaves. Needs no root, no capability and no account: user namespaces are enough. Exit code,
signals and terminal are the command's own. 1 if there is no tunnel, 2 for bad input or where namespaces are refused."""
PATIENCE = 30.0


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser(
        "run", help="run a command whose only way out is the tunnel; needs no root", description=ABOUT
    )
    way = command.add_mutually_exclusive_group()
    way.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"default {DEFAULT_PATH}")
    way.add_argument("-g", "--gateway", metavar="GATEWAY", help="a gateway for people: after kinit no file is needed")
    waits = command.add_mutually_exclusive_group()
    waits.add_argument(
        "--wait", type=seconds, default=PATIENCE, metavar="SECONDS", help=f"for the tunnel; default {PATIENCE:g}"
    )
    waits.add_argument("--no-wait", action="store_const", const=0.0, dest="wait", help="start the command at once")
    kinds = [each.value for each in DeviceKind]
    command.add_argument("--device", choices=kinds, help="how packets come out; default as configured, or auto")
    command.add_argument("-v", "--verbose", action="store_true", help="log to stderr what the tunnel does")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")
    add_gateway_options(command)
    command.set_defaults(run=run)


def seconds(text: str) -> float:
    """A positive number. Raises argparse's error."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return number


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn run``."""
    command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
    if not command:
        return complain("there is nothing to run: kinkvpn run [-c FILE | --gateway NAME] -- COMMAND", CANNOT)
    from kinkvpn.rootless import run as rootless
    from kinkvpn.service.obstacles import StartRefused

    configured = partial(lent, asked) if asked.gateway else at_once(load(asked.config or DEFAULT_PATH))
    device = None if asked.device is None else DeviceKind(asked.device)
    try:
        return rootless.run(rootless.Wanted(command, configured, device, asked.wait, asked.verbose))
    except StartRefused as refused:
        return complain(refused, CANNOT)


async def lent(asked: argparse.Namespace) -> Configuration:
    """What the gateway lends to the machine that this process is. Raises StartRefused."""
    from kinkvpn.rootless.instance import machine_at

    return await configuration_of(asked, machine_at(asked.gateway))


def at_once(configuration: Configuration) -> Callable[[], Awaitable[Configuration]]:
    """What gives it to who asks."""

    async def given() -> Configuration:
        return configuration

    return given
