"""What status says beyond keying's own: the data plane's counters, for each policy and in all."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esp.dataplane import LinkStatistics
    from esp.engine import Statistics
    from esp.sa import Endpoint


def with_traffic(status: dict[str, Any], traffic: Statistics, link: LinkStatistics) -> dict[str, object]:
    """Keying's status with what the data plane counted, for each policy and in all."""
    peers = [
        peer | {"policies": [policy | policy_traffic(policy["name"], traffic) for policy in peer["policies"]]}
        for peer in status["peers"]
    ]
    counters = {
        "kink": status["counters"],
        "kink_labelled": status["labelled"],
        "drops": {reason.value: count for reason, count in traffic.drops.items() if count},
        "unused_ecn": traffic.unused_ecn,
        "packets_out": traffic.packets_out,
        "octets_out": traffic.octets_out,
        "packets_in": traffic.packets_in,
        "octets_in": traffic.octets_in,
        "link": asdict(link),
    }
    return {"peers": peers, "counters": counters}


def policy_traffic(name: str, traffic: Statistics) -> dict[str, int]:
    """What the SAs of a policy that are installed now have carried, and what waits for one."""
    sums = {"packets_in": 0, "octets_in": 0, "packets_out": 0, "octets_out": 0}
    for sa in traffic.sas:
        if sa.policy == name:
            way = "in" if sa.inbound else "out"
            sums[f"packets_{way}"] += sa.packets
            sums[f"octets_{way}"] += sa.octets
    return sums | {"held": traffic.held.get(name, 0)}


def spell(endpoint: Endpoint) -> str:
    """``192.0.2.1:910`` or ``[::]:910``."""
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}"
