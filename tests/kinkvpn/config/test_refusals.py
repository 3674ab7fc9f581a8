"""Every refusal of a configuration, by the smallest one that meets it, as it reads in a terminal 80 columns wide.

refusals.txt is the catalogue. A block of it is what the smallest configuration has otherwise, and the line that comes
of that; ``-`` takes a key or a table away. That none is missing is seen by where in the program a refusal is made.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import kinkvpn
from kinkvpn import config, document
from kinkvpn.config import host
from kinkvpn.document import DocumentError, Problem, Unexpected
from kinkvpn.terminal import HANG, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Where there is nothing, and a name as long as the usual one's.
SOURCE = Path("/nowhere/kinkvpn/kinkvpn.toml")
CATALOGUE = Path(__file__).with_name("refusals.txt")
COLUMNS = 80
SMALLEST = {
    "[host]": ['principal = "kink/a@R"', 'keytab = "k"'],
    "[[peer]]": [
        'name = "b"',
        'principal = "kink/b@R"',
        'address = "192.0.2.2"',
        'local = "10.1.0.0/24"',
        'remote = "10.2.0.0/24"',
    ],
}
# What nobody would read in the catalogue.
SHORTHAND = {
    "MANY_PORTS": str(list(range(1, 18))),
    "MANY_RULES": "[" + '{ who = "*@R" }, ' * 257 + "]",
    "MANY_SUBNETS": str([f"10.{n}.{m}.0/24" for n in range(2, 19) for m in range(256)]).replace("'", '"'),
}
PACKAGE = Path(kinkvpn.__file__).parent
MODULES = [
    *sorted((PACKAGE / "config").glob("*.py")),
    *(PACKAGE / f"{name}.py" for name in ("options", "values", "traffic", "document", "admission")),
]
# What makes a refusal, by its name in the program.
MAKING = {"Unexpected", "Problem", "DocumentError", "report", "report_value", "refuse"}


class Site(NamedTuple):
    """Where in the program."""

    path: str
    line: int


class Refusal(NamedTuple):
    """A block of the catalogue: the whole configuration, and the line that it gets."""

    text: str
    line: str


def whole(block: str) -> str:
    """The smallest configuration, with what ``block`` has otherwise."""
    tables = {"": list[str](), **{header: list(lines) for header, lines in SMALLEST.items()}}
    lines = tables[""]
    for line in block.splitlines():
        if line.startswith("-["):
            del tables[line[1:]]
        elif line.startswith("["):
            lines = tables.setdefault(line, [])
        else:
            key = line.removeprefix("-").partition(" =")[0]
            lines[:] = [one for one in lines if one.partition(" =")[0] != key]
            lines += [] if line.startswith("-") else [line]
    text = "\n".join([*tables.pop(""), *(one for header, found in tables.items() for one in (header, *found))])
    for short, long in SHORTHAND.items():
        text = text.replace(short, long)
    return f"{text}\n"


def catalogue() -> Iterator[Refusal]:
    for entry in CATALOGUE.read_text().strip().split("\n\n"):
        block, said = entry.split("\n=> ")
        yield Refusal(whole(block), f"{SOURCE}:{said}")


REFUSALS = list(catalogue())


@pytest.fixture(autouse=True)
def no_keytab_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SYSTEM_KEYTAB", SOURCE)


def refused(read: Callable[[], object]) -> list[str]:
    with pytest.raises(DocumentError) as error:
        read()
    return str(error.value).splitlines()


def readable(line: str) -> None:
    """In 80 columns: folded at words, with the file, the line in it and the key at the left, and nothing lost."""
    shown = folded(f"kinkvpn: {line}", COLUMNS, HANG).splitlines()
    assert all(len(each) <= COLUMNS or " " not in each.strip().removeprefix("kinkvpn: ") for each in shown), shown
    assert all(each.startswith(" " * HANG) and each[HANG] != " " for each in shown[1:]), shown
    assert " ".join(each.strip() for each in shown) == f"kinkvpn: {line}"


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.line.removeprefix(f"{SOURCE}:")[:40])
def test_what_is_said(refusal: Refusal) -> None:
    assert refused(lambda: config.parse(refusal.text, SOURCE)) == [refusal.line]
    readable(refusal.line)
    # Which file, which line, which key, what it is, and what is wanted of it or to be done.
    assert re.match(rf"{SOURCE}:\d+: [a-z_.]+(\[\d+\])?", refusal.line)
    assert re.search(r"expected |did you mean|there are |not TOML|KINK cannot say it", refusal.line)


# By files, and by what is outside of them.

GOOD = whole("")
# Files, of which c.toml is read, and the line that it gets; {} is the folder that they are in.
FILES = {
    "missing": ({}, "{}/c.toml: cannot read the configuration: No such file or directory"),
    "long": (
        {"c": "x" * (document.MAXIMUM_FILE_OCTETS + 1)},
        "{}/c.toml: more than 1048576 octets: not a configuration",
    ),
    "octets": ({"c": "[host]\n# \udcff"}, "{}/c.toml:2: not TOML: not UTF-8"),
    "include": (
        {"c": f"include = [5]\n{GOOD}"},
        "{}/c.toml:1: include[1] = 5: expected the path of a file, or a pattern such as peers/*.toml",
    ),
    "included": (
        {"c": f'include = "d.toml"\n{GOOD}'},
        '{}/c.toml:1: include = "d.toml": expected a file that is there, or a pattern such as peers/*.toml',
    ),
    "twice": (
        {"c": f'include = "d.toml"\n{GOOD}', "d": "[host]\n"},
        "{}/d.toml:1: host: expected all of it in one file, and {}/c.toml:2 has it already",
    ),
    "within": (
        {"c": f'include = "d.toml"\n{GOOD}', "d": "[esp"},
        "{}/d.toml:1: not TOML: Expected ']' at the end of a ",
    ),
    "pipe": ({"c": GOOD, "c.d/pipe": ""}, "{}/c.d/pipe.toml: expected a regular file"),
    "empty": (
        {"c": whole("[host]\n-principal").replace('"k"', '"k.toml"'), "k": "\x05\x02"},
        "{0}/c.toml:1: host.principal is missing: expected one such as kink/gw.example.com@EXAMPLE.COM, for "
        "{0}/k.toml has no kink/ entry",
    ),
    "keytab": (
        {"c": whole("[host]\n-principal").replace('"k"', '"c.toml"')},
        "{0}/c.toml:1: host.principal is missing: expected one such as kink/gw.example.com@EXAMPLE.COM, for ",
    ),
}


def read_all(folder: Path, files: dict[str, str]) -> list[str]:
    """What comes of the files, written into ``folder``."""
    for name, text in files.items():
        path = folder / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        if path.stem == "pipe":
            os.mkfifo(path)
        else:
            path.write_bytes(text.encode(errors="surrogateescape"))
    return refused(lambda: config.load(folder / "c.toml"))


@pytest.mark.parametrize("name", FILES)
def test_what_is_said_of_files(name: str, tmp_path: Path) -> None:
    files, expected = FILES[name]
    (said,) = read_all(tmp_path, files)
    assert said.startswith(expected.format(*[tmp_path] * 2))
    readable(said)


ENVIRONMENT = {"ESP_ENGINE": "kernel"}
OF_ENVIRONMENT = 'environment: ESP_ENGINE = "kernel": expected one of auto, portable, native'


def test_what_is_said_of_the_environment() -> None:
    assert refused(lambda: config.engine_settings(config.EngineSettings(), ENVIRONMENT)) == [OF_ENVIRONMENT]
    readable(OF_ENVIRONMENT)


# All of them.


def sites() -> dict[Site, str]:
    """Where a refusal is made, and how that is written."""
    found = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in MAKING:
                    found[Site(str(path), node.lineno)] = ast.unparse(node)
    return found


def test_none_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever adds a refusal to the program adds it to the catalogue."""
    wanted, reached = sites(), set[Site]()

    def noted(made: Callable[..., None]) -> Callable[..., None]:
        def make(*arguments: object, **named: object) -> None:
            frame = sys._getframe(1)
            while frame is not None:
                reached.add(Site(frame.f_code.co_filename, frame.f_lineno))
                frame = frame.f_back
            made(*arguments, **named)

        return make

    for kind in (Unexpected, Problem, DocumentError):
        monkeypatch.setattr(kind, "__init__", noted(kind.__init__))
    for refusal in REFUSALS:
        refused(lambda text=refusal.text: config.parse(text, SOURCE))
    for name, (files, _) in FILES.items():
        (tmp_path / name).mkdir()
        read_all(tmp_path / name, files)
    refused(lambda: config.engine_settings(config.EngineSettings(), ENVIRONMENT))
    other = document.Document.parse("", "other.toml")  # of those that are read as one alone
    other.report((), "x")
    refused(other.raise_problems)
    missing = {f"{Path(site.path).name}:{site.line}": text for site, text in wanted.items() if site not in reached}
    assert missing == {}
