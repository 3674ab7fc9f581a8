"""A report of iperf3 is read, or said not to be one. The report is that of 3.12, cut to what is looked at."""

from __future__ import annotations

import fcntl
import json

import pytest

from bench.iperf import command, parse, server
from kinkvpn.demo.namespace import LabFailed, Namespace

REPORT = {
    "start": {"version": "iperf 3.12"},
    "end": {
        "sum_sent": {"seconds": 2.0, "bytes": 2_500_000_000, "bits_per_second": 1e10, "sender": True},
        "sum_received": {"seconds": 2.0, "bytes": 2_000_000_000, "bits_per_second": 8e9, "sender": True},
    },
}


def test_what_counts_is_what_was_received() -> None:
    transfer = parse(json.dumps(REPORT))
    assert (transfer.octets, transfer.gbit_per_second) == (2_000_000_000, 8.0)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ('{"start": {}, "error": "unable to connect to server: Connection refused"}', "Connection refused"),
        ("", "without a report"),
        ("[]", "without a report"),
        ('{"end": {}}', "without a report"),
        ('{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}', "nothing arrived"),
    ],
)
def test_a_failure_is_no_figure(report: str, reason: str) -> None:
    with pytest.raises(LabFailed, match=reason):
        parse(report)


def test_backwards_is_told_to_iperf3_alone() -> None:
    there = command("10.2.0.1", streams=4, backwards=False, seconds=2)
    assert there[there.index("--parallel") + 1] == "4"
    assert there[there.index("--time") + 1] == "2"
    assert command("10.2.0.1", streams=4, backwards=True, seconds=2) == [*there, "--reverse"]


@pytest.mark.root
def test_a_server_outlives_what_it_says() -> None:
    """Of many transfers, which is more than a pipe holds."""
    with Namespace("iperf") as namespace:
        namespace.ip("link set lo up")
        with server(namespace) as listener:
            assert listener.stdout is not None
            fcntl.fcntl(listener.stdout, fcntl.F_SETPIPE_SZ, 4096)
            for _ in range(4):
                asked = command("127.0.0.1", streams=16, backwards=False, seconds=1)
                done = namespace.run([*asked, "--bitrate", "1M", "--interval", "0.1"])
                assert parse(done).octets > 0
