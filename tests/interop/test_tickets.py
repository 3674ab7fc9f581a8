"""Real daemons, real KDCs, and time: keys that change, tickets that end, a KDC that hangs beside one that answers."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.kdc import second_kdc
from support.lab import amend, ask, crosswise, events, pinging, policy, spis, start, wait

from kinkvpn.demo.lab import KDC_ADDRESS, KDC_PORT, Host, Lab
from kinkvpn.demo.realm import Realm
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

SHORT_LIFE = 6  # seconds, of every ticket: renewed after three to four and a half
PINGS = 25  # enough of them to tell a loss
NO_KEY = re.compile(r"code=(31|44|45)")


def tickets_for(lab: Lab, server: Host) -> list[str]:
    """Lines of the KDC's log: tickets that it issued for this host."""
    log = (lab.realm.directory / "kdc.log").read_text()
    return re.findall(rf"TGS_REQ .* ISSUE: .* for {re.escape(server.principal)}$", log, re.MULTILINE)


def keytab(host: Host) -> Path:
    return host.configuration.parent / "keytab"


def test_keys_change_and_nothing_stops(lab: Lab) -> None:
    """A new key in b's keytab; tickets with the old key are good while it is there, and replaced once it is gone."""
    a, b = lab.hosts
    before = len(tickets_for(lab, b))
    start(lab)
    ping(a, b, 4)
    lab.realm.kadmin("ktadd", "-k", str(keytab(b)), b.principal)
    with pinging(a, b) as lost:
        ping(a, b, 6)
        wait(lab, a, lambda: crosswise(a, b), "has not one pair per policy")
        assert len(tickets_for(lab, b)) == before + 1, "the ticket from before, made with the old key"
        assert not events(b, "ap_request_refused")

        lab.realm.kadmin("ktremove", "-k", str(keytab(b)), b.principal, "old")
        first = spis(a)
        ask(a, "rekey")
        wait(lab, a, lambda: first["4"] not in spis(a).values() and crosswise(a, b), "has not rekeyed")
        wait(lab, a, lambda: policy(a, "b/1")["packets_out"] > PINGS, "does not ping")
    assert lost == [0]
    assert before + 2 <= len(tickets_for(lab, b)) <= before + 3, "one trip for each command that was refused"
    refused = events(b, "ap_request_refused")
    assert refused
    assert all(NO_KEY.search(line) and "kvno" in line for line in refused), refused
    assert any("unauthenticated: Kerberos error" in line for line in events(a, "command_restarted"))
    assert not events(a, "create_failed")


def test_one_kdc_hangs_and_the_other_answers(lab: Lab) -> None:
    """Traffic, answers and rekeys go on meanwhile; a ticket that nobody has comes from the second KDC in good time."""
    a, b = lab.hosts
    with second_kdc(lab.realm, KDC_ADDRESS, KDC_PORT + 1):
        start(lab)
        ping(a, b, 4)
        first = spis(a)["4"]
        with hanging(lab.realm), pinging(a, b) as lost:
            ask(a, "rekey")
            wait(lab, a, lambda: spis(a)["4"] != first and crosswise(a, b, "4"), "has not rekeyed from its ticket")
            assert policy(b, "a/1")["role"] == "responder"
            assert first_packet_arrives(b, a)
            assert policy(b, "a/2")["role"] == "initiator", "with a ticket of its own"
            wait(lab, a, lambda: policy(a, "b/1")["packets_out"] > PINGS, "does not ping")
        assert lost == [0]
    assert not events(b, "create_failed")


def first_packet_arrives(source: Host, target: Host) -> bool:
    """It waits in the daemon for its SA, and that for the ticket."""
    command = ["ping", "-6", "-n", "-c1", "-W4", target.site.inner_address(6)]
    return source.namespace.spawn(command).wait() == 0


@contextmanager
def hanging(realm: Realm) -> Iterator[None]:
    """Its KDC accepts and never answers."""
    assert realm.pid is not None
    os.kill(realm.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(realm.pid, signal.SIGCONT)


def test_no_create_waits_for_a_kdc_that_was_there_a_moment_ago(directory: Path) -> None:
    """Tickets of six seconds are fetched anew, unasked; when the KDC goes, the one at hand is fresh.

    Host b has a person's cache instead, whose ticket-granting ticket ends after six seconds and may be renewed.
    """
    place = directory / "short"
    place.mkdir()

    def realms(directory: Path, prefix: list[str]) -> list[Realm]:
        short = Realm(directory / "realm", KDC_PORT, addresses=(KDC_ADDRESS,), max_life=SHORT_LIFE, prefix=prefix)
        return [short]

    with Lab(place, realms=realms) as lab:
        lab.start_realm()
        lab.start_hosts()
        a, b = lab.hosts
        cache = keytab(b).with_name("person")
        command = ["kinit", "-r", "1h", "-c", f"FILE:{cache}", "-k", "-t", str(keytab(b)), b.principal]
        assert b.namespace.spawn(command, environment=lab.realm.environment).wait() == 0
        login, ends = cache.read_bytes(), time.time() + SHORT_LIFE
        amend(b, "host", ccache=f"FILE:{cache}")
        start(lab)
        ping(a, b, 4)
        wait(lab, a, lambda: len(tickets_for(lab, b)) == 2, "has not renewed its ticket", SHORT_LIFE)
        wait(lab, b, lambda: time.time() > ends + 1, "has no old login", SHORT_LIFE)
        assert first_packet_arrives(b, a), "with the renewed one, the person's has ended"
        assert cache.read_bytes() == login
        assert not events(a, "ticket_not_renewed"), "while there is a KDC"
        lab.realm.stop()
        first = spis(a)["4"]
        ask(a, "rekey")
        wait(lab, a, lambda: spis(a)["4"] != first and crosswise(a, b), "has not rekeyed without its KDC")
