"""Which configuration a command is about, and with it which daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.config import DEFAULT_PATH, ControlSettings, load

if TYPE_CHECKING:
    import argparse


def add_config_option(command: argparse.ArgumentParser) -> None:
    """``-c FILE``."""
    command.add_argument(
        "-c", "--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help=f"default {DEFAULT_PATH}"
    )


def add_socket_options(command: argparse.ArgumentParser) -> None:
    """Where the daemon is."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"the daemon's; default {DEFAULT_PATH}")
    where.add_argument(
        "--socket", type=Path, metavar="PATH", help="its control socket, whatever the configuration says"
    )


def socket_path(asked: argparse.Namespace) -> Path:
    """The control socket that was meant. Raises DocumentError."""
    if asked.socket is not None:
        return Path(asked.socket)
    if asked.config is not None or DEFAULT_PATH.exists():
        return load(asked.config or DEFAULT_PATH).control.socket
    return ControlSettings().socket


def found_by(asked: argparse.Namespace) -> list[str]:
    """The options that :func:`socket_path` went by, for a command about the same daemon."""
    named = {"--socket": asked.socket, "-c": asked.config}
    return [word for option, path in named.items() if path is not None for word in (option, str(path))]
