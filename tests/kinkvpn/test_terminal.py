"""What somebody at a terminal sees, in a real one of a known width; and that everybody else has whole lines."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.terminal import terminal

from kinkvpn.commands.outcome import complain
from kinkvpn.terminal import NARROWEST, folded, printable, show, show_each, width_of

ROWS = [("east", "established", "12"), ("north-of-everything", "x" * 70, "3")]
HEADING = ("peer", "state", ">up")


@pytest.mark.parametrize(("columns", "width"), [(80, 80), (200, 200), (0, NARROWEST)])
def test_the_width_is_the_terminals(columns: int, width: int) -> None:
    with terminal(columns) as screen, open(os.dup(screen.end), "w") as out:
        assert width_of(out) == width


def test_elsewhere_there_is_none() -> None:
    assert width_of(io.StringIO()) is None
    with open(os.devnull, "w") as out:
        assert width_of(out) is None


def test_a_complaint_is_folded_at_words_and_what_goes_on_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (
        "device kink0: uid 1000 lacks CAP_NET_ADMIN (CapEff 0000000000000000): run it as root, or give it what it needs"
    )
    with terminal(80) as screen:
        with open(os.dup(screen.end), "w") as out:
            monkeypatch.setattr("sys.stderr", out)
            assert complain(f"{line}\nshort", 2) == 2
        shown = screen.shown()
    assert shown == [
        "kinkvpn: device kink0: uid 1000 lacks CAP_NET_ADMIN (CapEff 0000000000000000):",
        "    run it as root, or give it what it needs",
        "kinkvpn: short",
    ]


def seen(columns: int, *table: Any) -> list[str]:
    """What a terminal has shown of it, without colours."""
    with terminal(columns) as screen:
        with open(os.dup(screen.end), "w") as out:
            show(*table, out)
        return screen.shown()


def test_a_table_fits_a_terminal_and_is_whole_elsewhere() -> None:
    assert seen(80, HEADING, ROWS) == [
        "peer                 state",
        "    up",
        "east                 established",
        "    12",
        "north-of-everything",
        f"    {'x' * 70}   3",
    ]
    out = io.StringIO()
    show(HEADING, ROWS, out)
    assert out.getvalue().splitlines() == [
        "peer                 state" + " " * 67 + "up",
        "east                 established" + " " * 61 + "12",
        "north-of-everything  " + "x" * 70 + "   3",
    ]


def test_what_has_no_room_goes_on_at_a_cell_if_it_can_and_else_at_a_word() -> None:
    row = ("east", "1200 (1.2 MB)", "10.1.0.0/24 > 10.2.0.0/24")
    assert seen(44, ("tunnel", ">in", "traffic"), [row]) == [
        "tunnel             in  traffic",
        "east    1200 (1.2 MB)",
        "    10.1.0.0/24 > 10.2.0.0/24",
    ]
    assert seen(40, (), [("dropped", "no_policy 7, replayed 1, too_old 3, no_sa 1")]) == [
        "dropped  no_policy 7, replayed 1,",
        "         too_old 3, no_sa 1",
    ]


def test_a_note_stands_below_its_row() -> None:
    out = io.StringIO()
    show(("peer", "state"), [("east", "down"), ("no answer",), ("$ kinkvpn doctor east",), ("west", "idle")], out)
    assert out.getvalue() == "peer  state\neast  down\n    no answer\n    $ kinkvpn doctor east\nwest  idle\n"


HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]x[/red][link=http://evil]y[/link]\u202e\r\n<b>"


def test_nothing_of_a_cell_is_markup_and_none_of_it_moves_the_cursor() -> None:
    for table in [(("peer", "state"), [(HOSTILE, HOSTILE), (HOSTILE,)]), ((), [(HOSTILE, HOSTILE)])]:
        out = io.StringIO()
        show(*table, out)
        assert all(line.isprintable() for line in out.getvalue().splitlines())
        shown = "?[2J?]0;owned?[red]x[/red][link=http://evil]y[/link]???<b>"
        assert out.getvalue().count(shown) == sum(map(len, table[1]))


@given(st.text())
def test_nothing_moves_the_cursor(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


@pytest.mark.parametrize(
    ("environment", "red", "any_"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
)
def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], red: bool, any_: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm", "FORCE_COLOR": "1"} | environment).items():
        monkeypatch.setenv(name, value)
    with terminal(80) as screen:
        with open(os.dup(screen.end), "w") as out:
            show(("peer", "state"), [("east", "down")], out)
        shown = screen.written()
    assert (b"\x1b[1;31mdown" in shown) is red
    assert (b"\x1b[" in shown) is any_
    pipe = io.StringIO()
    show(("peer", "state"), [("east", "down")], pipe)
    assert "\x1b" not in pipe.getvalue()


def test_a_table_of_nothing_has_its_heading() -> None:
    out = io.StringIO()
    show(HEADING, [], out)
    assert out.getvalue() == "peer  state  up\n"


@given(st.text(st.sampled_from("ab.- \N{EM DASH}"), max_size=200), st.integers(NARROWEST, 120), st.integers(0, 20))
def test_folding_loses_no_word(line: str, width: int, hang: int) -> None:
    assert folded(line, width, hang).split() == line.split()
    assert folded(line, None, hang) == line


def test_between_tables_there_is_a_line() -> None:
    out = io.StringIO()
    show_each([((), [("a",)]), (("b",), [("c",)])], out)
    assert out.getvalue() == "a\n\nb\nc\n"
