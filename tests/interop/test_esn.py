"""Extended sequence numbers between two daemon processes: agreed on, said, and done without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.lab import amend, command, configure, crosswise, events, policy, start, wait

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, DaemonOptions, Lab
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def test_two_daemons_agree_on_them_in_two_messages(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    start(lab)
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        ping(a, b, 4)
        assert capture.stop() == 0
        assert capture.classify({}).kink == {"CREATE": 1, "REPLY": 1}
    ping(b, a, 4)
    wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair with a")
    assert policy(a, "b/1")["esn"] is policy(b, "a/1")["esn"] is True
    assert " esn=yes" in events(a, "sa_established")[0]
    assert " aes256-gcm16 with ESN " in command(a, "status").stdout


def test_a_peer_without_them_takes_the_second_transform(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    amend(b, "[peer]", esn="never")
    start(lab)
    with Capture(a.namespace, WIRE, directory / "wire.pcap") as capture:
        ping(a, b, 4)
        assert capture.stop() == 0
        assert capture.classify({}).kink == {"CREATE": 1, "REPLY": 1, "ACK": 1}
    ping(b, a, 4)
    wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair with a")
    assert policy(a, "b/1")["esn"] is policy(b, "a/1")["esn"] is False
