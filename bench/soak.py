"""``bench soak``: gigabytes through a tunnel at full rate; both ends know each octet, and nothing may be wrong.

Two daemons keyed by KINK, a third namespace between them (:mod:`bench.path`), TCP and UDP both ways at once, IPv4 and
IPv6 inside (:mod:`bench.ends`), new keys as often as wanted; loss, disorder and repetition by a seed. It ends with what
passed, what was dropped and why, and a verdict (:mod:`bench.verdict`).
"""

from __future__ import annotations

import json
import select
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench import machine
from bench.conversation import Partner
from bench.ends import End
from bench.laboratory import scratch
from bench.path import PathLab
from bench.relay import Odds
from bench.verdict import Flow, Gateway, Outcome
from kinkvpn.api.client import Client
from kinkvpn.api.control import CommandRefused
from kinkvpn.demo.lab import POLL_SECONDS, START_SECONDS, DaemonOptions, policies
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.progress import Progress
from kinkvpn.demo.sandbox import complete_path

if TYPE_CHECKING:
    import argparse

    from kinkvpn.demo.lab import Host

ESP_PORT: Final = 4500
NO_FAULTS: Final = Odds()
GIGABYTE: Final = 1_000_000_000
VERSIONS: Final = (4, 6)
# Of TCP, each way of each IP version. On a path with faults one connection is never fast.
CONNECTIONS: Final = {False: 1, True: 4}
DATAGRAMS_PER_S: Final = 2000.0  # each way of each IP version: a twentieth of a core for Python to compare them
# Silence is one way to fail, a trickle another: slower than this it is broken on any machine.
SLOWEST_OCTETS_PER_S: Final = 5_000_000
GRACE_SECONDS: Final = 120.0
LOOKS: Final = 100  # until two find the same
ANSWER_SECONDS: Final = 60.0  # a rekey on a path with loss waits for KINK's retransmissions: 1, 2, 4 s and so on


@dataclass(frozen=True, slots=True)
class Settings:
    """What is run.

    Args:
        octets: of TCP each way, of both IP versions together.
        seed: of contents and faults.
        odds: of faults on the path.
        rekey: seconds between new keys, by a and b in turn; 0 never.
        whole: runs of datagrams cross the path as one.
        outer: IP version outside.
        engine, queues: as in the configuration.
    """

    octets: int = 10 * GIGABYTE
    seed: int = 1
    odds: Odds = NO_FAULTS
    rekey: float = 0.0
    whole: bool = True
    outer: int = 4
    engine: str = "auto"
    queues: int = 1

    @property
    def connections(self) -> int:
        return CONNECTIONS[bool(self.odds)]


class Process(Partner):
    """A :class:`bench.ends.Traffic` on a host."""

    def __init__(self, host: Host, peer: Host, settings: Settings, directory: Path) -> None:
        self.host = host
        self.octets = 0
        self.halves: list[dict[str, Any]] = []
        told = End(
            name=host.name,
            peer=peer.name,
            addresses={str(v): (host.site.inner_address(v), peer.site.inner_address(v)) for v in VERSIONS},
            seed=settings.seed,
            octets=settings.octets // len(VERSIONS) // settings.connections,
            connections=settings.connections,
            datagrams_per_s=DATAGRAMS_PER_S,
        )
        path = directory / f"{host.name}-end.json"
        path.write_text(told.to_json())
        super().__init__(host.name, [*host.namespace.prefix, sys.executable, "-m", "bench.ends", str(path)])

    def follow(self) -> None:
        """Take what is told of progress, and the halves at the end."""
        words = self.hear()
        self.octets = words.get("octets", self.octets)
        self.halves = words.get("halves", self.halves)


class Soak:
    """A run on a laboratory whose daemons answer."""

    def __init__(self, lab: PathLab, settings: Settings, directory: Path) -> None:
        self._lab, self._settings = lab, settings
        self._undo = ExitStack()
        a, b = lab.hosts
        self._ends = [Process(here, there, settings, directory) for here, there in ((a, b), (b, a))]
        for each in self._ends:
            self._undo.callback(each.end)
        self.rekeys = self.rekeys_failed = 0

    def run(self, progress: Progress) -> Outcome:
        """All of it. Raises LabFailed when that does not come to an end."""
        with self._undo:
            for each in self._ends:
                each.hear()  # it listens
            began = time.monotonic()
            for each in self._ends:
                each.tell()
            self._stream(began, progress)
            seconds = time.monotonic() - began
            flows = self._flows()
        gateways = self._gateways()
        for host in self._lab.hosts:
            host.stop()  # in order, or it is a failure
        return Outcome(flows, gateways, self._lab.end_path(), self.rekeys, self.rekeys_failed, seconds)

    def _stream(self, began: float, progress: Progress) -> None:
        """Until TCP is through at both ends; new keys meanwhile."""
        rekey_at = began + self._settings.rekey if self._settings.rekey else float("inf")
        limit = began + GRACE_SECONDS + 2 * self._settings.octets / SLOWEST_OCTETS_PER_S
        while streaming := [each for each in self._ends if not each.halves]:
            now = time.monotonic()
            if now > limit:
                raise LabFailed(f"not through after {now - began:.0f} s")
            ready, _, _ = select.select(streaming, [], [], max(0.0, min(rekey_at - now, 1.0)))
            for each in ready:
                each.follow()
            for each in self._ends:
                each.host.check_alive()
            progress.fraction(sum(each.octets for each in self._ends) / 2 / self._settings.octets)
            if now >= rekey_at:
                self._rekey()
                rekey_at = max(now + self._settings.rekey, time.monotonic())

    def _rekey(self) -> None:
        host = self._lab.hosts[(self.rekeys + self.rekeys_failed) % 2]
        try:
            with daemon(host) as client:
                client.post("/v1/rekey")
        except CommandRefused:
            self.rekeys_failed += 1
        else:
            self.rekeys += 1

    def _flows(self) -> tuple[Flow, ...]:
        sent, tallies = [], []
        for each in self._ends:
            each.tell()
            sent.append(each.hear()["sent"])
        for each, of_peer in zip(self._ends, reversed(sent), strict=True):
            each.tell(of_peer)
        tallies = [each.hear()["tallies"] for each in self._ends]
        return tuple(
            self._flow(source, target, version, sent[source][str(version)], tallies[target][str(version)])
            for source, target in ((0, 1), (1, 0))
            for version in VERSIONS
        )

    def _flow(self, source: int, target: int, version: int, datagrams: int, tally: dict[str, int]) -> Flow:
        sending = halves(self._ends[source], version, sends=True)
        receiving = halves(self._ends[target], version, sends=False)
        return Flow(
            source=self._ends[source].host.name,
            target=self._ends[target].host.name,
            version=version,
            octets_sent=sum(each["half"]["octets"] for each in sending),
            octets_received=sum(each["half"]["octets"] for each in receiving),
            sent_crc=tuple(f"{each['half']['crc']:08x}" for each in sending),
            received_crc=tuple(f"{each['half']['crc']:08x}" for each in receiving),
            altered=tuple(each["half"]["altered"] for each in receiving if each["half"]["altered"] is not None),
            retransmissions=sum(each["half"]["retransmissions"] for each in sending),
            failures=tuple(each["failure"] for each in (*sending, *receiving) if each["failure"]),
            datagrams=datagrams,
            datagrams_received=tally["received"],
            datagrams_altered=tally["altered"],
            datagrams_repeated=tally["repeated"],
            datagrams_reordered=tally["reordered"],
        )

    def _gateways(self) -> tuple[Gateway, Gateway]:
        """Once nothing passes any more: what is under way is in nobody's figures."""
        before: list[Gateway] = []
        for _ in range(LOOKS):
            found = [gateway(host) for host in self._lab.hosts]
            if found == before:
                break
            before = found
            time.sleep(POLL_SECONDS)
        a, b = found
        return a, b


def halves(process: Process, version: int, *, sends: bool) -> list[dict[str, Any]]:
    """What became of the connections of that IP version and direction, at one end."""
    found = [each for each in process.halves if each["version"] == str(version) and each["sends"] is sends]
    return sorted(found, key=lambda each: each["index"])


def daemon(host: Host) -> Client:
    """That of ``host``, to be asked."""
    return Client(host.configuration.parent / "control", ANSWER_SECONDS)


def status_of(host: Host) -> dict[str, Any]:
    """What the daemon of ``host`` tells."""
    with daemon(host) as client:
        return client.status()


def gateway(host: Host) -> Gateway:
    """What is known of its daemon and its devices."""
    status = status_of(host)
    counters = status["counters"]
    (device,) = json.loads(host.namespace.run(["ip", "-s", "-j", "link", "show", "dev", "kink0"]))
    return Gateway(
        name=host.name,
        engines=tuple(sorted({f"{each[f'engine_{way}']}" for each in policies(status) for way in ("in", "out")})),
        creates=counters["kink_labelled"]["exchanges"].get("create.completed", 0),
        packets_out=counters["packets_out"],
        packets_in=counters["packets_in"],
        drops=counters["drops"],
        overruns=overruns(host),
        tun_overruns=device["stats64"]["tx"]["dropped"],
    )


def overruns(host: Host) -> int:
    """Datagrams that the daemon's sockets on the ESP port had no room for."""
    lines = host.namespace.run(["cat", "/proc/net/udp", "/proc/net/udp6"]).splitlines()
    sockets = [fields for line in lines if (fields := line.split())[1].endswith(f":{ESP_PORT:04X}")]
    return sum(int(fields[-1]) for fields in sockets)


def soak(settings: Settings, directory: Path, progress: Progress) -> Outcome:
    """Build the laboratory, run, and take it down. Raises LabFailed."""
    options = DaemonOptions(start="boot", engine=settings.engine, queues=settings.queues)
    with PathLab(
        directory, options, odds=settings.odds, seed=settings.seed, whole=settings.whole, outer=settings.outer
    ) as lab:
        with progress.step("laboratory", "KDC, hosts, path and daemons"):
            lab.start_realm()
            lab.start_hosts()
            lab.start_daemons()
            for host in lab.hosts:
                lab.wait_until(partial(established, host), START_SECONDS, host, "has no SAs")
        with progress.step("traffic", f"{settings.octets / GIGABYTE:g} GB each way"):
            return Soak(lab, settings, directory).run(progress)


def established(host: Host) -> bool:
    """Whether every policy has a pair."""
    return all(policy["state"] == "established" for policy in policies(status_of(host)))


def run(options: argparse.Namespace) -> int:
    """Print what passed and the verdict; the exit code, 1 where anything is wrong."""
    complete_path()
    odds = Odds(options.loss / 100, options.reorder / 100, options.repeat / 100)
    settings = Settings(
        octets=round(options.gigabytes * GIGABYTE),
        seed=options.seed,
        odds=odds,
        rekey=options.rekey,
        whole=not odds if options.whole is None else options.whole,
        outer=options.outer,
        engine=options.engine,
        queues=options.queues,
    )
    about = machine.describe()
    try:
        with scratch() as directory:
            outcome = soak(settings, Path(directory), Progress(sys.stderr))
    except LabFailed as error:
        print("\n".join([f"bench soak: {error.host and error.host + ': '}{error}", *error.log]), file=sys.stderr)
        return 1
    faults = outcome.faults(odds=settings.odds, rekeyed=bool(settings.rekey))
    if options.json:
        print(json.dumps({"machine": about, "settings": asdict(settings), **outcome.to_dict(), "faults": faults}))
    else:
        print(" · ".join(f"{key} {value}" for key, value in about.items()))
        print("\n".join(table(outcome)))
        print("\n".join(faults) if faults else "nothing is wrong")
    return 1 if faults else 0


def table(outcome: Outcome) -> list[str]:
    """Lines for people."""
    heads = ("octets", "CRC-32 sent", "received", "TCP again", "datagrams", "lost", "late")
    lines = [f"{'':<12}" + "".join(f"{head:>13}" for head in heads)]
    for flow in outcome.flows:
        cells = (
            *(flow.octets_received, flow.sent_crc[0], flow.received_crc[0], flow.retransmissions),
            *(flow.datagrams, flow.datagrams - flow.datagrams_received, flow.datagrams_reordered),
        )
        name = f"{flow.source} > {flow.target} IPv{flow.version}"
        lines.append(f"{name:<12}" + "".join(f"{each:>13}" for each in cells))
        others = zip(flow.sent_crc[1:], flow.received_crc[1:], strict=True)
        lines += [f"{'':<25}{sent:>13}{received:>13}" for sent, received in others]
    for each in outcome.gateways:
        dropped = ", ".join(f"{reason} {count}" for reason, count in each.drops.items())
        lines += [
            f"{each.name} ({', '.join(each.engines)}): {each.packets_out} packets out, {each.packets_in} in; "
            f"dropped: {dropped or 'none'}; no room in a socket: {each.overruns}, in the TUN: {each.tun_overruns}; "
            f"{each.creates} CREATEs"
        ]
    for way, passed in zip(("a to b", "b to a"), outcome.passed or (), strict=False):
        lines.append(f"path {way}: " + ", ".join(f"{name} {count}" for name, count in asdict(passed).items()))
    return [
        *lines,
        f"packets of which nothing is known: {' and '.join(map(str, outcome.unaccounted()))}",
        f"{outcome.rekeys} rekeys, and {outcome.rekeys_failed} that failed",
        f"{outcome.seconds:.1f} s, {outcome.gbit_per_s:.2f} Gbit/s of TCP, both ways together",
    ]


def percentage(text: str) -> float:
    """0 to 50. Raises ValueError."""
    value = float(text)
    if not 0 <= value <= 50:
        raise ValueError
    return value


def positive(text: str) -> float:
    """More than nothing. Raises ValueError."""
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``soak`` among the subcommands."""
    parser = measurements.add_parser("soak", help="gigabytes at full rate, each octet checked; needs root")
    parser.add_argument("--gigabytes", type=positive, default=10.0, metavar="N", help="of TCP each way (10)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of contents and faults (1)")
    parser.add_argument("--loss", type=percentage, default=0.0, metavar="PERCENT", help="of frames that are lost (0)")
    parser.add_argument("--reorder", type=percentage, default=0.0, metavar="PERCENT", help="that come late (0)")
    parser.add_argument("--repeat", type=percentage, default=0.0, metavar="PERCENT", help="that come again (0)")
    parser.add_argument("--rekey", type=positive, default=0.0, metavar="SECONDS", help="between new keys (never)")
    path = parser.add_mutually_exclusive_group()
    path.add_argument("--whole", action="store_true", default=None, help="GSO crosses the path whole (without faults)")
    path.add_argument("--split", dest="whole", action="store_false", help="GSO is cut before it (with faults)")
    parser.add_argument("--outer", type=int, choices=VERSIONS, default=4, help="IP version outside (4)")
    parser.add_argument("--engine", choices=("auto", "native", "portable"), default="auto", help="(auto)")
    parser.add_argument("--queues", type=int, choices=range(1, 17), default=1, metavar="N", help="of each daemon (1)")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.set_defaults(run=run)
