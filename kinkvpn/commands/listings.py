"""``kinkvpn peers``, ``policies``, ``sas`` and ``counters``: paths of the API as tables, or as they are."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kinkvpn.commands.files import add_socket_options, socket_path
from kinkvpn.commands.outcome import DONE

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands


class Listing(NamedTuple):
    """A command, which is also the path's last part and the name of its rows in ``kinkvpn.listing``."""

    name: str
    shows: str
    about: str


LISTINGS = (
    Listing(
        "peers",
        "every peer of a running daemon on a line",
        """Every peer of a running daemon on a line: how it stands, where it is, when it was last heard, and how many of
its policies have SAs. Exit code 1 if no daemon answers.""",
    ),
    Listing(
        "policies",
        "every policy of a running daemon on a line",
        """Every policy of a running daemon on a line: whether it has SAs, since when, and what they have carried. Why
one has none is in `kinkvpn status`. Exit code 1 if no daemon answers.""",
    ),
    Listing(
        "sas",
        "every SA of a running daemon on a line",
        """Every SA of a running daemon on a line, without its keys: which way it goes, its SPI as Wireshark has it, how
old it is and how long it has, and what it has carried. Exit code 1 if no daemon answers.""",
    ),
    Listing(
        "counters",
        "what a running daemon has counted",
        """What a running daemon has counted since its start, without what is zero; docs/counters.md says what each is.
None of them ever goes back. Exit code 1 if no daemon answers.""",
    ),
)


def add(commands: Subcommands) -> None:
    """A command for each, with its options."""
    for one in LISTINGS:
        command = commands.add_parser(one.name, help=one.shows, description=one.about)
        add_socket_options(command)
        command.add_argument("--json", action="store_true", help="one JSON object, as the local API has it")
        command.set_defaults(run=partial(run, one.name))


def run(name: str, asked: argparse.Namespace) -> int:
    """The command of that name."""
    from kinkvpn.api.client import Client

    with Client(socket_path(asked)) as daemon:
        answer = daemon.get(f"/v1/{name}")
    if asked.json:
        print(json.dumps(answer))
        return DONE
    from kinkvpn import listing
    from kinkvpn.terminal import show

    found = listing.TABLES[name]
    show(found.heading, list(found.rows(answer)))
    return DONE
