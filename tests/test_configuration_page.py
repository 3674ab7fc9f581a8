"""docs/configuration.md is the program's: every key, no other, and its defaults and bounds are those of the code."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from esp.suite import SUITES
from kinkvpn import config
from kinkvpn.document import DocumentError

PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()

SMALLEST = {
    "host": ['principal = "kink/a@R"', 'keytab = "k"'],
    "kink": [],
    "esp": [],
    "tun": [],
    "dns": ['servers = "10.1.0.53"'],
    "people": ['addresses = "10.8.0.0/24"', 'routes = "10.1.0.0/16"'],
    "people.allow": ['who = "*@R"'],
    "offload": [],
    "control": [],
    "log": [],
    "hooks": [],
    "clear": [],
    "metrics": [],
    "policy": ['action = "discard"', 'remote = "10.9.0.0/24"'],
    "peer": ['name = "b"', 'principal = "kink/b@R"', 'address = "192.0.2.2"'],
    "peer.policy": ['local = "10.1.0.1/32"', 'remote = "10.2.0.1/32"'],
}
MANY = {"people.allow", "peer", "peer.policy", "policy"}


@dataclass(frozen=True, slots=True)
class Key:
    """A row of the page, in one of the tables that it is good for."""

    table: str
    name: str
    default: str
    allowed: str


def rows() -> list[Key]:
    found = []
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE):
        tables = re.findall(r"\[([a-z.]+)\]", heading)
        for line in re.findall(r"^\| `.*", section, re.MULTILINE):
            name, default, allowed, _ = (cell.strip() for cell in line.strip("|").split(" | "))
            table, _, short = name.strip("`").rpartition(".")
            found += [Key(one, short, default, allowed) for one in ([table] if table else tables)]
    return found


ROWS = rows()


def with_line(table: str, line: str = "") -> str:
    """The smallest configuration, with ``line`` in ``table`` instead of what that key has there."""
    text = []
    for name, lines in SMALLEST.items():
        kept = [one for one in lines if not (name == table and one.split(" ")[0] == line.split(" ")[0])]
        kept += [line] if name == table and line else []
        text += [f"[[{name}]]" if name in MANY else f"[{name}]", *kept]
    return "\n".join(text)


def known(table: str) -> set[str]:
    """What the program itself lists when it meets a key that it does not know."""
    with pytest.raises(DocumentError) as raised:
        config.parse(with_line(table, "qqqqqqqqq = 1"), Path("/x/c.toml"))
    found = re.search(r"there are (.*)", str(raised.value))
    assert found is not None
    return set(found[1].split(", "))


@pytest.mark.parametrize("table", SMALLEST)
def test_every_key_is_there_and_no_other(table: str) -> None:
    assert {key.name for key in ROWS if key.table == table} == known(table) - {"policy", "allow"}
    assert len({key.name for key in ROWS if key.table == table}) == sum(key.table == table for key in ROWS)


@pytest.mark.parametrize("key", [key for key in ROWS if key.default.startswith("`")], ids=lambda key: key.name)
def test_the_default_is_what_happens_without_the_key(key: Key) -> None:
    written = with_line(key.table, f"{key.name} = {key.default.strip('`')}")
    assert config.parse(written, Path("/x/c.toml")) == config.parse(with_line(key.table), Path("/x/c.toml"))


BOUNDED = [key for key in ROWS if re.match(r"[\d.]+ to [\d.]+(?!\d| letters)", key.allowed)]


@pytest.mark.parametrize("key", BOUNDED, ids=lambda key: f"{key.table}.{key.name}")
def test_the_bounds_are_taken_and_what_is_beyond_is_refused(key: Key) -> None:
    low, high = (float(bound) for bound in re.findall(r"[\d.]+", key.allowed)[:2])
    beside = 'protocol = "tcp"\n' if key.name in ("local_port", "remote_port") else ""
    for value, good in ((low, True), (high, True), (low - 0.1 if low < 1 else low - 1, False), (high + 1, False)):
        text = with_line(key.table, f"{key.name} = {value:.0f}" if value == int(value) else f"{key.name} = {value}")
        text += f"\n{beside}" if key.table == "peer.policy" else ""
        if good:
            config.parse(text, Path("/x/c.toml"))
            continue
        with pytest.raises(DocumentError, match=f"{key.name} = "):
            config.parse(text, Path("/x/c.toml"))


@pytest.mark.parametrize("key", [key for key in ROWS if '`"' in key.allowed], ids=lambda key: f"{key.table}.{key.name}")
def test_the_words_that_it_lists_are_taken(key: Key) -> None:
    for word in re.findall(r'`("[^`]*")`', key.allowed):
        config.parse(with_line(key.table, f"{key.name} = {word}"), Path("/x/c.toml"))


@pytest.mark.parametrize("key", [key for key in ROWS if key.name in ("pfs", "protocol")], ids=str)
def test_the_names_that_it_lists_are_taken(key: Key) -> None:
    names = re.findall(r"`([a-z0-9-]+)`", key.allowed)
    assert len(names) > 5
    for name in names:
        config.parse(with_line(key.table, f'{key.name} = "{name}"'), Path("/x/c.toml"))


def test_suites_are_those_of_the_program() -> None:
    """The second column of three tables: combined modes, ciphers, and what stands behind a cipher."""
    tables = re.findall(r"^\|---.*\n((?:\|.*\n)+)", PAGE.partition("## Suites")[2], re.MULTILINE)
    combined, ciphers, integrities = (
        [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split(" | ")[1])]
        for table in tables
    )
    patterns = [*combined, *map("".join, product(ciphers, integrities))]
    # The braces are a shell's.
    echo = subprocess.run(["bash", "-c", f"echo {' '.join(patterns)}"], capture_output=True, text=True, check=True)
    assert sorted(echo.stdout.split()) == sorted(SUITES)
