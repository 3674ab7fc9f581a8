"""What manual SAs have carried and dropped, as an object for JSON and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kinkvpn import view
from kinkvpn.service.report import spell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from esp.dataplane import LinkStatistics
    from esp.statistics import SaStatistics, Statistics

SAS = ("policy", "direction", "spi", ">packets", ">octets", ">sequence", "engine", "dropped")


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


def tables(account: Mapping[str, Any]) -> Iterator[view.Table]:
    """The SAs there are, and sums of all there have been."""
    yield SAS, [_row(sa) for sa in account["sas"]]
    yield (
        (),
        [
            ("traffic", f"in {view.traffic(account, 'in')}, out {view.traffic(account, 'out')}"),
            ("dropped", view.counted(account["drops"]) or "nothing"),
        ],
    )


def _row(sa: Mapping[str, Any]) -> view.Row:
    numbers = str(sa["packets"]), view.octets(sa["octets"]), str(sa["sequence"])
    return sa["policy"], sa["direction"], sa["spi"], *numbers, sa["engine"], view.counted(sa["drops"]) or "nothing"
