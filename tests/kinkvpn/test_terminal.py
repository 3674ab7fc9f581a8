"""What somebody at a terminal sees, in a real one of a known width; and that everybody else has whole lines."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.commands.outcome import complain
from kinkvpn.terminal import NARROWEST, folded, show, width_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

ROWS = [("east", "established", "12"), ("north-of-everything", "x" * 70, "3")]
HEADING = ("peer", "state", ">up")


@contextmanager
def terminal(columns: int) -> Iterator[tuple[TextIO, list[str]]]:
    """One of so many columns, and once the block is over the lines that it has shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown: list[str] = []
    with os.fdopen(theirs, "w") as out:
        yield out, shown
        out.flush()
        octets = b""
        out.write("\x04\n")
        out.flush()
        while b"\x04" not in octets:
            octets += os.read(ours, 65536)
    os.close(ours)
    shown += re.sub(r"\x1b\[[0-9;]*m", "", octets.partition(b"\x04")[0].decode()).splitlines()


@pytest.mark.parametrize(("columns", "width"), [(80, 80), (200, 200), (0, NARROWEST)])
def test_the_width_is_the_terminals(columns: int, width: int) -> None:
    with terminal(columns) as (out, _):
        assert width_of(out) == width


def test_elsewhere_there_is_none() -> None:
    assert width_of(io.StringIO()) is None
    with open(os.devnull, "w") as out:
        assert width_of(out) is None


def test_a_complaint_is_folded_at_words_and_what_goes_on_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (
        "device kink0: uid 1000 lacks CAP_NET_ADMIN (CapEff 0000000000000000): run it as root, or give it what it needs"
    )
    with terminal(80) as (out, shown):
        monkeypatch.setattr("sys.stderr", out)
        assert complain(f"{line}\nshort", 2) == 2
    assert shown == [
        "kinkvpn: device kink0: uid 1000 lacks CAP_NET_ADMIN (CapEff 0000000000000000):",
        "    run it as root, or give it what it needs",
        "kinkvpn: short",
    ]


def test_a_table_fits_a_terminal_and_is_whole_elsewhere() -> None:
    with terminal(60) as (out, shown):
        show(HEADING, ROWS, out)
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
