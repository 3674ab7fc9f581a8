"""For who sits at a terminal: lines folded at words to its width, tables that fit. What goes elsewhere stays whole."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours. Nobody reads a program's output on less; a terminal that says so has not been told its size.
NARROWEST = 40
# Ours. So far in is what goes on from the line of a complaint before: what is at fault stands out at the left.
HANG = 4

_FIRST_COLUMN = re.compile(r" *\S+ {2,}(?=\S)")


def width_of(stream: TextIO) -> int | None:
    """Columns, or None where nobody sits."""
    try:
        return max(NARROWEST, os.get_terminal_size(stream.fileno()).columns) if stream.isatty() else None
    except (OSError, ValueError):
        return None


def folded(line: str, width: int | None, hang: int | None = None) -> str:
    """``line`` in lines of ``width`` columns; a long word, such as a path, stays whole.

    Args:
        line: without its end.
        width: None leaves it as it is.
        hang: so far in are the lines behind the first; None: where its second column begins, if it has columns.
    """
    if width is None or len(line) <= width:
        return line
    if hang is None:
        column = _FIRST_COLUMN.match(line)
        hang = len(column[0]) if column and len(column[0]) <= width // 3 else len(line) - len(line.lstrip()) + 4
    return textwrap.fill(
        line, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False, tabsize=1
    )


def complain(text: str) -> None:
    """Each line of ``text`` on stderr, behind our name, folded where somebody sits there."""
    width = width_of(sys.stderr)
    for line in text.splitlines():
        sys.stderr.write(f"{folded(f'kinkvpn: {line}', width, HANG)}\n")
    sys.stderr.flush()


def show(heading: Sequence[str], rows: Sequence[Sequence[str]], out: TextIO | None = None) -> None:
    """A table, each column as wide as it needs; in a terminal no wider than that, with cells folded.

    Args:
        heading: a name for each column; one that starts with ``>`` is of numbers.
        rows: a cell for each column; none of them moves the cursor.
        out: sys.stdout if None.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = out or sys.stdout
    width = width_of(out)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in heading:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    longest = sum(2 + max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading)))
    console = Console(file=out, width=width or longest, highlight=False, soft_wrap=width is None)
    with console.capture() as shown:
        console.print(table)
    out.writelines(f"{line.rstrip()}\n" for line in shown.get().splitlines())
