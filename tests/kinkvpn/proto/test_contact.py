"""Two hosts and what each makes of the other beyond RFC 4430."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from support.kinkhosts import Host, Wire, assert_twins, policy, settings

from esp.sa import Endpoint
from kinkvpn.kerberos.fake import _REQUEST
from kinkvpn.proto.acquaintance import Ourselves
from kinkvpn.proto.events import FollowPeer, LimitMtu, Path, Tally, Tell
from kinkvpn.proto.extensions import UNDERSTOOD, status_notifies
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.wire.kink import ApReq, Encrypt, parse_message, parse_plaintext

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING: Mapping[str, Any] = MappingProxyType({})
ELSEWHERE = Endpoint("203.0.113.1", 20_001)


def hosts(
    wire: Wire,
    mtus: tuple[int, int] = (1400, 1400),
    a: Mapping[str, Any] = NOTHING,
    b: Mapping[str, Any] = NOTHING,
) -> tuple[Host, Host]:
    """Hosts a and b; ``a`` and ``b`` change what each has configured of the other."""
    return (
        Host(wire, "a", settings("b", policy("a"), **a), ourselves=Ourselves(mtus[0])),
        Host(wire, "b", settings("a", policy("b"), **b), ourselves=Ourselves(mtus[1])),
    )


def created(wire: Wire, a: Host, b: Host) -> None:
    a.perform(a.peer.acquired("net", wire.now))
    wire.run(wire.now + 5)
    assert_twins(a, b, 1)


def notifies(wire: Wire) -> list[tuple[str, str, int]]:
    """Who sent what kind of message with how many status notifies, for each that was sent."""
    keys = {}
    found = []
    for sender, kind, datagram in wire.log:
        message = parse_message(datagram)
        if isinstance(message.payloads[0], ApReq):
            ticket = wire.realm.find(_REQUEST.unpack(message.payloads[0].ap_req)[1])
            assert ticket is not None
            keys[message.xid] = ticket.key
        inside = [
            parse_plaintext(keys[message.xid].decrypt(payload.ciphertext))
            for payload in message.payloads
            if isinstance(payload, Encrypt)
        ]
        found.append((sender, kind, sum(len(status_notifies(payloads)) for payloads in inside)))
    return found


def test_both_learn_what_the_other_can_in_one_create() -> None:
    wire = Wire()
    a, b = hosts(wire, (1400, 1300))
    created(wire, a, b)
    assert notifies(wire) == [("a", "CREATE", 2), ("b", "REPLY", 3)]
    for host in (a, b):
        known = host.peer.contact.acquaintance
        assert known.told is not None
        assert known.told.capabilities == UNDERSTOOD
        assert known.inner_mtu == 1300
    assert a.limits == [LimitMtu("b", 1300)]
    assert b.limits == [], "its own device is no wider"
    assert a.counts[Tally.NOTIFY_IGNORED] == b.counts[Tally.NOTIFY_IGNORED] == 0


@pytest.mark.parametrize("extensions", [True, False])
@pytest.mark.parametrize("port", [0, 53])
def test_fragments_without_ports_are_for_peers_that_take_them(extensions: bool, port: int) -> None:
    """RFC 4301 §7.3: agreed on, each way, by what each side tells that it takes; a matter of SAs by ports."""
    wire = Wire()
    here, there = policy("a").selector, policy("b").selector
    one = policy("a", selector=replace(here, protocol=17, remote_port=port))
    other = policy("b", selector=replace(there, protocol=17, local_port=port))
    a = Host(wire, "a", settings("b", one, extensions=extensions))
    b = Host(wire, "b", settings("a", other))
    created(wire, a, b)
    sas = [sa for host in (a, b) for sa in (*host.inbound.values(), *host.outbound.values())]
    assert {sa.fragments for sa in sas} == {extensions and bool(port)}
    assert len(sas) == 4


def test_a_command_that_begins_anew_tells_as_much_as_the_first() -> None:
    """Whom it says nothing has nothing to answer, and is no plain peer for that."""
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")), skew=-1000, ourselves=Ourselves(1400))
    b = Host(wire, "b", settings("a", policy("b")), ourselves=Ourselves(1300))
    created(wire, a, b)
    assert notifies(wire) == [("a", "CREATE", 2), ("b", "REPLY", 0), ("a", "CREATE", 3), ("b", "REPLY", 3)]
    assert not a.peer.contact.acquaintance.plain
    assert a.limits == [LimitMtu("b", 1300)]


def test_a_peer_with_extensions_off_is_plain_and_sends_nothing_but_rfc_4430() -> None:
    wire = Wire()
    a, b = hosts(wire, b={"extensions": False})
    created(wire, a, b)
    a.perform(a.peer.probe()[1])
    b.perform(b.peer.probe()[1])
    wire.run(wire.now + 5)
    assert notifies(wire) == [
        ("a", "CREATE", 2),
        ("b", "REPLY", 0),
        ("a", "STATUS", 0),
        ("b", "STATUS", 0),
        ("b", "REPLY", 0),
        ("a", "REPLY", 0),
    ]
    assert a.peer.contact.acquaintance.plain
    assert a.limits == b.limits == []


def test_a_peer_that_drops_what_it_does_not_know_gets_its_sa_all_the_same() -> None:
    """As the other implementation does with every notify in CREATE and every payload in STATUS."""
    wire = Wire()
    a, b = hosts(wire, b={"extensions": False})
    wire.meddle = lambda _, datagram: [] if notifies(wire)[-1][2] else [datagram]
    for _ in range(2):
        a.perform(a.peer.probe()[1])
        wire.run(wire.now + 5)
    sent = [count for sender, kind, count in notifies(wire) if (sender, kind) == ("a", "STATUS")]
    assert sent == [2, 2, 0, 3, 3, 0], "the second time there is something to say of where the answer came from"
    created(wire, a, b)
    assert notifies(wire)[-2:] == [("a", "CREATE", 0), ("b", "REPLY", 0)], "it is known by now"


def test_a_restart_makes_strangers_of_friends() -> None:
    wire = Wire()
    a, b = hosts(wire)
    created(wire, a, b)
    again = Host(wire, "b", settings("a", policy("b"), extensions=False), epoch=2)
    again.perform(again.peer.probe()[1])
    wire.run(wire.now + 1)
    assert a.peer.contact.acquaintance.told is None


def test_sas_go_with_the_peer_and_every_policy_of_it() -> None:
    wire = Wire()
    a, b = hosts(wire)
    created(wire, a, b)
    contact = a.peer.contact
    effects = contact.heard(Path(ELSEWHERE, True), (2**31, 0), wire.now)
    fields = (("peer", "b"), ("address", ELSEWHERE.address), ("port", ELSEWHERE.port))
    assert effects == [Tell("endpoint_moved", fields), FollowPeer("net", ELSEWHERE)]
    assert contact.heard(Path(ELSEWHERE, True), (2**31, 1), wire.now) == []
    assert contact.esp_moved("net", Endpoint("203.0.113.2", 4500), wire.now)[1:] == []
    assert contact.esp_moved("another", ELSEWHERE, wire.now)[1:] == [FollowPeer("net", ELSEWHERE)]


def test_behind_a_nat_a_status_shows_the_esp_port_once() -> None:
    """The wire gives host a another port, as a NAT does: b says so, and a's next words come from its ESP port."""
    wire = Wire()
    a, b = hosts(wire)
    a.endpoint = a.endpoint._replace(port=20_000)
    created(wire, a, b)
    assert a.peer.contact.acquaintance.behind_nat is True
    assert a.peer.contact.whereabouts.path(1, wire.now).marked
    assert [kind for sender, kind in wire.kinds() if sender == "a"] == ["CREATE", "STATUS"]
    told = b.peer.contact.acquaintance.told
    assert told is not None
    assert told.capabilities != UNDERSTOOD, "it says that it is behind a NAT"
    a.perform(a.peer.probe()[1])
    wire.run(wire.now + 5)
    assert [kind for sender, kind in wire.kinds() if sender == "a"] == ["CREATE", "STATUS", "STATUS"]


def test_who_keeps_to_910_shows_no_other_port() -> None:
    wire = Wire()
    a, b = hosts(wire, a={"kink_over": KinkOver.KINK_PORT})
    a.endpoint = a.endpoint._replace(port=20_000)
    created(wire, a, b)
    assert a.peer.contact.acquaintance.behind_nat is True
    assert not a.peer.contact.whereabouts.path(1, wire.now).marked
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]


def test_what_its_subnets_were_limited_to_holds_for_those_that_are_new() -> None:
    wire = Wire()
    a, b = hosts(wire, (1400, 1300))
    created(wire, a, b)
    assert a.peer.contact.change(a.peer.settings) == [LimitMtu("b", 1300)]
    assert b.peer.contact.change(replace(b.peer.settings, kink_over=KinkOver.ESP_PORT)) == []
    assert b.peer.contact.whereabouts.over is KinkOver.ESP_PORT
