"""``kinkvpn decode``: the KINK messages of a capture, explained."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.commands.outcome import CANNOT, FAILED, abandon_output, complain

if TYPE_CHECKING:
    from kinkvpn.commands.subcommands import Subcommands

ABOUT = """Prints every KINK message of a pcap or pcapng file, decrypted and explained, with what is wrong with
it. A message opens with the keytab of its receiver, its answer with the same key. Exit code 0 only if there were KINK
messages and every one of them parsed, verified and decrypted; 1 if not; 2 for a file that is no capture or no keytab.
Prints no keys; but who can read a keytab can derive those of the tunnels."""


def add(commands: Subcommands) -> None:
    """Its options."""
    decode = commands.add_parser("decode", help="explain the KINK messages of a capture", description=ABOUT)
    decode.add_argument("capture", metavar="CAPTURE", help="a pcap or pcapng file; - for stdin")
    decode.add_argument(
        "--keytab", type=Path, action="append", default=[], metavar="FILE", help="keys that open tickets; repeatable"
    )
    others = "a credential cache whose TGT user-to-user tickets were made with; repeatable"
    decode.add_argument("--ccache", type=Path, action="append", default=[], metavar="FILE", help=others)
    more = "a UDP port that carries KINK beside 910 and 4500; repeatable"
    decode.add_argument("--port", type=udp_port, action="append", default=[], metavar="N", help=more)
    decode.add_argument("--json", action="store_true", help="one JSON object a message and line, the last a summary")
    decode.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn decode``."""
    from kinkvpn.decode import command

    try:
        return command.run(
            asked.capture, asked.keytab, asked.ccache, ports=asked.port, as_json=asked.json, out=sys.stdout
        )
    except command.BAD_INPUT as error:
        return complain(error, CANNOT)
    except BrokenPipeError:
        abandon_output()
        return FAILED  # nobody has seen that all of it verified


def udp_port(text: str) -> int:
    """1 to 65535. Raises argparse's error."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no UDP port: 1 to 65535")
    return int(text)
