"""Tables and lines of what the API lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.api import served

from kinkvpn.api.client import Client
from kinkvpn.listing import TABLES, event

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_of_a_daemons_real_answers(tmp_path: Path) -> None:
    with served(tmp_path / "k.sock") as path, Client(path) as daemon:
        found = {name: list(table.rows(daemon.get(f"/v1/{name}"))) for name, table in TABLES.items()}
    for name, rows in found.items():
        assert all(len(row) == len(TABLES[name].heading) for row in rows)
    ((peer, state, address, _, up, principal),) = found["peers"]
    assert (peer, state, address, up, principal) == (
        "east",
        "established",
        "192.0.2.2",
        "1/2",
        "kink/a.example.com@EXAMPLE.COM",
    )
    assert [row[:2] for row in found["policies"]] == [("tunnel0", "established"), ("tunnel1", "idle")]
    assert [row[:2] for row in found["sas"]] == [("tunnel0", "in"), ("tunnel0", "out")]
    counted = dict(found["counters"])
    assert counted["kink_labelled.messages_sent.create"] == "1"
    assert "0" not in counted.values()


def test_an_sa_that_stands_no_more_has_no_age() -> None:
    sa = {"policy": "p", "direction": "in", "spi": "0x00000100", "suite": "s", "packets": 1, "octets": 2}
    ((*_, age, left, _, _, _),) = TABLES["sas"].rows({"sas": [sa | {"since": None, "lifetime": None}]})
    assert (age, left) == ("-", "-")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            {"time": "T", "level": "info", "event": "x", "logger": "l", "peer": "a"},
            "T info    x peer=a",
        ),
        ({"time": "T", "level": "warning", "event": "\x1b[2J", "reason": "a\nb"}, "T warning ?[2J reason=a?b"),
    ],
)
def test_an_event_is_a_line_that_moves_no_cursor(data: dict[str, str], line: str) -> None:
    assert event(data) == line
