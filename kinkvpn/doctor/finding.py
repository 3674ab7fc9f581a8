"""What a look at one thing has found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Severity(IntEnum):
    """How bad it is. The exit code of ``kinkvpn doctor`` is that of the worst: 0 for the first two, then 1 and 2."""

    OK = 0
    NOTE = 1  # good to know; nothing is to be done
    WARNING = 2  # it works now or for some, and will not for long or for all
    ERROR = 3  # no tunnel comes up, or none to that peer


@dataclass(frozen=True, slots=True)
class Setting:
    """A line for a configuration, this program's or that of Kerberos, that mends something.

    Args:
        file: where it is written, with the line of the section behind a colon where that is there already.
        section: as that is written: ``[[peer]]``.
        line: key and value, as they are written.
    """

    file: str
    section: str
    line: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. docs/doctor.md has a row for each name.

    Args:
        severity: how bad.
        name: of the kind of finding, for programs: ``keytab-kvno``.
        line: what is so.
        why: what follows from it, where that is not plain.
        command: what mends it, as it is typed in a shell.
        peer: whom it is about, if not this host.
        there: the command is for the peer's host.
        setting: what mends it, as it is written into a configuration.
    """

    severity: Severity
    name: str
    line: str
    why: str = ""
    command: str = ""
    peer: str = ""
    there: bool = False
    setting: Setting | None = None

    def over_there(self) -> Finding:
        """The same, with a command for the peer's host."""
        return replace(self, there=True)

    def mended_by(self, setting: Setting | None) -> Finding:
        """The same, with a line for a configuration."""
        return replace(self, setting=setting)

    def as_note(self) -> Finding:
        """The same, to somebody who does not need what is refused."""
        return replace(self, severity=Severity.NOTE)


def ok(name: str, line: str, peer: str = "") -> Finding:
    """Nothing is wrong with it."""
    return Finding(Severity.OK, name, line, peer=peer)


def note(name: str, line: str, why: str = "", command: str = "", peer: str = "") -> Finding:
    """Nothing is wrong with it, and still it may explain something."""
    return Finding(Severity.NOTE, name, line, why, command, peer)


def warning(name: str, line: str, why: str = "", command: str = "", peer: str = "") -> Finding:
    """It will be wrong, or is for some."""
    return Finding(Severity.WARNING, name, line, why, command, peer)


def error(name: str, line: str, why: str = "", command: str = "", peer: str = "") -> Finding:
    """It keeps a tunnel from coming up."""
    return Finding(Severity.ERROR, name, line, why, command, peer)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where all is well, 1 with a warning, 2 with an error."""
    worst = max((finding.severity for finding in findings), default=Severity.OK)
    return max(worst - Severity.NOTE, 0)
