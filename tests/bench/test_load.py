"""Round trips are read from what ping says. (Load itself needs root: tests/bench/test_datapath.py.)"""

from __future__ import annotations

import signal
import subprocess

import pytest

from bench.load import round_trip_figures, said_by
from kinkvpn.demo.namespace import LabFailed

PING = """\
PING 10.2.0.1 (10.2.0.1) 56(84) bytes of data.
64 bytes from 10.2.0.1: icmp_seq=1 ttl=64 time=0.100 ms
64 bytes from 10.2.0.1: icmp_seq=2 ttl=64 time=0.089 ms
64 bytes from 10.2.0.1: icmp_seq=3 ttl=64 time=1.50 ms

--- 10.2.0.1 ping statistics ---
3 packets transmitted, 3 received, 0% packet loss, time 4ms
rtt min/avg/max/mdev = 0.089/0.563/1.500/0.662 ms
"""


def test_median_and_percentile_are_those_of_the_answers() -> None:
    figures = round_trip_figures(PING)
    assert figures["p50_us"] == pytest.approx(100)
    assert 1400 < figures["p99_us"] <= 1500


@pytest.mark.parametrize("said", ["", PING.partition("icmp_seq=2")[0]])
def test_without_answers_there_is_no_figure(said: str) -> None:
    with pytest.raises(LabFailed, match="no answers"):
        round_trip_figures(said)


def test_what_does_not_end_by_itself_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.load.GRACE_SECONDS", 0.01)
    endless = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE, text=True)
    with pytest.raises(LabFailed, match="no end of the load"):
        said_by(endless)
    assert endless.returncode == -signal.SIGKILL


def test_what_it_says_is_what_it_said() -> None:
    assert said_by(subprocess.Popen(["echo", "42"], stdout=subprocess.PIPE, text=True)) == "42\n"
