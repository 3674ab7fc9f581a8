from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.kinkhosts import Host, Wire, assert_twins, policy, principal, settings, two_hosts

from kinkvpn.proto.events import Count, FetchTicket, Tally
from kinkvpn.proto.liveness import HINT_SECONDS
from kinkvpn.proto.pairs import MAX_UNDELETED
from kinkvpn.proto.policies import FIRST_RETRY
from kinkvpn.proto.ports import TicketRefusal
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.proto.settings import Start

if TYPE_CHECKING:
    from kinkvpn.proto.events import Effect
    from kinkvpn.proto.settings import PolicySettings

IGNORED: list[Effect] = [Count(Tally.IGNORED_EVENT)]


def established(**peers: object) -> tuple[Wire, Host, Host]:
    """One pair; the time is long after anybody was heard."""
    wire = Wire()
    a, b = two_hosts(wire, **peers)
    a.perform(a.peer.acquired("net", 0))
    wire.run(100)
    assert_twins(a, b, 1)
    return wire, a, b


def kinds_since(wire: Wire, length: int) -> list[tuple[str, str]]:
    return wire.kinds()[length:]


def test_a_living_peer_that_has_nothing_to_send_is_asked_and_keeps_its_sas() -> None:
    """One-way traffic: the engine tells again and again, and the REPLY is all that it takes."""
    wire, a, b = established()
    sent = len(wire.log)
    for _ in range(5):
        a.perform(a.peer.suspected(wire.now))
        wire.run(wire.now + 10)
    assert kinds_since(wire, sent) == [("a", "STATUS"), ("b", "REPLY")] * 5
    assert_twins(a, b, 1)
    assert a.counts[Tally.PEERS_PROBED] == 5
    assert a.counts[Tally.PEER_DEAD] == 0


def test_a_peer_that_was_just_heard_is_not_asked() -> None:
    wire, a, _ = established()
    command, effects = a.peer.probe()
    a.perform(effects)
    wire.run(101)
    assert command.outcome is not None
    assert a.peer.suspected(wire.now) == IGNORED
    assert a.peer.suspected(wire.now + 5) != IGNORED


def test_one_probe_at_a_time_and_none_for_a_peer_without_sas() -> None:
    wire, a, _ = established()
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.suspected(wire.now))
    assert a.peer.suspected(wire.now) == IGNORED
    assert a.peer.suspected(wire.now, hint=True) == IGNORED
    nobody = Host(wire, "a", settings("b", policy("a")))
    assert nobody.peer.suspected(wire.now) == nobody.peer.suspected(wire.now, hint=True) == IGNORED
    a.perform(a.peer.close(wire.now))
    assert a.peer.suspected(wire.now, hint=True) == IGNORED


def test_a_dead_peer_is_found_out_after_a_full_cycle_and_all_starts_over() -> None:
    wire, a, b = established()
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.suspected(wire.now))
    wire.run(100 + FULL_CYCLE - 0.1)
    assert len(a.outbound) == 1
    assert not a.events("peer_dead")
    wire.run(100 + FULL_CYCLE + 0.1)
    assert [kind for sender, kind in wire.kinds() if sender == "a"].count("STATUS") == 7
    assert a.outbound == {}
    assert a.peer.pairs("net") == []
    (told,) = a.events("peer_dead")
    assert "no answer in 31.5 s to 7 transmissions" in str(told.fields)
    assert "the peer is dead: no answer" in a.peer.policies["net"].last_error
    # It may live behind a broken path: what it still sends is taken until it can be told.
    assert len(a.inbound) == 1
    wire.meddle = lambda sender, datagram: [datagram]
    a.perform(a.peer.acquired("net", wire.now))
    wire.run(wire.now + 20)
    assert_twins(a, b, 1)
    assert a.peer.policies["net"].last_error == ""


def test_the_patience_of_a_probe_is_configured_and_longer_than_a_cycle_if_need_be() -> None:
    for dead_after, transmissions in ((2.0, 3), (47.6, 10)):
        wire, a, _ = established(dead_after=dead_after)
        wire.meddle = lambda sender, datagram: []
        a.perform(a.peer.suspected(wire.now))
        wire.run(100 + dead_after - 0.1)
        assert not a.events("peer_dead")
        wire.run(100 + dead_after + 0.1)
        (told,) = a.events("peer_dead")
        assert f"no answer in {dead_after:.1f} s to {transmissions} transmissions" in str(told.fields)


def test_a_policy_that_has_to_stand_is_tried_for_ever() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(100)
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.suspected(wire.now))
    wire.run(100 + FULL_CYCLE + FIRST_RETRY + 0.1)
    assert a.peer.policies["net"].negotiating is not None
    wire.run(10_000)
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(10_120)
    assert_twins(a, b, 1)


def test_packets_that_come_during_the_probe_say_that_only_kink_is_cut_off() -> None:
    wire, a, b = established()
    wire.meddle = lambda sender, datagram: []
    a.packet_at = 99.0
    a.perform(a.peer.suspected(wire.now))
    wire.run(110)
    a.packet_at = wire.now
    wire.run(200)
    assert a.events("status_failed")
    assert not a.events("peer_dead")
    assert_twins(a, b, 1)


def test_a_kdc_that_is_down_says_nothing_about_the_peer() -> None:
    wire, a, b = established()
    (wanted,) = (effect for effect in a.peer.suspected(wire.now) if isinstance(effect, FetchTicket))
    a.perform(a.peer.ticket_refused(wanted.xid, TicketRefusal("no answer from the KDC"), wire.now))
    assert not a.events("peer_dead")
    assert_twins(a, b, 1)
    assert a.peer.suspected(wire.now) != IGNORED, "and the next suspicion asks again"


def test_a_refusal_is_an_answer() -> None:
    """Our ticket has expired, and so has every other that the KDC gives us: no good for keys, and alive."""
    wire, a, _ = established()
    stale = a.ticket(principal("b"))
    wire.now = 40000.0
    a.ticket = lambda server, **_: stale  # a KDC with an old clock
    a.perform(a.peer.suspected(wire.now))
    wire.run(40001)
    assert a.events("status_failed")
    assert not a.events("peer_dead")
    assert len(a.outbound) == 1


def test_an_operators_probe_is_no_verdict() -> None:
    wire, a, b = established()
    wire.meddle = lambda sender, datagram: []
    command, effects = a.peer.probe()
    a.perform(effects)
    wire.run(200)
    assert command.outcome is not None
    assert_twins(a, b, 1)


def test_icmp_brings_a_probe_about_and_no_more_than_one_in_a_while() -> None:
    wire, a, b = established()
    sent = len(wire.log)
    for _ in range(1000):
        a.perform(a.peer.suspected(wire.now, hint=True))
        wire.run(wire.now + 0.01)
    wire.run(wire.now + 1)
    assert kinds_since(wire, sent) == [("a", "STATUS"), ("b", "REPLY")]
    assert_twins(a, b, 1)
    wire.run(100 + HINT_SECONDS)
    a.perform(a.peer.suspected(wire.now, hint=True))
    wire.run(wire.now + 1)
    assert kinds_since(wire, sent) == [("a", "STATUS"), ("b", "REPLY")] * 2


def test_a_probe_finds_a_restarted_peer() -> None:
    wire, a, _ = established()
    b = Host(wire, "b", settings("a", policy("b")), epoch=2)
    a.perform(a.peer.suspected(wire.now))
    wire.run(101)
    assert a.counts[Tally.PEER_RESTARTED] == 1
    assert a.outbound == b.outbound == {}
    assert not a.events("peer_dead")


def test_of_a_dead_peer_with_many_policies_a_few_sas_stay_to_be_deleted() -> None:
    """What is owed a DELETE is bounded, and goes for what comes after it; nothing is left to send on."""
    wire = Wire()
    names = [f"net{number}" for number in range(40)]
    a, b = (
        Host(wire, near, settings(far, *(numbered(near, number, name) for number, name in enumerate(names, 1))))
        for near, far in ("ab", "ba")
    )
    for name in names:
        a.perform(a.peer.acquired(name, 0))
    wire.run(100)
    assert len(a.outbound) == len(a.inbound) == 40
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.suspected(wire.now))
    wire.run(100 + FULL_CYCLE + 0.1)
    assert a.outbound == {}
    assert len(a.inbound) == MAX_UNDELETED
    wire.meddle = lambda sender, datagram: [datagram]
    for name in names:
        a.perform(a.peer.acquired(name, wire.now))
    wire.run(wire.now + 120)
    # Those that were forgotten are the peer's to end, when it sends on them or when their time has come.
    assert len(a.outbound) == len(a.inbound) == 40
    assert len(b.outbound) == len(b.inbound) == 80 - MAX_UNDELETED


def numbered(near: str, protocol: int, name: str) -> PolicySettings:
    """A policy of its own IP protocol: forty of them do not overlap."""
    plain = policy(near, name)
    return replace(plain, selector=replace(plain.selector, protocol=protocol))
