"""iperf3: TCP through a tunnel, and what its report says."""

from __future__ import annotations

import json
import subprocess
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, Final

from bench.laboratory import end
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.namespace import Namespace

# The same everywhere, whatever the kernel prefers.
CONGESTION: Final = "cubic"


@dataclass(frozen=True, slots=True)
class Transfer:
    """What arrived."""

    octets: int
    gbit_per_second: float


@contextmanager
def server(namespace: Namespace) -> Iterator[subprocess.Popen[str]]:
    """``iperf3 --server``, listening; what it says of each transfer is read, or one day it would wait for that.

    Raises:
        LabFailed: it does not listen.
    """
    listener = namespace.spawn(["iperf3", "--server", "--forceflush"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert listener.stdout is not None
    try:
        for line in listener.stdout:
            if "listening" in line:
                break
        else:
            raise LabFailed("iperf3 does not listen", host=namespace.name)
        with draining(listener.stdout):
            try:
                yield listener
            finally:
                listener.kill()
    finally:
        end(listener)


@contextmanager
def draining(stream: IO[str]) -> Iterator[None]:
    """Reads and forgets what comes; ends once nobody can write any more."""
    reader = Thread(target=deque, args=(stream, 0))
    reader.start()
    try:
        yield
    finally:
        reader.join()


def command(address: str, *, streams: int, backwards: bool, seconds: float) -> list[str]:
    """Of the client; iperf3 wants whole seconds, or octets."""
    options = ["--json", "--congestion", CONGESTION, "--time", f"{seconds:.0f}", "--parallel", str(streams)]
    return ["iperf3", "--client", address, *options, *(["--reverse"] if backwards else [])]


def parse(report: str) -> Transfer:
    """The report of a client as JSON.

    Raises:
        LabFailed: it is that of a failure, or none at all.
    """
    try:
        told: dict[str, Any] = json.loads(report)
        if "error" in told:
            raise LabFailed(f"iperf3: {told['error']}")
        received = told["end"]["sum_received"]
        transfer = Transfer(int(received["bytes"]), received["bits_per_second"] / 1e9)
    except (ValueError, KeyError, TypeError) as error:
        raise LabFailed("iperf3 ended without a report") from error
    if not transfer.octets:
        raise LabFailed("iperf3: nothing arrived")
    return transfer
