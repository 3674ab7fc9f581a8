"""What the demo says at the end: a table for people, one JSON object for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinkvpn.demo.capture import Kind
from kinkvpn.demo.journey import MEGABYTE, Findings
from kinkvpn.demo.lab import policies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinkvpn.demo.namespace import LabFailed


def summary(findings: Findings, seconds: Mapping[str, float], error: str = "") -> dict[str, Any]:
    """The object of ``--json``. What a failed run did not get to is null; ``error`` is there only if it failed."""
    received, traffic = findings.received, findings.traffic
    status = next(iter(findings.status.values()), {})
    suites = sorted({policy["suite"] for policy in policies(status) if policy["suite"]}) if status else []
    result = {
        "ok": not error,
        "ping4_ms": findings.ping_ms.get(4),
        "ping6_ms": findings.ping_ms.get(6),
        "transfer_ok": received is not None and received.equal,
        "gbit_per_s": round(received.gbit_per_s, 3) if received else None,
        "suite": " ".join(suites) or None,
        "engine": status.get("engine"),
        "create_ms": findings.create_ms,
        "leaks": traffic.leaked if traffic else None,
        "steps": dict(seconds),
    }
    return result | ({"error": error} if error else {})


def table(findings: Findings) -> str:
    """The rows of a run that held."""
    received, traffic = findings.received, findings.traffic
    assert received is not None
    assert traffic is not None
    result = summary(findings, {})
    rows = [("", "")]
    rows += [(f"host {name}", hosted(status)) for name, status in findings.status.items()]
    for name, status in findings.status.items():
        rows += [(f"SPI to {name}", f"{p['spi_in']}  {p['remote']} > {p['local']}") for p in policies(status)]
    rows += [
        ("suite", f"{result['suite']}, {result['engine']} engine"),
        ("first CREATE", f"{findings.create_ms} ms"),
        ("ping", f"IPv4 {findings.ping_ms[4]:.2f} ms, IPv6 {findings.ping_ms[6]:.2f} ms (median of both ways)"),
        ("TCP", f"{received.octets / MEGABYTE:.0f} MB at {received.gbit_per_s:.2f} Gbit/s, SHA-256 equal"),
        ("on the wire", ", ".join(f"{traffic.packets[kind]} {kind.value}" for kind in Kind if traffic.packets[kind])),
        ("KINK", ", ".join(f"{count} {message}" for message, count in traffic.kink.items())),
        ("leaks", str(traffic.leaked)),
        ("stopped in", ", ".join(f"{name} {seconds:.2f} s" for name, seconds in findings.stopped.items())),
    ]
    return "\n".join(f"  {name:<12}  {value}".rstrip() for name, value in rows)


def hosted(status: dict[str, Any]) -> str:
    peers = ", ".join(f"{peer['principal']} at {peer['address']}" for peer in status["peers"])
    return f"{status['principal']}, peer {peers}"


def failure(step: str, error: LabFailed) -> str:
    """Which step, which host, why, what its log says, what to do."""
    place = f" on host {error.host}" if error.host else ""
    lines = [f"kinkvpn demo: step {step} failed{place}: {error}"]
    lines += [f"  | {line}" for line in error.log]
    lines += [f"  {error.advice}"] if error.advice else []
    return "\n".join(lines)
