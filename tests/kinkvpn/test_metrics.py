"""What a collector gets: every metric from the start, counters that count, and nothing that its parser refuses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from esp.dataplane import LinkStatistics
from esp.errors import DropReason
from esp.statistics import Carried, PolicyStatistics, Totals
from kinkvpn.latency import Latencies
from kinkvpn.metrics import METRICS, exposition, families, seconds_left
from kinkvpn.proto.events import Tally
from kinkvpn.service.report import counters, policy_traffic

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
NOW = 1_700_000_000.0


def policy(name: str, **changes: object) -> dict[str, Any]:
    down = {"state": "down", "pairs": 0, "since": None, "lifetime": None, "failures": 0}
    return {"name": name, **down, **changes}


def status(carried: dict[str, Carried] | None = None, **labelled: dict[str, int]) -> dict[str, Any]:
    """Of a daemon with one tunnel up and one down; what counts is as fresh as it is told to be."""
    took = Latencies()
    for seconds in (0.0004, 0.004, 60.0):
        took.add(seconds)
    up = policy("east/1", state="established", pairs=1, since=100.5, lifetime=3600)
    down = policy("north/1", failures=3)
    for each, held in ((up, 0), (down, 9)):
        each.update(policy_traffic(PolicyStatistics((), (carried or {}).get(each["name"], Carried()), held)))
    keying = {
        "counters": {"malformed": 2},
        "labelled": labelled,
        "seconds": {"status": took.status()},
    }
    drops = {DropReason.REPLAYED: 4}
    traffic = Totals(
        packets_out=7,
        octets_out=700,
        packets_in=5,
        octets_in=500,
        drops=drops,
        events_lost=0,
        unused_ecn={"not_ect_in_ce": 1},
    )
    return {
        "version": "0.1.0",
        "engine": "native",
        "ciphers": "OpenSSL 3.0.19",
        "queues": 2,
        "key_log": None,
        "offloads": {"tso": None, "uso": "not there"},
        "tickets": {"kept": 1, "first_ends": 100.0, "not_renewed": 0, "ends": {"kink/east@TEST": NOW + 100}},
        "peers": [
            {"name": "east", "state": "established", "last_heard": 2.5, "policies": [up]},
            {"name": 'no"rth\\\n', "state": "down", "last_heard": None, "policies": [down]},
        ],
        "counters": counters(keying, traffic, LinkStatistics(junk_received=4)),
    }


def samples(of: dict[str, Any]) -> dict[tuple[str, tuple[str, ...]], float]:
    """Each by its name and the values of its labels."""
    found: list[Sample] = [sample for family in families(of, NOW) for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in found}


def test_a_tunnel_that_is_down_is_nought_and_not_absent() -> None:
    found = samples(status())
    down = 'no"rth\\\n', "north/1"
    assert found["kinkvpn_peer_up", ("east",)] == found["kinkvpn_policy_up", ("east", "east/1")] == 1
    assert found["kinkvpn_peer_up", down[:1]] == found["kinkvpn_policy_up", down] == 0
    assert found["kinkvpn_policy_sa_seconds_left", ("east", "east/1")] == 3499.5
    for name, (_, _, labels) in METRICS.items():
        if labels[:2] == ("peer", "policy"):
            ways: list[tuple[str, ...]] = [("in",), ("out",)] if labels[2:] else [()]
            assert all((name, (*down, *way)) in found for way in ways), name
    assert found["kinkvpn_policy_failures", down] == 3
    assert found["kinkvpn_policy_held_packets", down] == 9


def test_what_never_happened_is_nought_and_not_absent() -> None:
    found = samples(status())
    assert {reason.value for reason in DropReason} == {
        labels[0] for name, labels in found if name == "kinkvpn_drops_total"
    }
    assert found["kinkvpn_drops_total", ("replayed",)] == 4
    assert sum(count for (name, _), count in found.items() if name == "kinkvpn_drops_total") == 4
    assert {tally.value for tally in Tally} == {
        labels[0] for name, labels in found if name == "kinkvpn_kink_events_total"
    }
    assert found["kinkvpn_kink_events_total", ("malformed",)] == 2
    assert found["kinkvpn_exchange_duration_seconds_count", ("create",)] == 0
    assert found["kinkvpn_offload_active", ("tso",)] == 1
    assert found["kinkvpn_offload_active", ("uso",)] == 0


def test_times_are_points_in_time() -> None:
    found = samples(status())
    assert found["kinkvpn_peer_last_heard_timestamp_seconds", ("east",)] == NOW - 2.5
    assert found["kinkvpn_peer_last_heard_timestamp_seconds", ('no"rth\\\n',)] == 0
    assert found["kinkvpn_ticket_expiry_timestamp_seconds", ("kink/east@TEST",)] == NOW + 100


def test_an_sa_past_its_life_has_no_seconds_left() -> None:
    assert seconds_left({"since": 61.0, "lifetime": 60}) == seconds_left({"since": None, "lifetime": None}) == 0


def test_how_long_exchanges_took() -> None:
    found = samples(status())
    name = "kinkvpn_exchange_duration_seconds"
    buckets = [count for (each, labels), count in found.items() if (each, *labels[:1]) == (f"{name}_bucket", "status")]
    assert buckets == [1, 1, *[2] * 11, 3], "those above the last class too"
    assert found[f"{name}_count", ("status",)] == 3
    assert found[f"{name}_sum", ("status",)] == pytest.approx(60.0044)


def test_every_family_of_the_counters_has_a_metric() -> None:
    labelled = {
        "messages_received": {"create": 2},
        "messages_sent": {"reply": 2},
        "kink_errors_received": {"ok": 1},
        "kink_errors_sent": {"other": 1},
        "krb_errors_received": {"37": 1},
        "krb_errors_sent": {"unreadable": 1},
        "notifies_received": {"invalid_spi": 1},
        "notifies_sent": {"other_error": 1},
        "exchanges": {"create.completed": 4, "create.failed.no_ticket": 1},
        "answers": {"create.granted_3way": 3},
        "tickets": {"ready": 5},
    }
    found = samples(status(**labelled))
    assert found["kinkvpn_exchanges_total", ("create", "failed.no_ticket")] == 1
    assert found["kinkvpn_answers_total", ("create", "granted_3way")] == 3
    assert found["kinkvpn_ticket_requests_total", ("ready",)] == 5
    assert found["kinkvpn_krb_errors_received_total", ("37",)] == 1
    took = "kinkvpn_exchange_duration_seconds"
    assert {name for name, _ in found if not name.startswith(took)} == set(METRICS) - {took}, "all have a sample"


def test_the_page_about_them_has_each_once_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs/watching.md").read_text()
    rows = re.findall(r"^\| `(kinkvpn_\w+)` \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    shown = [(name, labels, re.sub(r"\[(.+?)\]\(.+?\)", r"docs/\1", text)) for name, labels, text in rows]
    assert shown == [
        (name, ", ".join(f"`{label}`" for label in labels) or "-", text.rstrip("."))
        for name, (_, text, labels) in METRICS.items()
    ]


def test_both_formats_say_the_same() -> None:
    text, plain = exposition(status())
    assert plain.startswith("text/plain")
    body, content_type = exposition(status(), OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    for parsed in (
        list(text_string_to_metric_families(text.decode())),
        list(openmetrics.text_string_to_metric_families(body.decode())),
    ):
        found = {sample.name for family in parsed for sample in family.samples}
        assert {"kinkvpn_drops_total", "kinkvpn_build_info", "kinkvpn_exchange_duration_seconds_bucket"} <= found
        (peers,) = (family.samples for family in parsed if family.name == "kinkvpn_peer_up")
        assert [sample.labels["peer"] for sample in peers] == ["east", 'no"rth\\\n']


def test_promtool_finds_nothing_to_say() -> None:
    text, _ = exposition(status(exchanges={"create.completed": 1}))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
