"""The daemon's status as Prometheus and OpenMetrics have it (docs/watching.md lists every metric).

Labels are names from the configuration, principals of peers, and fixed words: nothing that a stranger sends is one.
What a stopped tunnel has is 0 and not absent, for an alert cannot see what is absent; and what counts never goes back
while the daemon runs, whatever is rekeyed.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from esp.errors import DropReason
from kinkvpn.latency import Latencies
from kinkvpn.proto.events import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Status: TypeAlias = Mapping[str, Any]
    # Adds a sample to the metric of that name, with a value for each of its labels.
    Put: TypeAlias = Callable[..., None]

Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
C, G, H = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
OF_PEER, OF_POLICY, OF_WAY = ("peer",), ("peer", "policy"), ("peer", "policy", "direction")

# Name as it is collected: its kind, what it says, its labels.
METRICS: Final[dict[str, tuple[type[Family], str, tuple[str, ...]]]] = {
    "kinkvpn_build_info": (G, "What runs: always 1.", ("version", "python")),
    "kinkvpn_engine_info": (G, "What seals and opens packets: always 1.", ("engine", "ciphers")),
    "kinkvpn_engine_queues": (G, "Threads that carry packets, each with a queue of the device.", ()),
    "kinkvpn_offload_active": (G, "1 while an offload is in use, 0 where it was refused or is off.", ("offload",)),
    "kinkvpn_key_log_active": (G, "1 while keys are written to a file ([log] keys), which is for debugging.", ()),
    "kinkvpn_peer_up": (G, "1 while a tunnel to the peer is established.", OF_PEER),
    "kinkvpn_peer_last_heard_timestamp_seconds": (G, "When the peer was last heard, 0 for never.", OF_PEER),
    "kinkvpn_policy_up": (G, "1 while the policy has a pair of SAs.", OF_POLICY),
    "kinkvpn_policy_sa_pairs": (G, "Pairs of SAs of the policy.", OF_POLICY),
    "kinkvpn_policy_sa_seconds_left": (G, "Until the newest pair of SAs ends, 0 without one.", OF_POLICY),
    "kinkvpn_policy_failures": (G, "CREATEs that have failed since one was good.", OF_POLICY),
    "kinkvpn_policy_held_packets": (G, "Packets that wait for an SA, or for their turn.", OF_POLICY),
    "kinkvpn_policy_packets_total": (C, "ESP packets that SAs of the policy sealed or opened.", OF_WAY),
    "kinkvpn_policy_bytes_total": (C, "Octets that those had under the cipher.", OF_WAY),
    "kinkvpn_packets_total": (C, "Packets that were sealed, or opened and let pass.", ("direction",)),
    "kinkvpn_bytes_total": (C, "Octets of those packets.", ("direction",)),
    "kinkvpn_drops_total": (C, "Packets that were not delivered, by reason (docs/counters.md).", ("reason",)),
    "kinkvpn_unused_ecn_total": (C, "ECN marks that should not be (docs/counters.md).", ("marks",)),
    "kinkvpn_link_datagrams_total": (C, "Datagrams of the link, by kind.", ("kind",)),
    "kinkvpn_kink_events_total": (C, "What happened in KINK (docs/counters.md).", ("event",)),
    "kinkvpn_messages_received_total": (C, "KINK messages that came, believed or not.", ("message",)),
    "kinkvpn_messages_sent_total": (C, "KINK messages that left.", ("message",)),
    "kinkvpn_kink_errors_received_total": (C, "KINK_ERROR payloads that came.", ("code",)),
    "kinkvpn_kink_errors_sent_total": (C, "KINK_ERROR payloads that left.", ("code",)),
    "kinkvpn_krb_errors_received_total": (C, "Kerberos errors of peers, by number.", ("code",)),
    "kinkvpn_krb_errors_sent_total": (C, "Kerberos errors of ours, by number.", ("code",)),
    "kinkvpn_notifies_received_total": (C, "Notify payloads that came.", ("type",)),
    "kinkvpn_notifies_sent_total": (C, "Notify payloads that left.", ("type",)),
    "kinkvpn_exchanges_total": (C, "Commands of ours, by how they ended.", ("command", "outcome")),
    "kinkvpn_answers_total": (C, "Commands of peers, by what became of them.", ("command", "outcome")),
    "kinkvpn_exchange_duration_seconds": (H, "From a command's first message to its REPLY.", ("command",)),
    "kinkvpn_ticket_requests_total": (C, "Tickets that were asked for, by what came of it.", ("outcome",)),
    "kinkvpn_tickets": (G, "Tickets at hand, should the KDC go.", ()),
    "kinkvpn_tickets_not_renewed": (G, "Those of them whose renewal failed.", ()),
    "kinkvpn_ticket_expiry_timestamp_seconds": (G, "When a ticket that is renewed here ends.", ("server",)),
}  # fmt: skip

# Families of docs/counters.md whose labels have two parts, of which the second may have a dot.
_IN_TWO = ("exchanges", "answers")
_RENAMED = {"tickets": "ticket_requests"}


def exposition(status: Status, accept: str = "") -> tuple[bytes, str]:
    """What a collector gets.

    Args:
        status: as ``GET /v1/status`` has it.
        accept: the request's Accept: OpenMetrics where it asks for that, else Prometheus's text.

    Returns:
        The body, and its Content-Type.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    ProcessCollector(registry=registry)
    return encode(registry), content_type


class StatusCollector(Collector):
    """One status, for a registry of prometheus_client."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Every metric there is."""
        return families(self._status, time.time())


def families(status: Status, now: float) -> list[Metric]:
    """Every metric of ``METRICS``, in that order; ``now`` in POSIX seconds."""
    made = {name: kind(name, text, labels=labels) for name, (kind, text, labels) in METRICS.items()}

    def put(name: str, value: float, *labels: str) -> None:
        family = made[f"kinkvpn_{name}"]
        assert not isinstance(family, HistogramMetricFamily)
        family.add_metric(labels, value)

    _put_daemon(status, put)
    for peer in status["peers"]:
        _put_peer(peer, now, put)
    _put_traffic(status["counters"], put)
    _put_kink(status["counters"], put)
    _put_durations(status["counters"]["kink_seconds"], made["kinkvpn_exchange_duration_seconds"])
    return list(made.values())


def _put_daemon(status: Status, put: Put) -> None:
    put("build_info", 1, status["version"], platform.python_version())
    put("engine_info", 1, status["engine"], status["ciphers"])
    put("engine_queues", status["queues"])
    put("key_log_active", bool(status["key_log"]))
    for offload, why_not in status["offloads"].items():
        put("offload_active", why_not is None, offload)
    tickets = status["tickets"]
    put("tickets", tickets["kept"])
    put("tickets_not_renewed", tickets["not_renewed"])
    for server, ends in tickets["ends"].items():
        put("ticket_expiry_timestamp_seconds", ends, server)


def _put_peer(peer: Status, now: float, put: Put) -> None:
    heard, name = peer["last_heard"], peer["name"]
    put("peer_up", peer["state"] == "established", name)
    put("peer_last_heard_timestamp_seconds", 0 if heard is None else round(now - heard, 3), name)
    for policy in peer["policies"]:
        labels = name, policy["name"]
        put("policy_up", policy["state"] == "established", *labels)
        put("policy_sa_pairs", policy["pairs"], *labels)
        put("policy_sa_seconds_left", seconds_left(policy), *labels)
        put("policy_failures", policy["failures"], *labels)
        put("policy_held_packets", policy["held"], *labels)
        for way in ("in", "out"):
            put("policy_packets_total", policy[f"packets_{way}"], *labels, way)
            put("policy_bytes_total", policy[f"octets_{way}"], *labels, way)


def seconds_left(policy: Status) -> float:
    """Until the newest pair of SAs of a policy ends, as far as time ends it; 0 where there is none."""
    return 0.0 if policy["since"] is None else max(0.0, policy["lifetime"] - policy["since"])


def _put_traffic(counters: Status, put: Put) -> None:
    for way in ("in", "out"):
        put("packets_total", counters[f"packets_{way}"], way)
        put("bytes_total", counters[f"octets_{way}"], way)
    for reason in DropReason:
        put("drops_total", counters["drops"].get(reason.value, 0), reason.value)
    for marks, packets in counters["unused_ecn"].items():
        put("unused_ecn_total", packets, marks)
    for kind, datagrams in counters["link"].items():
        put("link_datagrams_total", datagrams, kind)


def _put_kink(counters: Status, put: Put) -> None:
    for tally in Tally:
        put("kink_events_total", counters["kink"].get(tally.value, 0), tally.value)
    for family, labels in counters["kink_labelled"].items():
        for label, count in labels.items():
            parts = label.split(".", 1) if family in _IN_TWO else [label]
            put(f"{_RENAMED.get(family, family)}_total", count, *parts)


def _put_durations(seconds: Status, family: Family) -> None:
    assert isinstance(family, HistogramMetricFamily)
    for command, took in ({"create": Latencies().status()} | dict(seconds)).items():
        buckets = [*took["le"].items(), ("+Inf", took["count"])]
        family.add_metric([command], buckets, took["sum"])
