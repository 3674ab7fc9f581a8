"""What the README shows is what the program takes."""

from __future__ import annotations

import re
from pathlib import Path

from support.keytabs import write_keytab

from kinkvpn import config
from kinkvpn.cli import parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_both_gateways_are_valid_and_fit_together(tmp_path: Path) -> None:
    sides = []
    for name, block in zip(("west", "east"), re.findall(r"```toml\n(.*?)```", README, re.DOTALL), strict=True):
        assert block.count("\n") < 15
        directory = tmp_path / name
        directory.mkdir()
        write_keytab(directory / "keytab", f"kink/{name}.example.com@EXAMPLE.COM")
        sides.append(config.parse(block, directory / "kinkvpn.toml"))
    west, east = sides
    assert (west.host.principal, east.host.principal) == (east.peers[0].principal, west.peers[0].principal)
    mirrored = [(policy.selector.remote, policy.selector.local) for policy in east.policies]
    assert [(policy.selector.local, policy.selector.remote) for policy in west.policies] == mirrored


def test_every_command_is_listed_and_every_listed_one_exists() -> None:
    listed = set(re.findall(r"^\| `kinkvpn (\w+)", README, re.MULTILINE))
    commands, _, _ = parser().format_help().partition("options:")
    assert listed == set(re.findall(r"^ {4}(\w+)", commands, re.MULTILINE))


def test_every_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")):
        for link in re.findall(r"\]\(([^)\s:]+)\)", page.read_text()):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert not heading or heading in headings(target), f"{page.name}: {link}"


def headings(page: Path) -> set[str]:
    """As links name them: lower case, without what is neither letter nor digit, a dash for each space."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_place_that_a_decision_names_is_there() -> None:
    page = (ROOT / "docs/decisions.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for place in {place for row in rows for place in re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1])}:
        assert any((ROOT / room / place).exists() for room in ("", "kinkvpn", "esp")), place


def test_the_makefile_has_the_two_commands_and_ci_calls_one_of_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_every_page_is_linked_from_the_first_one() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert f"({page.relative_to(ROOT)})" in README, page.name


def test_the_architecture_names_every_module() -> None:
    """A module by its name in backticks; those of a package in the row of that package."""
    page = (ROOT / "docs/architecture.md").read_text()
    rows = [set(re.findall(r"`(\w+)/?`", line)) for line in page.splitlines() if line.startswith("|")]
    for path in [*(ROOT / "esp").rglob("*.py"), *(ROOT / "kinkvpn").rglob("*.py")]:
        if path.stem.startswith("__"):
            continue
        room = path.parent.name
        nested = room not in ("esp", "kinkvpn")
        assert any(path.stem in row and (not nested or room in row) for row in rows), path.relative_to(ROOT)
