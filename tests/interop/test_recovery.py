"""What breaks comes back: a daemon killed in mid-transfer, a KDC that is gone, one that accepts and never answers."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.lab import (
    amend,
    configure,
    control_socket,
    crosswise,
    events,
    pinging,
    policy,
    spis,
    start,
    status,
    wait,
)

from kinkvpn.demo.lab import KDC_ADDRESS, DaemonOptions, Host, Lab
from kinkvpn.demo.traffic import ping, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

TRANSFERRED = 300_000_000  # some seconds, with the compiled engine too
KILL_AFTER = 5_000_000
LIFETIME = 12  # seconds; as short as a configuration may ask for, nearly
KDC_TIMEOUT = 2.0
PATIENCE = 30.0  # for what takes a moment, on a busy machine


@pytest.mark.parametrize("begins", ["demand", "boot"])
@pytest.mark.parametrize("victim", ["a", "b"], ids=["sender", "receiver"])
def test_a_killed_daemon_starts_again_and_the_transfer_goes_on(lab: Lab, victim: str, begins: str) -> None:
    """SIGKILL in mid-transfer, `up` again, nothing cleaned up in between: the same TCP connection ends well.

    What the sender still sends makes its new daemon ask for an SA. A receiver that starts on demand has nothing to
    send: what comes for SPIs that it does not know makes it tell the sender.
    """
    a, b = configure(lab, DaemonOptions(start=begins))
    dead, alive = (a, b) if victim == "a" else (b, a)
    start(lab)
    ping(a, b, 4)
    first = spis(dead)["4"]
    restarted = threading.Event()
    seen: list[str] = []

    def kill(octets: int) -> None:
        if octets > KILL_AFTER and not restarted.is_set():
            restarted.set()
            dead.kill()
            seen.append(dead.namespace.run(["ip", "-o", "link"]))
            assert stat.S_ISSOCK(control_socket(dead).stat().st_mode), "a crash leaves its control socket"
            epoch = status(alive)["peers"][0]["epoch"]
            wait(lab, dead, lambda: time.time() >= epoch + 1, "has no new epoch")  # whole seconds (RFC 4430 §4.2.1)
            start(lab, dead)

    assert transfer(a, b, TRANSFERRED, kill).octets == TRANSFERRED
    assert "kink0" not in seen[0], "the device outlived the process that had it"
    assert len(events(alive, "peer_restarted")) == 1
    wait(lab, alive, lambda: crosswise(a, b, "46" if begins == "boot" else "4"), "has not one pair per policy")
    assert spis(dead)["4"][0] != first[0]
    for version in (4, 6):
        ping(b, a, version)


def test_rekeys_without_a_kdc(lab: Lab) -> None:
    """The tickets are cached: a ping through two rekeys loses nothing while no KDC runs."""
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "[peer]", lifetime=LIFETIME, delete_grace=1.0)
    start(lab)
    ping(a, b, 4)
    first = spis(a)["4"]
    with no_kdc(lab):
        with pinging(a, b) as lost:
            wait(lab, a, lambda: len(events(a, "sa_established")) == 3, "has not rekeyed twice", 2.5 * LIFETIME)
        assert lost == [0]
        wait(lab, b, lambda: crosswise(a, b, "4"), "has not one pair per policy")
    assert spis(a)["4"] != first
    assert policy(a, "b/1")["role"] == "initiator", "who made the first pair makes its successors (RFC 4430 §3.6)"
    assert not events(a, "sa_expired") + events(b, "sa_expired")


@contextmanager
def no_kdc(lab: Lab) -> Iterator[None]:
    """Ends the KDC by its own pid, and starts it again with the same database."""
    assert lab.realm.pid is not None
    os.kill(lab.realm.pid, signal.SIGKILL)
    lab.realm.stop()
    try:
        yield
    finally:
        lab.realm.start()


@contextmanager
def frozen_kdc(lab: Lab) -> Iterator[None]:
    """It accepts and never answers: the worst that libkrb5 can be dealt."""
    assert lab.realm.pid is not None
    os.kill(lab.realm.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(lab.realm.pid, signal.SIGCONT)


def test_a_frozen_kdc_holds_up_nothing_but_its_exchange(lab: Lab) -> None:
    """Status answers all the while, traffic goes on, the failure names KDC and time, and all is well afterwards."""
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "host", kdc_timeout=KDC_TIMEOUT)
    start(lab)
    with frozen_kdc(lab):
        began = time.monotonic()
        ping_once(a, b)
        assert policy(a, "b/1")["waits_for"] == "kdc"
        while not policy_failed(a):
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.05)
        assert time.monotonic() - began >= KDC_TIMEOUT
        reason = policy(a, "b/1")["last_error"]
        assert f"no ticket for {b.principal}" in reason
        assert f"no answer from the KDC of {lab.realm.name} ({KDC_ADDRESS}:88) in " in reason
        told = events(a, "create_failed")  # of more than one try, on a busy machine
        assert told
        assert all(KDC_ADDRESS in line for line in told)
    wait(lab, a, lambda: recovered(a, b), "has not recovered with its KDC")
    ping(a, b, 4)
    assert policy(a, "b/1")["failures"] == 0


def policy_failed(host: Host) -> bool:
    return bool(policy(host, "b/1")["failures"])


def ping_once(source: Host, target: Host) -> bool:
    command = ["ping", "-n", "-c1", "-W1", target.site.inner_address(4)]
    return source.namespace.spawn(command).wait() == 0


def recovered(source: Host, target: Host) -> bool:
    return ping_once(source, target) and "4" in spis(source)


def test_traffic_and_responding_need_no_kdc(lab: Lab) -> None:
    """With the KDC frozen, an established SA carries on, and the peer that has a ticket can still make one."""
    a, b = lab.hosts
    start(lab)
    ping(a, b, 4)
    with frozen_kdc(lab), pinging(a, b) as lost:
        ping(a, b, 6)
        for _ in range(10):
            status(b)
            time.sleep(0.2)
    assert lost == [0]


def test_a_kdc_that_is_gone_and_comes_back(lab: Lab) -> None:
    """Nobody has to wait for what is refused at once; the next packet after its return gets through."""
    a, b = lab.hosts
    for host in (a, b):
        amend(host, "host", kdc_timeout=2 * PATIENCE)
    start(lab)
    with no_kdc(lab):
        assert not ping_once(a, b)
        wait(lab, a, lambda: policy_failed(a), "does not tell that it has no ticket", PATIENCE)
        assert f"no answer from the KDC of {lab.realm.name} ({KDC_ADDRESS}:88)" in policy(a, "b/1")["last_error"]
        assert not spis(a)
        assert not spis(b)
    wait(lab, a, lambda: recovered(a, b), "has not recovered with its KDC")
    ping(a, b, 4)
