"""Rows: sorted, filtered, and no word of a peer's that moves the cursor."""

from __future__ import annotations

from typing import Any

import pytest

from kinkvpn.api.client import Event
from kinkvpn.top import rows
from kinkvpn.top.history import History
from kinkvpn.top.look import Look


def policy(name: str, **changes: object) -> dict[str, Any]:
    down = {"state": "down", "since": None, "lifetime": None, "failures": 0, "last_error": "", "next_try": None}
    return {"name": name, **down, "octets_in": 0, "octets_out": 0, **changes}


EAST = policy("east/1", state="established", since=600.0, lifetime=3600, octets_in=1000, octets_out=500)
WEST = policy("west/1", state="established", since=10.0, lifetime=3600, octets_in=0, octets_out=9000)
IDLE = policy("east/2")
LOST = policy("north/1", failures=2, last_error="no answer", next_try=12.0)
GIVEN_UP = policy("south/1", failures=1, last_error="no")


def sa(spi: str, **changes: object) -> dict[str, Any]:
    made = {"policy": "east/1", "direction": "in", "since": 5.0, "lifetime": 60, "packets": 7, "octets": 1234}
    return {"spi": spi, "suite": "aes256-gcm16", **made, **changes}


def look(*policies: dict[str, Any], drops: dict[str, int] | None = None, sas: list[Any] | None = None) -> Look:
    peers: dict[str, list[dict[str, Any]]] = {}
    for each in policies:
        peers.setdefault(each["name"].partition("/")[0], []).append(each)
    counters = {"octets_in": 1000, "octets_out": 9500, "drops": drops or {}}
    status = {"peers": [{"name": name, "policies": of} for name, of in peers.items()], "counters": counters}
    return Look(status, sas or [], [])


ALL = look(WEST, EAST, IDLE, LOST, GIVEN_UP)


def twice(seen: Look) -> History:
    """As fast as all of it in a second."""
    history = History()
    counters = rows.counters_of(seen)
    history.add(0.0, dict.fromkeys(counters, 0))
    history.add(1.0, counters)
    return history


def test_a_tunnel_in_a_row() -> None:
    shown = {row.key: row for row in rows.tunnels(ALL, twice(ALL))}
    assert shown["east/1"].cells == ("east/1", "established", "50m 0s", "8 kbit/s", "4 kbit/s", "█".rjust(16))
    assert shown["east/2"].cells[1:3] == ("idle", "-")
    assert shown["north/1"].cells[1:3] == ("down", "try in 12s")
    assert shown["south/1"].cells[1:3] == ("down", "failed")
    assert (shown["west/1"].rate, shown["north/1"].peer) == (9000, "north")


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("down first", ["north/1", "south/1", "west/1", "east/1", "east/2"]),
        ("name", ["east/1", "east/2", "north/1", "south/1", "west/1"]),
        ("state", ["north/1", "south/1", "east/2", "east/1", "west/1"]),
        ("rate", ["west/1", "east/1", "east/2", "north/1", "south/1"]),
        ("time left", ["east/2", "north/1", "south/1", "east/1", "west/1"]),
    ],
)
def test_sorted(sort: str, order: list[str]) -> None:
    assert [row.key for row in rows.tunnels(ALL, twice(ALL), sort=sort)] == order


@pytest.mark.parametrize(("matching", "found"), [("EAST", 2), ("established", 2), ("/1", 4), ("nobody", 0)])
def test_filtered(matching: str, found: int) -> None:
    assert len(rows.tunnels(ALL, twice(ALL), matching=matching)) == found


def test_every_sort_is_one() -> None:
    orders = [tuple(row.key for row in rows.tunnels(ALL, twice(ALL), sort=sort)) for sort in rows.SORTS]
    assert len(set(orders)) == len(rows.SORTS)


def test_sas_that_end_first_are_on_top() -> None:
    waiting = sa("0x00000003", since=None, lifetime=None)
    seen = look(EAST, sas=[waiting, sa("0x00000001"), sa("0x00000002", since=50.0)])
    assert rows.sas(seen) == [
        ("0x00000002", "east/1", "in", "10s", "7", "1.2 kB", "aes256-gcm16"),
        ("0x00000001", "east/1", "in", "55s", "7", "1.2 kB", "aes256-gcm16"),
        ("0x00000003", "east/1", "in", "-", "7", "1.2 kB", "aes256-gcm16"),
    ]


def test_drops_the_most_frequent_on_top() -> None:
    seen = look(drops={"replayed": 2, "no_policy": 40})
    assert rows.drops(seen, twice(seen)) == [("no_policy", "40", "40/s"), ("replayed", "2", "2/s")]


def test_events_are_lines_and_move_no_cursor() -> None:
    data = {"time": "2026-03-01T12:00:00.000Z", "level": "warning", "event": "create_failed", "logger": "kinkvpn"}
    assert rows.told(Event("1-2", "message", {**data, "peer": "west"})) == "12:00:00 create_failed peer=west"
    assert "\x1b" not in rows.told(Event("1-2", "message", {**data, "reason": "\x1b[2J\nno"}))
    assert rows.told(Event("", "lost", {"lost": 3})) == "3 events came too fast to be kept"
