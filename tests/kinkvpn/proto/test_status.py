from __future__ import annotations

from ipaddress import ip_address

import pytest
from support.kinkhosts import Wire, principal

from kinkvpn.proto.events import Count, Tally
from kinkvpn.proto.lease import Lease, Wanted, ask, grant
from kinkvpn.proto.quick_mode import AnswerUnusable, RequestFailed
from kinkvpn.proto.status import LeaseCommand, StatusCommand, answer_status
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import Isakmp, MessageType

LEASE = Lease((ip_address("10.8.0.7"),))
BROKEN = Notify(1, b"", NotifyType.KINKVPN_CONFIGURATION, b"KVPN\2")


def test_nothing_is_said_and_any_answer_is_good() -> None:
    key = Wire().realm.issue(principal("a"), principal("b")).key
    command = StatusCommand()
    assert command.type is MessageType.STATUS
    assert command.subject == "status"
    assert command.payloads() == ()
    assert command.begin(key, 0.0) == command.withdraw() == []
    assert command.complete(((Notify(3, b"", 14),),), ackreq=True, key=key, now=0.0) == []
    assert command.outcome is None


def completed(*payloads: Notify) -> LeaseCommand:
    key = Wire().realm.issue(principal("a"), principal("b")).key
    command = LeaseCommand(Wanted(LEASE.addresses))
    assert command.complete((payloads,), ackreq=False, key=key, now=0.0) == []
    return command


def test_a_lease_is_asked_for_and_taken() -> None:
    assert LeaseCommand(Wanted(), 3.0).patience == 3.0
    assert LeaseCommand(Wanted()).payloads() == (Isakmp((ask(Wanted()),)),)
    assert completed(grant(LEASE)).lease == LEASE
    assert completed().lease is None
    assert completed(ask(Wanted())).lease is None


def test_a_refusal_and_what_cannot_be_read_end_it() -> None:
    with pytest.raises(RequestFailed, match="NO-PROPOSAL-CHOSEN: no rule of its lets us in"):
        completed(Notify(3, b"", NotifyType.NO_PROPOSAL_CHOSEN))
    with pytest.raises(AnswerUnusable, match="the lease cannot be read"):
        completed(BROKEN)


def test_only_who_asks_is_answered_and_only_who_has_a_lease() -> None:
    assert answer_status((ask(Wanted()),), LEASE).payloads == (Isakmp((grant(LEASE),)),)
    for payloads, lent in (((ask(Wanted()),), None), ((), LEASE), ((grant(LEASE),), LEASE)):
        assert answer_status(payloads, lent).payloads == ()
    broken = answer_status((BROKEN,), LEASE)
    assert (broken.payloads, broken.effects) == ((), [Count(Tally.EXTENSION_MALFORMED)])
