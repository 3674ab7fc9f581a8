from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos import fake
from kinkvpn.kerberos.fake import (
    CLOCK_SKEW,
    FAKE_ENCTYPE,
    KDC_ERR_S_PRINCIPAL_UNKNOWN,
    KRB_AP_ERR_BAD_INTEGRITY,
    KRB_AP_ERR_NOT_US,
    KRB_AP_ERR_REPEAT,
    KRB_AP_ERR_SKEW,
    KRB_AP_ERR_TKT_EXPIRED,
    KRB_AP_ERR_TKT_NYV,
    TICKET_LIFE,
    FakeKerberos,
    FakeRealm,
    FakeTickets,
)
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.proto.ports import ApRequestRefused, TgtDenied

A, B, C = "kink/a@TEST", "kink/b@TEST", "kink/c@TEST"


class Clock:
    """Stands still unless it is told."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def realm(clock: Clock | None = None, seed: int = 1) -> FakeRealm:
    return FakeRealm((A, B, C), clock=clock or Clock(), random=random.Random(seed).randbytes)


def refused(kerberos: FakeKerberos, ap_req: bytes) -> ApRequestRefused:
    with pytest.raises(ApRequestRefused) as caught:
        kerberos.accept(ap_req)
    details = kerberos.read_error(caught.value.krb_error)
    assert details.code == caught.value.code
    return caught.value


def test_a_request_is_accepted_once_and_answered() -> None:
    here = realm()
    ticket, b = here.issue(A, B), FakeKerberos(here, B)
    one, two = ticket.make_request(), ticket.make_request()
    assert one.ap_req != two.ap_req  # of one instant
    accepted = b.accept(one.ap_req)
    assert (accepted.client, accepted.server, accepted.endtime) == (A, B, 1e9 + TICKET_LIFE)
    one.verify_reply(accepted.make_reply())
    for wrong in (two, replace(one, serial=99)):
        with pytest.raises(AuthenticationFailed):
            wrong.verify_reply(accepted.make_reply())
    with pytest.raises(AuthenticationFailed):
        one.verify_reply(b"")
    assert refused(b, one.ap_req).code == KRB_AP_ERR_REPEAT
    b.accept(two.ap_req)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_octet_is_refused(where: int, flip: int) -> None:
    here = realm()
    octets = bytearray(here.issue(A, B).make_request().ap_req)
    octets[where % len(octets)] ^= flip
    refusal = refused(FakeKerberos(here, B), bytes(octets))
    assert refusal.code == KRB_AP_ERR_BAD_INTEGRITY
    assert refusal.accepted is None


@given(st.binary(max_size=120))
def test_whatever_the_octets_are(octets: bytes) -> None:
    b = FakeKerberos(realm(), B)
    assert refused(b, octets).accepted is None
    with pytest.raises(MalformedMessage):
        b.read_error(octets)


def test_an_error_of_the_right_length_and_the_wrong_kind() -> None:
    b = FakeKerberos(realm(), B)
    error = refused(b, b"").krb_error
    with pytest.raises(MalformedMessage):
        b.read_error(b"X" + error[1:])
    details = b.read_error(error)
    assert details.client_time is None
    assert details.server_time == 1e9


def test_a_ticket_for_somebody_else() -> None:
    here = realm()
    assert refused(FakeKerberos(here, C), here.issue(A, B).make_request().ap_req).code == KRB_AP_ERR_NOT_US


@pytest.mark.parametrize("offset", [CLOCK_SKEW + 1, -CLOCK_SKEW - 1])
def test_skew_is_refused_with_the_clients_time_and_the_key(offset: float) -> None:
    here = realm()
    ticket, b = here.issue(A, B), FakeKerberos(here, B)
    refusal = refused(b, ticket.make_request(offset).ap_req)
    assert refusal.code == KRB_AP_ERR_SKEW
    assert refusal.accepted is not None
    assert b.read_error(refusal.krb_error).client_time == 1e9 + offset
    b.accept(ticket.make_request(math.copysign(CLOCK_SKEW, offset)).ap_req)


def test_an_expired_ticket() -> None:
    clock = Clock()
    here = realm(clock)
    ticket, b = here.issue(A, B), FakeKerberos(here, B)
    clock.now += TICKET_LIFE + CLOCK_SKEW
    b.accept(ticket.make_request().ap_req)
    clock.now += 1
    refusal = refused(b, ticket.make_request().ap_req)
    assert refusal.code == KRB_AP_ERR_TKT_EXPIRED
    assert refusal.accepted is not None


def test_a_ticket_that_has_not_begun_for_a_clock_that_is_behind() -> None:
    here = realm()
    behind = FakeKerberos(here, B, clock_offset=-CLOCK_SKEW - 1)
    refusal = refused(behind, here.issue(A, B).make_request().ap_req)
    assert refusal.code == KRB_AP_ERR_TKT_NYV
    assert behind.read_error(refusal.krb_error).server_time == 1e9 - CLOCK_SKEW - 1


@pytest.mark.parametrize("life", [60.0, 10 * TICKET_LIFE])
def test_when_a_ticket_begins_is_no_matter_of_how_long_it_lasts(life: float) -> None:
    here = realm()
    here.ticket_life = life
    ticket = here.issue(A, B)
    FakeKerberos(here, B).accept(ticket.make_request().ap_req)
    assert refused(FakeKerberos(here, B, clock_offset=-301), ticket.make_request().ap_req).code == KRB_AP_ERR_TKT_NYV


def test_the_replay_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "_MAX_REPLAYS", 2)
    here = realm()
    ticket, b = here.issue(A, B), FakeKerberos(here, B)
    requests = [ticket.make_request() for _ in range(3)]
    for request in requests:
        b.accept(request.ap_req)
    b.accept(requests[0].ap_req)
    assert refused(b, requests[2].ap_req).code == KRB_AP_ERR_REPEAT


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_the_session_key(plaintext: bytes, other: bytes) -> None:
    here = realm()
    key, stranger = here.issue(A, B).key, here.issue(A, B).key
    assert key.enctype == FAKE_ENCTYPE < 0
    assert key.decrypt(key.encrypt(plaintext)) == plaintext
    assert key.encrypt(plaintext) != key.encrypt(plaintext)
    key.verify(plaintext, key.checksum(plaintext))
    for checksum in (b"", stranger.checksum(plaintext), key.checksum(plaintext)[:-1], key.checksum(plaintext + b"x")):
        with pytest.raises(AuthenticationFailed):
            key.verify(plaintext, checksum)
    for ciphertext in (other, stranger.encrypt(plaintext), key.encrypt(plaintext)[:-1]):
        with pytest.raises(AuthenticationFailed):
            key.decrypt(ciphertext)
    assert key.prf(plaintext) == key.prf_rfc3962_literal(plaintext) != stranger.prf(plaintext)
    assert (key.prf(plaintext) == key.prf(other)) == (plaintext == other)


def test_the_same_seed_makes_the_same_realm() -> None:
    one, two, other = (realm(seed=seed).issue(A, B).make_request().ap_req for seed in (1, 1, 2))
    assert one == two != other


def test_nobody_gets_a_ticket_for_nobody() -> None:
    for client, server in (("who@TEST", B), (A, "who@TEST")):
        with pytest.raises(TicketUnavailable, match="no principal who@TEST") as unavailable:
            realm().issue(client, server)
        assert unavailable.value.refusal.code == KDC_ERR_S_PRINCIPAL_UNKNOWN


def test_no_key_in_a_repr() -> None:
    ticket = realm().issue(A, B)
    request = ticket.make_request()
    for thing in (ticket, ticket.key, request, FakeKerberos(ticket.realm, B).accept(request.ap_req)):
        assert "key=" not in repr(thing)
        assert "_key" not in repr(thing)


async def test_tickets_are_cached_until_they_end_or_a_fresh_one_is_wanted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = Clock()
    delays = itertools.count(1)
    tickets = FakeTickets(realm(clock), A, latency=lambda: float(next(delays)))
    assert tickets.at_hand(B) is None
    first = await tickets.get(B, deadline=10.0)
    assert tickets.at_hand(B) is first
    assert tickets.at_hand(B, tgt=b"of somebody") is None
    assert trio.current_time() == 1.0
    assert await tickets.get(B, deadline=10.0) is first
    assert trio.current_time() == 1.0
    second = await tickets.get(B, deadline=10.0, fresh=True)
    assert second is not first
    assert trio.current_time() == 3.0
    clock.now += TICKET_LIFE
    assert tickets.at_hand(B) is None
    third = await tickets.get(B, deadline=10.0)
    assert third is not second


async def test_a_kdc_that_takes_too_long(autojump_clock: trio.testing.MockClock) -> None:
    tickets = FakeTickets(realm(), A, latency=lambda: 100.0)
    with pytest.raises(TicketUnavailable, match=r"within 5\.0 s"):
        await tickets.get(B, deadline=5.0)
    assert trio.current_time() == 5.0


async def test_every_get_is_a_checkpoint() -> None:
    tickets = FakeTickets(realm(), A)
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await tickets.get(B, deadline=5.0)


def test_user_to_user_is_opened_by_the_tgt_it_was_made_with() -> None:
    kdc = realm()
    server = FakeKerberos(kdc, B, keytab=False)
    with pytest.raises(TgtDenied):
        server.offer_tgt(B.encode())
    server.renew_tgt()
    old = kdc.issue(A, B, server.offer_tgt(B.encode()))
    server.renew_tgt()
    new = kdc.issue(A, B, server.offer_tgt(B.encode()))
    for ticket in (old, new):
        request = ticket.make_request()
        accepted = server.accept(request.ap_req)
        request.verify_reply(accepted.make_reply())
        assert accepted.user_to_user
    server.lose_tgts()
    assert refusal(server, new.make_request().ap_req) == (45, None)
    server.renew_tgt()
    assert refusal(server, new.make_request().ap_req) == (45, server.tgts[-1])


def test_which_key_a_request_needs() -> None:
    kdc = realm()
    server, keyless = FakeKerberos(kdc, B), FakeKerberos(kdc, B, keytab=False)
    assert refusal(keyless, kdc.issue(A, B).make_request().ap_req) == (69, None)
    ticket = kdc.issue(A, B, kdc.issue_tgt(B))
    assert refusal(server, replace(ticket, tgt=None).make_request().ap_req) == (31, None)  # without the bit


def test_what_a_kdc_makes_no_user_to_user_ticket_with() -> None:
    clock = Clock()
    kdc = realm(clock)
    for tgt, code in ((kdc.issue_tgt(A), 26), (b"made up", 31)):
        with pytest.raises(TicketUnavailable) as unavailable:
            kdc.issue(A, B, tgt)
        assert unavailable.value.refusal.code == code
    tgt = kdc.issue_tgt(B)
    clock.now += TICKET_LIFE
    with pytest.raises(TicketUnavailable) as unavailable:
        kdc.issue(A, B, tgt)
    assert unavailable.value.refusal.code == 32
    kdc.keyless.add(B)
    with pytest.raises(TicketUnavailable) as unavailable:
        kdc.issue(A, B)
    assert unavailable.value.refusal.code == 27


def refusal(kerberos: FakeKerberos, ap_req: bytes) -> tuple[int, bytes | None]:
    with pytest.raises(ApRequestRefused) as refused:
        kerberos.accept(ap_req)
    return refused.value.code, refused.value.tgt
