"""The life of an SA under full load: hundreds of rekeys, and not one packet is lost (RFC 4430 §3.6)."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.flow import flowing
from support.lab import amend, ask, command, crosswise, events, policy, spis, start, status, wait

from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]

REKEYS = 500
COLLISIONS = 50
BY_ITSELF = 3


def established(host: Host) -> int:
    """How many pairs of SAs the host has made, or granted."""
    answers = status(host)["counters"]["kink_labelled"].get("answers", {}).items()
    return initiated(host) + sum(count for name, count in answers if name.startswith("create.granted"))


@pytest.mark.parametrize("nonces", [False, True], ids=["2-way", "3-way"])
def test_five_hundred_rekeys_under_full_load_lose_nothing(lab: Lab, nonces: bool) -> None:
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "[peer]", delete_grace=1.0, responder_nonce=nonces)
    start(lab)
    ping(a, b, 4)
    with flowing(a, b) as flow:
        began = time.monotonic()
        for _ in range(REKEYS):
            before = spis(a)["4"]
            ask(a, "rekey", peer="b")
            assert spis(a)["4"] != before
        seconds = time.monotonic() - began
    assert flow.lost == 0
    for host in (a, b):
        assert status(host)["counters"]["drops"] == {}
        assert established(host) == REKEYS + 1
        assert not events(host, "sa_expired")
    wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair with a")
    print(
        json.dumps(
            {
                "rekeys": REKEYS,
                "seconds": round(seconds, 2),
                "rekeys_per_s": round(REKEYS / seconds, 1),
                "packets_each_way": flow.sent,
                "packets_each_way_per_s": round(flow.sent / seconds),
                "longest_pause_ms": round(1000 * flow.longest_pause, 1),
                "lost": flow.lost,
            }
        )
    )


def test_both_ends_rekey_at_once_under_full_load(lab: Lab) -> None:
    """Each pair that one of them makes meets one that the other makes: in the end there is one, and nothing is lost."""
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "[peer]", delete_grace=1.0)
    start(lab)
    ping(a, b, 4)
    with flowing(a, b) as flow:
        for _ in range(COLLISIONS):
            other = threading.Thread(target=ask, args=(b, "rekey"))
            other.start()
            ask(a, "rekey")
            other.join()
        wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair with a")
    assert flow.lost == 0
    for host in (a, b):
        assert status(host)["counters"]["drops"] == {}
        assert initiated(host) >= COLLISIONS
        assert not events(host, "sa_expired")


@pytest.mark.parametrize(
    ("who", "limit"),
    [("a", {"lifetime_kilobytes": 40960}), ("a", {"lifetime_packets": 40000}), ("b", {"lifetime_packets": 80000})],
    ids=["kilobytes", "packets", "packets of the responder"],
)
def test_what_an_sa_may_carry_is_never_reached(lab: Lab, who: str, limit: dict[str, int]) -> None:
    """Limits as tight as full load allows: the side that knows of the limit rekeys, and makes the pairs from then on.

    Kilobytes are agreed upon; of packets the other side knows nothing.
    """
    a, b = lab.hosts
    knows = a if who == "a" else b
    amend(knows, "[peer]", delete_grace=1.0, **limit)
    start(lab)
    ping(a, b, 4)
    made = initiated(knows)
    with flowing(a, b) as flow:
        wait(lab, knows, lambda: initiated(knows) >= made + BY_ITSELF, "does not rekey by itself", 60)
    assert flow.lost == 0
    for host in (a, b):
        assert status(host)["counters"]["drops"] == {}
        assert not events(host, "sa_expired") + events(host, "create_failed")
    wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair with a")
    assert policy(knows, "b/1" if who == "a" else "a/1")["role"] == "initiator"


def test_an_operator_rekeys(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab)
    done = command(a, "rekey")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kinkvpn: nothing is established, so there is nothing to rekey\n"
    for version in (4, 6):
        ping(a, b, version)
    before = spis(b)
    done = command(b, "rekey", "a")
    assert (done.returncode, done.stderr) == (0, "")
    after = spis(b)
    assert not set(before.values()) & set(after.values())
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["a/1", "a/2"]
    assert all(f"spi in {after[version][0]} out {after[version][1]}" in done.stdout for version in "46")
    wait(lab, a, lambda: crosswise(a, b), "has not one pair per policy with b")
    done = command(a, "rekey", "c")
    assert (done.returncode, done.stderr) == (1, "kinkvpn: no peer 'c'; there are b\n")


def initiated(host: Host) -> int:
    """How many pairs of SAs the host has made; the log says of so many that there were more."""
    exchanges = status(host)["counters"]["kink_labelled"].get("exchanges", {})
    return int(exchanges.get("create.completed", 0))
