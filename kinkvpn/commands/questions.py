"""Plain questions on a terminal, each with what would be answered for it by who just presses return."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kinkvpn.document import Unexpected
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Unanswered(KinkvpnError):
    """Whoever was asked has gone."""


def ask(question: str, read: Callable[[object], T], default: str = "") -> T:
    """What ``read`` makes of the answer; asked again until it makes something.

    Args:
        question: without a question mark.
        read: a reader as of :mod:`kinkvpn.values`.
        default: for an empty answer; empty for none.

    Raises:
        Unanswered: the end of the input.
        KeyboardInterrupt: Ctrl-C.
    """
    while True:
        try:
            answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
        except EOFError:
            print()  # what is said next has a line of its own
            raise Unanswered("no answer: nothing has been written") from None
        except KeyboardInterrupt:
            print()
            raise
        try:
            return read(answer)
        except Unexpected as expected:
            print(f"  expected {expected}")


def several(read: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """A reader of values apart by commas or spaces, at least one."""

    def read_all(value: object) -> tuple[T, ...]:
        found = tuple(map(read, str(value).replace(",", " ").split())) or (read(""),)
        if len({*found}) != len(found):
            raise Unexpected("each of them once")
        return found

    return read_all
