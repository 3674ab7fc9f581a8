"""Commands that are run, really: what they are told, what becomes of their words, and of those that do not end."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from kinkvpn.config import HookSettings
from kinkvpn.service import hooks as module
from kinkvpn.service.hooks import Happening, Hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.programs

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1"}


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def shell(script: str, *arguments: str) -> tuple[str, ...]:
    return ("sh", "-c", script, "sh", *arguments)


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[Mapping[str, object]]:
    return [record.fields for record in caplog.records if record.getMessage() == event]


async def call(settings: HookSettings, happening: Happening) -> None:
    with trio.fail_after(30):
        await Hooks(settings, ENVIRONMENT).call(happening)


async def test_what_it_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(HookSettings(peer_up=shell(f'env >{tmp_path}/said; echo "$@"', "a b", "$HOME")), ENVIRONMENT)
    hooks.introduce({"device": "kink0", "addresses": "10.1.0.1/24 fd00::1/64"})
    await hooks.call(Happening("peer-up", {"peer": "east", "peer_address": "192.0.2.2"}))
    environment = dict(line.split("=", 1) for line in (tmp_path / "said").read_text().splitlines())
    del environment["PWD"]  # a shell's own
    assert {name: value for name, value in environment.items() if name not in ("_", "SHLVL", "OLDPWD")} == {
        "PATH": os.environ["PATH"],
        "HOME": "/nowhere",
        "KINKVPN_EVENT": "peer-up",
        "KINKVPN_DEVICE": "kink0",
        "KINKVPN_ADDRESSES": "10.1.0.1/24 fd00::1/64",
        "KINKVPN_PEER": "east",
        "KINKVPN_PEER_ADDRESS": "192.0.2.2",
    }
    assert told(caplog, "hook_said") == [{"command": "sh", "peer": "east", "line": "a b $HOME"}]
    assert told(caplog, "hook_done") == [{"event": "peer-up", "command": "sh", "peer": "east"}]


async def test_they_run_in_the_order_in_which_things_happened(tmp_path: Path) -> None:
    said = tmp_path / "said"
    line = shell(f"echo $KINKVPN_EVENT $KINKVPN_PEER >>{said}")
    hooks = Hooks(HookSettings(up=line, peer_up=line, peer_down=line, down=line), ENVIRONMENT)
    for event, peer in (("up", ""), ("peer-up", "a"), ("peer-up", "b"), ("peer-down", "a")):
        hooks.tell(Happening(event, {"peer": peer}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hooks.run)
        with trio.fail_after(30):
            while not said.exists() or "peer-down a" not in said.read_text():  # noqa: ASYNC110 - another process writes
                await trio.sleep(0.01)
        hooks.tell(Happening("peer-down", {"peer": "b"}))
        await hooks.finish(Happening("down", {"peer": "-"}))
    assert said.read_text().splitlines() == ["up", "peer-up a", "peer-up b", "peer-down a", "peer-down b", "down -"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("false",), "exit code 1"),
        (shell("kill -9 $$"), "signal 9"),
        (("/nowhere/at/all",), "cannot be started: No such file or directory"),
        (("/",), "cannot be started: Permission denied"),
    ],
)
async def test_what_goes_wrong_is_told_and_no_more(
    caplog: pytest.LogCaptureFixture, command: tuple[str, ...], reason: str
) -> None:
    await call(HookSettings(up=command), Happening("up"))
    assert told(caplog, "hook_failed") == [{"event": "up", "command": command[0], "reason": reason}]


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
async def test_one_that_does_not_end_is_ended_with_all_that_it_has_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, stubborn: str
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.1)
    script = f"{stubborn}sleep 600 & echo $! >{tmp_path}/child; wait; wait; sleep 600"
    await call(HookSettings(up=shell(script), timeout=0.5), Happening("up"))
    (failed,) = told(caplog, "hook_failed")
    assert failed["reason"] == "still ran after 0.5 s, and was ended"
    child = int((tmp_path / "child").read_text())
    with trio.fail_after(30):
        while running(child):  # noqa: ASYNC110 - the kernel's business
            await trio.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_one_that_leaves_something_behind_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    await call(HookSettings(up=shell("echo before; sleep 600 & echo $!")), Happening("up"))
    before, pid = told(caplog, "hook_said")
    os.kill(int(str(pid["line"])), 9)
    assert before["line"] == "before"
    assert told(caplog, "hook_done")


async def test_of_a_flood_of_words_the_first_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    await call(HookSettings(up=shell("printf '%01000d' 7; echo; seq 100000; printf unended")), Happening("up"))
    lines = [str(each["line"]) for each in told(caplog, "hook_said")]
    assert lines == ["0" * 400, *map(str, range(1, 20)), "... and more"]


async def test_words_without_an_end_of_line_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    await call(HookSettings(up=shell("printf 'bad \\377 octet' >&2")), Happening("up"))
    assert [each["line"] for each in told(caplog, "hook_said")] == ["bad \N{REPLACEMENT CHARACTER} octet"]


async def test_more_than_can_wait_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    settings = HookSettings(peer_up=("true",))
    hooks = Hooks(settings, ENVIRONMENT)
    for peer in "abc":
        hooks.tell(Happening("peer-up", {"peer": peer}))
    hooks.tell(Happening("peer-down", {"peer": "a"}))  # there is no command for it
    assert told(caplog, "hook_left_out") == [{"event": "peer-up", "reason": "2 are waiting", "peer": "c"}]
    await Hooks(replace(settings, peer_up=()), ENVIRONMENT).call(Happening("peer-up"))
    assert not told(caplog, "hook_done")


async def test_a_peer_that_flaps_leaves_the_queue_to_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = tmp_path / "said"
    line = shell(f"echo $KINKVPN_EVENT $KINKVPN_PEER >>{said}")
    hooks = Hooks(HookSettings(peer_up=line, peer_down=line), ENVIRONMENT)
    for number in range(2 * module.WAITING):
        for event in ("peer-up", "peer-down"):
            hooks.tell(Happening(event, {"peer": "flaps"}))
        if number == 10:
            hooks.tell(Happening("peer-up", {"peer": "b"}))
    hooks.tell(Happening("peer-up", {"peer": "flaps"}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hooks.run)
        with trio.fail_after(30):
            await hooks.finish(Happening("down"))
    assert said.read_text().split("\n")[:-1] == [
        *["peer-up flaps", "peer-down flaps"] * 2,
        "peer-up flaps",
        "peer-up b",
    ]
    assert not told(caplog, "hook_left_out")
    assert told(caplog, "hooks_spared") == [{"peer": "flaps", "count": 4 * module.WAITING - 4}]


async def test_the_end_waits_no_longer_than_one_of_them_may_take(tmp_path: Path) -> None:
    slow, last = shell("sleep 600"), shell(f"touch {tmp_path}/last")
    hooks = Hooks(HookSettings(peer_up=slow, down=last, timeout=0.3), ENVIRONMENT)
    hooks.tell(Happening("peer-up"))
    hooks.tell(Happening("peer-up"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hooks.run)
        with trio.fail_after(30):
            await hooks.finish(Happening("down"))
    hooks.tell(Happening("peer-up"))  # too late, and no matter
    assert not (tmp_path / "last").exists()


async def test_others_from_now_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(HookSettings(peer_up=shell("exit 1")), ENVIRONMENT)
    hooks.change(HookSettings(peer_up=shell(f"touch {tmp_path}/done"), timeout=20))
    await hooks.call(Happening("peer-up", {"peer": "east"}))
    assert (tmp_path / "done").exists()
    assert told(caplog, "hook_failed") == []
