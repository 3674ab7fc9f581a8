"""``python -m bench NAME [--json] [--quick]``."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from bench import cipher, create, datapath, engine, keying, offload, policies, proxy, queues, soak


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        self.exit(2, f"bench: {message} (see {self.prog} --help)\n")


def main(arguments: list[str]) -> int:
    """Run the measurement that is named; the exit code."""
    parser: argparse.ArgumentParser = Parser(
        prog="python -m bench", description="Measure parts of kinkvpn on this machine."
    )
    measurements = parser.add_subparsers(required=True, metavar="NAME")
    engine.add_command(measurements)
    datapath.add_command(measurements)
    keying.add_command(measurements)
    create.add_command(measurements)
    policies.add_command(measurements)
    cipher.add_command(measurements)
    offload.add_command(measurements)
    proxy.add_command(measurements)
    queues.add_command(measurements)
    soak.add_command(measurements)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
