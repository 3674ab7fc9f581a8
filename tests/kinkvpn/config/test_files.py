"""Several files as one: their order, and every error with its file and its line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.configuration import SMALL, SOURCE

from kinkvpn import config
from kinkvpn.document import DocumentError

if TYPE_CHECKING:
    from pathlib import Path

HEAD, PEERS = SMALL.split("[[peer]]")
DISCARD = '[[policy]]\naction = "discard"\nremote = "10.9.0.0/24"\n'
EAST = f"[[peer]]{PEERS}"


def peer(name: str, number: int) -> str:
    return f'[[peer]]\naddress = "{name}.example.com"\nlocal = "10.1.0.0/24"\nremote = "10.{number}.0.0/24"\n'


def write(directory: Path, **files: str) -> Path:
    """``a__b`` is ``a/b.toml``; the main one."""
    for name, text in files.items():
        path = directory / f"{name.replace('__', '/')}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory / "k.toml"


def names(path: Path) -> list[str]:
    return [each.name for each in config.load(path).peers]


def errors(path: Path) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        config.load(path)
    return [line.removeprefix(f"{path.parent}/") for line in str(caught.value).splitlines()]


def test_peers_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        k='include = ["peers/*.toml", "last.toml"]\n' + HEAD + EAST,
        peers__b=peer("b", 12),
        peers__a='include = "more/c.toml"\n' + peer("a", 11),
        peers__more__c=peer("c", 13),
        last=peer("last", 14),
        k_d=peer("nobody", 15),
    )
    assert names(path) == ["east", "a", "c", "b", "last"]
    write(tmp_path, **{"k.d__20": peer("twenty", 20), "k.d__10": peer("ten", 10)})
    assert names(path) == ["east", "a", "c", "b", "last", "ten", "twenty"]


def test_a_section_is_in_any_file_and_its_paths_start_there(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        k=HEAD + EAST,
        **{"k.d__log": '[log]\nlevel = "debug"\nkeys = "keys"\n' + DISCARD},
    )
    found = config.load(path)
    assert (found.log.level, found.log.keys) == (config.LogLevel.DEBUG, tmp_path / "k.d/keys")
    assert [policy.name for policy in found.before] == ["discard/1"]


def test_every_error_has_its_file_and_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        k='include = "a.toml"\n' + HEAD.replace("[tun]", "[tunn]") + EAST,
        a='[host]\nprincipal = "x@R"\n' + peer("east", 11) + "startt = 1\n" + peer("b", 11),
        **{"k.d__z": peer("c", 12).replace("10.12.0.0", "10.12.0.1")},
    )
    assert errors(path) == [
        "k.toml:6: tunn: unknown key; did you mean tun?",
        f"a.toml:1: host: expected all of it in one file, and {path}:2 has it already",
        f'a.toml:3: peer[1].name = "east": expected one of its own; peer[1] at {path}:9 has this one',
        'a.toml:3: peer[1].principal = "kink/east.example.com@EXAMPLE.COM": expected one of its own; peer east has'
        " this one",
        'a.toml:4: peer[1].address = "east.example.com": expected one of its own; peer east has this one',
        "a.toml:7: peer[1].startt: unknown key; did you mean start?",
        'k.d/z.toml:4: peer[1].remote = "10.12.0.1/24": expected a subnet without host bits: 10.12.0.0/24',
    ]


def test_cycles_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        k='include = ["a.toml", "none.toml", "none/*.toml", 7, "a.toml"]\n' + HEAD + EAST,
        a='# again\ninclude = "k.toml"\n',
    )
    assert errors(path) == [
        'k.toml:1: include[2] = "none.toml": expected a file that is there, or a pattern such as peers/*.toml',
        "k.toml:1: include[4] = 7: expected the path of a file, or a pattern such as peers/*.toml",
        'k.toml:1: include[5] = "a.toml": expected each value once',
        'a.toml:2: include = "k.toml": expected each file once: it is part of this configuration already',
    ]


def test_what_cannot_be_read_is_said_of_all_files_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, k='include = "*.x.toml"\n' + HEAD + EAST, **{"a.x": "x = \n", "b.x": "[a\n"})
    assert errors(path) == [
        "a.x.toml:1: not TOML: Invalid value, at column 5",
        "b.x.toml:1: not TOML: Expected ']' at the end of a table declaration, at column 3",
    ]


def test_what_an_editor_has_open_is_not_in_the_way(tmp_path: Path) -> None:
    path = write(
        tmp_path, k='include = "peers/*.toml"\n' + HEAD + EAST, peers__a=peer("a", 11), **{"k.d__b": peer("b", 12)}
    )
    for name in ("peers/.#a.toml", "k.d/.#b.toml"):
        (tmp_path / name).symlink_to("somebody@host.1234:5678")  # as Emacs locks a file
    assert names(path) == ["east", "a", "b"]


def test_a_link_that_leads_to_itself_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, k=HEAD + EAST, **{"k.d__b": peer("b", 12)})
    (tmp_path / "k.d" / "c.toml").symlink_to("c.toml")
    assert errors(path) == ["k.d/c.toml: cannot read the configuration: Too many levels of symbolic links"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path, k='include = "pipe.toml"\n' + HEAD + EAST)
    os.mkfifo(tmp_path / "pipe.toml")
    assert errors(path) == [
        'k.toml:1: include = "pipe.toml": expected a file that is there, or a pattern such as peers/*.toml'
    ]
    write(tmp_path, k='include = "pipe*"\n' + HEAD + EAST)
    assert errors(path) == ['k.toml:1: include = "pipe*": expected a regular file']
    write(tmp_path, k=HEAD + EAST)
    (tmp_path / "k.d").mkdir()
    os.mkfifo(tmp_path / "k.d/pipe.toml")
    assert errors(path) == ["k.d/pipe.toml: expected a regular file"]


def test_there_is_an_end_of_files_that_include_each_other(tmp_path: Path) -> None:
    deep = {f"f{number}": f'include = "f{number + 1}.toml"\n' for number in range(1, 300)}
    path = write(tmp_path, k='include = "f1.toml"\n' + HEAD + EAST, **deep)
    (said,) = errors(path)
    assert said.endswith("expected at most 16 files that include each other")


def test_text_has_no_folder_but_may_include() -> None:
    with pytest.raises(DocumentError, match=r"kinkvpn.toml:1: include = .*: expected a file that is there"):
        config.parse('include = "nowhere.toml"\n' + SMALL, SOURCE)
