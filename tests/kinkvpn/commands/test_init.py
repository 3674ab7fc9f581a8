"""kinkvpn init: from options, by asking on a terminal, and what it refuses."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.keytabs import write_keytab

from kinkvpn import config

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

WEST = "kink/west.example.com@EXAMPLE.COM"
SUBNETS = ("--local", "10.1.0.0/24", "--remote", "10.2.0.0/24")
ANSWER_SECONDS = 30.0


def init(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kinkvpn", "init", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_options_make_a_file_that_is_good_and_the_next_command_is_said(tmp_path: Path) -> None:
    path = tmp_path / "kinkvpn.toml"
    write_keytab(tmp_path / "keytab", WEST)
    six = ("--remote", "fd00:2::/64", "--local", "fd00:1::/64")
    done = init("--peer", "East.example.com", *SUBNETS, *six, "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    found = config.load(path)
    assert (found.host.principal, found.peers[0].principal) == (WEST, "kink/east.example.com@EXAMPLE.COM")
    assert [str(policy.selector.remote) for policy in found.policies] == ["10.2.0.0/24", "fd00:2::/64"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert len([line for line in path.read_text().splitlines() if line and not line.startswith("#")]) < 15
    assert f"kinkvpn check -c {path} && kinkvpn up -c {path}" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "at east.example.com:  kinkvpn init --peer west.example.com --local 10.2.0.0/24 --local fd00:2::/64 "
        "--remote 10.1.0.0/24 --remote fd00:1::/64"
    )
    again = init("--peer", "north.example.com", *SUBNETS, "-o", str(path))
    assert (again.returncode, again.stderr) == (2, f"kinkvpn: {path} is there already: --force overwrites it\n")
    assert init("--peer", "north.example.com", *SUBNETS, "-o", str(path), "--force").returncode == 0
    assert config.load(path).peers[0].name == "north"


def test_where_there_is_no_keytab_yet_it_is_said_how_to_make_it(tmp_path: Path) -> None:
    path, keytab = tmp_path / "k.toml", tmp_path / "west.keytab"
    named = ("--peer", "east", "--peer-principal", "kink/b@R", "--principal", "kink/a@R", "--boot")
    done = init(*named, *SUBNETS, "--address", "10.1.0.254/32", "--keytab", str(keytab), "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f'kadmin -q "ktadd -k {keytab} kink/a"' in done.stdout
    found = config.load(path)
    assert (found.host.principal, found.host.keytab) == ("kink/a@R", keytab)
    assert (found.peers[0].principal, str(found.tun.addresses[0])) == ("kink/b@R", "10.1.0.254/32")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (SUBNETS, "--peer is missing: expected the other gateway's host name or address, or a terminal to ask at"),
        (("--peer", "east.x", *SUBNETS[:2]), "--remote is missing: expected subnets behind the other, or a terminal"),
        (("--peer", "a b", *SUBNETS), "--peer a b: expected an IP address or a DNS name"),
        (
            ("--peer", "east.x", *SUBNETS[:3], "10.2.0.1/24"),
            "--remote 10.2.0.1/24: expected a subnet",
        ),
        (("--peer", "east.x", *SUBNETS, "--address", "x"), "--address x: expected an address with its prefix length"),
        (("--peer", "192.0.2.2", *SUBNETS), "--peer-principal is missing: expected its principal, or a terminal"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    write_keytab(tmp_path / "keytab", WEST)
    path = tmp_path / "k.toml"
    done = init(*arguments, "-o", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"kinkvpn: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert not path.exists()


def test_to_standard_output_nothing_is_written(tmp_path: Path) -> None:
    keytab = write_keytab(tmp_path / "keytab", WEST)
    arguments = ("--principal", WEST, "--keytab", str(keytab), "--peer", "east.example.com", *SUBNETS)
    done = init(*arguments, "-o", "-")
    assert (done.returncode, done.stderr) == (0, "")
    (peer,) = config.parse(done.stdout, tmp_path / "k.toml").peers
    assert peer.principal == "kink/east.example.com@EXAMPLE.COM"
    refused = init(*arguments, "-o", "/dev/null/k.toml")
    assert refused.returncode == 2
    assert refused.stderr.startswith("kinkvpn: /dev/null/k.toml cannot be written: ")


class Terminal:
    """Somebody who types at ``kinkvpn init``."""

    def __init__(self, *arguments: str) -> None:
        self.shown = ""
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kinkvpn", "init", *arguments], stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)

    def expect(self, words: str) -> None:
        """Reads until they come; what came before is gone."""
        while words not in self.shown:
            ready, _, _ = select.select([self.master], [], [], ANSWER_SECONDS)
            assert ready, self.shown
            try:
                self.shown += os.read(self.master, 4096).decode()
            except OSError:  # the other end has ended
                assert words in self.shown, self.shown
        self.shown = self.shown.partition(words)[2]

    def answer(self, question: str, line: str) -> None:
        self.expect(question)
        os.write(self.master, f"{line}\n".encode())

    def end(self) -> int:
        code = self.process.wait(ANSWER_SECONDS)
        os.close(self.master)
        return code


def test_on_a_terminal_it_asks_proposes_and_asks_again(tmp_path: Path) -> None:
    write_keytab(tmp_path / "keytab", WEST)
    path = tmp_path / "k.toml"
    terminal = Terminal("-o", str(path))
    terminal.answer(f"this host's principal [{WEST}]: ", "")
    terminal.answer("the other gateway's host name or address: ", "300.1.1.1")
    terminal.expect("expected an IP address or a DNS name")
    terminal.answer("the other gateway's host name or address: ", "east.example.com")
    terminal.answer("subnets behind this host", "10.1.0.0/24, fd00:1::/64")
    terminal.answer("subnets behind the other: ", "")
    terminal.expect("expected a subnet")
    terminal.answer("subnets behind the other: ", "10.2.0.0/24 fd00:2::/64")
    terminal.expect("is written, and good.")
    assert terminal.end() == 0
    found = config.load(path)
    assert (found.host.principal, found.peers[0].name, len(found.policies)) == (WEST, "east", 2)


def test_who_goes_away_leaves_nothing(tmp_path: Path) -> None:
    write_keytab(tmp_path / "keytab", WEST)
    terminal = Terminal("-o", str(tmp_path / "k.toml"))
    terminal.expect("this host's principal")
    os.write(terminal.master, b"\x04")
    terminal.expect("no answer: nothing has been")
    assert terminal.end() == 2
    assert not (tmp_path / "k.toml").exists()


def test_nothing_is_written_through_a_link_that_somebody_has_put_there(tmp_path: Path) -> None:
    other = tmp_path / "somebody else's"
    other.write_text("theirs")
    (tmp_path / ".k.toml.new").symlink_to(other)
    named = ("--peer", "east", "--peer-principal", "kink/b@R", "--principal", "kink/a@R")
    done = init(*named, *SUBNETS, "-o", str(tmp_path / "k.toml"))
    assert (done.returncode, other.read_text()) == (0, "theirs")
    assert not (tmp_path / "k.toml").is_symlink()
