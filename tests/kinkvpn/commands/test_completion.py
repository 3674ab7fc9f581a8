"""Completion, by the shells themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.programs

# What bash does when somebody presses TAB (bash(1), "Programmable Completion").
BASH = """
eval "$(kinkvpn completion bash)"
COMP_LINE=$1 COMP_POINT=${#COMP_LINE} COMP_TYPE=9 COMP_KEY=9
_python_argcomplete kinkvpn
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -U compinit && compinit -u -d $HOME/dump
eval "$(kinkvpn completion zsh)"
print $_comps[kinkvpn]
"""
FISH = """
kinkvpn completion fish | source
complete -C $argv[1]
"""


def shell(home: Path, name: str, script: str, *arguments: str) -> list[str]:
    """What it prints, with the kinkvpn of this installation in its PATH."""
    before = [*arguments] if name == "fish" else ["shell", *arguments]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    command = [name, *(["-f"] if name == "zsh" else []), "-c", script, *before]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [line.rstrip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kinkvpn unb", ["unblock"]),
        ("kinkvpn demo --s", ["--size"]),
        ("kinkvpn esp --print w", ["wireshark"]),
        ("kinkvpn completion z", ["zsh"]),
    ],
)
def test_bash_completes_commands_options_and_choices(tmp_path: Path, typed: str, offered: list[str]) -> None:
    assert shell(tmp_path, "bash", BASH, typed) == offered


def test_bash_completes_files(tmp_path: Path) -> None:
    (tmp_path / "branch.toml").write_text("")
    assert shell(tmp_path, "bash", BASH, f"kinkvpn up -c {tmp_path}/bra") == [f"{tmp_path}/branch.toml"]


def test_fish_completes_too(tmp_path: Path) -> None:
    offered = [line.split("\t")[0] for line in shell(tmp_path, "fish", FISH, "kinkvpn re")]
    assert "rekey" in offered
    assert all(each.startswith("re") for each in offered)


def test_zsh_has_a_function_for_it(tmp_path: Path) -> None:
    assert shell(tmp_path, "zsh", ZSH, "kinkvpn re") == ["_python_argcomplete"]
