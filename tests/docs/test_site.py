"""The site builds, every link in it leads somewhere, and every page is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parents[2]


def build(target: Path, *more: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target), *more]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stderr
    return target


def test_every_page_is_there_and_in_the_menu(site: Path) -> None:
    first = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix().removesuffix("index").rstrip("/")
        assert (site / name / "index.html").exists(), name
        assert not name or f'href="{name}/"' in first, name


def test_plots_are_in_it_and_what_is_not_of_the_site_is_named(site: Path) -> None:
    assert list((site / "pictures").glob("*.png"))
    page = (site / "performance/index.html").read_text()
    assert "../pictures/" in page


def test_nothing_is_asked_of_another_host(site: Path) -> None:
    """Whoever reads this behind a VPN that is down has no other."""
    page = (site / "index.html").read_text()
    assert "fonts.googleapis.com" not in page
    assert "fonts.gstatic.com" not in page


def test_a_link_to_nowhere_fails(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Start\n\n[lost](nowhere.md) [heading](#none)\n")
    (tmp_path / "contrib/site").mkdir(parents=True)
    (tmp_path / "contrib/site/pages.py").write_text((ROOT / "contrib/site/pages.py").read_text())
    text = (ROOT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(text.partition("nav:\n  - kinkvpn")[0] + "nav:\n  - Start: index.md\n")
    done = build(tmp_path / "site", cwd=tmp_path)
    assert done.returncode == 1
    assert "nowhere.md" in done.stderr
    assert "#none" in done.stderr
