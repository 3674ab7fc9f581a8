"""Names of findings: each is on the page, and each is provoked for real by a test that says so.

A test marked ``provokes`` fails if the doctor has not told of all that it names (support/doctor.py).
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.doctor import HOST, PROGRAMS, found, written

from kinkvpn.doctor.finding import Setting, error, exit_code, note, ok, warning
from kinkvpn.document import DocumentError

HERE = Path(__file__)
ROOT = HERE.parents[3]
DPKG = Path("/var/lib/dpkg/info")
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


def test_what_is_typed_is_in_the_package_of_debian_s_that_is_named() -> None:
    """Of those that this machine has."""
    there = [program for program in PROGRAMS if shutil.which(program)]
    assert len(there) > len(PROGRAMS) // 2
    for program in there:
        listed = "".join(each.read_text() for each in DPKG.glob(f"{PROGRAMS[program]}*.list"))
        assert re.search(rf"bin/{re.escape(program)}(\.|$)", listed, re.MULTILINE), program


def test_what_cannot_be_typed_or_read_is_noticed(tmp_path: Path) -> None:
    for command in ("kinkvpn rekindle", "ip route change ... mtu 1280", "frobnicate", "kinkvpn status # over there"):
        with pytest.raises((AssertionError, SystemExit)):
            found([error("x", "y", command=command)])
    file = written(tmp_path, HOST)
    good = Setting(f"{file}:{file.read_text().splitlines().index('[[peer]]') + 1}", "[[peer]]", 'user_to_user = "auto"')
    for setting in (
        replace(good, line='user_to_user = "perhaps"'),
        replace(good, section="[tun]"),
        replace(good, line="x"),
    ):
        with pytest.raises((AssertionError, DocumentError)):
            found([error("x", "y").mended_by(setting)])
    found([error("x", "y", command="kinkvpn status").mended_by(good)])


def test_the_worst_decides_the_exit_code() -> None:
    found = [ok("x", "fine")]
    assert exit_code([]) == exit_code(found) == exit_code([*found, note("y", "by the way")]) == 0
    found.append(warning("z", "soon"))
    assert exit_code(found) == 1
    assert exit_code([error("w", "now"), *found]) == 2
