"""The findings as a person reads them, and as a program does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kinkvpn.doctor.finding import Finding, Severity, exit_code
from kinkvpn.view import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

# Ours. What a terminal has that nobody has made larger; a wider one is used as it is.
NARROWEST: Final = 80
STYLES: Final = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "bold red",
}


def show(findings: Sequence[Finding], out: TextIO) -> None:
    """A table, the worst last where the eye is; 80 columns where ``out`` is no terminal."""
    console = Console(file=out, width=None if out.isatty() else NARROWEST, highlight=False, markup=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in sorted(findings, key=lambda each: each.severity):
        table.add_row(Text(finding.severity.name.lower(), STYLES[finding.severity]), Group(*_lines(finding)))
    console.print(table)
    console.print(summary(findings))


def _lines(finding: Finding) -> Iterator[Text]:
    about = f"{finding.peer}: " if finding.peer else ""
    yield Text(printable(about + finding.line))
    if finding.why:
        yield Text(printable(finding.why), "dim")
    if finding.command:
        # Behind a dollar it is seen to be for the shell, and copied without it by a double click.
        yield Text(f"{f'on {finding.peer} ' if finding.there else ''}$ {printable(finding.command)}", "bold")
    if finding.setting:
        yield Text(f"in {printable(finding.setting.file)}, {finding.setting.section}:", "dim")
        yield Text(f"    {printable(finding.setting.line)}", "bold")


def summary(findings: Sequence[Finding]) -> str:
    """``2 errors, 1 warning``, or that all is well."""
    counts = {
        each: sum(finding.severity is each for finding in findings) for each in (Severity.ERROR, Severity.WARNING)
    }
    bad = [f"{count} {each.name.lower()}{'s' if count != 1 else ''}" for each, count in counts.items() if count]
    return ", ".join(bad) or "nothing is wrong"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """``{"exit": 2, "findings": [...]}``; every finding has all its keys."""
    return {"exit": exit_code(list(findings)), "findings": list(map(told, findings))}


def told(finding: Finding) -> dict[str, Any]:
    """One of them."""
    return asdict(finding) | {"severity": finding.severity.name.lower()}
