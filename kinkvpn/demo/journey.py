"""What the demo does inside its sandbox, step by step, and what each step must show."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from kinkvpn.demo.capture import Capture, Traffic
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab, inbound_spis, policies
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.demo.progress import Progress
    from kinkvpn.demo.transfer import Received

MEGABYTE: Final = 1_000_000
ESTABLISHED_SECONDS: Final = 20.0  # the packet that asked for the SA has arrived: both ends have it already

ADVICE_KEYING: Final = "the first error in the logs of both hosts says why"
ADVICE_LEAK: Final = "a packet left a host outside the tunnel: a defect, worth a report with these lines"
ADVICE_DROPPED: Final = "the machine is too busy to record every packet, so nothing is proven: run it again when idle"


@dataclass(slots=True)
class Findings:
    """What the steps have found so far; ``status`` and ``stopped`` by name of host, ``ping_ms`` by IP version."""

    status: dict[str, dict[str, Any]] = field(default_factory=dict)
    create_ms: float | None = None
    ping_ms: dict[int, float] = field(default_factory=dict)
    received: Received | None = None
    stopped: dict[str, float] = field(default_factory=dict)
    traffic: Traffic | None = None


class Journey:
    """One run of the demo.

    Args:
        directory: for everything that it writes; the caller removes it.
        size: octets to transfer.
        progress: told of each step.
    """

    def __init__(self, directory: Path, size: int, progress: Progress) -> None:
        self.findings = Findings()
        self._directory = directory
        self._size = size
        self._progress = progress

    def run(self) -> None:
        """Every step. Raises LabFailed at the first that does not hold; ``findings`` stay."""
        step = self._progress.step
        with Lab(self._directory, DaemonOptions(), waiting=self._progress.tick) as lab:
            with step("realm", "a Kerberos realm of its own, and its KDC"):
                lab.start_realm()
            with step("hosts", "two hosts in namespaces, a wire between them"):
                lab.start_hosts()
            with Capture(lab.hosts[0].namespace, WIRE, self._directory / "wire.pcap") as capture:
                with step("daemons", "a daemon on each host"):
                    lab.start_daemons()
                self._use(lab, *lab.hosts)
                with step("stop", "SIGTERM: DELETE, exit 0 within two seconds"):
                    self.findings.stopped = {host.name: host.stop() for host in lab.hosts}
                with step("verdict", "every packet on the wire accounted for"):
                    self._judge(capture, lab)

    def _use(self, lab: Lab, a: Host, b: Host) -> None:
        step, findings = self._progress.step, self.findings
        with step("create", "the first packet asks for an SA, and arrives"):
            ping(a, b, 4, count=1)
            self._wait_established(lab, 4)
        with step("ping4", "ping over IPv4, both ways"):
            findings.ping_ms[4] = round(median(ping(a, b, 4) + ping(b, a, 4)), 3)
        with step("ping6", "ping over IPv6, both ways"):
            ping(a, b, 6, count=1)
            self._wait_established(lab, 6)
            findings.ping_ms[6] = round(median(ping(a, b, 6) + ping(b, a, 6)), 3)
        with step("transfer", f"{self._size / MEGABYTE:.0f} MB over TCP, SHA-256 at the far end"):
            findings.received = transfer(a, b, self._size, self._transferred)
        with step("status", "both daemons tell what they did"):
            findings.status = {host.name: answered(host) for host in lab.hosts}
            findings.create_ms = first_create(findings.status[a.name])

    def _wait_established(self, lab: Lab, version: int) -> None:
        for host in lab.hosts:
            established = partial(is_established, host, version)
            lab.wait_until(established, ESTABLISHED_SECONDS, host, f"has no established SA for IPv{version}")

    def _transferred(self, octets: int) -> None:
        self._progress.fraction(octets / self._size)

    def _judge(self, capture: Capture, lab: Lab) -> None:
        dropped = capture.stop()
        spis = {host.site.wire: inbound_spis(self.findings.status[host.name]) for host in lab.hosts}
        traffic = self.findings.traffic = capture.classify(spis)
        if traffic.leaked:
            shown = "1 packet" if traffic.leaked == 1 else f"{traffic.leaked} packets"
            raise LabFailed(
                f"{shown} on the wire neither KINK nor ESP nor ARP nor ND", advice=ADVICE_LEAK, log=traffic.leaks
            )
        if dropped:
            raise LabFailed(f"the capture missed {dropped} packets", advice=ADVICE_DROPPED)
        for message in ("CREATE", "REPLY", "DELETE"):
            if not traffic.kink[message]:
                raise LabFailed(f"no {message} seen on the wire", advice=ADVICE_KEYING)


def answered(host: Host) -> dict[str, Any]:
    """The daemon's status. Raises LabFailed if it does not answer."""
    status = host.status()
    if status is None:
        raise host.failed("the daemon stopped answering", ADVICE_KEYING)
    return status


def is_established(host: Host, version: int) -> bool:
    """Whether the host's policies of that IP version, and at least one, are. Raises LabFailed."""
    states = [policy["state"] for policy in policies(answered(host)) if (":" in policy["local"]) == (version == 6)]
    return bool(states) and all(state == "established" for state in states)


def first_create(status: dict[str, Any]) -> float | None:
    """Milliseconds of the CREATE for IPv4, which was the first; the next one had the ticket already."""
    times = (policy["create_ms"] for policy in policies(status) if ":" not in policy["local"])
    return next((ms for ms in times if ms is not None), None)
