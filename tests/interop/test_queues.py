"""Two daemons with other numbers of queues: the peer need not know, and nothing that passes shows it."""

from __future__ import annotations

import pytest
from support.lab import command, configure, start, status

from kinkvpn.demo.lab import DaemonOptions, Lab
from kinkvpn.demo.traffic import ping, transfer

pytestmark = [pytest.mark.root, pytest.mark.kdc]

TRANSFERRED = 8_000_000  # fewer packets than a replay window has room for: see docs/native.md on SAs that lanes share


@pytest.mark.parametrize("queues", [(4, 4), (4, 1)], ids=["four and four", "four and one"])
def test_streams_come_whole_both_ways_over_both_families(lab: Lab, queues: tuple[int, int]) -> None:
    hosts = configure(lab, DaemonOptions(engine="native", queues=4))
    for host, number in zip(hosts, queues, strict=True):
        text = host.configuration.read_text()
        host.configuration.write_text(text.replace("queues = 4", f"queues = {number}"))
    a, b = hosts
    start(lab)
    for version in (4, 6):
        ping(a, b, version)
        for source, target in ((a, b), (b, a)):
            assert transfer(source, target, TRANSFERRED, lambda _: None, version).equal
        assert "spi in" in command(a, "rekey").stdout
    for host, number in zip(hosts, queues, strict=True):
        found = status(host)
        assert (found["engine"], found["queues"]) == ("native", number)
        assert not set(found["counters"]["drops"]) - {"link_refused", "tun_refused"}, "a full buffer is no fault"
        assert ("; 4 queues" in command(host, "status").stdout) == (number == 4)
