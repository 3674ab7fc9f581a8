"""Load through one tunnel, and what it measures: throughput and its cost, round trips, datagrams that arrive."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from bench import iperf
from bench.laboratory import end
from bench.processes import cpu_seconds
from bench.underlay import INNER, IP_OCTETS, UDP_OCTETS, split_on_the_wire
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from bench.contestants.contestant import Tunnel

Figures: TypeAlias = dict[str, float]

UDP_PORT: Final = 5001
PING_SECONDS: Final = 0.002  # between two; the shortest that leaves an idle tunnel idle in between
# TCP has found its rate by then, and goes on for as long after the last ping.
SETTLED_SECONDS: Final = 0.3
# What of a datagram that was sent last is still under way.
UNDER_WAY_SECONDS: Final = 0.3
GRACE_SECONDS: Final = 20.0
MICROSECONDS: Final = 1000.0  # of a millisecond


class Load:
    """One tunnel with an iperf3 server at its far end; a context manager.

    Raises:
        LabFailed: from every method: nothing got through, or a daemon has ended.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self.tunnel = tunnel
        self._undo = ExitStack()
        self._server = self._undo.enter_context(iperf.server(tunnel.ends[1]))
        self._pinned = False

    def place(self, *, pinned: bool) -> None:
        """All that runs at an end goes to a core of that end's own, or wherever the scheduler wants it."""
        self._pinned = pinned
        for side, daemon in enumerate(self.tunnel.daemons):
            self._put(daemon, side)
        self._put(self._server.pid, 1)

    def tcp(self, seconds: float, *, streams: int = 1, backwards: bool = False, version: int = 4) -> Figures:
        """Gbit/s of payload, and CPU seconds a gigabyte of the daemons at the sender's and the receiver's end."""
        before = self._cpu_seconds()
        client = self._client(seconds, streams=streams, backwards=backwards, version=version)
        transfer = iperf.parse(said_by(client, seconds))
        after = self._cpu_seconds()
        costs = [(now - then) / transfer.octets * 1e9 for now, then in zip(after, before, strict=True)]
        names = ("receiver_cpu", "sender_cpu") if backwards else ("sender_cpu", "receiver_cpu")
        return {"gbit": transfer.gbit_per_second} | dict(zip(names, costs, strict=False))

    def tcp_split(self, seconds: float) -> Figures:
        """The same where the wire carries no datagram larger than its MTU."""
        with split_on_the_wire(self.tunnel.ends):
            return self.tcp(seconds)

    def round_trip(self, seconds: float) -> Figures:
        """Median and 99th percentile in microseconds, of a ping every PING_SECONDS."""
        count = max(round(seconds / PING_SECONDS), 10)
        command = ["ping", "-n", "-c", str(count), "-i", str(PING_SECONDS), "-W", "1", INNER[4][1]]
        return round_trip_figures(said_by(self._spawn(0, command), 10 * seconds))

    def round_trip_loaded(self, seconds: float) -> Figures:
        """The same beside a TCP stream."""
        client = self._client(seconds + 1, streams=1, backwards=False, version=4)
        time.sleep(SETTLED_SECONDS)
        try:
            return self.round_trip(seconds + 1 - 2 * SETTLED_SECONDS)
        finally:
            iperf.parse(said_by(client, seconds + 1))

    def flood(self, seconds: float, *, octets: int) -> Figures:
        """IPv4 packets a second, of ``octets`` octets inside, as many as can be made: sent and received."""
        sent, received = self._datagrams(octets - IP_OCTETS[4] - UDP_OCTETS, 0.0, seconds, patience=0.0)
        return {"received_per_s": received / seconds, "sent_per_s": sent / seconds}

    def datagrams(self, seconds: float, *, octets: int, gbit: float) -> Figures:
        """The fraction that is lost of datagrams with ``octets`` octets of payload at a rate; the rates there were."""
        per_second = gbit * 1e9 / 8 / octets
        sent, received = self._datagrams(octets, per_second, seconds, patience=UNDER_WAY_SECONDS)
        sent_gbit, received_gbit = (count * octets * 8e-9 / seconds for count in (sent, received))
        return {"loss": 1 - received / sent, "sent_gbit": sent_gbit, "received_gbit": received_gbit}

    def _datagrams(self, octets: int, per_second: float, seconds: float, *, patience: float) -> tuple[int, int]:
        address, program = INNER[4][1], [sys.executable, "-m", "bench.datagrams"]
        receiver = self._spawn(1, [*program, "receive", address, str(UDP_PORT)], stdin=subprocess.PIPE)
        assert receiver.stdout is not None
        assert receiver.stdin is not None
        try:
            receiver.stdout.readline()
            rate = [str(octets), str(per_second), str(seconds)]
            sender = self._spawn(0, [*program, "send", address, str(UDP_PORT), *rate])
            sent = said_by(sender, seconds)
            time.sleep(patience)
            received = said_by(receiver)  # which ends its input first
        finally:
            end(receiver)
        if not sent or not received or not int(sent):
            raise LabFailed("datagrams could not be sent or received")
        return int(sent), int(received)

    def _cpu_seconds(self) -> list[float]:
        try:
            return [cpu_seconds(daemon) for daemon in self.tunnel.daemons]
        except OSError:
            raise LabFailed("a daemon has ended") from None

    def _client(self, seconds: float, *, streams: int, backwards: bool, version: int) -> subprocess.Popen[str]:
        address = INNER[version][1]
        return self._spawn(0, iperf.command(address, streams=streams, backwards=backwards, seconds=seconds))

    def _spawn(self, side: int, command: Sequence[str], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        prefix = self.tunnel.ends[side].prefix
        process = subprocess.Popen([*prefix, *command], stdin=stdin, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self._put(process.pid, side)  # inherited by what it becomes
        return process

    def _put(self, pid: int, side: int) -> None:
        cores = sorted(os.sched_getaffinity(0))
        chosen = {cores[side % len(cores)]} if self._pinned else set(cores)
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), chosen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


def said_by(process: subprocess.Popen[str], seconds: float = 0.0) -> str:
    """Output of one that should end by itself after ``seconds``. Raises LabFailed, and ends it, if it does not."""
    try:
        said, _ = process.communicate(timeout=seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        end(process)
        raise LabFailed(f"no end of the load after {seconds + GRACE_SECONDS:.0f} s") from None
    return said


def round_trip_figures(said: str) -> Figures:
    """Of what ping(8) prints. Raises LabFailed if nothing was answered."""
    times = [float(milliseconds) * MICROSECONDS for milliseconds in re.findall(r"time=([0-9.]+) ms", said)]
    if len(times) < 2:
        raise LabFailed("ping: no answers")
    percentiles = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50_us": percentiles[49], "p99_us": percentiles[98]}
