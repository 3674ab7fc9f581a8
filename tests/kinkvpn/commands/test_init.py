"""kinkvpn init: from options, by asking on a terminal, and what it refuses."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
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
        (("--peer", "west.example.com", *SUBNETS), "--peer west.example.com: expected the other gateway, and that is"),
        (
            ("--peer", "192.0.2.2", "--peer-principal", WEST, *SUBNETS),
            f"--peer-principal {WEST}: expected another than this host's",
        ),
        (
            ("--peer", "east.x", *SUBNETS[:2], "--remote", "10.1.0.0/24"),
            "--remote 10.1.0.0/24: expected other subnets than those behind this host",
        ),
        (
            ("--peer", "east.x", *SUBNETS[:2], "--remote", "fd00::/64"),
            "--remote fd00::/64: expected subnets of IPv4, as there are behind this host",
        ),
        (
            ("--peer", "east.x", *SUBNETS, "--remote", "10.2.0.0/24"),
            "--remote 10.2.0.0/24 10.2.0.0/24: expected each of them once",
        ),
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


def test_all_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    done = init("-o", str(tmp_path / "k.toml"), "--keytab", str(tmp_path / "none"))
    assert done.returncode == 2
    said = [line.split()[1] for line in done.stderr.splitlines()]
    assert said == ["--principal", "--peer", "--local", "--remote"]


def test_where_nothing_can_be_written_nobody_is_asked_anything(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "k.toml"):
        terminal = Terminal("-o", str(place), "--force")
        terminal.expect("cannot be written: ")
        assert terminal.end() == 2


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


def sit_down(terminal: int) -> None:
    """Ctrl-C there is for this process, which takes it, whatever whoever started the tests does with theirs."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """Somebody who types at ``kinkvpn init``."""

    def __init__(self, *arguments: str) -> None:
        self.shown = ""
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kinkvpn", "init", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: sit_down(slave),
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

    def press(self, key: bytes, words: str) -> None:
        """Until they come: a signal between the prompt and the wait for a line is seen by Python with the next."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while words not in self.shown:
            assert time.monotonic() < deadline, self.shown
            os.write(self.master, key)
            while words not in self.shown and select.select([self.master], [], [], 1.0)[0]:
                try:
                    self.shown += os.read(self.master, 4096).decode()
                except OSError:  # the other end has ended
                    assert words in self.shown, self.shown

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
    terminal.answer("subnets behind the other: ", "10.2.0.0/24")
    terminal.expect("expected subnets of IPv4 and of IPv6, as there are behind this host")
    terminal.answer("subnets behind the other: ", "10.2.0.0/24 fd00:2::/64")
    terminal.expect("is written, and good.")
    assert terminal.end() == 0
    found = config.load(path)
    assert (found.host.principal, found.peers[0].name, len(found.policies)) == (WEST, "east", 2)


@pytest.mark.parametrize(("key", "said", "code"), [(b"\x04", "kinkvpn: no answer: ", 2), (b"\x03", "", 130)])
def test_who_goes_away_leaves_nothing(tmp_path: Path, key: bytes, said: str, code: int) -> None:
    write_keytab(tmp_path / "keytab", WEST)
    terminal = Terminal("-o", str(tmp_path / "k.toml"))
    terminal.expect(f"this host's principal [{WEST}]: ")
    terminal.press(key, f"\r\n{said}")
    assert terminal.end() == code
    assert not (tmp_path / "k.toml").exists()


def test_nothing_is_written_through_a_link_that_somebody_has_put_there(tmp_path: Path) -> None:
    other = tmp_path / "somebody else's"
    other.write_text("theirs")
    (tmp_path / ".k.toml.new").symlink_to(other)
    named = ("--peer", "east", "--peer-principal", "kink/b@R", "--principal", "kink/a@R")
    done = init(*named, *SUBNETS, "-o", str(tmp_path / "k.toml"))
    assert (done.returncode, other.read_text()) == (0, "theirs")
    assert not (tmp_path / "k.toml").is_symlink()
