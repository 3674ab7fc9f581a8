"""Several pairs of SAs in one CREATE between two daemon processes, seen on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.lab import amend, configure, crosswise, events, policy, spis, start, status, wait

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab, policies
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

MORE = 12  # subnets more on each side: more than one CREATE holds


def more_subnets(a: Host, b: Host, known_to_b: int = MORE) -> None:
    """A further entry with many subnets behind a; b knows of the first ``known_to_b``."""
    subnets = [f"10.11.{number}.0/24" for number in range(MORE)]
    for host, local, remote in (
        (a, str(subnets).replace("'", '"'), '"10.12.0.0/24"'),
        (b, '"10.12.0.0/24"', str(subnets[:known_to_b]).replace("'", '"')),
    ):
        begins = "boot" if host is a else "demand"
        text = f'\n[[peer.policy]]\nname = "more"\nstart = "{begins}"\nlocal = {local}\nremote = {remote}\n'
        host.configuration.write_text(host.configuration.read_text() + text)


def kink_messages(lab: Lab, directory: Path, act: Callable[[], None]) -> Counter[str]:
    """KINK messages on the wire while ``act`` runs, by type."""
    with Capture(lab.hosts[0].namespace, WIRE, directory / "wire.pcap") as capture:
        act()
        assert capture.stop() == 0
        return capture.classify({}).kink


def established(host: Host) -> list[str]:
    return [one["name"] for one in policies(status(host)) if one["state"] == "established"]


def test_boot_negotiates_both_families_in_one_round_trip(lab: Lab, directory: Path) -> None:
    a, b = lab.hosts
    amend(a, "[peer]", start="boot")
    start(lab, b)

    def boot() -> None:
        start(lab, a)
        wait(lab, b, lambda: crosswise(a, b), f"has not one pair per policy with a: {spis(a)} {spis(b)}")

    assert kink_messages(lab, directory, boot) == {"CREATE": 1, "REPLY": 1}
    for version in (4, 6):
        ping(a, b, version)
        ping(b, a, version)


def test_a_packet_brings_the_other_family_along_where_that_is_asked_for(lab: Lab, directory: Path) -> None:
    a, b = lab.hosts
    amend(a, "[peer]", together=True)
    start(lab)
    kink = kink_messages(lab, directory, lambda: ping(a, b, 4) and None)
    assert kink == {"CREATE": 1, "REPLY": 1}
    wait(lab, b, lambda: crosswise(a, b), "has not one pair per policy with a")
    ping(b, a, 6)


@pytest.mark.parametrize(("most", "creates"), [(16, 3), (4, 3), (1, 12)])
def test_many_subnets_take_few_messages(lab: Lab, directory: Path, most: int, creates: int) -> None:
    """Twelve pairs with one suite each, with ESN and without: 140 octets of Quick Mode, five to a frame."""
    a, b = configure(lab, DaemonOptions())
    more_subnets(a, b)
    amend(a, "[peer]", sas_per_create=most)
    start(lab, b)

    def boot() -> None:
        start(lab, a)
        wait(lab, a, lambda: len(established(a)) == MORE, "has not established all")

    assert kink_messages(lab, directory, boot) == {"CREATE": creates, "REPLY": creates}
    assert len(established(b)) == MORE


def test_what_is_refused_fails_alone(lab: Lab) -> None:
    """RFC 4430 §6.3: the refusal stands in its place in the REPLY, and forces the ACK."""
    a, b = configure(lab, DaemonOptions())
    more_subnets(a, b, known_to_b=MORE - 1)
    start(lab, b)
    start(lab, a)
    wait(lab, a, lambda: policy(a, f"more/{MORE}")["failures"] > 0, "was not refused")
    wait(lab, a, lambda: len(established(a)) == MORE - 1, "has not the others")
    assert established(b) == established(a) == [f"more/{number + 1}" for number in range(MORE - 1)]
    assert "NO-PROPOSAL-CHOSEN" in policy(a, f"more/{MORE}")["last_error"]
    assert status(b)["counters"]["kink_labelled"]["answers"]["create.granted_partly"] == 1
    assert any("none of its policies is for" in line for line in events(b, "command_refused"))
