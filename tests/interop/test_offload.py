"""Bulk traffic through two daemons, with the kernel's offloads and without: every octet comes, and it is said how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.lab import command, configure, start, status

from esp.offload import Offload
from kinkvpn.demo.lab import DaemonOptions, Lab
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.kdc]

TRANSFERRED = 8_000_000
LEFT_TO_THE_KERNEL = {Offload.TSO, Offload.USO}


def choose(host: Host, offloads: str) -> None:
    """All of them ``"auto"`` or ``"off"``."""
    lines = "\n".join(f'{each.value} = "{offloads}"' for each in Offload)
    host.configuration.write_text(f"{host.configuration.read_text()}\n[offload]\n{lines}\n")


@pytest.mark.parametrize(("here", "there"), [("auto", "auto"), ("auto", "off"), ("off", "off")])
def test_tcp_comes_whole_both_ways_over_both_families(lab: Lab, here: str, there: str) -> None:
    a, b = configure(lab, DaemonOptions(engine="portable"))
    choose(a, here)
    choose(b, there)
    start(lab)
    for version in (4, 6):
        ping(a, b, version)
        for source, target in ((a, b), (b, a)):
            assert transfer(source, target, TRANSFERRED, lambda _: None, version).equal
    for host, chosen in ((a, here), (b, there)):
        found = status(host)
        assert found["engine"] == "portable"
        used = {each for each in Offload if found["offloads"][each.value] is None}
        assert used == (set(Offload) - LEFT_TO_THE_KERNEL if chosen == "auto" else set())
        assert not set(found["counters"]["drops"]) - {"link_refused", "tun_refused"}, "a full buffer is no fault"
        shown = command(host, "status").stdout
        assert ("coalesce, udp_segment, udp_gro; no tso: the kernel cuts" in shown) == (chosen == "auto")
        assert ("none; no tso: off in the configuration" in shown) == (chosen == "off")
