"""``kinkvpn demo`` as people run it: the whole of it, interrupted, and with a daemon that dies in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kinkvpn.demo.sandbox import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

DEMO = [sys.executable, "-m", "kinkvpn", "demo"]
STEPS = ["realm", "hosts", "daemons", "create", "ping4", "ping6", "transfer", "status", "stop", "verdict"]


def running() -> dict[int, list[str]]:
    """Command lines of this machine that lead into a demo's scratch directory."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue  # it ended meanwhile
        if any(word.startswith(f"{SCRATCH}/") for word in words):
            found[int(path.parent.name)] = words
    return found


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    processes, mounts = set(running()), Path("/proc/self/mounts").read_text()
    namespaces, links = set(Path("/run").glob("netns/*")), os.listdir("/sys/class/net")
    yield
    assert set(running()) <= processes
    assert Path("/proc/self/mounts").read_text() == mounts
    assert (set(Path("/run").glob("netns/*")), os.listdir("/sys/class/net")) == (namespaces, links)


@pytest.fixture
def long_demo() -> Iterator[subprocess.Popen[str]]:
    """One that is in the middle of its transfer."""
    command = [*DEMO, "--json", "--size", "4000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "ping over IPv6" in line:
                break
        yield demo
        demo.kill()


def test_all_of_it_holds() -> None:
    done = subprocess.run([*DEMO, "--json", "--size", "10"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] is True
    assert result["transfer_ok"] is True
    assert result["leaks"] == 0
    assert result["suite"] == "aes256-gcm16"
    assert list(result["steps"]) == STEPS
    assert all(result[key] > 0 for key in ("ping4_ms", "ping6_ms", "gbit_per_s", "create_ms"))
    assert [line.split()[0] for line in done.stderr.splitlines() if "%" not in line] == ["ok"] * len(STEPS)


def test_the_table_is_for_people() -> None:
    done = subprocess.run([*DEMO, "--size", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    principal = "kink/a.kinkvpn.test@KINKVPN.TEST"
    for expected in (
        principal,
        "aes256-gcm16",
        "first CREATE",
        "SHA-256 equal",
        "leaks         0",
    ):
        assert expected in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle(long_demo: subprocess.Popen[str], number: signal.Signals) -> None:
    long_demo.send_signal(number)
    out, complaint = long_demo.communicate(timeout=60)
    assert long_demo.returncode == 128 + number
    assert json.loads(out)["ok"] is False
    assert f"ended by {number.name}" in complaint


def test_a_daemon_that_dies_is_named_with_its_host_and_the_step(long_demo: subprocess.Popen[str]) -> None:
    (victim,) = [pid for pid, words in running().items() if "up" in words and f"{SCRATCH}/b/kinkvpn.toml" in words]
    os.kill(victim, signal.SIGKILL)
    out, complaint = long_demo.communicate(timeout=60)
    assert long_demo.returncode == 1
    assert json.loads(out)["error"] == "transfer on host b: the daemon ended with exit code -9"
    assert "step transfer failed on host b" in complaint


def test_the_control_process_that_dies_is_reported(long_demo: subprocess.Popen[str]) -> None:
    children = Path(f"/proc/{long_demo.pid}/task/{long_demo.pid}/children").read_text().split()
    (inner,) = Path(f"/proc/{children[0]}/task/{children[0]}/children").read_text().split()
    os.kill(int(inner), signal.SIGKILL)
    out, complaint = long_demo.communicate(timeout=60)
    assert long_demo.returncode == 1
    assert json.loads(out)["ok"] is False
    assert "the demo itself broke" in complaint


@pytest.mark.parametrize("size", ["0", "-1", "4001"])
def test_a_size_out_of_range_is_refused(size: str) -> None:
    done = subprocess.run([*DEMO, "--size", size], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (done.stdout, done.stderr) == ("", f"kinkvpn demo: size {size}: expected 1 to 4000 MB\n")
