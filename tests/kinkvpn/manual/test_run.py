"""Two processes with SAs out of files, in two namespaces: traffic, statistics, lifetimes, the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from kinkvpn.demo.namespace import LabFailed, Namespace, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

SECONDS = 60.0  # what takes one on an idle machine
LIFETIME_PACKETS = 5

FILE = """
[esp]
listen = "192.0.2.{here}"
[tun]
name = "esp0"
addresses = "10.{here}.0.1/24"
[[policy]]
name = "ever"
local = "10.{here}.0.0/24"
remote = "10.{there}.0.0/24"
protocol = "icmp"
source = "192.0.2.{here}"
destination = "192.0.2.{there}"
suite = "aes128-gcm16"
[policy.outbound]
spi = 0x100{here}
keymat = "{outbound}"
[policy.inbound]
spi = 0x100{there}
keymat = "{inbound}"
"""
KEYMAT = {1: "5a" * 20, 2: "a5" * 20}


class End:
    """One of the two: a namespace, a file, a process."""

    def __init__(self, number: int, directory: Path, more: str = "", *, sequence: int = 0) -> None:
        self.namespace = Namespace(f"end{number}")
        self.process: subprocess.Popen[str] | None = None
        self.log = directory / f"log{number}"
        self.file = directory / f"sas{number}.toml"
        there = 3 - number
        self.file.touch(mode=0o600)
        text = FILE.format(here=number, there=there, outbound=KEYMAT[number], inbound=KEYMAT[there])
        outbound = f"{more}\n[policy.outbound]\nsequence = {sequence}"
        self.file.write_text(text.replace("[policy.outbound]", outbound))

    def start(self) -> None:
        command = [sys.executable, "-m", "kinkvpn", "esp", "--manual", str(self.file), "--json"]
        with self.log.open("w") as log:
            self.process = self.namespace.spawn(command, stdout=subprocess.PIPE, stderr=log)
        wait(lambda: " started " in self.log.read_text() or self.process.poll() is not None)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            print(self.log.read_text())
        self.namespace.close()

    def statistics(self) -> dict[str, object]:
        """As it prints them when it is asked."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.process.stdout.readline())


@contextmanager
def two_ends(directory: Path, more: str = "", *, sequence: int = 0) -> Iterator[tuple[End, End]]:
    """Both with ``more`` in their policy, and ``sequence`` as the last number that they have used."""
    one, other = ends = tuple(End(number, directory, more, sequence=sequence) for number in (1, 2))
    try:
        join(one.namespace, "wire", other.namespace, "wire")
        for number, end in enumerate(ends, 1):
            end.namespace.ip(f"addr add 192.0.2.{number}/24 dev wire")
        for end in ends:
            end.start()
        yield ends
    finally:
        for end in ends:
            end.close()


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ping(end: End, *options: str) -> None:
    end.namespace.run(["ping", "-n", "-W10", *options, "10.2.0.1"], timeout=SECONDS)


def test_traffic_statistics_and_the_end(tmp_path: Path) -> None:
    with two_ends(tmp_path) as (one, other):
        ping(one, "-c3", "-i0.2")
        wait(lambda: one.statistics()["packets_in"] == other.statistics()["packets_out"] == 3)
        seen = one.statistics()
        assert [(sa["policy"], sa["spi"], sa["packets"]) for sa in seen["sas"]] == [
            ("ever", "0x00001002", 3),
            ("ever", "0x00001001", 3),
        ]
        assert seen["drops"] == {}
        for end, number in ((one, signal.SIGINT), (other, signal.SIGTERM)):
            end.process.send_signal(number)
            output, _ = end.process.communicate(timeout=SECONDS)
            assert end.process.returncode == 0
            assert json.loads(output)["packets_out"] == 3
            said = end.log.read_text() + output
            assert "stopped" in said
            assert not any(keymat[:8] in said for keymat in KEYMAT.values())
        assert "esp0" not in one.namespace.run(["ip", "link"])


def test_a_hard_lifetime_ends_the_traffic_and_is_said(tmp_path: Path) -> None:
    with two_ends(tmp_path, f"lifetime_packets = {LIFETIME_PACKETS}") as (one, _other):
        ping(one, f"-c{LIFETIME_PACKETS}", "-i0.2")
        wait(lambda: one.statistics()["sas"] == [])
        with pytest.raises(LabFailed):
            one.namespace.run(["ping", "-n", "-c1", "-W1", "10.2.0.1"])
        wait(lambda: " no_sa " in one.log.read_text())
        log = one.log.read_text()
        for spi, direction in (("0x00001001", "outbound"), ("0x00001002", "inbound")):
            assert f"sa_expired policy=ever spi={spi} direction={direction}" in log
        assert one.statistics()["packets_out"] == LIFETIME_PACKETS


def test_what_has_no_number_left_is_said(tmp_path: Path) -> None:
    with two_ends(tmp_path, sequence=2**32 - 1) as (one, _other):
        with pytest.raises(LabFailed):
            one.namespace.run(["ping", "-n", "-c1", "-W1", "10.2.0.1"])
        said = " sequence_exhausted policy=ever spi=0x00001001 direction=outbound\n"
        wait(lambda: said in one.log.read_text())
        assert one.statistics()["drops"] == {"sequence_exhausted": 1}


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with two_ends(tmp_path) as (one, _other):
        command = [sys.executable, "-m", "kinkvpn", "esp", "--manual", str(one.file)]
        second = one.namespace.spawn(command, stderr=subprocess.PIPE)
        _, said = second.communicate(timeout=SECONDS)
        assert second.returncode == 2
        assert len(said.splitlines()) == 1
        assert f"pid {one.process.pid}" in said
