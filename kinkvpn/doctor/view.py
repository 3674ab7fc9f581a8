"""The findings as a person reads them, and as a program does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kinkvpn import terminal
from kinkvpn.doctor.finding import Finding, Severity, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO


def show(findings: Sequence[Finding], out: TextIO) -> None:
    """A table, the worst last where the eye is."""
    worst_last = sorted(findings, key=lambda each: each.severity)
    terminal.show((), [row for finding in worst_last for row in _rows(finding)], out)
    print(summary(findings), file=out)


def _rows(finding: Finding) -> Iterator[tuple[str, ...]]:
    about = f"{finding.peer}: " if finding.peer else ""
    yield finding.severity.name.lower(), about + finding.line
    if finding.why:
        yield (finding.why,)
    if finding.command:
        # Behind a dollar it is seen to be for the shell, and copied without it by a double click.
        yield (f"{f'on {finding.peer} ' if finding.there else ''}$ {finding.command}",)
    if finding.setting:
        yield (f"in {finding.setting.file}, {finding.setting.section}:",)
        yield (f"    {finding.setting.line}",)


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
