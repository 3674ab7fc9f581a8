"""The realm for simulation behaves as the real one does where the machines can tell, and is loud about being fake."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos.fake import FakeAccepted, FakeKerberos, FakeRealm, FakeSessionKey, FakeTickets
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.proto.ports import ApRequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, BOB, CAROL = (f"kink/{name}.test@FAKE.TEST" for name in ("alice", "bob", "carol"))


class World:
    """A realm, its clock and its seed."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 1_800_000_000.0
        self.realm = FakeRealm([ALICE, BOB, CAROL], clock=lambda: self.now, random=random.Random(seed).randbytes)


def refused(acceptor: FakeKerberos, ap_req: bytes) -> ApRequestRefused:
    with pytest.raises(ApRequestRefused) as caught:
        acceptor.accept(ap_req)
    return caught.value


def test_both_ends_have_one_key() -> None:
    realm = World().realm
    ticket = realm.issue(ALICE, BOB)
    request = ticket.make_request()
    accepted = FakeKerberos(realm, BOB).accept(request.ap_req)
    request.verify_reply(accepted.make_reply())
    assert (accepted.client, accepted.server, accepted.endtime) == (ALICE, BOB, ticket.endtime)
    assert accepted.key.prf(b"seed") == ticket.key.prf(b"seed") == ticket.key.prf_rfc3962_literal(b"seed")


def test_the_same_seed_gives_the_same_octets() -> None:
    def octets(seed: int) -> tuple[bytes, bytes]:
        ticket = World(seed).realm.issue(ALICE, BOB)
        return ticket.make_request().ap_req, ticket.key.encrypt(b"octets")

    assert octets(1) == octets(1)
    assert octets(1) != octets(2)


def test_every_authenticator_takes_its_own_reply() -> None:
    realm = World().realm
    ticket, acceptor = realm.issue(ALICE, BOB), FakeKerberos(realm, BOB)
    first, second = ticket.make_request(), ticket.make_request()
    reply = acceptor.accept(first.ap_req).make_reply()
    with pytest.raises(AuthenticationFailed):
        second.verify_reply(reply)
    first.verify_reply(reply)


def test_an_ap_req_is_good_once_for_each_acceptor() -> None:
    realm = World().realm
    acceptor, ap_req = FakeKerberos(realm, BOB), realm.issue(ALICE, BOB).make_request().ap_req
    acceptor.accept(ap_req)
    refusal = refused(acceptor, ap_req)
    assert (refusal.code, refusal.accepted) == (34, None)
    FakeKerberos(realm, BOB).accept(ap_req)


def test_a_ticket_for_another_server_is_refused() -> None:
    realm = World().realm
    refusal = refused(FakeKerberos(realm, CAROL), realm.issue(ALICE, BOB).make_request().ap_req)
    assert (refusal.code, refusal.accepted) == (35, None)


@pytest.mark.parametrize(
    ("peer_ahead", "passed", "code"),
    [(310.0, 0.0, 37), (-310.0, 0.0, 33), (-310.0, 1000.0, 37), (0.0, 36310.0, 32), (36310.0, 0.0, 32)],
)
def test_clocks_and_lifetimes_are_refused_as_mit_does(peer_ahead: float, passed: float, code: int) -> None:
    world = World()
    ticket = world.realm.issue(ALICE, BOB)
    world.now += passed
    acceptor = FakeKerberos(world.realm, BOB, clock_offset=peer_ahead)
    request = ticket.make_request()
    refusal = refused(acceptor, request.ap_req)
    assert refusal.code == code
    assert isinstance(refusal.accepted, FakeAccepted)
    request.verify_reply(refusal.accepted.make_reply())
    details = acceptor.read_error(refusal.krb_error)
    assert (details.code, details.server_time, details.client_time) == (code, world.now + peer_ahead, world.now)


def test_the_offset_from_the_error_makes_the_next_one_good() -> None:
    world = World()
    ticket, acceptor = world.realm.issue(ALICE, BOB), FakeKerberos(world.realm, BOB, clock_offset=1000.0)
    details = acceptor.read_error(refused(acceptor, ticket.make_request().ap_req).krb_error)
    acceptor.accept(ticket.make_request(details.server_time - world.now).ap_req)


@given(at=st.integers(min_value=0, max_value=10_000), mask=st.integers(min_value=1, max_value=255))
def test_one_changed_octet_of_an_ap_req_is_refused(at: int, mask: int) -> None:
    realm = World().realm
    ap_req = bytearray(realm.issue(ALICE, BOB).make_request().ap_req)
    ap_req[at % len(ap_req)] ^= mask
    assert refused(FakeKerberos(realm, BOB), bytes(ap_req)).accepted is None


@given(octets=st.binary(max_size=120))
def test_random_octets_are_refused(octets: bytes) -> None:
    acceptor = FakeKerberos(World().realm, BOB)
    refusal = refused(acceptor, octets)
    assert refusal.accepted is None
    assert acceptor.read_error(refusal.krb_error).client_time is None


@given(octets=st.binary(max_size=120))
def test_random_octets_are_no_error(octets: bytes) -> None:
    acceptor = FakeKerberos(World().realm, BOB)
    with pytest.raises(MalformedMessage):
        acceptor.read_error(b"\0" + octets)


@given(octets=st.binary(max_size=100))
def test_an_error_of_the_right_size_is_still_no_error(octets: bytes) -> None:
    acceptor = FakeKerberos(World().realm, BOB)
    size = len(refused(acceptor, b"").krb_error)
    with pytest.raises(MalformedMessage):
        acceptor.read_error((b"\0" + octets)[:size].ljust(size, b"\0"))


def changed(octets: bytes, at: int) -> bytes:
    return octets[: at % len(octets)] + bytes([octets[at % len(octets)] ^ 1]) + octets[at % len(octets) + 1 :]


@given(text=st.binary(max_size=100), at=st.integers(min_value=0, max_value=1000))
def test_tampering_is_noticed(text: bytes, at: int) -> None:
    key = FakeSessionKey(bytes(32), random.Random(1).randbytes)
    assert key.decrypt(key.encrypt(text)) == text
    key.verify(text, key.checksum(text))
    attempts: list[Callable[[], object]] = [
        lambda: key.decrypt(changed(key.encrypt(text), at)),
        lambda: key.decrypt(text[:27]),
        lambda: key.verify(text, changed(key.checksum(text), at)),
        lambda: key.verify(text, key.checksum(text)[:-1]),
        lambda: key.verify(text + b"\0", key.checksum(text)),
        lambda: key.verify(text, b""),
    ]
    for attempt in attempts:
        with pytest.raises(AuthenticationFailed):
            attempt()


def test_it_is_loud_about_being_fake() -> None:
    ticket = World().realm.issue(ALICE, BOB)
    assert ticket.make_request().ap_req.startswith(b"FAKE-AP-REQ")
    assert ticket.key.enctype < 0  # RFC 3961 §8: local use, no Kerberos has it


def test_no_secret_in_any_repr() -> None:
    realm = World().realm
    ticket = realm.issue(ALICE, BOB)
    request = ticket.make_request()
    accepted = FakeKerberos(realm, BOB).accept(request.ap_req)
    assert repr(ticket.key) == "FakeSessionKey()"
    for shown in (repr(ticket), repr(request), repr(accepted)):
        assert "key=" not in shown
        assert "ap_req=" not in shown


class TestTickets:
    async def test_a_trip_takes_its_latency_and_then_none(self, autojump_clock: trio.testing.MockClock) -> None:
        tickets = FakeTickets(World().realm, ALICE, latency=lambda: 2.0)
        first = await tickets.get(BOB, deadline=5.0)
        assert trio.current_time() == 2.0
        assert await tickets.get(BOB, deadline=5.0) is first
        assert trio.current_time() == 2.0
        assert await tickets.get(BOB, deadline=5.0, fresh=True) is not first
        assert trio.current_time() == 4.0

    async def test_an_expired_one_is_fetched_again(self, autojump_clock: trio.testing.MockClock) -> None:
        world = World()
        tickets = FakeTickets(world.realm, ALICE)
        first = await tickets.get(BOB, deadline=5.0)
        world.now = first.endtime
        assert await tickets.get(BOB, deadline=5.0) is not first

    async def test_a_slow_kdc_ends_at_the_deadline(self, autojump_clock: trio.testing.MockClock) -> None:
        with pytest.raises(TicketUnavailable, match=r"did not answer within 5\.0 s"):
            await FakeTickets(World().realm, ALICE, latency=lambda: 27.0).get(BOB, deadline=5.0)
        assert trio.current_time() == 5.0

    async def test_an_unknown_principal_is_refused(self, autojump_clock: trio.testing.MockClock) -> None:
        with pytest.raises(TicketUnavailable) as caught:
            await FakeTickets(World().realm, ALICE).get("kink/nobody.test@FAKE.TEST", deadline=5.0)
        assert caught.value.refusal.code == 7
