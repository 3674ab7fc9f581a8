from __future__ import annotations

import random
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.kinkhosts import Host, Wire, assert_twins, policies, policy, principal, settings, two_hosts

from esp.suite import DEFAULT_SUITES
from kinkvpn.key_exchange import KeyExchanges
from kinkvpn.proto.create import Grant, notify_of
from kinkvpn.proto.envelope import bare_reply
from kinkvpn.proto.events import (
    Count,
    FetchTicket,
    Path,
    RemoveInbound,
    RemoveOutbound,
    SendMessage,
    Tally,
    WakeAt,
)
from kinkvpn.proto.outcome import Completed
from kinkvpn.proto.pairs import MAX_OF_PEER, MAX_UNACKNOWLEDGED
from kinkvpn.proto.policies import FIRST_RETRY, LONGEST_RETRY
from kinkvpn.proto.ports import TicketRefusal
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.proto.settings import Start
from kinkvpn.wire.ipsec_doi import Group, NotifyType
from kinkvpn.wire.isakmp import Delete, Notify
from kinkvpn.wire.kink import Isakmp, KrbError, MessageType, parse_message

if TYPE_CHECKING:
    from kinkvpn.proto.ports import Ephemeral

NONCE = {"responder_nonce": True}


def test_two_way() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    assert a.peer.waits_for("net") is None
    a.perform(a.peer.acquired("net", wire.now))
    assert a.peer.busy
    assert a.peer.waits_for("net") == "kdc"
    wire.run(0.015)
    assert a.peer.waits_for("net") == "peer"
    wire.run(1)
    assert a.peer.waits_for("net") is None
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]
    assert_twins(a, b, 1)
    (mine,), (theirs,) = a.peer.pairs("net"), b.peer.pairs("net")
    assert mine.initiated
    assert not theirs.initiated
    assert 0 < mine.took < 1
    assert not a.peer.busy
    assert a.peer.policies["net"].create_seconds == mine.took
    assert a.peer.last_heard is not None
    assert len(a.events("sa_established")) == len(b.events("sa_established")) == 1


@pytest.mark.parametrize("b_policy", [NONCE, {"suites": two_hosts(Wire())[0].peer.settings.policies[0].suites[1:]}])
def test_three_way(b_policy: dict[str, object]) -> None:
    wire = Wire()
    a, b = two_hosts(wire, b=b_policy)
    a.perform(a.peer.acquired("net", wire.now))
    wire.run(0.025)
    assert len(b.peer.half_open) == 1
    assert b.outbound == {}
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY"), ("a", "ACK")]
    assert_twins(a, b, 1)
    assert b.peer.half_open == []


def test_boot_starts_by_itself_and_demand_does_not() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]
    assert_twins(a, b, 1)


def test_a_peer_that_sends_on_an_spi_from_before_our_restart_is_told() -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    b = Host(wire, "b", settings("a", policy("b")), epoch=2)
    assert b.peer.start(wire.now) == []
    b.perform(b.peer.unknown_spi_seen(next(iter(a.outbound)), wire.now))
    wire.run(2)
    assert wire.kinds()[2:] == [("b", "DELETE"), ("a", "REPLY")]
    assert a.counts[Tally.PEER_RESTARTED] == 1
    assert a.outbound == {}
    wire.run(20)
    assert_twins(a, b, 0)


def test_a_pair_that_only_the_peer_has_is_deleted_when_it_sends() -> None:
    """The same epoch, and our half is gone: half open (RFC 4430 §3.3)."""
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    pair = b.peer.pairs("net")[0]
    b.peer._pairs.remove(pair, wire.now)
    del b.inbound[pair.inbound_spi], b.outbound[pair.outbound_spi]
    b.perform(b.peer.unknown_spi_seen(pair.inbound_spi, wire.now))
    wire.run(20)
    assert_twins(a, b, 0)


def test_a_forger_of_spis_costs_one_exchange_in_a_while_and_harms_nothing() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    for spi in range(1000, 1100):
        b.perform(b.peer.unknown_spi_seen(spi, wire.now))
    wire.run(30)
    assert wire.kinds()[2:] == [("b", "DELETE"), ("a", "REPLY")]
    assert b.counts[Tally.SUPPRESSED_RETRY] == 99
    assert_twins(a, b, 1)


def test_one_create_at_a_time_and_none_when_a_pair_stands() -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    assert a.peer.acquired("net", 0) == [Count(Tally.IGNORED_EVENT)]
    wire.run(1)
    assert a.peer.acquired("net", 1) == [Count(Tally.IGNORED_EVENT)]


@pytest.mark.parametrize("lost", range(6))
def test_a_lost_datagram_is_made_up_for(lost: int) -> None:
    """Whichever datagram of create, rekey and delete is lost, the end is the same."""
    wire = Wire()
    a, b = two_hosts(wire, b=NONCE)
    number = iter(range(1000))
    wire.meddle = lambda sender, datagram: [] if next(number) == lost else [datagram]
    a.perform(a.peer.acquired("net", 0))
    wire.run(5)
    assert_twins(a, b, 1)
    a.perform(a.peer.soft_expired("net", a.peer.pairs("net")[0].outbound_spi, wire.now))
    wire.run(30)
    assert_twins(a, b, 1)
    assert len(a.events("sa_established")) == 2


def test_both_ends_create_at_once_and_one_pair_survives() -> None:
    for b_policy in ({}, NONCE):
        wire = Wire()
        a, b = two_hosts(wire, a=b_policy, b=b_policy)
        a.perform(a.peer.acquired("net", 0))
        b.perform(b.peer.acquired("net", 0))
        wire.run(30)
        assert_twins(a, b, 1)
        # The greater principal's pair goes.
        assert a.peer.pairs("net")[0].initiated
        assert not b.peer.pairs("net")[0].initiated


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.08), st.integers(0, 2**16), st.booleans())
def test_both_ends_create_at_nearly_the_same_time_on_a_bad_network(delay: float, seed: int, nonce: bool) -> None:
    wire = Wire(seed)
    a, b = two_hosts(wire, a={"responder_nonce": nonce}, b={"responder_nonce": nonce})

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        return [datagram] * sender.random.choice([0, 1, 1, 1, 2])

    wire.meddle = meddle
    a.perform(a.peer.acquired("net", 0))
    wire.later(delay, lambda: b.perform(b.peer.acquired("net", wire.now)))
    wire.run(20)
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(400)
    assert_twins(a, b, 1)
    assert not a.peer.busy
    assert not b.peer.busy


def test_rekey_deletes_the_old_pair_after_the_new_one_stands() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    (old,) = a.peer.pairs("net")
    # The responder does not rekey (RFC 4430 §3.6), nor does anybody for an SA that is not the newest.
    assert a.peer.soft_expired("net", 12345, 1) == [Count(Tally.IGNORED_EVENT)]
    a.perform(a.peer.soft_expired("net", old.inbound_spi, 1))
    wire.run(1.5)
    assert wire.kinds()[2:] == [("a", "CREATE"), ("b", "REPLY"), ("a", "DELETE"), ("b", "REPLY")]
    assert old.outbound_spi not in a.outbound
    assert old.inbound_spi in a.inbound  # grace
    assert old.outbound_spi in b.inbound
    wire.run(10)
    assert_twins(a, b, 1)
    assert b.events("sa_deleted_by_peer")


@pytest.mark.parametrize("who", "ab")
@pytest.mark.parametrize("nonce", [False, True])
def test_either_side_may_replace_a_pair_and_is_the_initiator_then(who: str, nonce: bool) -> None:
    """On an operator's word, or before a limit that only a responder knows of; whichever principal is the greater."""
    wire = Wire()
    a, b = two_hosts(wire, a={"responder_nonce": nonce}, b={"responder_nonce": nonce})
    first, second = (a, b) if who == "b" else (b, a)
    first.perform(first.peer.acquired("net", 0))
    wire.run(1)
    (old,) = second.peer.pairs("net")
    assert not old.initiated
    second.perform(second.peer.soft_expired("net", old.inbound_spi, 1))
    wire.run(1.02)
    assert old.inbound_spi in second.inbound, "make before break"
    wire.run(20)
    assert_twins(a, b, 1)
    (new,) = second.peer.pairs("net")
    assert new.initiated
    assert new.inbound_spi != old.inbound_spi
    # Both rekey from now on at once, and one pair is left.
    for host in (a, b):
        host.perform(host.peer.rekey(["net"]))
    wire.run(40)
    assert_twins(a, b, 1)
    assert a.peer.pairs("net")[0] not in (old, new)


def test_a_replacement_that_fails_is_tried_again() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    (old,) = b.peer.pairs("net")
    wire.meddle = lambda sender, datagram: []
    b.perform(b.peer.rekey(["net"]))
    wire.run(1 + FULL_CYCLE + 0.1)
    assert b.peer.pairs("net") == [old], "what stands stays until there is another"
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(60)
    assert_twins(a, b, 1)
    assert b.peer.pairs("net")[0].initiated


def test_silence_gives_up_and_asks_for_the_delete_again() -> None:
    """Our inbound SA stays meanwhile: the peer may have installed the pair, and send (RFC 4430 §3.3)."""
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")))
    a.perform(a.peer.acquired("net", 0))
    wire.run(FULL_CYCLE - 1)
    assert len(a.inbound) == 1
    assert a.peer.acquired("net", wire.now) == [Count(Tally.IGNORED_EVENT)]
    wire.run(FULL_CYCLE + 0.1)
    assert a.events("create_failed")
    assert "no answer" in a.peer.policies["net"].last_error
    assert a.peer.policies["net"].failures == 1
    assert a.peer.acquired("net", wire.now) == [Count(Tally.SUPPRESSED_RETRY)]
    wire.run(2 * FULL_CYCLE + 1)
    assert a.events("delete_failed")
    assert len(a.inbound) == 1
    deletes = wire.kinds().count(("a", "DELETE"))
    wire.run(2 * FULL_CYCLE + LONGEST_RETRY + 1)
    assert wire.kinds().count(("a", "DELETE")) > deletes


def test_a_reply_that_never_comes_is_followed_by_delete() -> None:
    """The peer has a pair that the initiator knows nothing of: it is not left half open."""
    wire = Wire()
    a, b = two_hosts(wire)
    wire.meddle = lambda sender, datagram: [] if sender is b and wire.now < FULL_CYCLE else [datagram]
    a.perform(a.peer.acquired("net", 0))
    wire.run(FULL_CYCLE - 1)
    assert len(b.outbound) == 1
    wire.run(FULL_CYCLE + 10)
    assert_twins(a, b, 0)


def test_a_delete_overtakes_its_create() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    kept: list[bytes] = []

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        if parse_message(datagram).type is MessageType.CREATE:
            kept.append(datagram)
            return []
        return [datagram]

    wire.meddle = meddle
    a.perform(a.peer.acquired("net", 0))
    wire.run(FULL_CYCLE + 10)
    b.perform(b.receive(kept[-1], a.endpoint))
    wire.run(FULL_CYCLE + 20)
    assert_twins(a, b, 0)
    assert b.counts[Tally.COMMANDS_REFUSED] == 1


def test_nobody_acknowledges_and_the_responder_deletes() -> None:
    wire = Wire()
    a, b = two_hosts(wire, b=NONCE)
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type is MessageType.ACK else [datagram]
    a.perform(a.peer.acquired("net", 0))
    wire.run(FULL_CYCLE - 1)
    assert len(b.inbound) == 1
    assert b.outbound == {}
    wire.run(FULL_CYCLE + 20)
    assert b.counts[Tally.ACK_ABANDONED] == 1
    assert b.events("create_unacknowledged")
    assert_twins(a, b, 0)


def test_a_packet_that_waits_for_the_ack_asks_for_no_other_pair() -> None:
    """The answer to the first packet is often there before the ACK that lets it out."""
    wire = Wire()
    a, b = two_hosts(wire, b=NONCE)
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type is MessageType.ACK else [datagram]
    a.perform(a.peer.acquired("net", 0))
    wire.run(0.1)
    assert b.peer.half_open
    assert b.peer.acquired("net", wire.now) == [Count(Tally.IGNORED_EVENT)]


def test_a_delete_without_an_answer_is_sent_again_when_the_link_is_back() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    for _ in range(3):
        a.perform(a.peer.initiate("net", wire.now))
        wire.run(wire.now + 0.1)
        if len(a.peer.pairs("net")) == 1:
            wire.meddle = lambda sender, datagram: (
                [] if parse_message(datagram).type is MessageType.DELETE else [datagram]
            )
    wire.run(FULL_CYCLE + 1)
    assert len(a.events("delete_failed")) == 2
    assert len(b.inbound) == 3
    wire.run(FULL_CYCLE + LONGEST_RETRY - 1)
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(FULL_CYCLE + LONGEST_RETRY + 10)
    assert_twins(a, b, 1)
    # Once told, never again.
    sent = len(wire.log)
    wire.run(10 * LONGEST_RETRY)
    assert len(wire.log) == sent


def test_a_peer_that_is_down_for_days_is_tried_once_a_minute() -> None:
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a", start=Start.BOOT)))
    for _ in range(2000):
        xid = a.peer.policies["net"].negotiating
        if xid is None:
            a.peer.initiate("net", wire.now)
            xid = a.peer.policies["net"].negotiating
        assert xid is not None
        effects = a.peer.ticket_refused(xid, TicketRefusal("no KDC"), 0.0)
    assert WakeAt(LONGEST_RETRY, "b") in effects


def test_a_delete_without_an_answer_is_given_up_when_the_peers_sa_has_ended() -> None:
    wire = Wire()
    a, _ = two_hosts(wire, a={"lifetime_seconds": 100}, b={"lifetime_seconds": 100})
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.hard_expired("net", a.peer.pairs("net")[0].inbound_spi, wire.now))
    wire.run(600)
    deletes = [kind for kind in wire.kinds() if kind == ("a", "DELETE")]
    assert len(deletes) == 14  # the first try, and one more after a minute


@pytest.mark.parametrize("direction", ["inbound_spi", "outbound_spi"])
def test_hard_expiry_takes_the_twin_along_and_tells_the_peer(direction: str) -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    (pair,) = a.peer.pairs("net")
    spi = getattr(pair, direction)
    (a.inbound if direction == "inbound_spi" else a.outbound).pop(spi)
    effects = a.peer.hard_expired("net", spi, 1)
    assert (RemoveOutbound("net", pair.outbound_spi) in effects) == (direction == "inbound_spi")
    a.perform(effects)
    assert a.outbound == {}
    assert a.peer.hard_expired("net", spi, 1) == [Count(Tally.IGNORED_EVENT)]
    wire.run(10)
    # The old pair is gone from both ends, and boot has made another.
    assert_twins(a, b, 1)
    assert a.peer.pairs("net")[0].inbound_spi != pair.inbound_spi
    assert b.events("sa_deleted_by_peer")


def test_close_deletes_everything_and_starts_nothing() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    a.perform(a.peer.close(1))
    assert a.peer.busy
    assert a.peer.initiate("net", 1) == [Count(Tally.IGNORED_EVENT)]
    b.perform(b.peer.initiate("net", 1))
    wire.run(20)
    assert not a.peer.busy
    assert_twins(a, b, 0)
    assert any("shutting down" in str(tell.fields) for tell in a.events("command_refused"))


def test_what_was_closed_for_a_while_is_opened_again() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    a.perform(a.peer.close(1, for_good=False))
    assert a.peer.closed
    wire.run(20)
    assert a.peer.acquired("net", 20) == [Count(Tally.IGNORED_EVENT)]
    b.perform(b.peer.initiate("net", 20))
    wire.run(60)
    assert_twins(a, b, 0)
    assert any("told to have no SAs" in str(tell.fields) for tell in a.events("command_refused"))
    a.perform(a.peer.open())
    wire.run(61)
    assert_twins(a, b, 1)
    assert a.peer.open() == [], "what stands is left alone"


def test_close_while_a_create_is_on_its_way() -> None:
    for nonce in (False, True):
        wire = Wire()
        a, b = two_hosts(wire, b={"responder_nonce": nonce})
        a.perform(a.peer.acquired("net", 0))
        wire.run(0.015)
        a.perform(a.peer.close(wire.now))
        wire.run(20)
        assert_twins(a, b, 0)


def test_close_deletes_what_waits_for_an_ack() -> None:
    wire = Wire()
    a, b = two_hosts(wire, b=NONCE)
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type is MessageType.ACK else [datagram]
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    assert len(b.peer.half_open) == 1
    b.perform(b.peer.close(1))
    wire.run(60)
    assert_twins(a, b, 0)
    assert b.counts[Tally.ACK_ABANDONED] == 1


def test_boot_retries_for_ever_and_ever_more_slowly() -> None:
    wire = Wire()
    a = Host(wire, "a", settings("y", policy("a", start=Start.BOOT)))  # y is not in the realm
    a.perform(a.peer.start(0))
    wire.run(1000)
    failures = a.events("create_failed")
    assert "no principal" in str(failures[0].fields)
    # 1, 2, 4, 8, 16, 32, then every minute
    assert len(failures) == 7 + (1000 - 63) // 60
    assert a.reserved == set()
    assert a.inbound == {}


def test_a_deleted_boot_policy_comes_back() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    (spi,) = b.outbound
    b.outbound.clear()
    b.perform(b.peer.hard_expired("net", spi, 1))
    wire.run(1 + FIRST_RETRY + 10)
    assert_twins(a, b, 1)


def test_a_restarted_peer_is_noticed_and_its_pairs_go() -> None:
    wire = Wire()
    a, _b = two_hosts(wire, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    b2 = Host(wire, "b", settings("a", policy("b")), epoch=2)
    command, effects = a.peer.probe()
    a.perform(effects)
    wire.run(1.5)
    assert command.outcome is not None
    assert a.peer.epochs.present == 2
    assert a.counts[Tally.PEER_RESTARTED] == 1
    assert a.inbound == a.outbound == {}
    wire.run(10)
    assert_twins(a, b2, 1)


def test_a_restarted_initiator_is_noticed_by_the_responder() -> None:
    wire = Wire()
    a, b = two_hosts(wire, b=NONCE)
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type is MessageType.ACK else [datagram]
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    wire.meddle = lambda sender, datagram: [datagram]
    a2 = Host(wire, "a", settings("b", policy("a")), epoch=2)
    a2.perform(a2.peer.acquired("net", 1))
    wire.run(100)
    assert_twins(a2, b, 1)
    assert b.counts[Tally.PEER_RESTARTED] == 1


def test_probe() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    command, effects = a.peer.probe()
    a.perform(effects)
    wire.run(1)
    assert wire.kinds() == [("a", "STATUS"), ("b", "REPLY")]
    assert command.outcome is not None
    assert b.peer.last_heard is not None
    assert_twins(a, b, 0)


def test_skew_is_learned_once_and_used_ever_after() -> None:
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")), skew=-1000)
    b = Host(wire, "b", settings("a", policy("b")))
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    assert_twins(a, b, 1)
    assert len(a.events("command_restarted")) == 1
    a.perform(a.peer.soft_expired("net", next(iter(a.outbound)), 1))
    wire.run(20)
    assert_twins(a, b, 1)
    assert len(a.events("command_restarted")) == 1


def test_a_clock_behind_is_learned_even_where_only_time_helps() -> None:
    """The peer takes no ticket that is younger than its clock is wrong; the one it takes is then taken at once."""
    wire = Wire()
    a, b = two_hosts(wire)
    b.kerberos._clock_offset = -600.0
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(5.0)
    assert not a.inbound
    assert "its clock is -600 s from ours" in (a.peer.policies["net"].last_error or "")
    wire.run(400.0)
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(405.0)
    assert_twins(a, b, 1)
    assert not a.events("command_restarted")


def test_new_keys_at_the_peer_cost_a_fresh_ticket() -> None:
    """Its keytab has lost the key of our ticket: what it says of that is not authenticated, and a hint all the same."""
    wire = Wire()
    a, b = two_hosts(wire)
    old = a.ticket(principal("b"))
    find = wire.realm.find
    wire.realm.find = lambda identity: None if identity == old.identity else find(identity)
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(1.0)
    assert_twins(a, b, 1)
    (told,) = a.events("command_restarted")
    assert "unauthenticated: Kerberos error 31" in str(told.fields)


@pytest.mark.parametrize("answered", [True, False])
def test_a_forged_word_about_keys_spoils_nothing(answered: bool) -> None:
    """Whoever forges it moves us to ask the KDC once. Even where the REPLY is lost, one pair stands in the end."""
    wire = Wire()
    a, b = two_hosts(wire)
    forged = replies = 0

    def meddle(sender: Host, datagram: bytes) -> list[bytes]:
        nonlocal forged, replies
        message = parse_message(datagram)
        if sender is a and message.type is MessageType.CREATE and not forged:
            forged = 1
            wrong = bare_reply(message.xid, KrbError(b.kerberos._refusal(44, None, "").krb_error))
            wire.deliver(wrong, b.endpoint, a.endpoint)
        if sender is b and message.type is MessageType.REPLY and not answered:
            replies += 1
            return [] if replies == 1 else [datagram]
        return [datagram]

    wire.meddle = meddle
    a.perform(a.peer.initiate("net", wire.now))
    wire.run(10.0)
    if not answered:
        a.perform(a.peer.acquired("net", wire.now))
        wire.run(60.0)
    assert_twins(a, b, 1)
    assert a.counts[Tally.UNAUTHENTICATED_ERROR] == 1


def test_an_expired_ticket_is_replaced_once() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.ticket(principal("b"))
    wire.now = 40000.0
    a.perform(a.peer.acquired("net", wire.now))
    wire.run(40001)
    assert_twins(a, b, 1)
    assert len(a.events("command_restarted")) == 1


def test_a_cure_that_does_not_cure_is_a_failure() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    stale = a.ticket(principal("b"))
    wire.now = 40000.0
    a.ticket = lambda server, **_: stale  # a KDC with an old clock
    a.perform(a.peer.acquired("net", wire.now))
    wire.run(40001)
    assert len(a.events("command_restarted")) == 1
    assert "(again)" in a.peer.policies["net"].last_error
    assert_twins(a, b, 0)


def test_refusal_withdraws() -> None:
    wire = Wire()
    a, b = two_hosts(wire, b={"suites": ()})
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    assert "NO-PROPOSAL-CHOSEN" in a.peer.policies["net"].last_error
    assert_twins(a, b, 0)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]


def test_what_means_nothing_is_counted() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    refusal = a.peer.ticket_refused(7, None, 0)  # never looked at
    assert refusal == [Count(Tally.UNKNOWN_XID)]
    assert a.peer.ticket_ready(7, None, 0) == [Count(Tally.UNKNOWN_XID)]  # likewise
    assert not a.peer.owns(7)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    reply = wire.log[1][2]
    wire.run(1 + FULL_CYCLE)
    assert a.receive(reply, b.endpoint) == [Count(Tally.UNKNOWN_XID)]


def test_a_peer_that_never_deletes_keeps_few_pairs() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    for _ in range(MAX_OF_PEER + 5):
        fresh = Host(wire, "a", settings("b", policy("a")))
        fresh.xids = a.xids
        fresh.random.seed(wire.now)
        fresh.perform(fresh.peer.acquired("net", wire.now))
        wire.run(wire.now + 1)
    assert len(b.peer.pairs("net")) == MAX_OF_PEER
    wire.run(wire.now + 60)
    assert len(b.inbound) == len(b.outbound) == MAX_OF_PEER


def test_a_peer_that_never_acknowledges_is_refused_after_a_while() -> None:
    wire = Wire()
    a, b = two_hosts(wire, b=NONCE)
    unheard = MessageType.ACK, MessageType.DELETE
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type in unheard else [datagram]
    for _ in range(MAX_UNACKNOWLEDGED + 2):
        a.perform(a.peer.initiate("net", wire.now))
        wire.run(wire.now + 0.1)
    assert len(b.peer.half_open) == MAX_UNACKNOWLEDGED + 1
    assert "NO-PROPOSAL-CHOSEN" in a.peer.policies["net"].last_error


def test_effects_of_a_peer_say_whose_they_are() -> None:
    """A responder hands them on among its own; whoever performs them must not take them for the responder's."""
    wire = Wire()
    a, b = two_hosts(wire)
    b.perform(b.peer.acquired("net", 0))
    wire.run(1)
    a.perform(a.peer.initiate("net", 1))
    wire.run(1.015)
    effects = b.receive(wire.log[-1][2], a.endpoint)
    # The greater principal is to give up its own pair, after the grace time.
    assert WakeAt(1.015 + b.peer.settings.delete_grace, "a") in [
        replace(effect, time=round(effect.time, 3)) for effect in effects if isinstance(effect, WakeAt)
    ]
    b.perform(effects)
    wire.run(6.05)
    delete = next(datagram for sender, kind, datagram in wire.log if kind == "DELETE")
    a_sees = a.receive(delete, b.endpoint)
    assert [effect.peer for effect in a_sees if isinstance(effect, WakeAt)] in (["b", ""], [])


def test_status_notifies_are_counted_and_change_nothing() -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    payloads = (Notify(1, b"", NotifyType.INITIAL_CONTACT), Notify(1, b"", 40000))
    key = a.ticket(principal("b")).key
    assert a.peer.asked((Isakmp(payloads),), Path(a.endpoint)) == (False, [Count(Tally.NOTIFY_IGNORED)] * 2)
    grant = a.peer.respond(MessageType.STATUS, (payloads,), key=key, path=Path(a.endpoint), now=0)
    assert (grant.payloads, grant.effects) == ((), [])


def test_wake_before_its_time_does_nothing() -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(0.015)
    assert a.peer.wake(0.02) == []
    assert any(isinstance(effect, SendMessage) for effect in a.peer.wake(0.6))


def test_grace_is_as_configured() -> None:
    wire = Wire()
    a, _ = two_hosts(wire, delete_grace=17.0)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    (pair,) = a.peer.pairs("net")
    a.perform(a.peer.close(1))
    wire.run(17)
    assert a.peer.wake(17) == []
    assert RemoveInbound(pair.inbound_spi) in a.peer.wake(18.1)


def test_a_rekey_that_fails_is_tried_again_while_the_old_pair_stands() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.soft_expired("net", next(iter(a.outbound)), 1))
    wire.run(2 + FULL_CYCLE - 0.5)
    assert a.events("create_failed")
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(2 + FULL_CYCLE + FIRST_RETRY + 10)
    assert len(a.events("sa_established")) == 2
    assert_twins(a, b, 1)


def test_a_delete_without_a_ticket_is_sent_when_there_is_one() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    (spi,) = a.inbound
    effects = a.peer.hard_expired("net", spi, 1)
    (fetch,) = [effect for effect in effects if isinstance(effect, FetchTicket)]
    a.perform([effect for effect in effects if effect != fetch])
    a.perform(a.peer.ticket_refused(fetch.xid, TicketRefusal("no KDC"), 1))
    assert len(b.inbound) == 1
    wire.run(1 + LONGEST_RETRY + 10)
    assert_twins(a, b, 0)


def test_close_leaves_a_dead_peer_alone() -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    wire.meddle = lambda sender, datagram: []
    a.perform(a.peer.close(1))
    wire.run(1000)
    assert a.inbound == a.outbound == {}
    assert wire.kinds().count(("a", "DELETE")) == 7


def test_skew_is_learned_by_status_too() -> None:
    wire = Wire()
    a = Host(wire, "a", settings("b", policy("a")), skew=2000)
    Host(wire, "b", settings("a", policy("b")))
    command, effects = a.peer.probe()
    a.perform(effects)
    wire.run(1)
    assert wire.kinds() == [("a", "STATUS"), ("b", "REPLY")] * 2
    assert isinstance(command.outcome, Completed)


def test_a_notify_beside_a_delete_is_no_matter() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    (pair,) = a.peer.pairs("net")
    payloads = (Notify(3, b"", 40000), Delete(3, (pair.inbound_spi.to_bytes(4, "big"),)))
    key = a.ticket(principal("b")).key
    grant = b.peer.respond(MessageType.DELETE, (payloads,), key=key, path=Path(a.endpoint), now=1)
    assert RemoveOutbound("net", pair.inbound_spi) in grant.effects


def test_a_reply_of_an_earlier_life_is_not_believed() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.probe()[1])
    wire.run(1)
    reply = wire.log[1][2]
    b2 = Host(wire, "b", settings("a", policy("b")), epoch=2)
    b2.perform(b2.peer.acquired("net", 1))
    wire.run(2)
    assert a.receive(reply, b.endpoint) == [Count(Tally.STALE_EPOCH)]
    assert a.peer.epochs.present == 2
    assert_twins(a, b2, 1)


def test_a_create_that_fails_while_the_peers_pair_stands_is_not_tried_again() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={"start": Start.BOOT})
    wire.meddle = lambda sender, datagram: (
        [] if sender is a and parse_message(datagram).type is MessageType.CREATE else [datagram]
    )
    a.perform(a.peer.start(0))
    wire.run(1)
    b.perform(b.peer.acquired("net", 1))
    wire.run(300)
    assert len(a.events("create_failed")) == 1
    assert wire.kinds().count(("a", "CREATE")) == 7
    assert_twins(a, b, 1)


# ------------------------------------------------------------ several pairs in one message


def hosts_with(
    wire: Wire, count: int, a: dict[str, object] | None = None, b: int | None = None, **peers: object
) -> tuple[Host, Host]:
    """Hosts with ``count`` policies of one entry, of which b knows the first ``b``."""
    return (
        Host(wire, "a", settings("b", *policies("a", count, **(a or {})), **peers)),
        Host(wire, "b", settings("a", *policies("b", count if b is None else b))),
    )


def test_boot_policies_are_negotiated_in_as_few_creates_as_they_fit_into() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 9, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    creates = [datagram for _, kind, datagram in wire.log if kind == "CREATE"]
    assert len(creates) == 3
    assert max(map(len, creates)) < 1300, "the simulated AP-REQ is some 300 octets shorter than a real one"
    assert_twins(a, b, 9)


def test_a_packet_brings_along_what_was_written_down_with_its_policy() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 2)
    a.perform(a.peer.acquired("net1", 0))
    assert a.peer.acquired("net0", 0) == [Count(Tally.IGNORED_EVENT)]
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]
    assert_twins(a, b, 2)
    assert [pair.policy for pair in a.peer.pairs("net1") + a.peer.pairs("net0")] == ["net1", "net0"]


def test_a_packet_brings_along_no_more_than_fits_and_nothing_of_another_entry() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 9)
    a.perform(a.peer.acquired("net7", 0))
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]
    assert_twins(a, b, 3)
    assert a.peer.pairs("net7")
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"entry": ""})
    a.perform(a.peer.acquired("net0", 0))
    wire.run(1)
    assert_twins(a, b, 1)


def test_a_refused_policy_fails_alone_and_is_tried_alone() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"start": Start.BOOT}, b=2)
    a.perform(a.peer.start(0))
    wire.run(0.5)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY"), ("a", "ACK")]
    assert_twins(a, b, 2)
    assert a.peer.policies["net2"].failures == 1
    assert "NO-PROPOSAL-CHOSEN" in a.peer.policies["net2"].last_error
    assert [tell.fields[1] for tell in a.events("create_failed")] == [("subject", "net2")]
    assert b.counts[Tally.COMMANDS_REFUSED] == 1
    (refusal,) = b.events("command_refused")
    assert "asks for 10.2.2.0/24 <-> 10.1.2.0/24, which none of its policies is for" in dict(refusal.fields)["reason"]
    wire.run(1.5)
    assert wire.kinds()[3:] == [("a", "CREATE"), ("b", "REPLY")]
    assert a.peer.policies["net2"].failures == 2
    assert b.peer.refusal is not None
    assert b.peer.refusal[1] == dict(refusal.fields)["reason"]
    assert_twins(a, b, 2)
    a.perform(a.peer.rekey(["net0"]))
    wire.run(2)
    assert b.peer.refusal is None, "they get on since"


def test_what_waits_for_an_ack_and_what_does_not_in_one_create() -> None:
    wire = Wire()
    b_policies = policies("b", 3)
    a = Host(wire, "a", settings("b", *policies("a", 3, start=Start.BOOT)))
    b = Host(wire, "b", settings("a", b_policies[0], replace(b_policies[1], responder_nonce=True), b_policies[2]))
    a.perform(a.peer.start(0))
    wire.run(0.025)
    assert [pair.policy for pair in b.peer.half_open] == ["net1"]
    assert len(b.outbound) == 2
    wire.run(1)
    assert_twins(a, b, 3)


def test_nobody_acknowledges_a_mixed_create() -> None:
    """The half-open pair goes; those that were made 2-way stand, as after a 2-way CREATE."""
    wire = Wire()
    b_policies = policies("b", 3)
    a = Host(wire, "a", settings("b", *policies("a", 3, start=Start.BOOT)))
    b = Host(wire, "b", settings("a", b_policies[0], replace(b_policies[1], responder_nonce=True), b_policies[2]))
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type is MessageType.ACK else [datagram]
    a.perform(a.peer.start(0))
    wire.run(FULL_CYCLE + 0.5)
    assert b.peer.half_open == []
    assert ("b", "DELETE") in wire.kinds()
    assert not b.peer.pairs("net1")
    assert len(a.peer.pairs("net0")) == len(a.peer.pairs("net2")) == 1
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(FULL_CYCLE + 20)
    assert_twins(a, b, 3)


def test_a_refusal_among_two_way_pairs_that_nobody_acknowledges_changes_nothing() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 2, a={"start": Start.BOOT}, b=1)
    wire.meddle = lambda sender, datagram: [] if parse_message(datagram).type is MessageType.ACK else [datagram]
    a.perform(a.peer.start(0))
    wire.run(FULL_CYCLE + 1)
    assert b.counts[Tally.ACK_ABANDONED] == 1
    assert ("b", "DELETE") not in wire.kinds()
    assert_twins(a, b, 1)


class FirstOnly:
    """Makes host b read the first KINK_ISAKMP payload of a CREATE, as the other implementation does."""

    def __init__(self, b: Host) -> None:
        self.seen: list[int] = []
        self._respond = b.peer.respond
        b.peer.respond = self.respond  # another implementation in its place

    def respond(self, kind: MessageType, quick_modes: tuple[Any, ...], **rest: Any) -> Any:
        self.seen.append(len(quick_modes))
        try:
            return self._respond(kind, quick_modes[:1], **rest)
        except Refused as refused:
            return Grant((notify_of(refused),), refusals=(refused,))


def test_a_peer_that_reads_the_first_quick_mode_only_is_asked_one_by_one() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"start": Start.BOOT})
    first_only = FirstOnly(b)
    a.perform(a.peer.start(0))
    wire.run(0.5)
    assert first_only.seen == [3, 1, 1]
    assert_twins(a, b, 3)
    assert all(not state.failures for state in a.peer.policies.values())
    assert len(a.events("create_failed")) == 2, "the operator is told why it takes longer"
    a.perform(a.peer.close(wire.now))
    wire.run(10)
    assert wire.kinds().count(("a", "DELETE")) == 3
    assert_twins(a, b, 0)


def test_a_peer_that_answers_an_error_for_the_first_only() -> None:
    """A lone error is about the whole command, for all that anybody can tell: then each is tried by itself."""
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"start": Start.BOOT})
    b.peer.settings = settings("a", *policies("b", 3)[1:])
    first_only = FirstOnly(b)
    a.perform(a.peer.start(0))
    wire.run(0.5)
    assert [a.peer.policies[name].failures for name in ("net0", "net1", "net2")] == [1, 1, 1]
    wire.run(1.5)
    assert first_only.seen == [3, 1, 1, 1]


def test_one_create_each_where_that_is_configured_or_nothing_else_can_tell_them_apart() -> None:
    for changes, peers in (({}, {"sas_per_create": 1}), ({"send_ids": False}, {})):
        wire = Wire()
        a, _ = hosts_with(wire, 3, a={"start": Start.BOOT, **changes}, **peers)
        a.perform(a.peer.start(0))
        wire.run(0.5)
        assert wire.kinds().count(("a", "CREATE")) == 3


def test_a_create_of_several_that_meets_silence_is_tried_again_one_by_one() -> None:
    """Its datagram was longer; whatever does not let that pass may let the others."""
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"start": Start.BOOT})
    limit = 900
    wire.meddle = lambda sender, datagram: [] if len(datagram) > limit else [datagram]
    a.perform(a.peer.start(0))
    wire.run(FULL_CYCLE + 5)
    assert_twins(a, b, 3)
    assert max(len(datagram) for _, kind, datagram in wire.log[-20:] if kind == "CREATE") <= limit
    assert not any(state.alone for state in a.peer.policies.values())


def test_several_pairs_are_replaced_in_one_create_and_the_old_ones_deleted() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    before = {spi for host in (a, b) for spi in host.outbound}
    a.perform(a.peer.rekey(list(a.peer.policies)))
    assert a.peer.rekey(list(a.peer.policies)) == [Count(Tally.IGNORED_EVENT)], "under way"
    wire.run(20)
    assert wire.kinds().count(("a", "CREATE")) == 2
    assert_twins(a, b, 3)
    assert before.isdisjoint({*a.outbound, *b.outbound})


def test_close_deletes_all_pairs_in_one_message() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 9, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(1)
    before = len(wire.log)
    a.perform(a.peer.close(wire.now))
    assert a.outbound == {}
    wire.run(10)
    assert wire.kinds()[before:] == [("a", "DELETE"), ("b", "REPLY")]
    assert_twins(a, b, 0)


def test_pairs_of_a_create_that_ends_after_close_are_deleted_together() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 3, a={"start": Start.BOOT})
    a.perform(a.peer.start(0))
    wire.run(0.015)
    a.perform(a.peer.close(wire.now))
    wire.run(10)
    assert wire.kinds().count(("a", "DELETE")) == 1
    assert_twins(a, b, 0)


@hypothesis_settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.lists(st.sampled_from(["2-way", "nonce", "second", "unknown"]), min_size=6, max_size=6),
    st.floats(0, 0.4),
)
def test_whatever_is_granted_and_whatever_is_lost_both_ends_come_to_the_same(
    seed: int, count: int, kinds: list[str], loss: float
) -> None:
    wire = Wire(seed % 1000)
    theirs = []
    for one, kind in zip(policies("b", count), kinds, strict=False):
        if kind != "unknown":
            changes = {"nonce": {"responder_nonce": True}, "second": {"suites": one.suites[1:]}}.get(kind, {})
            theirs.append(replace(one, **changes))
    a = Host(wire, "a", settings("b", *policies("a", count, start=Start.BOOT)))
    b = Host(wire, "b", settings("a", *(theirs or policies("b", 7)[6:])))
    chance = random.Random(seed)
    wire.meddle = lambda sender, datagram: [] if chance.random() < loss else [datagram]
    a.perform(a.peer.start(0))
    wire.run(300)
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(600)
    assert_twins(a, b, len(theirs))
    assert {name for name in a.peer.policies if a.peer.pairs(name)} == {one.name for one in theirs}
    a.perform(a.peer.close(wire.now))
    wire.run(620)
    assert_twins(a, b, 0)


# ------------------------------------------------------------ PFS

X25519 = {"pfs": (Group.CURVE25519,)}


def test_with_ke_nothing_is_installed_before_the_reply_and_the_ack_ends_it() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a=X25519, b=X25519)
    a.perform(a.peer.acquired("net", 0))
    wire.run(0.015)
    assert a.inbound == {}
    assert len(a.reserved) == 1
    wire.run(0.025)
    assert len(b.inbound) == len(b.peer.half_open) == 1
    assert b.outbound == {}
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY"), ("a", "ACK")]
    assert_twins(a, b, 1)
    assert a.peer.pairs("net")[0].pfs == b.peer.pairs("net")[0].pfs == "x25519"
    assert ("pfs", "x25519") in a.events("sa_established")[0].fields
    assert a.counts[Tally.KEY_EXCHANGES] == b.counts[Tally.KEY_EXCHANGES] == 1


def test_every_create_has_a_private_key_of_its_own() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a=X25519, b=X25519)
    made: list[Ephemeral] = []

    class Watched:
        def generate(self, group: Group) -> Ephemeral:
            made.append(KeyExchanges().generate(group))
            return made[-1]

    a.peer._negotiation._key_exchange = Watched()
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    a.perform(a.peer.rekey(["net"]))
    wire.run(20)
    assert_twins(a, b, 1)
    assert len({one.public for one in made}) == len(made) == 2
    kept = [weakref.ref(one) for one in made]
    made.clear()
    assert [one() for one in kept] == [None, None], "nobody holds a private key of what is over"


def test_a_peer_without_pfs_is_asked_again_without() -> None:
    """RFC 4430 §3.2: as another transaction, where the policy allows that."""
    wire = Wire()
    a, b = two_hosts(wire, a=X25519)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")] * 2
    assert len({parse_message(datagram).xid for _, kind, datagram in wire.log if kind == "CREATE"}) == 2
    assert_twins(a, b, 1)
    assert a.peer.pairs("net")[0].pfs == ""
    assert a.peer.policies["net"].failures == 0
    (told,) = a.events("create_failed")
    assert "does no PFS" in str(told.fields)


def test_a_policy_that_requires_pfs_goes_without_a_pair_rather_than_without_pfs() -> None:
    wire = Wire()
    a, b = two_hosts(wire, a={**X25519, "pfs_required": True})
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    assert wire.kinds() == [("a", "CREATE"), ("b", "REPLY")]
    assert_twins(a, b, 0)
    assert "does no PFS" in a.peer.policies["net"].last_error
    # And from the other side: the same host is asked without KE.
    b.perform(b.peer.acquired("net", wire.now))
    wire.run(2)
    assert "NO-PROPOSAL-CHOSEN" in b.peer.policies["net"].last_error
    assert_twins(a, b, 0)


def test_some_policies_of_a_create_are_asked_again_without_pfs_and_the_others_stand() -> None:
    wire = Wire()
    theirs = policies("b", 3)
    a = Host(wire, "a", settings("b", *policies("a", 3, start=Start.BOOT, suites=DEFAULT_SUITES[:1], **X25519)))
    b = Host(wire, "b", settings("a", theirs[0], replace(theirs[1], **X25519), theirs[2]))
    a.perform(a.peer.start(0))
    wire.run(1)
    assert_twins(a, b, 3)
    assert [a.peer.pairs(f"net{n}")[0].pfs for n in range(3)] == ["", "x25519", ""]
    assert wire.kinds().count(("a", "CREATE")) == 2, "the two that were refused come again together"


def test_a_peer_whose_lone_error_is_about_ke_is_asked_again_without() -> None:
    wire = Wire()
    a, b = hosts_with(wire, 2, a={"start": Start.BOOT, **X25519})
    FirstOnly(b)
    a.perform(a.peer.start(0))
    wire.run(1)
    assert_twins(a, b, 2)


@hypothesis_settings(max_examples=40)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from(["both", "a", "b", "none", "required"]), min_size=1, max_size=5),
    st.floats(0, 0.4),
)
def test_whatever_is_lost_pairs_with_and_without_pfs_come_about(seed: int, kinds: list[str], loss: float) -> None:
    wire = Wire(seed % 1000)
    ours, theirs = [], []
    for mine, its, kind in zip(policies("a", len(kinds), start=Start.BOOT), policies("b", 5), kinds, strict=False):
        required = {"pfs_required": True} if kind == "required" else {}
        ours.append(replace(mine, **(X25519 if kind in ("both", "a", "required") else {}), **required))
        theirs.append(replace(its, **(X25519 if kind in ("both", "b") else {})))
    a, b = Host(wire, "a", settings("b", *ours)), Host(wire, "b", settings("a", *theirs))
    chance = random.Random(seed)
    wire.meddle = lambda sender, datagram: [] if chance.random() < loss else [datagram]
    a.perform(a.peer.start(0))
    wire.run(300)
    wire.meddle = lambda sender, datagram: [datagram]
    wire.run(600)
    assert_twins(a, b, len(kinds) - kinds.count("required"))
    for one, kind in zip(ours, kinds, strict=True):
        assert [pair.pfs for pair in a.peer.pairs(one.name)] == {"both": ["x25519"], "required": []}.get(kind, [""])


# --- other settings ---


def change(host: Host, ended: set[str], *wanted: Any, **changes: Any) -> None:
    """As a reload has it: settings of the same peer, and what cannot stay of it."""
    other = replace(host.peer.settings, policies=wanted or host.peer.settings.policies, **changes)
    host.perform(host.peer.change(other, ended, host.wire.now))
    host.perform(host.peer.start(host.wire.now))


def test_other_settings_hold_from_the_next_exchange_on_and_sas_stay() -> None:
    wire = Wire()
    a, b = two_hosts(wire)
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    before = list(a.outbound)
    fast = policy("a", lifetime_seconds=60, suites=DEFAULT_SUITES[1:2], start=Start.BOOT)
    change(a, set(), fast, delete_grace=1.0, sas_per_create=1, dead_after=2.0, extensions=False)
    wire.run(2)
    assert list(a.outbound) == before
    assert len(wire.kinds()) == 2, "not a word of it to the peer"
    a.perform(a.peer.rekey(["net"]))
    wire.run(20)
    assert_twins(a, b, 1)
    (pair,) = a.peer.pairs("net")
    assert (pair.lifetime, pair.suite) == (60, DEFAULT_SUITES[1].name)
    assert list(a.outbound) != before


def test_policies_come_and_go_and_one_that_becomes_another_is_made_anew() -> None:
    wire = Wire()
    a, b = (Host(wire, near, settings(other, *policies(near, 3))) for near, other in ("ab", "ba"))
    for name in ("net0", "net1"):
        a.perform(a.peer.initiate(name, 0))
    wire.run(1)
    stays = {pair.outbound_spi for pair in a.peer.pairs("net1")}
    for host in (a, b):
        _, second, third = policies(host.name, 3)
        change(host, {"net0"}, second, replace(third, start=Start.BOOT))
    wire.run(20)
    assert_twins(a, b, 2)
    assert list(a.peer.policies) == ["net1", "net2"]
    assert {pair.outbound_spi for pair in a.peer.pairs("net1")} == stays
    assert a.peer.policies["net2"].failures == 0
    for host in (a, b):
        change(host, {"net1"}, *(replace(each, start=Start.BOOT) for each in policies(host.name, 3)[1:]))
    wire.run(60)
    assert_twins(a, b, 2)
    assert not stays & {pair.outbound_spi for pair in a.peer.pairs("net1")}


@pytest.mark.parametrize("moment", [0.005, 0.015, 0.025])
@pytest.mark.parametrize("nonces", [False, True], ids=["two-way", "three-way"])
def test_what_is_under_way_for_a_policy_that_goes_comes_to_nothing(moment: float, nonces: bool) -> None:
    """While the KDC is asked, while the peer is, and where the ACK is awaited: neither end has anything left of it."""
    wire = Wire()
    a, b = (
        Host(wire, near, settings(other, *policies(near, 2, responder_nonce=nonces))) for near, other in ("ab", "ba")
    )
    a.perform(a.peer.acquired("net0", 0))
    wire.run(moment)
    for host in (a, b):
        change(host, {"net0"}, *policies(host.name, 2)[1:])
    wire.run(60)
    assert [pair.policy for pair in b.peer.pairs("net1")] == [pair.policy for pair in a.peer.pairs("net1")]
    assert_twins(a, b, len(a.peer.pairs("net1")))
    assert not a.peer.busy
    assert a.peer.pairs("net0") == b.peer.pairs("net0") == []
    a.perform(a.peer.initiate("net1", wire.now))
    wire.run(61)
    assert len(a.peer.pairs("net1")) >= 1


def test_whether_a_policy_goes_or_becomes_another_while_its_create_fails_is_nothing() -> None:
    wire = Wire()
    a, _ = two_hosts(wire)
    wire.meddle = lambda _sender, _datagram: []
    a.perform(a.peer.acquired("net", 0))
    wire.run(1)
    change(a, {"net"}, policy("a", lifetime_seconds=60))
    state = a.peer.policies["net"]
    assert (state.negotiating, state.failures) == (None, 0)
    a.perform(a.peer.acquired("net", wire.now))
    assert state.negotiating is not None
    wire.run(1 + FULL_CYCLE)
    assert state.failures == 0, "the failure of the first is not its own"
    wire.run(200)
    assert state.failures == 1
