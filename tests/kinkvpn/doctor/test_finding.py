"""Names of findings: each is on the page, and each is provoked for real by a test that says so.

A test marked ``provokes`` fails if the doctor has not told of all that it names (support/doctor.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kinkvpn.doctor.finding import error, exit_code, note, ok, warning

HERE = Path(__file__)
ROOT = HERE.parents[3]
MADE = re.compile(r"\b(?:ok|note|warning|error)\(\s*\"([a-z0-9-]+)\"")

PROVOKED = re.compile(r"mark\.provokes\(([^)]*)\)")
# How a test would make up what it then finds: findings of its own, and a daemon's status that no daemon has given.
MADE_UP = re.compile(r"\b(?:ok|note|warning|error)\(\"|\.status\b.* = |\bGrant\(")

TESTS = [path for path in (*HERE.parent.glob("test_*.py"), ROOT / "tests/interop/test_doctor.py") if path != HERE]
NAMES = sorted({name for path in (ROOT / "kinkvpn/doctor").glob("*.py") for name in MADE.findall(path.read_text())})


def test_the_page_has_a_row_for_each_and_no_other() -> None:
    page = (ROOT / "docs/doctor.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE)) == NAMES


def test_each_is_provoked_by_a_test_that_says_so() -> None:
    said = {
        name
        for path in TESTS
        for names in PROVOKED.findall(path.read_text())
        for name in re.findall(r'"([a-z0-9-]+)"', names)
    }
    assert sorted(said) == NAMES


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_nobody_who_provokes_makes_it_up(path: Path) -> None:
    text = path.read_text()
    assert not (PROVOKED.search(text) and MADE_UP.search(text))


def test_the_worst_decides_the_exit_code() -> None:
    found = [ok("x", "fine")]
    assert exit_code([]) == exit_code(found) == exit_code([*found, note("y", "by the way")]) == 0
    found.append(warning("z", "soon"))
    assert exit_code(found) == 1
    assert exit_code([error("w", "now"), *found]) == 2
