"""What a terminal and a log see of the same steps."""

from __future__ import annotations

import io
from itertools import count

import pytest

from kinkvpn.demo.progress import ERASE_LINE, Progress


class Terminal(io.StringIO):
    """A stream that says it is one, and can tell what stands on the screen."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return [line.rpartition(ERASE_LINE)[2] for line in self.getvalue().split("\n")[:-1]]


def run(stream: io.StringIO) -> Progress:
    progress = Progress(stream, clock=map(float, count()).__next__)
    with progress.step("one", "the first"):
        progress.tick()
    with progress.step("two", "the second"):
        for percent in range(0, 101, 5):
            progress.fraction(percent / 100)
    with pytest.raises(ValueError, match="cause"), progress.step("three", "the third"):
        raise ValueError("cause")
    return progress


def test_a_log_gets_plain_lines() -> None:
    stream = io.StringIO()
    run(stream)
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert [line.split() for line in stream.getvalue().splitlines()] == [
        ["ok", "the", "first", "1.00", "s"],
        ["25%", "the", "second"],
        ["50%", "the", "second"],
        ["75%", "the", "second"],
        ["ok", "the", "second", "1.00", "s"],
        ["FAIL", "the", "third", "1.00", "s"],
    ]


def test_a_terminal_ends_with_a_line_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    run(stream)
    assert [line.split()[0] for line in stream.lines()] == ["ok", "ok", "FAIL"]
    assert "#" * 24 + " 100%" in stream.getvalue()
    assert "|" in stream.getvalue()


def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    run(stream)
    drawn = stream.getvalue().replace("\n", ERASE_LINE).split(ERASE_LINE)
    assert max(map(len, drawn)) < 30


def test_remembers_the_seconds_and_where_it_failed() -> None:
    progress = run(io.StringIO())
    assert progress.seconds == {"one": 1.0, "two": 1.0, "three": 1.0}
    assert progress.current == "three"
