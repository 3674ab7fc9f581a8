"""Network namespaces that leave with their owner."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kinkvpn.demo.namespace import LabFailed, Namespace, die_with_us, join

pytestmark = pytest.mark.root


def network(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def test_commands_run_inside_and_nowhere_else() -> None:
    with Namespace("a") as a:
        assert a.run(["readlink", "/proc/self/ns/net"]).strip() == network(a.pid) != network("self")
        inside = a.spawn(["sleep", "60"])
        assert inside.poll() is None
        inside.kill()
        inside.wait()


def test_two_namespaces_reach_each_other_over_a_wire_without_noise() -> None:
    with Namespace("a") as a, Namespace("b") as b:
        join(a, "west", b, "east")
        a.ip("address add 192.0.2.1/30 dev west")
        b.ip("address add 192.0.2.2/30 dev east")
        assert "1 received" in a.run(["ping", "-n", "-c", "1", "-W", "5", "192.0.2.2"])
        # No link-local address: nothing that the kernel would announce by itself.
        assert "inet6" not in a.run(["ip", "address", "show", "dev", "west"])


def test_a_refused_command_is_one_line_with_the_place() -> None:
    with Namespace("a") as a:
        with pytest.raises(LabFailed, match='Cannot find device "nosuch"') as raised:
            a.ip("link set dev lo up", "link set dev nosuch up")
        assert raised.value.host == "a"
        assert "\n" not in str(raised.value)
        with pytest.raises(LabFailed, match="exit code 3"):
            a.run(["sh", "-c", "exit 3"])
        with pytest.raises(LabFailed, match="more than"):
            a.run(["sleep", "60"], timeout=0.1)


def test_it_is_gone_when_closed() -> None:
    a = Namespace("a")
    pid = a.pid
    a.close()
    assert not Path(f"/proc/{pid}").exists()


OWNER = """
import sys, time
from kinkvpn.demo.namespace import Namespace
a = Namespace("a")
inside = a.spawn(["sleep", "60"])
print(a.pid, inside.pid, flush=True)
time.sleep(60)
"""


def test_it_is_gone_when_its_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        watched = [os.pidfd_open(pid) for pid in pids]
        owner.send_signal(signal.SIGKILL)
        for pidfd in watched:
            wait_ended(pidfd)


def test_whose_parent_has_died_before_it_could_ask_to_follow_does_not_start() -> None:
    # The shell between is the stranger who takes over the orphan; without it the command says what it is told to.
    command = [*die_with_us(), "echo", "here"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "here\n"
    stranger = ["sh", "-c", '"$@"; exit 0', "sh", *command]
    assert subprocess.run(stranger, capture_output=True, text=True, check=True).stdout == ""


def wait_ended(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 5.0)[0], "still running five seconds later"
    os.close(pidfd)
