"""What the quickstart and the guides have one type works, typed on hosts that know nothing else."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.guide import BLOCK, KINDS, Block, blocks, follow, obstacle, unmarked
from support.machine import obstacle as no_systemd

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "quickstart.md", *sorted((DOCS / "guides").glob("*.md"))]
RUN = [page for page in PAGES if any(block.kind == "run" for block in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    assert unmarked(page) == []
    for block in blocks(page):
        assert not block.kind or block.kind in KINDS | {"image", "skip"}, f"{page.name}:{block.line}: {block.kind}"
        assert not block.kind or block.argument, f"{page.name}:{block.line}: {block.kind} without an argument"
    text = page.read_text()
    assert text.count("\n```") == 2 * len(BLOCK.findall(text)), "a block that is not seen as one"


@pytest.mark.root
@pytest.mark.kdc
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_what_it_says_is_done(page: Path) -> None:
    kinds = {block.kind for block in blocks(page)}
    reasons: dict[str, str] = {}
    if kinds & {"install", "enrolled"} and (reason := obstacle()):
        reasons |= {"install": reason, "enrolled": reason, "boot": "nothing is installed"}
    elif "boot" in kinds and (reason := no_systemd()):
        reasons["boot"] = reason
    with TemporaryDirectory(prefix="kinkvpn-guide-") as directory:
        for said in follow(page, Path(directory), reasons):
            print(said)
    if reasons:  # containers that the tests run in may forbid their root overlays, or a control group
        pytest.skip(f"done, but for blocks of these kinds: {reasons}")  # a container may forbid overlays, or PID 1


def test_blocks_are_found_with_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("x\n<!-- run: west & -->\n```sh\nkinkvpn up\n```\n\n```toml\n[host]\n```\n```text\nok\n```\n")
    assert list(blocks(page)) == [
        Block(2, "sh", "kinkvpn up\n", "run", "west &"),
        Block(7, "toml", "[host]\n", "", ""),
        Block(10, "text", "ok\n", "", ""),
    ]
    assert unmarked(page) == [7]
