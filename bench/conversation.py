"""Talking with a process: a line of JSON is one thing said, either way."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from bench.laboratory import end
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


class Partner:
    """A process that says and is told such lines. ``select`` may wait for it.

    No buffer stands between its pipe and us: ``select`` sees the pipe alone, and what had been read ahead of its turn
    it would wait for until the next line comes, which after the last one is for ever.

    Args:
        name: of its host, for who is told that it has failed.
        command: a list of arguments.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def hear(self) -> dict[str, Any]:
        """The next that it says. Raises LabFailed if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabFailed("the end of the traffic is gone", host=self.name)
        words = json.loads(line)
        assert isinstance(words, dict)
        return words

    def tell(self, words: object = None) -> None:
        """A line of input."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")

    def fileno(self) -> int:
        """To wait for what it says: readable while any of that has not been heard."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def end(self) -> None:
        """If it still runs."""
        end(self._process)
