"""The files of one configuration: what the first one includes, and a folder beside it; read as if they were one."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.document import Document, DocumentError, Problem, Table, Unexpected, read_file, show_path

if TYPE_CHECKING:
    from collections.abc import Sequence

# Ours. Of peers in files of their own there are as many as of policies at most; more is somebody's wrong pattern.
MAXIMUM_FILES = 4096
# Ours. Files that include files that include files: more is somebody's mistake, and Python's stack has an end.
MAXIMUM_DEPTH = 16


def read_files(path: Path) -> Root:
    """The file at ``path``, those that it includes, and those of the folder beside it (``x.d`` beside ``x.toml``).

    In this order: a file, what it includes in the order that it says, each followed by what that includes; then the
    folder's in the order of their names, likewise. Of a pattern the files come by their names too.

    Raises:
        DocumentError: one cannot be read or is not TOML; every such problem at once.
    """
    reading = _Reading()
    reading.read(path, read_file(path, "configuration"))
    folder = path.with_suffix(".d")
    if folder.is_dir():
        for each in _matching(folder, "*.toml"):
            reading.drop_in(each)
    return reading.root()


def read_text(text: str, source: Path) -> Root:
    """As :func:`read_files`, of ``text`` as if it were in ``source``, and without a folder."""
    reading = _Reading()
    reading.read(source, text)
    return reading.root()


class _Reading:
    """Of one configuration."""

    def __init__(self) -> None:
        self._documents: list[Document] = []
        self._problems: list[Problem] = []
        self._seen: set[str] = set()  # without symbolic links
        self._depth = 0  # of includes

    def root(self) -> Root:
        """Raises DocumentError: what is not TOML, or cannot be read."""
        if self._problems:
            raise DocumentError("", self._problems)
        return Root(self._documents)

    def drop_in(self, path: Path) -> None:
        """Read the file at ``path``, unless one that was read includes it."""
        wrong = "" if self._has(path) else self.include(path)
        if wrong:
            self._problems += DocumentError(str(path), [Problem(0, f"expected {wrong}")]).located()

    def _has(self, path: Path) -> bool:
        return os.path.realpath(path) in self._seen

    def include(self, path: Path) -> str:
        """Read the file at ``path``; why not, if it is not to be."""
        if self._has(path):
            return "each file once: it is part of this configuration already"
        if len(self._documents) >= MAXIMUM_FILES:
            return f"at most {MAXIMUM_FILES} files"
        if self._depth >= MAXIMUM_DEPTH:
            return f"at most {MAXIMUM_DEPTH} files that include each other"
        if path.exists() and not path.is_file():  # to read from a pipe is to wait for who writes, for ever maybe
            return "a regular file"
        try:
            self.read(path, read_file(path, "configuration"))
        except DocumentError as error:
            self._problems += error.located()
        return ""

    def read(self, path: Path, text: str) -> None:
        """``text``, and what it includes."""
        self._seen.add(os.path.realpath(path))
        document = Document.parse(text, str(path))
        self._documents.append(document)
        table = Table(document, (), document.root)
        self._depth += 1
        for index, pattern in enumerate(table.items("include", _pattern)):
            wrong = self._include_all(path.parent, pattern)
            if wrong:
                written = ("include", index) if isinstance(document.root["include"], list) else ("include",)
                table.report_value(written, pattern, wrong)
        self._depth -= 1

    def _include_all(self, directory: Path, pattern: str) -> str:
        wild = any(mark in pattern for mark in "*?[")
        whole = directory / pattern
        found = _matching(Path(whole.anchor), str(whole.relative_to(whole.anchor))) if wild else [whole]
        if not wild and not whole.is_file():
            return "a file that is there, or a pattern such as peers/*.toml"
        return next(filter(None, map(self.include, found)), "")


def _matching(directory: Path, pattern: str) -> list[Path]:
    """By their names, those that a shell would find: not what an editor has beside the file that it is open with, such
    as ``.#gw.toml``.
    """
    return sorted(path for path in directory.glob(pattern) if not path.name.startswith("."))


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Unexpected("the path of a file, or a pattern such as peers/*.toml")
    return value


class Root:
    """The tables of several documents: each table is in one of them, arrays of tables may be in any.

    Args:
        documents: in order, at least one.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = documents
        self._known = {"include"}

    def __contains__(self, key: str) -> bool:
        return any(key in document.root for document in self._documents)

    def table(self, key: str) -> Table:
        """The table under ``key``; an empty one when it is absent."""
        self._known.add(key)
        having = [document for document in self._documents if key in document.root] or [self._documents[0]]
        first, *others = having
        for document in others:
            where = first.place((key,))
            document.report((key,), f"{key}: expected all of it in one file, and {where} has it already")
        return _top(first).table(key)

    def tables(self, key: str) -> list[Table]:
        """The arrays of tables under ``key``, one behind the other."""
        self._known.add(key)
        return [table for document in self._documents for table in _top(document).tables(key)]

    def report(self, text: str) -> None:
        """A problem with all of it."""
        self._documents[0].report((), text)

    def close(self) -> None:
        """Report the keys that nobody asked for, and raise DocumentError if there is any problem, with all of them."""
        for document in self._documents:
            for key in document.root.keys() - self._known:
                near = get_close_matches(key, self._known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(self._known))}"
                document.report((key,), f"{show_path((key,))}: unknown key; {hint}")
        problems = [problem for document in self._documents for problem in document.located()]
        if problems:
            raise DocumentError("", problems)


def _top(document: Document) -> Table:
    return Table(document, (), document.root)
