"""``kinkvpn status``: what a running daemon does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_socket_options, found_by, socket_path
from kinkvpn.commands.outcome import DONE, FAILED
from kinkvpn.terminal import show_each

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Peers, policies, SPIs, ages and counters, and why a tunnel is down. Exit code 1 if no daemon answers,
or, with --probe, if a peer does not."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("status", help="show what a running daemon does", description=ABOUT)
    add_socket_options(command)
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.add_argument(
        "--probe", action="store_true", help="ask every peer for its STATUS first; exit 1 if one is dead"
    )
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn status``."""
    from kinkvpn import listing
    from kinkvpn.api.client import Client, peer_path
    from kinkvpn.api.control import CommandRefused

    probes: dict[str, dict[str, object]] = {}
    with Client(socket_path(asked)) as daemon:
        answer = daemon.status()
        for peer in answer["peers"] if asked.probe else ():
            try:
                probes[peer["name"]] = daemon.post(f"{peer_path(peer['name'])}/probe")
            except CommandRefused as refused:
                probes[peer["name"]] = {"error": str(refused)}
        if asked.probe:
            answer = daemon.status()  # a probe may have brought a peer back
    if asked.json:
        print(json.dumps(answer | ({"probes": probes} if asked.probe else {})))
    else:
        words = {name: spoken(probe) for name, probe in probes.items()}
        show_each(listing.status(answer, words, found_by(asked)))
    return FAILED if any("error" in probe for probe in probes.values()) else DONE


def spoken(probe: dict[str, object]) -> str:
    """What came of a probe, in words."""
    seconds = probe.get("seconds")
    return f"{seconds * 1000:.1f} ms" if isinstance(seconds, float) else str(probe.get("error"))
