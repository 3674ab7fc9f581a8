"""What is logged, and how: [log]."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.document import Table


class LogLevel(Enum):
    """Least severe record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how. ``keys``: a file for the keys of every SA, which is nobody's normal wish."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.TEXT
    keys: Path | None = None


def read_log(table: Table) -> LogSettings:
    """[log]; a relative path in it starts where the file is."""
    settings = LogSettings(
        level=table.get("level", values.one_of(LogLevel), LogLevel.INFO),
        format=table.get("format", values.one_of(LogFormat), LogFormat.TEXT),
        keys=table.get("keys", values.file_path(table.directory), None),
    )
    table.close()
    return settings
