"""What argparse makes commands of, with errors of one line like all of ours."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from kinkvpn.commands.outcome import CANNOT, complain

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction["Parser"]


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line like all of ours."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        self.exit(complain(f"{message} (see {self.prog} --help)", CANNOT))
