"""What is missing of an installation is said in a line; real builds that go wrong are in test_setup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esp.compiled import why_missing

if TYPE_CHECKING:
    from pathlib import Path

NAME = "nowhere_compiled"


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    assert why_missing("zlib", tmp_path) is None


def test_what_the_build_has_left_is_the_reason(tmp_path: Path) -> None:
    assert why_missing(NAME, tmp_path) == "not built: nobody has, in this tree"
    (tmp_path / f"{NAME}.cpython-399.so").touch()
    assert why_missing(NAME, tmp_path) == f"not built for this Python (there is {NAME}.cpython-399.so)"
    (tmp_path / "missing.txt").write_text("no C compiler (gcc)\n")
    assert why_missing(NAME, tmp_path) == "not built: no C compiler (gcc), when kinkvpn was installed"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise ImportError('libgone.so.3: no such file')", "built, and does not load: libgone.so.3: no such file"),
        ("import nothing_by_that_name", "No module named 'nothing_by_that_name'"),
    ],
)
def test_what_is_there_and_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    (tmp_path / f"{NAME}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert why_missing(NAME, tmp_path) == said
