"""The command line as a shell sees it: exit codes, one line for each error, nothing on stdout that is not asked for."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest
from support.api import HOSTILE, Crowd, served

from kinkvpn import __version__
from kinkvpn.api.events import Events
from kinkvpn.cli import main
from kinkvpn.errors import KinkvpnError
from kinkvpn.service.engines import obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.programs

GOOD = """\
[host]
principal = "kink/west.example.com@EXAMPLE.COM"
keytab = "/nonexistent/keytab"
[control]
socket = "k.sock"
[[peer]]
name = "east"
principal = "kink/east.example.com@EXAMPLE.COM"
address = "127.0.0.2"
[[peer.policy]]
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
"""


def kinkvpn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            code = main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def kinkvpn_alone(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, as a process that has imported nothing else: each command is tried so once."""
    return subprocess.run(
        [sys.executable, "-m", "kinkvpn", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def lines(done: subprocess.CompletedProcess[str], code: int) -> list[str]:
    """Its complaints, each of one line behind our name; nothing else was said."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    said = done.stderr.splitlines()
    assert all(line.startswith("kinkvpn: ") for line in said), done.stderr
    return [line.removeprefix("kinkvpn: ") for line in said]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "k.toml"
    path.write_text(GOOD)
    return path


def test_version_and_help() -> None:
    assert kinkvpn_alone("--version").stdout == f"kinkvpn {__version__}\n"
    shown = kinkvpn("--help")
    assert shown.returncode == 0
    for word in ("up", "status", "rekey", "down", "check", "demo", "examples:", "exit codes:", "[[peer]]"):
        assert word in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", ["up", "check", "status", "rekey", "down", "demo"])
def test_every_command_explains_itself(command: str) -> None:
    shown = kinkvpn(command, "--help")
    assert shown.returncode == 0
    assert f"usage: kinkvpn {command}" in shown.stdout
    about, options, _ = shown.stdout.partition("options:")
    assert options
    assert len(about.partition("\n\n")[2].split()) >= 10, "says what the command does"


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("up", "--nonsense"), ("status", "-c", "a", "--socket", "b")])
def test_bad_arguments_are_one_line(arguments: tuple[str, ...]) -> None:
    (line,) = lines(kinkvpn(*arguments), 2)
    assert line.endswith("--help)")


@pytest.mark.parametrize("command", ["up", "check", "status", "rekey", "down"])
def test_every_mistake_in_a_configuration_is_a_line(good: Path, command: str) -> None:
    good.write_text(GOOD.replace("[control]", "[contrl]").replace("10.1.0.0", "10.1.0.1"))
    assert lines(kinkvpn(command, "-c", str(good)), 2) == [
        f"{good}:4: contrl: unknown key; did you mean control?",
        f'{good}:11: peer[1].policy[1].local = "10.1.0.1/24": expected a subnet without host bits: 10.1.0.0/24',
    ]


def test_a_missing_configuration() -> None:
    assert lines(kinkvpn_alone("up", "-c", "/nonexistent"), 2) == [
        "/nonexistent: cannot read the configuration: No such file or directory"
    ]


@pytest.mark.parametrize("command", ["up", "check"])
def test_an_unknown_engine_in_the_environment(good: Path, command: str) -> None:
    assert lines(kinkvpn(command, "-c", str(good), ESP_ENGINE="quick", ESP_CIPHER_LIBRARY="mine"), 2) == [
        'environment: ESP_CIPHER_LIBRARY = "mine": expected one of auto, openssl, ipsec-mb',
        'environment: ESP_ENGINE = "quick": expected one of auto, portable, native',
    ]


def test_up_refuses_a_missing_keytab_and_leaves_nothing(good: Path) -> None:
    assert lines(kinkvpn_alone("up", "-c", str(good)), 2) == ["keytab /nonexistent/keytab does not exist"]
    assert [path.name for path in good.parent.iterdir()] == ["k.toml"]


def test_check_names_everything_at_once(good: Path) -> None:
    good.write_text(GOOD.replace("127.0.0.2", "::1").replace("[control]", '[kink]\nlisten = "127.0.0.1"\n[control]'))
    with good.open("a") as file:
        file.write('[log]\nkeys = "/nonexistent/keys"\n')
    missing = obstacle()
    assert lines(kinkvpn_alone("check", "-c", str(good), ESP_ENGINE="native"), 2) == [
        *([f'engine "native" is {missing}: expected "auto" or "portable"'] if missing else []),
        "keytab /nonexistent/keytab does not exist",
        "peer east: ::1 is ::1, but kink.listen has IPv4 addresses only",
        "key log /nonexistent/keys: there is no directory /nonexistent",
    ]


@pytest.mark.parametrize("command", ["status", "peers", "events", "rekey", "down", "up east"])
def test_nobody_there(good: Path, command: str) -> None:
    assert lines(kinkvpn(*command.split(), "-c", str(good)), 1) == [
        f"no daemon is running (control socket {good.parent}/k.sock)"
    ]
    assert lines(kinkvpn(*command.split(), "--socket", "/nonexistent/k"), 1) == [
        "no daemon is running (control socket /nonexistent/k)"
    ]


NOTHING_TOLD = dict.fromkeys(("behind_nat", "peer_behind_nat", "seen_at", "inner_mtu", "peer_inner_mtu"))
AT_HOME = {"moved": False, "extensions": NOTHING_TOLD}
ANSWER = {
    "version": "0.1.0",
    "pid": 42,
    "uptime": 61,
    "key_log": None,
    "principal": "kink/west.example.com@EXAMPLE.COM",
    "engine": "portable",
    "engine_reason": "so",
    "ciphers": "OpenSSL 3",
    "queues": 1,
    "offloads": {},
    "tun": {"name": "kink0", "mtu": 1400, "addresses": []},
    "listeners": {"kink": ["0.0.0.0:910"], "esp": ["0.0.0.0:4500"]},
    "tickets": {"kept": 2, "first_ends": 18000.0, "not_renewed": 0},
    "peers": [
        {
            "name": name,
            "principal": f"{name}@R",
            "address": "::1",
            "last_heard": None,
            "state": "down",
            "policies": [],
            **AT_HOME,
        }
        for name in ("east", "north")
    ],
    "counters": {"kink": {}, "drops": {}, "packets_in": 0, "octets_in": 0, "packets_out": 0, "octets_out": 0},
}


class Answers:
    """A daemon that says what it is told to."""

    def __init__(self) -> None:
        self.events = Events(1)
        self.events.add({"time": "T", "level": "info", "event": "started", "logger": "l", "pid": 42})

    peers = ("east", "north")

    async def sas(self) -> list[dict[str, Any]]:
        return []

    def counters(self) -> dict[str, Any]:
        return ANSWER["counters"]

    async def peer(self, name: str) -> dict[str, Any]:
        return next(peer for peer in ANSWER["peers"] if peer["name"] == name)

    async def down(self, peer: str) -> None:
        if peer == "north":
            raise KinkvpnError("not that one")

    async def status(self) -> dict[str, Any]:
        return ANSWER

    async def probe(self, peer: str) -> float:
        if peer == "north":
            raise KinkvpnError("no answer")
        return 0.0021

    async def rekey(self, peer: str | None) -> list[dict[str, Any]]:
        if peer == "north":
            raise KinkvpnError("north: nothing is established")
        policy = {"name": "east/1", "spi_in": "0x00001001", "spi_out": "0x00002002", "suite": "aes256-gcm16"}
        return [policy | {"create_ms": 2.14}, policy | {"name": "east/2", "create_ms": None}]

    async def up(self, peer: str) -> list[dict[str, Any]]:
        return await self.rekey(peer)

    async def stop(self) -> int:
        raise KinkvpnError("not now")


@pytest.fixture
def control(good: Path) -> Iterator[Path]:
    """A real control socket with our own answers behind it."""
    with served(good.parent / "k.sock", Answers):
        yield good


def test_status(control: Path) -> None:
    done = kinkvpn_alone("status", "-c", str(control))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("kinkvpn 0.1.0, pid 42, up 1m 1s\n")
    done = kinkvpn("status", "--json", "--socket", str(control.parent / "k.sock"))
    assert json.loads(done.stdout) == ANSWER


def test_status_with_probes_tells_by_its_exit_code(control: Path) -> None:
    done = kinkvpn("status", "--probe", "-c", str(control))
    assert (done.returncode, done.stderr) == (1, "")
    assert "    probe: 2.1 ms\n" in done.stdout
    assert "    probe: no answer\n" in done.stdout
    done = kinkvpn("status", "--probe", "--json", "-c", str(control))
    assert json.loads(done.stdout)["probes"] == {
        "east": {"peer": "east", "seconds": 0.0021},
        "north": {"error": "no answer"},
    }


def test_rekey_tells_of_every_policy(control: Path) -> None:
    done = kinkvpn_alone("rekey", "-c", str(control))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "east/1: spi in 0x00001001 out 0x00002002, aes256-gcm16, CREATE took 2.1 ms",
        "east/2: spi in 0x00001001 out 0x00002002, aes256-gcm16",
    ]
    assert lines(kinkvpn("rekey", "north", "-c", str(control)), 1) == ["north: nothing is established"]


@pytest.mark.parametrize(
    ("name", "lines_", "key"),
    [("peers", 3, "peers"), ("policies", 1, "policies"), ("sas", 1, "sas"), ("counters", 1, "kink")],
)
def test_lists_are_tables_or_json(control: Path, name: str, lines_: int, key: str) -> None:
    done = kinkvpn(name, "-c", str(control))
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", lines_)
    done = kinkvpn(name, "--json", "-c", str(control))
    assert key in json.loads(done.stdout)


def test_events(control: Path) -> None:
    done = kinkvpn_alone("events", "-c", str(control))
    assert (done.returncode, done.stdout, done.stderr) == (0, "T info    started pid=42\n", "")
    done = kinkvpn("events", "--json", "-c", str(control))
    assert json.loads(done.stdout)["id"] == "1-1"


def test_one_peer_is_taken_down_and_brought_up(control: Path) -> None:
    assert kinkvpn("down", "east", "-c", str(control)).returncode == 0
    done = kinkvpn_alone("up", "east", "-c", str(control))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "east/2: spi in 0x00001001 out 0x00002002, aes256-gcm16"
    assert lines(kinkvpn("up", "north", "-c", str(control)), 1) == ["north: nothing is established"]
    assert lines(kinkvpn("down", "north", "-c", str(control)), 1) == ["not that one"]
    assert lines(kinkvpn("down", "wset", "-c", str(control)), 1) == ["no peer 'wset'; there are east, north"]


def test_down_is_refused_by_a_daemon_that_will_not(control: Path) -> None:
    (line,) = lines(kinkvpn_alone("down", "-c", str(control)), 1)
    assert line == "not now"


def test_whoever_reads_the_status_may_stop_reading(control: Path) -> None:
    command = [sys.executable, "-m", "kinkvpn", "status", "-c", str(control)]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


# kinkvpn esp. What it does when it runs: manual/test_run.py.


@pytest.fixture
def sas(tmp_path: Path) -> Path:
    path = tmp_path / "sas.toml"
    path.touch(mode=0o600)
    path.write_text(
        """
        [[policy]]
        local = "10.1.0.0/24"
        remote = "10.2.0.0/24"
        source = "192.0.2.1"
        destination = "192.0.2.2"
        suite = "aes128-gcm16"
        [policy.outbound]
        spi = 0x1001
        keymat = "1111111111111111111111111111111111111111"
        [policy.inbound]
        spi = 0x2002
        keymat = "2222222222222222222222222222222222222222"
        """
    )
    return path


@pytest.mark.parametrize("form", ["xfrm", "wireshark", "json"])
def test_esp_prints_both_perspectives(sas: Path, form: str) -> None:
    here, there = (kinkvpn("esp", "--manual", str(sas), "--print", form, *more) for more in ((), ("--peer",)))
    assert (here.returncode, here.stderr, there.returncode, there.stderr) == (0, "", 0, "")
    assert here.stdout != there.stdout
    for key in ("11" * 20, "22" * 20):
        assert key in here.stdout
        assert key in there.stdout


def test_esp_refuses_a_file_that_others_may_read(sas: Path) -> None:
    sas.chmod(0o644)
    (said,) = lines(kinkvpn_alone("esp", "--manual", str(sas)), 2)
    assert said.endswith(f"chmod 600 {sas}")


def test_esp_peer_is_for_printing(sas: Path) -> None:
    assert lines(kinkvpn("esp", "--manual", str(sas), "--peer"), 2) == ["--peer goes with --print"]


@pytest.mark.parametrize(
    "command", ["status", "peers", "policies", "sas", "events", "rekey", "reload", "down nobody", "status --probe"]
)
def test_no_name_moves_the_cursor_or_is_markup(good: Path, command: str) -> None:
    """Of a peer, which may be a principal that came from the network; wherever a command shows one."""
    daemon = Crowd([HOSTILE, "other"])
    with served(good.parent / "k.sock", lambda: daemon):
        done = kinkvpn(*command.split(), "--socket", str(good.parent / "k.sock"))
    said = done.stdout + done.stderr
    assert all(line.isprintable() for line in said.split("\n")), said
    assert "[red]x[/red][link=http://evil]y[/nope]$(reboot)" in said
    assert "owned" in said
    assert not any(line.lstrip().startswith("$ ") and "reboot" in line for line in said.splitlines())
