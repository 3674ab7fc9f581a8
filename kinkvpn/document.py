"""A TOML document read key by key: typed values out, every problem with its line, none of them fatal until the end."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

KeyPath = tuple[str | int, ...]
T = TypeVar("T")

MAXIMUM_FILE_OCTETS = 1 << 20  # ten times what the most policies need: beyond it somebody named the wrong file
# A value is quoted in its error; past this it says nothing more and breaks an 80-column terminal.
MAX_SHOWN = 60


class Unexpected(Exception):
    """A reader did not find what it wants; the message is what it wanted: "an integer from 1 to 65535"."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a document, fit for one line.

    Args:
        line: counted from 1; 0 when the trouble is with the file itself.
        text: key, value and what was expected.
        source: where, if not where the others are.
    """

    line: int
    text: str
    source: str = ""


class DocumentError(KinkvpnError):
    """Everything that is wrong with a document; the message has one ``source:line: problem`` on each line."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        # Files in the order in which they were read, which is theirs in ``problems``.
        files = {problem.source: number for number, problem in reversed(list(enumerate(problems)))}
        self.problems = tuple(sorted(set(problems), key=lambda each: (files[each.source], each)))
        super().__init__("\n".join(self._show(problem) for problem in self.problems))

    def _show(self, problem: Problem) -> str:
        source = problem.source or self.source
        return f"{source}:{problem.line}: {problem.text}" if problem.line else f"{source}: {problem.text}"

    def located(self) -> list[Problem]:
        """The problems, each with its source."""
        return [replace(problem, source=problem.source or self.source) for problem in self.problems]


@dataclass(slots=True)
class Document:
    """TOML text, the values in it, and what was found wrong so far."""

    source: str
    text: str
    root: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    _lines: dict[KeyPath, int] | None = None

    @classmethod
    def parse(cls, text: str, source: str) -> Document:
        """Read ``text``; ``source`` is the name that errors show.

        Raises:
            DocumentError: not TOML.
        """
        text = text.replace("\r\n", "\n")
        try:
            return cls(source, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise DocumentError(source, [_syntax_problem(text, str(error))]) from None

    def line(self, path: KeyPath) -> int:
        """Where ``path`` was written, or the nearest thing around it that has a line of its own."""
        if self._lines is None:  # only a document with problems pays for it
            self._lines = locate(self.text)
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def report(self, path: KeyPath, text: str) -> None:
        """Note a problem and go on."""
        self.problems.append(Problem(self.line(path), text))

    def place(self, path: KeyPath) -> str:
        """``/etc/kinkvpn/kinkvpn.toml:7``."""
        return f"{self.source}:{self.line(path)}"

    def located(self) -> list[Problem]:
        """The problems so far, each with its source."""
        return [replace(problem, source=self.source) for problem in self.problems]

    def raise_problems(self) -> None:
        """Raises DocumentError with every problem, unless there is none."""
        if self.problems:
            raise DocumentError(self.source, self.problems)


def read_file(path: Path, what: str, examine: Callable[[int], object] | None = None) -> str:
    """The text of the file at ``path``.

    Args:
        path: where.
        what: what it should be, in errors: "configuration".
        examine: is given the descriptor before anything is read, and may raise DocumentError.

    Raises:
        DocumentError: it cannot be read, is longer than MAXIMUM_FILE_OCTETS, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            if examine is not None:
                examine(file.fileno())
            octets = file.read(MAXIMUM_FILE_OCTETS + 1)
        text = octets.decode()
    except OSError as error:
        raise DocumentError(str(path), [Problem(0, f"cannot read the {what}: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise DocumentError(str(path), [Problem(line, "not TOML: not UTF-8")]) from None
    if len(octets) > MAXIMUM_FILE_OCTETS:
        raise DocumentError(str(path), [Problem(0, f"more than {MAXIMUM_FILE_OCTETS} octets: not a {what}")])
    return text


class Table:
    """One table of a document. A key that nobody asked for is a problem when the table is closed.

    A reader takes the value and returns what it stands for, or raises Unexpected. Where that happens the fallback is
    returned, so that reading goes on; the document's problems say that the result is not to be used.

    With ``secret`` no problem of it, or of a table below, shows a value, or a name that may be one: a key behind the
    wrong name is still a key, and one in place of a name.
    """

    def __init__(self, document: Document, path: KeyPath, values: Mapping[str, Any], *, secret: bool = False) -> None:
        self._document = document
        self._path = path
        self._values = values
        self._secret = secret
        self._known: list[str] = []
        self.sound = True  # until something in it is reported

    @property
    def name(self) -> str:
        """``peer[2].policy[1]``."""
        return show_path(self._path)

    @property
    def directory(self) -> Path:
        """Where relative paths in it start."""
        return Path(self._document.source).parent

    @property
    def location(self) -> str:
        """``/etc/kinkvpn/kinkvpn.toml:7``."""
        return self._document.place(self._path)

    def place(self, other: Table) -> str:
        """Its name, as ``other`` speaks of it: with file and line if that is in another."""
        if other._document is self._document:
            return self.name
        return f"{self.name} at {self.location}"

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def written(self, key: str) -> object:
        """The value of ``key``, which is there, as it was written."""
        return self._values[key]

    def get(self, key: str, read: Callable[[object], T], default: T) -> T:
        """The value of ``key``, or ``default`` when it is absent."""
        self._known.append(key)
        found = self._read((key,), self._values[key], read) if key in self._values else ()
        return found[0] if found else default

    def require(self, key: str, read: Callable[[object], T], fallback: T, expected: str) -> T:
        """The value of ``key``; its absence is a problem."""
        if key not in self._values:
            self.report(f"{show_path((*self._path, key))} is missing: expected {expected}")
        return self.get(key, read, fallback)

    def items(self, key: str, read: Callable[[object], T], default: tuple[T, ...] = ()) -> tuple[T, ...]:
        """The values of an array, each read for itself; a lone value is an array of one."""
        self._known.append(key)
        if key not in self._values:
            return default
        value = self._values[key]
        values = value if isinstance(value, list) else [value]
        if not values:
            self.report_value((key,), value, "at least one value, or no such key")
        found: dict[T, None] = {}
        for index, item in enumerate(values):
            path: KeyPath = (key, index) if isinstance(value, list) else (key,)
            for result in self._read(path, item, read):
                if result in found:
                    self.report_value(path, item, "each value once")
                found[result] = None
        return tuple(found)

    def require_items(self, key: str, read: Callable[[object], T], expected: str) -> tuple[T, ...]:
        """The values of an array; its absence is a problem."""
        if key not in self._values:
            self.report(f"{show_path((*self._path, key))} is missing: expected {expected}")
        return self.items(key, read)

    def table(self, key: str) -> Table:
        """The table under ``key``; an empty one when it is absent."""
        self._known.append(key)
        values = self._values.get(key, {})
        if not isinstance(values, dict):
            self.report_value((key,), values, f"a table: [{show_path((*self._path, key))}]")
            values = {}
        return Table(self._document, (*self._path, key), values, secret=self._secret)

    def entries(self, read: Callable[[object], T]) -> dict[str, T]:
        """Every key of a table whose keys are names of somebody's choice, and its value."""
        self._known += self._values
        return {key: found[0] for key, value in self._values.items() if (found := self._read((key,), value, read))}

    def tables(self, key: str) -> list[Table]:
        """The array of tables under ``key``."""
        self._known.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.report_value((key,), values, f"an array of tables: [[{show_path((*self._path, key), names=True)}]]")
            values = []
        paths = ((*self._path, key, index) for index in range(len(values)))
        return [
            Table(self._document, path, value, secret=self._secret) for path, value in zip(paths, values, strict=True)
        ]

    def refuse(self, key: str, reason: str) -> None:
        """Report ``key``, if it is there: one that is good elsewhere."""
        if key in self._values:
            self._known.append(key)
            self.report(f"{show_path((*self._path, key))}: {reason}", (key,))

    def close(self) -> None:
        """Report the keys that nobody asked for, each with the nearest one that exists."""
        for key in self._values:
            if key in self._known:
                continue
            near = get_close_matches(key, self._known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(set(self._known)))}"
            octets = self._secret and not near and re.search(r"\d", key)  # no name that there is has a digit
            shown = "*" if octets else key
            self.report(f"{show_path((*self._path, shown))}: unknown key; {hint}", (key,))

    def report(self, text: str, path: KeyPath = ()) -> None:
        """A problem with something in this table."""
        self.sound = False
        self._document.report((*self._path, *path), text)

    def report_value(self, path: KeyPath, value: object, expected: str) -> None:
        """A value that is not what was expected."""
        shown = "" if self._secret else f" = {show_value(value)}"
        self.report(f"{show_path((*self._path, *path))}{shown}: expected {expected}", path)

    def _read(self, path: KeyPath, value: object, read: Callable[[object], T]) -> tuple[T] | tuple[()]:
        try:
            return (read(value),)
        except Unexpected as expected:
            self.report_value(path, value, str(expected))
            return ()


def show_path(path: KeyPath, *, names: bool = False) -> str:
    """``peer[2].policy[1].local``, counted from 1 as people do; only the names with ``names``."""
    steps = (step for step in path if not (names and isinstance(step, int)))
    return "".join(f"[{step + 1}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def show_value(value: object) -> str:
    """``value`` much as TOML would have it, cut to one short line."""
    text = json.dumps(value, default=str, ensure_ascii=True)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _syntax_problem(text: str, message: str) -> Problem:
    """tomllib says where in words only: "Invalid value (at line 3, column 5)" or "(at end of document)"."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found is None:
        return Problem(text.count("\n") + 1, f"not TOML: {message}")
    return Problem(int(found[1]), f"not TOML: {message[: found.start()]}, at column {found[2]}")


# What can hide a newline, a bracket or a comma, and those themselves (TOML 1.0 "String", "Comment", "Array").
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{},\n]"
    r"|[^\s\[\]{},\"'#]+",
    re.DOTALL,
)


@dataclass(slots=True)
class _Statement:
    """A header or a key with its value: the line it starts on, its text, and the line of each item of its array."""

    line: int
    text: str = ""
    items: list[int] = field(default_factory=list)


def locate(text: str) -> dict[KeyPath, int]:
    """The line of every key, table and array item of ``text``, which has to be valid TOML with bare newlines.

    tomllib keeps no positions, and neither does any maintained reader that gives values; so the text is cut into
    statements by its brackets and strings, and tomllib itself says what each statement's key is.
    """
    lines: dict[KeyPath, int] = {}
    last: dict[KeyPath, int] = {}  # [[array]] -> index of its newest table
    base: KeyPath = ()
    for statement in _statements(text):
        values = tomllib.loads(statement.text)
        if statement.text.startswith("["):
            base = _enter(values, last)
            lines.setdefault(base, statement.line)
            if base[-1] == 0:  # an array of tables starts where its first table does
                lines.setdefault(base[:-1], statement.line)
            continue
        for path, value in _walk(values, ()):
            lines.setdefault(base + path, statement.line)
            if isinstance(value, list) and len(value) == len(statement.items) and int not in map(type, path):
                lines.update({(*base, *path, index): line for index, line in enumerate(statement.items)})
    return lines


def _statements(text: str) -> Iterator[_Statement]:
    """A statement ends at the first newline outside every bracket and string."""
    line, depth, start = 1, 0, 0
    statement: _Statement | None = None
    in_array = expecting_item = False
    for token in _TOKEN.finditer(text + "\n"):
        mark = token[0]
        if mark == "\n" and depth == 0:
            if statement is not None:
                statement.text = text[start : token.start()]
                yield statement
                statement = None
        elif mark[0] not in "#\n":
            if statement is None:
                statement, start, expecting_item = _Statement(line), token.start(), False
            if expecting_item and mark not in ",]":
                statement.items.append(line)
            if depth == 0 and mark in "[{":
                in_array = mark == "["
            depth += (mark in "[{") - (mark in "]}")
            expecting_item = in_array and depth == 1 and mark in "[,"
        line += mark.count("\n")


def _enter(header: dict[str, Any], last: dict[KeyPath, int]) -> KeyPath:
    """The path that ``[a.b]`` or ``[[a.b]]`` opens; a name on the way that is an array means its newest table."""
    path: KeyPath = ()
    inner: Any = header
    while inner:
        ((key, inner),) = inner.items()
        path = (*path, key)
        if isinstance(inner, list):
            last[path] = last.get(path, -1) + 1
            return (*path, last[path])
        if path in last:
            path = (*path, last[path])
    return path


def _walk(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    """Every path below ``value``, with what is there."""
    steps: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step), inner
        yield from _walk(inner, (*path, step))
