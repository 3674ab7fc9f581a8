"""``kinkvpn completion``: what a shell has to be told to complete our command lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.commands.outcome import DONE

if TYPE_CHECKING:
    import argparse

    from kinkvpn.commands.subcommands import Subcommands

SHELLS = ("bash", "zsh", "fish")

ABOUT = """Prints what has a shell complete the commands, options and files of kinkvpn. For one shell: eval "$(kinkvpn
completion bash)"; for good: into /usr/share/bash-completion/completions/kinkvpn, a file _kinkvpn in zsh's fpath, or
~/.config/fish/completions/kinkvpn.fish."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("completion", help="print what completes kinkvpn in a shell", description=ABOUT)
    command.add_argument("shell", choices=SHELLS, help="which one")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn completion``."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["kinkvpn"], shell=asked.shell))
    return DONE
