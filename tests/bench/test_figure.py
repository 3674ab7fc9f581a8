"""A plot is drawn of what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.contestants.contestant import Setting
from bench.figure import draw
from bench.rounds import rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs
MACHINE = {"commit": "0123456789ab", "processor": "Some", "cores": 2}


@pytest.mark.parametrize("cases", [["tcp1"], ["tcp1", "tcp1-split", "tcp4"], ["tcp4"]])
@pytest.mark.parametrize("rounds", [1, 3])
def test_it_is_a_png(cases: list[str], rounds: int, tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    found = [
        row
        for case in cases
        for name in ("veth", "kinkvpn")
        for row in rows([{"gbit": 1.0 + n} for n in range(rounds)], (name, Setting(), "none", case), pinned=False)
    ]
    draw(found, MACHINE, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_is_an_empty_plot(tmp_path: Path) -> None:
    draw([], MACHINE, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
