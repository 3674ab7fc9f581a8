"""What manual SAs have carried and dropped, as an object for JSON and as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kinkvpn import view
from kinkvpn.service.report import spell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esp.dataplane import LinkStatistics
    from esp.statistics import SaStatistics, Statistics


def of(traffic: Statistics, link: LinkStatistics) -> dict[str, Any]:
    """Everything that was counted, and no key."""
    return {
        "packets_in": traffic.packets_in,
        "octets_in": traffic.octets_in,
        "packets_out": traffic.packets_out,
        "octets_out": traffic.octets_out,
        "drops": {reason.value: count for reason, count in traffic.drops.items() if count},
        "link": asdict(link),
        "sas": [_sa(sa) for sa in traffic.sas],
    }


def _sa(sa: SaStatistics) -> dict[str, Any]:
    return {
        "policy": sa.policy,
        "direction": "inbound" if sa.inbound else "outbound",
        "spi": view.spi(sa.spi),
        "suite": sa.suite,
        "engine": sa.engine,
        "engine_reason": sa.engine_reason,
        "remote": spell(sa.remote),
        "packets": sa.packets,
        "octets": sa.octets,
        "sequence": sa.sequence,
        "drops": {reason.value: count for reason, count in sa.drops.items() if count},
    }


def text(account: Mapping[str, Any]) -> str:
    """A table of the SAs there are, and sums of all there have been."""
    rows: list[view.Row] = [("policy", "direction", "spi", "packets", "octets", "sequence", "engine", "dropped")]
    for sa in account["sas"]:
        numbers = str(sa["packets"]), view.octets(sa["octets"]), str(sa["sequence"])
        dropped = view.counted(sa["drops"]) or "nothing"
        rows.append((sa["policy"], sa["direction"], sa["spi"], *numbers, sa["engine"], dropped))
    sums = [
        ("traffic", f"in {view.traffic(account, 'in')}, out {view.traffic(account, 'out')}"),
        ("dropped", view.counted(account["drops"]) or "nothing"),
    ]
    return "\n".join([*view.table(rows), *view.table(sums)])
