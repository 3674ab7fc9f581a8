"""What is to be seen of two real daemons that carry traffic, are rekeyed, restart and go."""

from __future__ import annotations

import subprocess
from shutil import which
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.lab import command, configure, events, policy, start, status, wait

from kinkvpn.demo.lab import DaemonOptions, Host, Lab
from kinkvpn.metrics import exposition

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def series(host: Host) -> dict[tuple[str, tuple[str, ...]], float]:
    """Everything that a collector gets of the host's daemon now."""
    text, _ = exposition(status(host))
    if which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout) == (0, b"")
    families = text_string_to_metric_families(text.decode())
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


def counting(found: dict[tuple[str, tuple[str, ...]], float]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those that a collector takes the rate of."""
    return (key for key in found if key[0].endswith(("_total", "_bucket", "_count", "_sum")))


def talk(lab: Lab, source: Host, target: Host) -> None:
    """Pings until something has gone both ways through the SAs of now."""
    a, _ = lab.hosts
    before = policy(a, "b/1")
    with source.namespace.spawn(
        ["ping", "-n", "-i", "0.05", target.site.inner_address(4)], stdout=subprocess.DEVNULL
    ) as pings:
        try:
            for way in ("packets_in", "packets_out"):
                wait(lab, source, lambda way=way: policy(a, "b/1")[way] > before[way], f"carries no {way}")
        finally:
            pings.kill()


@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_nothing_that_counts_goes_back_when_keys_and_peers_do(lab: Lab, engine: str) -> None:
    """A rekey from here, one from there, a peer that is killed and comes again: what was carried stays carried."""
    a, b = configure(lab, DaemonOptions(engine=engine))
    start(lab)
    name = "kinkvpn_policy_packets_total", ("out", "b", "b/1")
    down = series(a)
    assert (down["kinkvpn_policy_up", ("b", "b/1")], down[name]) == (0, 0)
    talk(lab, a, b)
    seen = [series(a)]
    up = seen[0]
    assert up["kinkvpn_policy_up", ("b", "b/1")] == up["kinkvpn_peer_up", ("b",)] == 1
    assert up["kinkvpn_exchange_duration_seconds_count", ("create",)] >= 1
    assert up["kinkvpn_policy_sa_seconds_left", ("b", "b/1")] > 0
    assert up["kinkvpn_ticket_expiry_timestamp_seconds", (b.principal,)] > up["process_start_time_seconds", ()]
    for host, other in ((a, "b"), (b, "a")):
        before = policy(host, f"{other}/1")["spi_out"]
        assert command(host, "rekey", other).returncode == 0
        assert policy(host, f"{other}/1")["spi_out"] != before
        talk(lab, a, b)
        seen.append(series(a))
    wait(lab, a, lambda: policy(a, "b/1")["pairs"] == 1, "still has the pairs of before")
    b.kill()
    start(lab, b)
    talk(lab, b, a)
    wait(lab, a, lambda: bool(events(a, "peer_restarted")), "has not noticed that its peer began anew")
    seen.append(series(a))
    for earlier, later in zip([down, *seen], seen, strict=False):
        assert later[name] > earlier[name]
        assert not [key for key in counting(earlier) if later[key] < earlier[key]]
