"""The pages in docs/conformance: every section has its rows, every demand is counted, every test is there.

A page has two tables. The first lists the sections of an RFC and how often MUST, SHOULD and MAY stand in each; the
second has a row for each demand: section, level, the demand, its state, and the tests that prove it.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from support.collected import every_function

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs/conformance").glob("*.md"))

# Which count of the first table a level belongs to. Those without one are not counted in the text: words in small
# letters and plain statements, where whoever wrote the page has judged what binds.
COUNTED = {"MUST": "MUST", "MUST NOT": "MUST", "SHOULD": "SHOULD", "SHOULD NOT": "SHOULD", "MAY": "MAY"}
UNCOUNTED = {"must", "must not", "should", "should not", "may", "states"}
# A section that demands nothing says so, by a row of this level: without state or tests.
NO_DEMANDS = "none"
# Of each page: its sections, and how often the RFC has the words in all.
TOTALS = {
    "rfc4301.md": (61, {"MUST": 88, "SHOULD": 40, "MAY": 37}),
    "rfc4303.md": (47, {"MUST": 60, "SHOULD": 27, "MAY": 14}),
    "rfc4304.md": (5, {"MUST": 3, "SHOULD": 1, "MAY": 0}),
    "rfc4430.md": (52, {"MUST": 98, "SHOULD": 25, "MAY": 24}),
    "rfc6040.md": (28, {"MUST": 18, "SHOULD": 7, "MAY": 3}),
    "rfc9347.md": (56, {"MUST": 24, "SHOULD": 17, "MAY": 17}),
}


class Row(NamedTuple):
    """One demand."""

    section: str
    level: str
    demand: str
    state: str
    tests: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether the implementation does it, perhaps with a remark."""
        return re.match(r"done\b", self.state) is not None

    @property
    def not_done(self) -> bool:
        """Whether it deliberately does not, and says why."""
        return re.match(r"not(?::| but) \S", self.state) is not None


class Page(NamedTuple):
    """One RFC: counts of each section, in the RFC's order, and the rows."""

    sections: dict[str, dict[str, int]]
    rows: list[Row]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> list[list[dict[str, str]]]:
    """Every table of a page, as rows by column name."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        names, _, *lines = block.splitlines()
        columns = cells(names)
        for line in lines:
            assert len(cells(line)) == len(columns), f"{line!r} has not the columns {columns}"
        found.append([dict(zip(columns, cells(line), strict=True)) for line in lines])
    return found


def parse(text: str) -> Page:
    counts, demands = tables(text)
    sections = {row["section"]: {word: int(row[word]) for word in ("MUST", "SHOULD", "MAY")} for row in counts}
    assert len(sections) == len(counts), "a section is listed twice"
    rows = [
        Row(row["section"], row["level"], row["demand"], row["state"], tuple(re.findall(r"`([^`]+)`", row["tests"])))
        for row in demands
    ]
    return Page(sections, rows)


def faults(page: Page, collected: set[str]) -> list[str]:
    """Everything that is wrong with a page."""
    found = [f"section {section} has no row" for section in page.sections if not rows_of(page, section)]
    for section, counts in page.sections.items():
        have = Counter(COUNTED[row.level] for row in rows_of(page, section) if row.level in COUNTED)
        for word, count in counts.items():
            if have[word] != count:
                found.append(f"section {section}: {count} {word} in the RFC, {have[word]} rows")
        if any(row.level == NO_DEMANDS for row in rows_of(page, section)) and len(rows_of(page, section)) > 1:
            found.append(f"section {section} has demands and none")
    for row in page.rows:
        found += [f"{row.section} {row.demand!r}: {fault}" for fault in faults_of(row, page, collected)]
    return found


def rows_of(page: Page, section: str) -> list[Row]:
    return [row for row in page.rows if row.section == section]


def faults_of(row: Row, page: Page, collected: set[str]) -> list[str]:
    found = [f"no test {test}" for test in row.tests if test not in collected]
    if row.section not in page.sections:
        found.append("no such section")
    if not row.demand:
        found.append("says nothing")
    if row.level == NO_DEMANDS:
        return found + (["has a state or tests"] if row.state or row.tests else [])
    if row.level not in COUNTED and row.level not in UNCOUNTED:
        found.append(f"level {row.level!r}")
    if not row.done and not row.not_done:
        found.append(f"neither done nor not, and why: {row.state!r}")
    if row.done and not row.tests:
        found.append("done, and no test proves it")
    return found


@pytest.fixture(scope="session")
def collected(request: pytest.FixtureRequest) -> set[str]:
    """Every test function of the suite."""
    names = every_function(request.config, ROOT)
    assert len(names) > 800
    return names


def test_there_is_a_page_for_kink() -> None:
    assert "rfc4430.md" in [page.name for page in PAGES]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_demand_has_its_row_and_every_row_its_proof(path: Path, collected: set[str]) -> None:
    assert faults(parse(path.read_text()), collected) == []


BEFORE_A = (ord("A") - 1,)


def numbered(section: str) -> tuple[int, ...]:
    """2.3 as (2, 3), A2.1 as (65, 2, 1): no RFC has so many sections that an appendix would come between them."""
    return tuple(ord(part) if part.isalpha() else int(part) for part in re.findall(r"[A-Z]|\d+", section))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_sections_are_in_order_and_complete(path: Path) -> None:
    """2.3 comes after 2.2, which is there; appendix A after all of them; rows are in the order of their sections."""
    page = parse(path.read_text())
    numbers = [numbered(section) for section in page.sections]
    assert numbers == sorted(numbers)
    for number in numbers:
        before = (*number[:-1], number[-1] - 1) if number[-1] > 1 else number[:-1]
        assert before in {(), BEFORE_A, *numbers}, f"{before} is missing before {number}"
    places = [list(page.sections).index(row.section) for row in page.rows]
    assert places == sorted(places)


@pytest.mark.parametrize("name", TOTALS)
def test_the_totals(name: str) -> None:
    """By themselves, so that no slip in one section is made up for by a row that was dropped with it."""
    page = parse((ROOT / "docs/conformance" / name).read_text())
    totals: Counter[str] = Counter()
    for counts in page.sections.values():
        totals.update(counts)
    assert (len(page.sections), totals) == TOTALS[name]


def test_tests_that_other_pages_name_are_there(collected: set[str]) -> None:
    files = {name.partition("::")[0] for name in collected}
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`([\w/]+\.py(?:::\w+)*)`", page.read_text()):
            if "::" in name or Path(name).name.startswith("test_"):
                assert name.removeprefix("tests/") in collected | files, f"{page.name}: {name}"


GOOD = """
| section | title | MUST | SHOULD | MAY |
|---|---|---|---|---|
| 1 | One | 1 | 0 | 1 |
| 2 | Two | 0 | 0 | 0 |

| section | level | demand | state | tests |
|---|---|---|---|---|
| 1 | MUST NOT | break | done: never did | `test_x.py::test_it` |
| 1 | MAY | run | not: no need | |
| 2 | none | nothing | | |
"""


def test_a_good_page_has_no_fault() -> None:
    assert faults(parse(GOOD), {"test_x.py::test_it"}) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("| 2 | none | nothing | | |\n", ""), "section 2 has no row"),
        (("test_x.py::test_it", "test_x.py::test_gone"), "no test test_x.py::test_gone"),
        (("| One | 1 |", "| One | 2 |"), "section 1: 2 MUST in the RFC, 1 rows"),
        (("| 1 | MAY | run | not: no need | |\n", ""), "section 1: 1 MAY in the RFC, 0 rows"),
        (("not: no need", "not"), "neither done nor not"),
        (("not: no need", "pending"), "neither done nor not"),
        (("`test_x.py::test_it`", ""), "done, and no test proves it"),
        (("| 1 | MAY |", "| 3 | MAY |"), "no such section"),
        (("| MAY | run", "| COULD | run"), "level 'COULD'"),
        (("| 2 | none | nothing |", "| 1 | none | nothing |"), "section 1 has demands and none"),
        (("| nothing | |", "| nothing | done |"), "has a state or tests"),
        (("| MAY | run |", "| MAY | |"), "says nothing"),
    ],
)
def test_each_fault_of_a_page_is_found(change: tuple[str, str], fault: str) -> None:
    assert change[0] in GOOD
    found = faults(parse(GOOD.replace(*change)), {"test_x.py::test_it"})
    assert any(fault in each for each in found), found
