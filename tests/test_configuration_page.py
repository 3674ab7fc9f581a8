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
from kinkvpn.config.changes import RestartNeeded, changes, with_names_of
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


# Two values of each key whose row does not show two, and what has to stand beside some.
VALUES = {
    "principal": ('"kink/c@R"', '"kink/d@R"'),
    "keytab": ('"k"', '"l"'),
    "client_keytab": ('"k"', '"l"'),
    "ccache": ('"FILE:/k"', '"FILE:/l"'),
    "krb5_config": ('"k"', '"l"'),
    "replay_cache": ('"dfl:"', '"/k"'),
    "listen": ('"192.0.2.1"', '"192.0.2.3"'),
    "metrics.listen": ('"127.0.0.1:9910"', '"127.0.0.1:9911"'),
    "hosts": ('"a.example"', '"b.example"'),
    "name": ('"c"', '"d"'),
    "addresses": ('"10.1.0.1/24"', '"10.1.0.2/24"'),
    "people.addresses": ('"10.8.0.0/24"', '"10.9.0.0/24"'),
    "bypass": ('"dns"', '"kdc"'),
    "servers": ('"10.1.0.53"', '"10.1.0.54"'),
    "dns": ('"10.1.0.53"', '"10.1.0.54"'),
    "domains": ('"a.example"', '"b.example"'),
    "file": ('"k"', '"l"'),
    "socket": ('"k"', '"l"'),
    "group": ('"k"', '"l"'),
    "keys": ('"k"', '"l"'),
    **dict.fromkeys(("up", "down", "peer_up", "peer_down"), ('"true"', '"false"')),
    "address": ('"192.0.2.2"', '"192.0.2.3"'),
    "suites": ('"aes256-gcm16"', '"aes128-gcm16"'),
    "pfs": ('"x25519"', '"x448"'),
    "local": ('"10.1.0.1/32"', '"10.1.0.2/32"'),
    "remote": ('"10.2.0.1/32"', '"10.2.0.2/32"'),
    "policy.remote": ('"10.9.0.0/24"', '"10.9.1.0/24"'),
    **dict.fromkeys(("policy.local_port", "policy.remote_port"), ("80", "81")),
    "protocol": ('"tcp"', '"udp"'),
    "icmp_type": ("3", "4"),
    "icmp_code": ("3", "4"),
    "routes": ('"10.1.0.0/16"', '"10.1.0.0/17"'),
    "groups": ('{ a = "S-1-5-21-1-2-3-4" }', '{ a = "S-1-5-21-1-2-3-5" }'),
    "people.allow.groups": ('"S-1-5-21-1-2-3-4"', '"S-1-5-21-1-2-3-5"'),
    "fixed": ('{ "a@R" = "10.8.0.9" }', '{ "a@R" = "10.8.0.8" }'),
    "who": ('"a@R"', '"b@R"'),
    "except": ('"a@R"', '"b@R"'),
    "dscp": ("1", "2"),
    "port": ("911", "912"),
    "lifetime_kilobytes": ("2000", "3000"),
    "lifetime_packets": ("2000", "3000"),
}
BESIDE = {
    "tfc_dummy_after": "tfc_octets = 64",
    "iptfs_octets": "iptfs_rate = 10",
    "iptfs_reorder": "iptfs_rate = 10",
    "pfs_required": 'pfs = "x25519"',
    "legacy": 'suites = "aes256-gcm16"',
    "ipsec": "",
    "local_port": 'protocol = "tcp"',
    "remote_port": 'protocol = "tcp"',
    "icmp_type": 'protocol = "icmp"',
    "icmp_code": 'protocol = "icmp"\nicmp_type = 3',
    "group_may": 'group = "k"',
    "hosts": 'listen = "127.0.0.1:9910"',
    "anywhere": 'listen = "127.0.0.1:9910"',
}


def two_values(key: Key) -> tuple[str, str]:
    found = VALUES.get(f"{key.table}.{key.name}")
    words = re.findall(r'`("[^`]*"|true|false)`', key.allowed)
    numbers = re.findall(r"[\d.]*\d", key.allowed)
    found = found or (tuple(words) if len(words) > 1 else VALUES.get(key.name) or tuple(numbers[-2:]))
    assert len(found) > 1, key
    return found[0], found[1]


def ended(key: Key) -> str:
    """What another value of ``key`` ends, by the program."""
    beside = BESIDE.get(key.name, "")
    before, after = (
        config.parse(with_line(key.table, f"{key.name} = {value}\n{beside}"), Path("/x/c.toml"))
        for value in two_values(key)
    )
    try:
        found = changes(before, with_names_of(before, after))
    except RestartNeeded as needed:
        named = str(needed).startswith(f"{key.table}.{key.name} is another one now")
        return "daemon" if named else str(needed)
    if found.gone or found.replaced:
        return "peer"
    return "policy" if any(found.ended.values()) else "nothing"


SAID = dict(
    zip(
        ("daemon", "peer", "policy"),
        (
            set(re.findall(r"`([^`]+)`", item.partition("`start")[0]))
            for item in re.findall(r"^- .*\n(?:  .*\n)*", PAGE.partition("## What a reload")[2], re.MULTILINE)
        ),
        strict=False,
    )
)


@pytest.mark.parametrize("table", SMALLEST)
def test_what_a_reload_takes_over_of_each_key_is_as_it_is_listed(table: str) -> None:
    for key in (key for key in ROWS if key.table == table):
        spelled = {f"[{table}]", f"{table}.{key.name}", key.name if table.startswith("peer") else ""}
        said = next((what for what, keys in SAID.items() if spelled & keys), "nothing")
        assert (key.name, said) == (key.name, ended(key))


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
