"""What somebody at a terminal sees, in a real one of a known width; and that everybody else has whole lines."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.terminal import terminal

from kinkvpn.commands.outcome import complain
from kinkvpn.terminal import NARROWEST, folded, show, width_of

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


def test_a_table_fits_a_terminal_and_is_whole_elsewhere() -> None:
    with terminal(60) as screen:
        with open(os.dup(screen.end), "w") as out:
            show(HEADING, ROWS, out)
        shown = screen.shown()
    assert max(map(len, shown)) <= 60
    assert "".join("".join(shown).split()).count("x") == 70, "folded, not cut"
    out = io.StringIO()
    show(HEADING, ROWS, out)
    assert out.getvalue().splitlines() == [
        "peer                 state" + " " * 67 + "up",
        "east                 established" + " " * 61 + "12",
        "north-of-everything  " + "x" * 70 + "   3",
    ]


def test_a_table_of_nothing_has_its_heading() -> None:
    out = io.StringIO()
    show(HEADING, [], out)
    assert out.getvalue() == "peer  state  up\n"


@pytest.mark.parametrize(
    ("line", "second"),
    [
        ("  offloads   tso, coalesce; no uso: not there, as far as anybody knows", "             "),
        ("      spi in 0x0000abcd out 0x00001000, aes256-gcm16 with ESN, CREATE took", "          "),
    ],
)
def test_columns_stay_columns(line: str, second: str) -> None:
    first, *rest = folded(line, 50).splitlines()
    assert line.startswith(first)
    assert all(each.startswith(second) and not each.startswith(f"{second} ") for each in rest)


@given(st.text(st.sampled_from("ab.- \N{EM DASH}"), max_size=200), st.integers(NARROWEST, 120), st.integers(0, 20))
def test_folding_loses_no_word(line: str, width: int, hang: int) -> None:
    assert folded(line, width, hang).split() == line.split()
    assert folded(line, None, hang) == line
