"""For who sits at a terminal: lines folded at words to its width, and tables. What goes elsewhere stays whole."""

from __future__ import annotations

import os
import re
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console
    from rich.text import Text

# Ours. Nobody reads a program's output on less; a terminal that says so has not been told its size.
NARROWEST = 40
# Ours. So far in is what goes on below a row, so that names in the first column stand out.
HANG = 4
# Ours. More than any row has: each is laid out as one line before it is folded.
UNBOUNDED = 1_000_000
# What is well, what to look at, and what somebody is woken for.
STYLES: Final = {
    "established": "green",
    "negotiating": "yellow",
    "taken down": "yellow",
    "partly down": "bold red",
    "down": "bold red",
    "idle": "dim",
    "ok": "green",
    "note": "cyan",
    "warning": "yellow",
    "error": "bold red",
}

# Here or on another host. It is not folded: a terminal gives back whole what it has wrapped itself.
_COMMAND = re.compile(r" *(on \S+ )?\$ ")


def width_of(stream: TextIO) -> int | None:
    """Columns, or None where nobody sits."""
    try:
        return max(NARROWEST, os.get_terminal_size(stream.fileno()).columns) if stream.isatty() else None
    except (OSError, ValueError):
        return None


def printable(line: str) -> str:
    """Some words are the peer's or the KDC's: none of them moves the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def folded(line: str, width: int | None, hang: int = HANG) -> str:
    """``line`` in lines of ``width`` columns; a long word, such as a path, stays whole.

    Args:
        line: without its end.
        width: None leaves it as it is.
        hang: so far in are the lines behind the first.
    """
    if width is None or len(line) <= width:
        return line
    starts = [0, *_breaks(line, width, hang), len(line)]
    return f"\n{' ' * hang}".join(line[start:end].rstrip() for start, end in pairwise(starts))


def _breaks(line: str, width: int, hang: int) -> list[int]:
    """Where in ``line`` the lines behind the first begin: at a cell that fits into one of those, else at a word."""
    found: list[int] = []
    start, room = 0, width
    for cell in re.finditer(r"\S+(?: \S+)*", line):
        whole = len(cell[0]) <= width - hang
        for word in [cell] if whole else re.finditer(r"\S+", cell[0]):
            first, end = cell.span() if whole else (cell.start() + word.start(), cell.start() + word.end())
            if end - start > room and line[start:first].strip():
                start, room = first, width - hang
                found.append(first)
    return found


def complain(text: str) -> None:
    """Each line of ``text`` on stderr, behind our name, folded where somebody sits there."""
    width = width_of(sys.stderr)
    for line in text.splitlines():
        sys.stderr.write(f"{folded(f'kinkvpn: {printable(line)}', width)}\n")
    sys.stderr.flush()


def show(heading: Sequence[str], rows: Sequence[Sequence[str]], out: TextIO | None = None) -> None:
    """A table, a line for each row; in a terminal what has no room goes on below it, at a word. Nothing is cut.

    Colours are for terminals, and not for those who have set NO_COLOR. Nothing that a cell says is taken for markup,
    and none of it moves the cursor.

    Args:
        heading: a name for each column; one that starts with ``>`` is of numbers. Empty is without, and the first
            column is that of names.
        rows: a cell for each column; or one cell alone, which is a note on the row before it. One that starts with
            ``$`` is a command.
        out: sys.stdout if None.
    """
    from rich.console import Console

    out = out or sys.stdout
    width = width_of(out)
    console = Console(file=out, width=UNBOUNDED, highlight=False, force_terminal=out.isatty())
    hang = HANG if heading else 2 + max((len(row[0]) for row in rows if len(row) > 1), default=HANG - 2)
    with console.capture() as shown:
        for line in _lines(console, heading, rows, hang):
            starts = [] if width is None or _COMMAND.match(line.plain) else _breaks(line.plain, width, hang)
            for number, piece in enumerate(line.divide(starts)):
                piece.rstrip()
                if number:
                    piece.pad_left(hang)
                console.print(piece, soft_wrap=True)
    out.write(shown.get())


def _lines(console: Console, heading: Sequence[str], rows: Sequence[Sequence[str]], hang: int) -> Iterator[Text]:
    """The heading and each row in one line, and notes so far in as ``hang``."""
    from rich.table import Table
    from rich.text import Text

    columns = len(heading) or max(map(len, rows), default=0)
    names = "" if heading else "bold"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=bool(heading))
    for number, name in enumerate(heading or ("",) * columns):
        right = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if right else "left", style="" if number else names)
    for row in rows:
        if len(row) == columns:
            table.add_row(*(Text(printable(cell), STYLES.get(cell, "")) for cell in row))
    laid = console.render_lines(table, pad=False)
    taken = iter(Text.assemble(*((each.text, each.style or "") for each in line)) for line in laid)
    if heading:
        yield next(taken)
    for row in rows:
        if len(row) == columns:
            yield next(taken)
        else:
            yield Text(" " * hang + printable(row[0]), "bold" if _COMMAND.match(row[0]) else "")


def show_each(tables: Iterable[tuple[Sequence[str], Sequence[Sequence[str]]]], out: TextIO | None = None) -> None:
    """Tables, by heading and rows, with an empty line between two."""
    for number, (heading, rows) in enumerate(tables):
        if number:
            print(file=out or sys.stdout)
        show(heading, rows, out)
