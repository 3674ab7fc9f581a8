"""Logs: one line a record whatever is in it, fields readable, octets never shown."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.service import log
from kinkvpn.service.ration import OF_ONE, Ration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def record(event: str, fields: Mapping[str, object] | None = None, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("kinkvpn.test", level, __file__, 1, event, None, None)
    made.created = 1_770_000_000.25
    if fields is not None:
        made.__dict__["fields"] = fields
    return made


def test_text() -> None:
    fields = {"peer": "west", "address": "fd00::1", "seconds": 0.123456, "reason": "no answer", "next": None, "n": 3}
    assert log.TextFormatter().format(record("create_failed", fields, logging.WARNING)) == (
        "2026-02-02T02:40:00.250Z warning create_failed "
        'peer=west address=fd00::1 seconds=0.123 reason="no answer" next=null n=3'
    )


def test_text_for_the_journal_has_the_priority_and_no_time() -> None:
    lines = [
        log.TextFormatter(journal=True).format(record("e", level=level))
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    ]
    assert lines == ["<7>e", "<6>e", "<4>e", "<3>e"]


def test_json() -> None:
    line = log.JsonFormatter().format(record("established", {"spi_in": 7, "suites": ("a", "b")}))
    assert json.loads(line) == {
        "spi_in": 7,
        "suites": ["a", "b"],
        "time": "2026-02-02T02:40:00.250Z",
        "level": "info",
        "event": "established",
        "logger": "kinkvpn.test",
    }


FIELDS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.none() | st.booleans() | st.integers() | st.text(), max_size=4
)


@given(st.text(min_size=1), FIELDS)
def test_a_record_is_one_line_whatever_it_holds(event: str, fields: dict[str, object]) -> None:
    text = log.TextFormatter().format(record(event, fields))
    assert text.isprintable()
    assert len(log.JsonFormatter().format(record(event, fields)).splitlines()) == 1


@given(FIELDS)
def test_a_shell_reads_the_fields_back(fields: dict[str, object]) -> None:
    """The quoting is one that people's scripts can undo: here, JSON behind the equals sign or a bare word."""
    line = log.TextFormatter(journal=True).format(record("e", fields))
    found = re.findall(r' ([a-z_]+)=("(?:\\.|[^"\\])*"|[^ ]*)', line)
    shown = {name: json.loads(value) if value.startswith('"') else value for name, value in found}
    bare = {None: "null", True: "true", False: "false"}
    assert shown == {
        name: bare[value] if value is None or isinstance(value, bool) else str(value) for name, value in fields.items()
    }


@given(st.binary(min_size=1))
def test_octets_are_never_shown(key: bytes) -> None:
    """A record shows of them what it shows of as many zeros: their number."""
    zeros = bytes(len(key))
    for formatter in (log.TextFormatter(), log.JsonFormatter()):
        shown = formatter.format(record("e", {"key": zeros}))
        assert f"<{len(key)} octets>" in shown
        for value in (key, bytearray(key), memoryview(key)):
            assert formatter.format(record("e", {"key": value})) == shown
        assert formatter.format(record("e", {"key": [key]})) == formatter.format(record("e", {"key": [zeros]}))


def test_a_traceback_follows_its_line_or_stays_in_the_object() -> None:
    failed = record("defect", level=logging.ERROR)
    try:
        _ = shlex.split('"')
    except ValueError:
        failed.exc_info = sys.exc_info()
    first, *rest = log.TextFormatter().format(failed).splitlines()
    assert first.endswith("error   defect")
    assert rest[-1] == "ValueError: No closing quotation"
    assert json.loads(log.JsonFormatter().format(failed))["traceback"].endswith("ValueError: No closing quotation")


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("kinkvpn", "esp")}
    before = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("restored")
def test_configured_by_level() -> None:
    stream = io.StringIO()
    log.configure(stream, level="info", as_json=True)
    logging.getLogger("kinkvpn.a").debug("no")
    logging.getLogger("kinkvpn.a").info("ours")
    logging.getLogger("esp.b").info("esp")
    logging.getLogger("pyroute2").info("chatter")
    logging.getLogger("pyroute2").warning("theirs")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours", "esp", "theirs"]


@pytest.mark.usefixtures("restored")
def test_configured_otherwise_from_then_on() -> None:
    stream, theirs = io.StringIO(), logging.StreamHandler(io.StringIO())
    log.configure(stream, level="info", as_json=True)
    logging.getLogger().addHandler(theirs)
    log.reconfigure(level="debug", as_json=False)
    logging.getLogger("kinkvpn.a").debug("ours")
    assert stream.getvalue().endswith("Z debug   ours\n")
    assert theirs.formatter is None, "somebody else's"
    log.reconfigure(level="error", as_json=True)
    logging.getLogger("esp.b").warning("no")
    logging.getLogger("esp.b").error("ours")
    assert json.loads(stream.getvalue().splitlines()[-1])["event"] == "ours"


def test_the_journal_is_recognised_by_its_inode(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        named = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert log.goes_to_journal(stream, named)
        assert not log.goes_to_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not log.goes_to_journal(stream, {})
    assert not log.goes_to_journal(io.StringIO(), named)


@pytest.mark.usefixtures("restored")
def test_what_is_left_out_of_the_log_is_left_out_of_events_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "ration", Ration(lambda: 0.0))
    stream = io.StringIO()
    told: list[Mapping[str, object]] = []
    log.configure(stream, level="info", as_json=True)
    with log.told_to(told.append):
        for _ in range(1000):
            logging.getLogger("kinkvpn.a").info("peer_dead", extra={"fields": {"peer": "east"}})
    assert len(stream.getvalue().splitlines()) == len(told) == OF_ONE.burst
