"""The command line. Exit codes: 0 done, 1 it failed while running, 2 what was asked for or found cannot be."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from kinkvpn import __version__
from kinkvpn.commands import (
    block,
    check,
    completion,
    decode,
    demo,
    doctor,
    down,
    esp,
    events,
    init,
    listings,
    proxy,
    rekey,
    reload,
    run,
    status,
    top,
    unblock,
    up,
)
from kinkvpn.commands.outcome import CANNOT, DONE, FAILED, INTERRUPTED, abandon_output, complain
from kinkvpn.commands.subcommands import Parser
from kinkvpn.document import DocumentError
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Sequence

# In the order of the help.
COMMANDS = (
    init,
    up,
    run,
    proxy,
    check,
    doctor,
    status,
    top,
    listings,
    events,
    reload,
    rekey,
    down,
    block,
    unblock,
    completion,
    demo,
    decode,
    esp,
)

DESCRIPTION = """\
IPsec between Kerberos principals, without the kernel's IPsec: SAs are
negotiated by KINK (RFC 4430), packets travel as ESP (RFC 4303), in UDP unless
told otherwise, or as AH (RFC 4302)."""

EXAMPLES = """\
examples:
  kinkvpn init                   write a configuration, by asking
  kinkvpn check -c west.toml     would this configuration work on this host?
  kinkvpn up -c west.toml        run in the foreground until Ctrl-C or SIGTERM
  kinkvpn doctor east            why does it not work, and what mends it?
  kinkvpn status                 peers, tunnels, ages, and why one is down
  kinkvpn status --probe --json  the same for programs; asks every peer first
  kinkvpn events --follow        what happens, as it happens
  kinkvpn reload                 take over what was changed in the file
  kinkvpn rekey east             new keys for what is established with east
  kinkvpn down                   stop the daemon: deletes its SAs, undoes routes
  kinkvpn demo                   a realm, two hosts and a tunnel, all throwaway
  kinkvpn decode wire.pcap --keytab east.keytab   every KINK message, explained
  kinkvpn esp --manual sas.toml  the ESP engine with keys of a file, no KINK

the smallest configuration, where /etc/kinkvpn/keytab has this host's key:
  [[peer]]
  address = "east.example.com"
  local = "10.1.0.0/24"
  remote = "10.2.0.0/24"

exit codes: 0 done; 1 failed while running, or no daemon answers;
2 bad input, or the host lacks something (one line each on stderr)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in ``arguments``, the process's own if None; the exit code."""
    root = parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks, and gets its answer on a descriptor of its own
        import argcomplete

        argcomplete.autocomplete(root)
    asked = root.parse_args(arguments)
    try:
        code: int = asked.run(asked)
        sys.stdout.flush()
    except DocumentError as error:
        return complain(error, CANNOT)
    except KinkvpnError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        abandon_output()
        return DONE
    return code


def parser() -> Parser:
    """Every command, with its help."""
    raw = argparse.RawDescriptionHelpFormatter
    root = Parser(prog="kinkvpn", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    root.add_argument("--version", action="version", version=f"kinkvpn {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return root
