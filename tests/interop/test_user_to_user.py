"""User-to-user between real daemons: by policy, when KDC or peer ask for it, with a person's kinit, with PKINIT.

RFC 4430 §3.1, §3.7.1, §4.2.4, §4.2.5, §6.6.
"""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.lab import (
    amend,
    answers,
    ask,
    crosswise,
    events,
    kinit,
    policy,
    spis,
    start,
    status,
    wait,
    within,
    without_keytab,
)
from support.pkinit import PkinitRealm

from kinkvpn.demo.lab import KDC_ADDRESS, KDC_PORT, Host, Lab
from kinkvpn.demo.traffic import ping
from kinkvpn.proto.allowance import BURST
from kinkvpn.wire.kink import KinkError, KrbError, Message, MessageType, TgtRep, TgtReq, build_message, parse_message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PASSWORD = "correct horse battery staple"
ANSWER_SECONDS = 30.0


def kink(host: Host) -> dict[str, int]:
    """Counters of its keying."""
    counters: dict[str, int] = status(host)["counters"]["kink"]
    return counters


def established(lab: Lab) -> None:
    """Host a asks for the SAs for IPv4, host b for those for IPv6: each is once the initiator, once the responder."""
    a, b = lab.hosts
    ping(a, b, 4)
    ping(b, a, 6)
    wait(lab, a, lambda: crosswise(a, b), f"has not one pair per policy with b: {spis(a)} {spis(b)}")
    assert [policy(a, name)["role"] for name in ("b/1", "b/2")] == ["initiator", "responder"]


def rekeyed(lab: Lab) -> None:
    """Other pairs, asked for by host a, and traffic on them."""
    a, b = lab.hosts
    before = spis(a)
    ask(a, "rekey")
    wait(lab, a, lambda: crosswise(a, b) and not set(spis(a).values()) & set(before.values()), "has not rekeyed")
    ping(a, b, 4)


def test_by_policy_and_rekeys_need_no_gettgt(lab: Lab) -> None:
    for host in lab.hosts:
        amend(host, "[peer]", user_to_user="always")
    start(lab)
    established(lab)
    for host in lab.hosts:
        assert (kink(host)["gettgt_answered"], kink(host)["tgt_received"]) == (1, 1)
    rekeyed(lab)
    for host in lab.hosts:
        assert kink(host)["gettgt_answered"] == 1
        assert not kink(host).keys() & {"ap_request_refused", "user_to_user_required", "commands_retransmitted"}


@pytest.fixture
def keyless(lab: Lab) -> Iterator[Lab]:
    """A KDC that makes no service tickets for host b."""
    lab.realm.kadmin("modprinc", "-allow_svr", lab.hosts[1].principal)  # an MIT realm
    yield lab
    lab.realm.kadmin("modprinc", "+allow_svr", lab.hosts[1].principal)


def test_when_the_kdc_says_so(keyless: Lab) -> None:
    """KDC_ERR_MUST_USE_USER2USER."""
    a, b = keyless.hosts
    start(keyless)
    established(keyless)
    assert kink(a)["user_to_user_required"] == kink(b)["gettgt_answered"] == 1
    assert "gettgt_answered" not in kink(a)  # towards a there are service tickets
    rekeyed(keyless)
    assert kink(a)["user_to_user_required"] == 1  # known by now


def test_where_it_is_never_wanted_the_kdc_s_word_is_the_end(keyless: Lab) -> None:
    a, b = keyless.hosts
    for host in keyless.hosts:
        amend(host, "[peer]", user_to_user="never", start="boot")
    start(keyless, a)
    wait(keyless, a, lambda: policy(a, "b/1")["failures"] > 0, "has not failed")
    assert "has user-to-user tickets only for that principal" in policy(a, "b/1")["last_error"]
    start(keyless, b)
    message = asked(a, b, TgtReq(b.principal.encode()))
    assert message.payloads == (KinkError(7),)
    assert kink(b)["gettgt_refused"] == 1


def people(lab: Lab) -> dict[str, Path]:
    """Host a is alice's, host b is bob's: nobody's key is on either, only what kinit has brought."""
    names = {"a": "alice", "b": "bob"}
    ccaches = {}
    realm: Any = lab.realm
    for host, other in (lab.hosts, lab.hosts[::-1]):
        me = f"{names[host.name]}@{realm.name}"
        if me not in realm.kadmin("listprincs").splitlines():
            realm.kadmin("addprinc", "-pw", PASSWORD, me)
        ccache = ccaches[host.name] = host.configuration.parent / "ccache"
        kinit(lab, host, ccache, me, stdin=f"{PASSWORD}\n")
        without_keytab(host, ccache)
        amend(host, "host", principal=me)
        amend(host, "[peer]", principal=f"{names[other.name]}@{realm.name}")
    return ccaches


def test_two_people_with_nothing_but_a_ccache(lab: Lab) -> None:
    """Full peers in both roles: each says that it takes user-to-user only, and is asked for its ticket."""
    people(lab)
    start(lab)
    established(lab)
    for host in lab.hosts:
        counters = kink(host)
        assert counters["ap_request_refused"] == counters["user_to_user_required"] == 1
        assert counters["gettgt_answered"] == counters["tgt_received"] == 1
        assert "create_failed" not in host.log.read_text()
        assert status(host)["peers"][0]["user_to_user"]
    rekeyed(lab)
    assert kink(lab.hosts[1])["ap_request_refused"] == 1


def test_a_peer_that_came_back_with_another_ticket(lab: Lab) -> None:
    """RFC 4430 §3.7.1: bob does kinit anew and starts again; alice's ticket was made with what he had before."""
    a, b = lab.hosts
    ccaches = people(lab)
    start(lab)
    established(lab)
    epoch = status(a)["peers"][0]["epoch"]
    b.kill()
    kinit(lab, b, ccaches["b"], f"bob@{lab.realm.name}", stdin=f"{PASSWORD}\n")
    wait(lab, b, lambda: time.time() >= epoch + 1, "has no new epoch")  # whole seconds (RFC 4430 §4.2.1)
    start(lab, b)
    ask(a, "rekey")
    wait(lab, a, lambda: crosswise(a, b), "has no pairs with the peer that came back")
    assert kink(b)["stale_tgt"] == kink(a)["tgt_offered"] == 1  # one CREATE for both policies
    assert "gettgt_answered" not in kink(b)
    # The offer itself told nothing of a restart; the first authentic answer did.
    assert len(events(a, "peer_restarted")) == 1
    ping(a, b, 4)


def asked(asker: Host, answerer: Host, *payloads: TgtReq) -> Message:
    """What a GETTGT from somebody on the wire is answered."""
    with within(asker.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        stranger.settimeout(ANSWER_SECONDS)
        stranger.sendto(build_message(Message(MessageType.GETTGT, 4711, payloads)), (answerer.site.wire, 910))
        message = parse_message(stranger.recv(65535))
    assert (message.type, message.xid) == (MessageType.REPLY, 4711)
    return message


def test_what_strangers_get(lab: Lab) -> None:
    """Our ticket-granting ticket for our name, KRB_AP_ERR_NOT_US for another, nothing of either without end."""
    a, b = lab.hosts
    start(lab, b)
    (ticket,) = asked(a, b, TgtReq(b.principal.encode())).payloads
    assert isinstance(ticket, TgtRep)
    (error,) = asked(a, b, TgtReq(a.principal.encode())).payloads
    assert isinstance(error, KrbError)
    with within(a.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        for xid in range(100):
            message = Message(MessageType.GETTGT, xid, (TgtReq(b.principal.encode()),))
            stranger.sendto(build_message(message), (b.site.wire, 910))
        wait(lab, b, lambda: kink(b)["gettgt_answered"] == 101, "has not seen them all")
        answered = answers_waiting(stranger)
    assert kink(b)["gettgt_not_us"] == 1
    assert kink(b)["error_suppressed"] == 100 - answered
    assert 0 < answered <= BURST
    assert answers(b)


def answers_waiting(listener: socket.socket) -> int:
    """Datagrams that have come, all of which were sent before a later question was answered."""
    listener.settimeout(0.2)
    count = 0
    try:
        while listener.recv(65535):
            count += 1
    except TimeoutError:
        return count
    return count


def test_a_laptop_that_nobody_knows_the_address_of(lab: Lab) -> None:
    """Alice's kinit on one side, behind port 4500 alone; a gateway with a keytab on the other, which is asked nothing.

    When the gateway has to start an exchange itself, it asks for alice's ticket where it has heard her.
    """
    laptop, gateway = lab.hosts
    keytab, principal = gateway.configuration.read_text(), gateway.principal
    people(lab)
    gateway.configuration.write_text(keytab)
    amend(gateway, "[peer]", principal=f"alice@{lab.realm.name}")
    gateway.configuration.write_text(re.sub(r'^address = ".*"\n', "", gateway.configuration.read_text(), flags=re.M))
    amend(laptop, "[peer]", principal=principal)
    amend(laptop, "kink", over="4500")
    start(lab)
    ping(laptop, gateway, 4)
    assert not kink(laptop).keys() & {"tgt_received", "gettgt_answered", "user_to_user_required"}
    ping(gateway, laptop, 6)
    wait(lab, laptop, lambda: crosswise(laptop, gateway), "has not one pair per policy with the gateway")
    assert kink(gateway)["user_to_user_required"] == kink(laptop)["gettgt_answered"] == 1
    laptop.stop()
    wait(lab, gateway, lambda: spis(gateway) == {}, "still has SAs of a laptop that said good-bye")


# ------------------------------------------------------------ PKINIT


@pytest.fixture
def pkinit(directory: Path) -> Iterator[Lab]:
    """A laboratory in a realm of certificates; both hosts have a ticket by theirs, and no keys."""
    place = directory / "pkinit"
    place.mkdir()

    def realm(where: Path, prefix: Any) -> list[PkinitRealm]:
        return [PkinitRealm(where / "realm", KDC_PORT, addresses=(KDC_ADDRESS,), prefix=prefix)]

    with Lab(place, realms=realm) as lab:
        lab.start_realm()
        lab.start_hosts()
        for host in lab.hosts:
            home = host.configuration.parent
            identity = f"X509_user_identity=FILE:{home}/keytab.pem,{home}/keytab.key"
            kinit(lab, host, home / "ccache", "-X", identity, host.principal)
            without_keytab(host, home / "ccache")
        try:
            yield lab
        finally:
            for host in lab.hosts:
                print(f"--- host {host.name}\n{host.log.read_text() if host.log.exists() else ''}")


def test_two_hosts_with_certificates(pkinit: Lab) -> None:
    """RFC 4430 §2: the KDC has no key of either, and their tickets come from PKINIT (RFC 4556)."""
    start(pkinit)
    established(pkinit)
    for host in pkinit.hosts:
        assert kink(host)["user_to_user_required"] == kink(host)["gettgt_answered"] == 1
        assert "ap_request_refused" not in kink(host), "the KDC has said it before"
