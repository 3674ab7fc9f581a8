"""Progress of a run of named steps: a line that moves on a terminal, plain lines in a log."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPINNER: Final = "|/-\\"
BAR_CELLS: Final = 24
TITLE_CELLS: Final = 52
PLAIN_FRACTIONS: Final = 4  # a log gets a line for each quarter
ERASE_LINE: Final = "\r\x1b[K"


class Progress:
    """Shows one step after another and remembers how long each took.

    Args:
        stream: where to; a terminal gets a line that moves.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""
        self._stream = stream
        self._clock = clock
        self._moving = stream.isatty()
        self._title = ""
        self._turns = 0
        self._shown_fraction = 0

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """One step; ``name`` is its key in ``seconds``, and ``current`` from now on, also after it failed."""
        self.current, self._title, self._shown_fraction = name, title, 0
        start = self._clock()
        self.tick()
        try:
            yield
        except BaseException:
            self._finish("FAIL", self._clock() - start)
            raise
        self._finish("ok", self._clock() - start)

    def tick(self) -> None:
        """Something is still going on."""
        if self._moving:
            self._turns += 1
            self._draw(f" {SPINNER[self._turns % len(SPINNER)]}   {self._title}")

    def fraction(self, done: float) -> None:
        """``done`` of 1.0 is done."""
        if self._moving:
            full = round(done * BAR_CELLS)
            self._draw(f" {'#' * full}{'.' * (BAR_CELLS - full)} {done:4.0%}  {self._title}")
        elif self._shown_fraction < int(done * PLAIN_FRACTIONS) < PLAIN_FRACTIONS:
            self._shown_fraction = int(done * PLAIN_FRACTIONS)
            self._draw(f"{done:4.0%}  {self._title}\n")

    def _finish(self, mark: str, seconds: float) -> None:
        self.seconds[self.current] = round(seconds, 3)
        self._draw(f"{mark:>4}  {self._title:<{TITLE_CELLS}} {seconds:6.2f} s")
        self._stream.write("\n")
        self._stream.flush()

    def _draw(self, text: str) -> None:
        if self._moving:
            # A line that wraps could not be erased.
            text = ERASE_LINE + text[: shutil.get_terminal_size().columns - 1]
        self._stream.write(text)
        self._stream.flush()
