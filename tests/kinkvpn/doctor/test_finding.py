"""Names of findings: each is on the page, and each is provoked by a test of this folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kinkvpn.doctor.finding import error, exit_code, note, ok, warning

HERE = Path(__file__)
ROOT = HERE.parents[3]
MADE = re.compile(r"\b(?:ok|note|warning|error)\(\s*\"([a-z0-9-]+)\"")

NAMES = sorted({name for path in (ROOT / "kinkvpn/doctor").glob("*.py") for name in MADE.findall(path.read_text())})


def test_the_page_has_a_row_for_each_and_no_other() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_provoked(name: str) -> None:
    tests = [path for path in HERE.parent.glob("test_*.py") if path != HERE]
    assert any(f'"{name}"' in path.read_text() for path in tests)


def test_the_worst_decides_the_exit_code() -> None:
    found = [ok("x", "fine")]
    assert exit_code([]) == exit_code(found) == exit_code([*found, note("y", "by the way")]) == 0
    found.append(warning("z", "soon"))
    assert exit_code(found) == 1
    assert exit_code([error("w", "now"), *found]) == 2
