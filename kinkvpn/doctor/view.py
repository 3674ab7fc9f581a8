"""The findings as a person reads them, and as a program does."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kinkvpn import terminal
from kinkvpn.doctor.finding import Finding, Severity, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO


def show(findings: Sequence[Finding], out: TextIO, *, verbose: bool = False) -> None:
    """A table, the worst last, where the eye is. Where something is wrong, what is not is left out.

    Args:
        findings: all.
        out: where to.
        verbose: leave nothing out.
    """
    wrong = exit_code(findings) > 0
    listed = [each for each in findings if verbose or not wrong or each.severity is not Severity.OK]
    worst_last = sorted(listed, key=lambda each: each.severity)
    terminal.show((), [row for _, group in groupby(worst_last, _mend) for row in _rows(list(group))], out)
    left_out = len(findings) - len(listed)
    more = f"; {left_out} more found nothing wrong (-v lists them)" if left_out else ""
    print(f"{summary(findings)}{more}", file=out)


def _mend(finding: Finding) -> object:
    """The same of findings that have one cause, for what follows from it and what mends it is said once."""
    if finding.command or finding.setting:
        where = finding.peer if finding.there else ""
        return finding.severity, finding.why, finding.command, where, finding.setting
    return finding


def _rows(together: Sequence[Finding]) -> Iterator[tuple[str, ...]]:
    for finding in together:
        about = f"{finding.peer}: " if finding.peer else ""
        yield finding.severity.name.lower(), about + finding.line
    finding = together[0]
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
