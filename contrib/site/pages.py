"""Hooks of MkDocs: pages that mkdocs.yml does not name, and links to what of the repository is not in the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PICTURES = "pictures"
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s:#]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the rest, by their headings, so that no page is to be found by nobody."""
    docs = Path(config["docs_dir"])
    named = set(_named(config["nav"]))
    rest = [page.relative_to(docs).as_posix() for page in sorted(docs.rglob("*.md"))]
    more = [page for page in rest if page not in named]
    if more:
        config["nav"].append({"More": more})
    return config


def _named(entries: list[str | dict[str, Any]]) -> Iterator[str]:
    """Every page of a nav."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else _named(value)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Plots are where what draws them leaves them."""
    for plot in (Path(config["docs_dir"]).parent / "bench/results").glob("*.png"):
        files.append(File.generated(config, f"{PICTURES}/{plot.name}", abs_src_path=str(plot)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links out of the site become what they say: the repository has the file, wherever somebody keeps it."""
    del files
    docs = Path(config["docs_dir"]).resolve()
    here = Path(page.file.abs_src_path).resolve().parent

    def link(found: re.Match[str]) -> str:
        text, path, _ = found.groups()
        target = (here / path).resolve()
        if target.parent.name == "results" and target.suffix == ".png":
            return f"[{text}]({'../' * page.file.src_uri.count('/')}{PICTURES}/{target.name})"
        outside = not target.is_relative_to(docs) and target.exists()
        return f"{text} (`{target.relative_to(docs.parent)}`)" if outside else found[0]

    return LINK.sub(link, markdown)
