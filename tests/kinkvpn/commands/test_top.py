"""kinkvpn top where it cannot be: without a terminal, and with an interval that is none."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from kinkvpn.cli import main
from kinkvpn.commands.top import seconds

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_terminal_it_says_what_to_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--socket", str(tmp_path / "k.sock")]) == 2
    assert capsys.readouterr().err == "kinkvpn: top needs a terminal; kinkvpn status --json is for programs\n"


@pytest.mark.parametrize("text", ["0.1", "1", "3600"])
def test_intervals(text: str) -> None:
    assert seconds(text) == float(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "3601", "soon", ""])
def test_what_is_no_interval(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected seconds from 0\.1 to 3600"):
        seconds(text)
    with pytest.raises(SystemExit, match="2"):
        main(["top", f"--interval={text}"])
    assert len(capsys.readouterr().err.splitlines()) == 1
