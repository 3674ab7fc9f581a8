"""PFS between two daemon processes: every group, the retry without KE, and what insists on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.lab import amend, configure, crosswise, events, policy, start, status, wait

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab, policies
from kinkvpn.demo.traffic import ping
from kinkvpn.wire.ipsec_doi import Group

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def one_policy_for_each_group(a: Host, b: Host) -> None:
    """10.20.group/24 behind a, 10.21.group/24 behind b; a begins."""
    for host, local, remote, begins in ((a, 20, 21, "boot"), (b, 21, 20, "demand")):
        text = host.configuration.read_text()
        for group in Group:
            here, there = (f"10.{net}.{int(group)}.0/24" for net in (local, remote))
            text += (
                f'\n[[peer.policy]]\nname = "{group.label}"\nstart = "{begins}"\npfs = "{group.label}"\n'
                f'pfs_required = true\nlocal = "{here}"\nremote = "{there}"\n'
            )
        host.configuration.write_text(text)


def test_every_group(lab: Lab) -> None:
    a, b = configure(lab, DaemonOptions())
    one_policy_for_each_group(a, b)
    start(lab, b)
    start(lab, a)
    for group in Group:
        wait(lab, a, lambda group=group: policy(a, group.label)["state"] == "established", f"has no {group.label}")
        wait(lab, b, lambda group=group: policy(b, group.label)["state"] == "established", f"has no {group.label}")
        here, there = policy(a, group.label), policy(b, group.label)
        assert here["pfs"] == there["pfs"] == group.label
        assert (here["spi_in"], here["spi_out"]) == (there["spi_out"], there["spi_in"])
        print(f"{group.label}: CREATE took {here['create_ms']} ms")
    assert status(b)["counters"]["kink"]["key_exchanges"] == len(Group)


def test_packets_pass_and_the_handshake_is_three_way(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    for host in (a, b):
        amend(host, "[peer]", pfs="x25519", pfs_required=True)
    start(lab)
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        ping(a, b, 4)
        assert capture.stop() == 0
        assert capture.classify({}).kink == {"CREATE": 1, "REPLY": 1, "ACK": 1}
    ping(b, a, 4)
    wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair with a")
    assert policy(a, "b/1")["pfs"] == policy(b, "a/1")["pfs"] == "x25519"


def test_a_peer_without_pfs_is_asked_again_without(lab: Lab, directory: Path) -> None:
    """RFC 4430 §3.2: INVALID-PAYLOAD-TYPE, and another transaction."""
    a, b = configure(lab, DaemonOptions())
    amend(a, "[peer]", pfs=["x25519", "ecp256"])
    start(lab)
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        ping(a, b, 4)
        assert capture.stop() == 0
        assert capture.classify({}).kink == {"CREATE": 2, "REPLY": 2}
    assert policy(a, "b/1")["pfs"] is None
    assert "does no PFS" in events(a, "create_failed")[0]


def test_a_policy_that_requires_pfs_does_not_go_without(lab: Lab) -> None:
    a, b = configure(lab, DaemonOptions(start="boot"))
    amend(a, "[peer]", pfs="x25519", pfs_required=True)
    amend(b, "[peer]", start="demand")
    start(lab, b)
    start(lab, a)
    wait(lab, a, lambda: policy(a, "b/1")["failures"] > 0, "was not refused")
    assert "does no PFS" in policy(a, "b/1")["last_error"]
    assert {one["state"] for one in policies(status(b))} == {"down"}
