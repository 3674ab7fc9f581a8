"""Traffic through the tunnel between two hosts of the laboratory: ping, and a TCP transfer with its SHA-256."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

from kinkvpn.demo.capture import CANARY
from kinkvpn.demo.transfer import Received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kinkvpn.demo.lab import Host

PING_OCTETS: Final = 120  # room for the canary behind ping's time stamp
PING_INTERVAL: Final = 0.05
PING_SECONDS: Final = 20
TRANSFER_PORT: Final = 5001

ADVICE: Final = "compare the drop counters in `kinkvpn status --json` of both hosts"


def ping(source: Host, target: Host, version: int, count: int = 5, seconds: int = PING_SECONDS) -> list[float]:
    """Pings the inner address of that IP version. Returns the round trip times in milliseconds, one for each.

    Raises:
        LabFailed: not every packet was answered within ``seconds`` of the last one.
    """
    command = ["ping", f"-{version}", "-n", "-c", str(count), "-i", str(PING_INTERVAL), "-W", str(seconds)]
    command += ["-s", str(PING_OCTETS), "-p", CANARY.hex(), target.site.inner_address(version)]
    process = source.namespace.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complaints = process.communicate()  # -W ends it; with -w it would go on asking until ``count`` are answered
    times = [float(ms) for ms in re.findall(r"time=([0-9.]+) ms", said)]
    if process.returncode or len(times) != count:
        source.check_alive()
        target.check_alive()
        reason = f"{len(times)} of {count} IPv{version} pings to host {target.name} answered"
        raise source.failed(f"{reason}; {complaints.strip()}" if complaints else reason, ADVICE)
    return times


def transfer(source: Host, target: Host, octets: int, progress: Callable[[int], None], version: int = 4) -> Received:
    """Sends ``octets`` octets over TCP. ``progress`` is told now and then how many have arrived.

    Raises:
        LabFailed: the connection failed, or the far end computed another SHA-256.
    """
    address, port = target.site.inner_address(version), str(TRANSFER_PORT)
    received = None
    with running(target, ["receive", address, port]) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()  # it listens, or has ended
        with running(source, ["send", address, port, str(octets)]) as sender:
            for report in follow(receiver.stdout):
                source.check_alive()
                target.check_alive()
                received = report if isinstance(report, Received) else None
                progress(report if isinstance(report, int) else report.octets)
            if received is None:
                source.check_alive()
                target.check_alive()
                words = "; ".join(last_words(process) for process in (sender, receiver))
                raise target.failed(f"transfer from host {source.name} broke: {words}", ADVICE)
    if not received.equal:
        raise target.failed("the far end computed another SHA-256 than the sender", ADVICE)
    return received


def follow(lines: IO[str]) -> Iterator[int | Received]:
    """What the receiving end prints, as :func:`kinkvpn.demo.transfer.receive` yielded it."""
    for line in lines:
        report = json.loads(line)
        yield Received(**report) if "sha256" in report else report["octets"]


@contextmanager
def running(host: Host, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kinkvpn.demo.transfer", *arguments]
    process = host.namespace.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def last_words(process: subprocess.Popen[str]) -> str:
    process.terminate()
    _, said = process.communicate()
    return (said.strip().splitlines() or ["no reason given"])[-1]
