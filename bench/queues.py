"""``bench queues``: no sequence number and no IV twice, however many threads seal and whatever happens meanwhile.

Four lanes seal packets as their loops would, half of them by an SA that all share and half by one of their own, and
Python seals beside them; every second all SAs are replaced. Of each packet SPI, number and IV are kept, and in the end
all are sorted and looked at: a hundred million take 1.6 GB, and as much again to sort them.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from bench import machine
from esp.native import why_missing
from esp.policy import Policy, Selector
from esp.sa import Endpoint, SaParameters
from esp.suite import SUITES

if TYPE_CHECKING:
    import argparse

    from esp.native.engine import NativeEngine

QUEUES = 4
SUITE = SUITES["aes128-gcm16"]
SELECTOR = Selector(ip_network("10.0.1.0/24"), ip_network("10.0.2.0/24"))
PACKET = bytes.fromhex("4500002c 00010000 40fd0000 0a000101 0a000201") + bytes(24)
HEAD = 16  # octets of a packet that are kept: SPI, sequence number, IV
BATCH = 512  # packets that Python seals before each change of SAs
REKEY_SECONDS = 1.0
# A lane is asked for so many at a time: then it may be that its SA has gone, and it goes on by another.
TURN = 100_000


@dataclass(frozen=True, slots=True)
class Result:
    """What was sealed, and how much of it repeats."""

    packets: int
    by_python: int
    sas: int
    repeated_numbers: int
    repeated_ivs: int
    sealing_seconds: float
    looking_seconds: float


class Sealing:
    """An engine with four lanes, and the first octets of what it seals.

    Args:
        packets: so many in all, those of Python aside.
    """

    def __init__(self, packets: int) -> None:
        from esp.native.engine import NativeEngine

        self._each = packets // QUEUES
        self.heads = bytearray(self._each * QUEUES * HEAD)
        self.by_python = bytearray()
        self._engine: NativeEngine = NativeEngine(random=os.urandom, lanes=QUEUES)
        self._engine.add_policy(Policy("all", SELECTOR))
        self._engine.publish()
        self.sas = 0
        self._standing: list[int] = []
        self._sealed = [0] * QUEUES

    def run(self) -> None:
        """Seal all of it."""
        self._rekey(per_queue=True)
        lanes = [threading.Thread(target=self._seal, args=(lane,)) for lane in range(QUEUES)]
        for each in lanes:
            each.start()
        while any(each.is_alive() for each in lanes):
            lanes[0].join(REKEY_SECONDS)
            self._rekey(per_queue=sum(self._sealed) < self._each * QUEUES // 2)

    def _seal(self, lane: int) -> None:
        from esp.native import _core

        here = memoryview(self.heads)[lane * self._each * HEAD : (lane + 1) * self._each * HEAD]
        done = 0
        while done < self._each:
            done += _core.seal_many(self._engine.lanes, lane, PACKET, 0.0, here[done * HEAD : (done + TURN) * HEAD])
            self._sealed[lane] = done

    def _rekey(self, *, per_queue: bool) -> None:
        """New SAs in place of all there are, by which Python seals too: those of all lanes, and of each."""
        before, self._standing = self._standing, []
        for queue in (None, *range(QUEUES)) if per_queue else (None,):
            self.sas += 1
            spi = 0x1000 + self.sas
            keymat = os.urandom(SUITE.keymat_octets)
            sa = SaParameters(spi, SUITE, keymat, "all", SELECTOR, Endpoint("192.0.2.2", 4500), queue=queue)
            self._engine.install_outbound(sa, 0.0)
            self._standing.append(spi)
            for out in self._engine.protect([PACKET] * BATCH, 0.0):
                self.by_python += out.datagram[:HEAD]
        for spi in before:
            self._engine.remove_outbound("all", spi)
        self._engine.lanes.reclaim()


def measure(packets: int) -> Result:
    """Seal and look.

    Raises:
        RuntimeError: there is no compiled engine.
    """
    if (missing := why_missing()) is not None:
        raise RuntimeError(f"the compiled engine is {missing}")
    from esp.native import _core

    sealing = Sealing(packets)
    began = time.monotonic()
    sealing.run()
    sealed = time.monotonic()
    python = len(sealing.by_python) // HEAD
    sealing.heads += sealing.by_python
    numbers, ivs = _core.repeats(sealing.heads)
    total = len(sealing.heads) // HEAD
    return Result(total, python, sealing.sas, numbers, ivs, sealed - began, time.monotonic() - sealed)


def run(options: argparse.Namespace) -> int:
    """Print the result, or with ``--json`` one object on one line; the exit code is 1 if anything repeats."""
    about = machine.describe()
    result = measure(1_000_000 if options.quick else options.packets)
    if options.json:
        print(json.dumps({"machine": about, **asdict(result)}))
    else:
        print(" · ".join(f"{key} {value}" for key, value in about.items()))
        print(
            f"{result.packets:,} packets, {result.by_python:,} of them by Python, by {result.sas:,} SAs\n"
            f"sequence numbers that repeat: {result.repeated_numbers:,}\nIVs that repeat: {result.repeated_ivs:,}\n"
            f"sealed in {result.sealing_seconds:.1f} s, looked at in {result.looking_seconds:.1f} s"
        )
    return int(bool(result.repeated_numbers or result.repeated_ivs))


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``queues`` among the subcommands."""
    parser = measurements.add_parser("queues", help="that no sequence number and no IV repeats, by four queues")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="a million packets")
    parser.add_argument("--packets", type=int, default=100_000_000, metavar="N", help="default: %(default)s")
    parser.set_defaults(run=run)
