"""Round trips are read from what ping says. (Load itself needs root: tests/bench/test_datapath.py.)"""

from __future__ import annotations

import pytest

from bench.load import round_trip_figures
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
