"""Structured logs over the standard library's logging: an event's name and its fields, as text or as JSON lines.

A record carries its fields in ``extra={"fields": {...}}``. They are names, addresses, numbers and reasons: octets are
never shown, whatever they are, so that a key that strays into a record does not reach the log.
"""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO

from kinkvpn.service.ration import Ration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Of this process: what is left out of the log is not told to whoever follows events either.
ration = Ration()

# sd-daemon(3): syslog priorities that journald takes from the front of a line.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

# What may stand unquoted behind ``key=``. Principals and subnets may; a newline out of a KRB-ERROR may not.
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+\-\[\]>%*]+")


def configure(stream: TextIO, *, level: str, as_json: bool) -> logging.Handler:
    """Send the records of this program to ``stream``, those of ``level`` and above; returns the handler installed.

    Others' records come from warning on: a library's chatter is not the operator's.
    """
    # What no formatter here shows need not be found out for every record (logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(stream, as_json=as_json))
    handler.addFilter(ration)
    root = logging.getLogger()
    root.addHandler(handler)
    _set_level(level)
    return handler


def reconfigure(*, level: str, as_json: bool) -> None:
    """Have what :func:`configure` has installed write otherwise from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and isinstance(handler.formatter, JsonFormatter | TextFormatter):
            handler.setFormatter(_formatter(handler.stream, as_json=as_json))
    _set_level(level)


def _formatter(stream: TextIO, *, as_json: bool) -> logging.Formatter:
    return JsonFormatter() if as_json else TextFormatter(journal=goes_to_journal(stream, os.environ))


def _set_level(level: str) -> None:
    for name in ("kinkvpn", "esp"):
        logging.getLogger(name).setLevel(level.upper())


def goes_to_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether systemd connected ``stream`` to the journal (systemd.exec(5), JOURNAL_STREAM is ``device:inode``)."""
    named = environment.get("JOURNAL_STREAM", "")
    if not named:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What was said of the event, in values that JSON has."""
    fields = getattr(record, "fields", {})
    return {str(name): _showable(value) for name, value in fields.items()}


class TextFormatter(logging.Formatter):
    """``2026-03-01T12:00:00.000Z warning create_failed peer=west reason="no answer"``.

    Args:
        journal: journald keeps the time itself and takes the priority as ``<4>``.
    """

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, which only a defect has, follows on its own lines."""
        line = f"{self._head(record)}{_one_line(record.getMessage())}"
        for name, value in getattr(record, "fields", {}).items():
            line += f" {name}={value if type(value) is str and _PLAIN.fullmatch(value) else _quoted(value)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _head(self, record: logging.LogRecord) -> str:
        if self._journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return f"{_time(record)} {record.levelname.lower():7} "


def event_of(record: logging.LogRecord) -> dict[str, object]:
    """The record as JSON has it: its fields, ``time``, ``level``, ``event`` and ``logger``; no traceback."""
    return fields_of(record) | {
        "time": _time(record),
        "level": record.levelname.lower(),
        "event": record.getMessage(),
        "logger": record.name,
    }


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds; a defect's has its ``traceback``."""
        shown = event_of(record)
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown)


class Teller(logging.Handler):
    """Tells ``listener`` of every record, as ``event_of`` has it."""

    def __init__(self, listener: Callable[[Mapping[str, object]], None]) -> None:
        super().__init__()
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held, from any thread."""
        self._listener(event_of(record))


@contextmanager
def told_to(listener: Callable[[Mapping[str, object]], None]) -> Iterator[None]:
    """Have ``listener`` be told of whatever is logged while the block runs."""
    teller = Teller(listener)
    teller.addFilter(ration)
    root = logging.getLogger()
    root.addHandler(teller)
    try:
        yield
    finally:
        root.removeHandler(teller)


def _time(record: logging.LogRecord) -> str:
    seconds = int(record.created)
    return f"{_to_the_second(seconds)}.{int((record.created - seconds) * 1000):03}Z"


@lru_cache(maxsize=1)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _showable(value: object) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} octets>"
    if isinstance(value, list | tuple | set | frozenset):
        return [_showable(item) for item in value]
    return str(value)


def _quoted(value: object) -> str:
    value = _showable(value)
    if isinstance(value, list):
        value = ",".join(str(item) for item in value)
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)
