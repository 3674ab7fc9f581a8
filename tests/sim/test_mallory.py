"""A member of the realm that means harm: a configured peer, with a good ticket, that says whatever it likes.

It can refuse itself service. It can make nothing grow beyond its bound, send this host no exception, and take nothing
from anybody else.
"""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import kinkhosts
from support.kinkhosts import Host, Wire, policy, principal

from esp.sa import Endpoint
from kinkvpn.proto import responder
from kinkvpn.proto.create import MAX_QUICK_MODES
from kinkvpn.proto.envelope import seal_command, seal_reply
from kinkvpn.proto.epoch import MAX_PAST_EPOCHS
from kinkvpn.proto.exchanges import MAX_EXCHANGES
from kinkvpn.proto.identification import identifications_of
from kinkvpn.proto.pairs import MAX_LINGERING, MAX_OF_PEER, MAX_TOMBSTONES, MAX_UNACKNOWLEDGED, MAX_UNDELETED
from kinkvpn.proto.proposal import offer
from kinkvpn.proto.responder import MAX_ANSWERS
from kinkvpn.proto.retransmit import TRANSMISSIONS
from kinkvpn.proto.settings import UserToUser
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.isakmp import (
    Attribute,
    Delete,
    Identification,
    IsakmpPayload,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    Transform,
    Unknown,
)
from kinkvpn.wire.kink import (
    ApReq,
    Encrypt,
    Isakmp,
    KinkError,
    KinkPayload,
    KrbError,
    Message,
    MessageType,
    TgtRep,
    TgtReq,
    build_message,
    build_plaintext,
    parse_message,
)

if TYPE_CHECKING:
    from kinkvpn.proto.events import Effect

SOURCE = Endpoint("192.0.2.1", 910)
COMMANDS = (MessageType.CREATE, MessageType.DELETE, MessageType.STATUS, MessageType.ACK)
# Instead of 8,192, which takes as many commands to fill.
FEWER_ANSWERS = 512
# The hosts of the wire have one policy each.
POLICIES = 1


class Mallory:
    """Holds a ticket of host a, which is configured at host b; host a itself is not there."""

    def __init__(self, seed: int = 0, **changes: Any) -> None:
        self.random = Random(seed)
        self.wire = Wire(seed)
        self.b = Host(self.wire, "b", kinkhosts.settings("a", policy("b", **changes)))
        self.ticket = self.wire.realm.issue(principal("a"), principal("b"))
        self.xids = itertools.count(1)

    def seal(self, kind: MessageType, *payloads: KinkPayload, xid: int | None = None, epoch: int = 1) -> bytes:
        number = next(self.xids) if xid is None else xid
        return seal_command(kind, number, epoch, self.ticket.make_request(), self.ticket.key, payloads)

    def send(self, datagram: bytes) -> list[Effect]:
        effects = self.b.receive(datagram, SOURCE)
        self.b.perform(effects)
        return effects

    def create(self, spi: int, **how: Any) -> bytes:
        return self.creates(spi, 1, **how)

    def creates(self, spi: int, count: int, **how: Any) -> bytes:
        """One CREATE for so many pairs of the one policy."""
        asked = policy("a")
        ids = identifications_of(asked.selector, initiator=True)
        nonce = Nonce(self.random.randbytes(16))
        payloads = (Isakmp((offer(asked, (spi + number).to_bytes(4, "big")), nonce, *ids)) for number in range(count))
        return self.seal(MessageType.CREATE, *payloads, **how)

    def sizes(self) -> dict[str, int]:
        """Everything at b that could grow."""
        peer, answerer = self.b.peer, self.b.responder
        pairs = peer._pairs
        return {
            "inbound": len(self.b.inbound),
            "outbound": len(self.b.outbound),
            "reserved": len(self.b.reserved),
            "exchanges": len(peer._exchanges),
            "past epochs": len(peer.epochs),
            "standing": len(pairs._standing),
            "unacknowledged": len(pairs._unacknowledged),
            "tombstones": len(pairs._tombstones),
            "graces": len(pairs._graces),
            "undeleted": len(pairs._undeleted),
            "answers": len(answerer._transactions),
            "awaiting": len(answerer._awaiting),
            "seen": len(answerer._seen),
            "strangers": len(answerer._strangers),
            "members": len(answerer._members),
        }


# What a peer may have stand here, and each of these has its reason where it is defined. An inbound SA is of a pair that
# stands, waits for its ACK, lingers, or has a DELETE on its way or owed.
UNACKNOWLEDGED = MAX_UNACKNOWLEDGED + POLICIES
# One CREATE may make more pairs than are kept, and each of those is a DELETE.
EXCHANGES = MAX_EXCHANGES + 2 * POLICIES + UNACKNOWLEDGED + MAX_QUICK_MODES + 2
LINGERING = MAX_LINGERING + 2 * POLICIES
BOUNDS = {
    "inbound": MAX_OF_PEER + UNACKNOWLEDGED + LINGERING + EXCHANGES + MAX_UNDELETED,
    "outbound": MAX_OF_PEER + 1,
    "reserved": 0,
    "exchanges": EXCHANGES,
    "past epochs": MAX_PAST_EPOCHS,
    "standing": MAX_OF_PEER + 1,
    "unacknowledged": UNACKNOWLEDGED,
    "tombstones": MAX_TOMBSTONES,
    "graces": LINGERING,
    "undeleted": MAX_UNDELETED,
    "answers": MAX_ANSWERS,
    "awaiting": 2 * UNACKNOWLEDGED,
    "seen": 2 * MAX_ANSWERS,
    "strangers": 1024,
    "members": 1024,
}


def storm(mallory: Mallory, commands: int, each: Any) -> dict[str, int]:
    """The greatest sizes seen while ``each`` makes one datagram after the other, two thousand a second."""
    greatest = dict.fromkeys(BOUNDS, 0)
    for number in range(commands):
        mallory.send(each(number))
        if number % 20 == 0:
            mallory.wire.run(mallory.wire.now + 0.01)
            greatest = {name: max(size, greatest[name]) for name, size in mallory.sizes().items()}
    assert {name: size for name, size in greatest.items() if size > BOUNDS[name]} == {}
    return greatest


def test_pairs_without_end() -> None:
    """Each CREATE makes a pair too many, which b has to delete, and nobody answers its DELETEs."""
    mallory = Mallory()
    greatest = storm(mallory, 1500, lambda number: mallory.create(1000 + number))
    assert greatest["exchanges"] > MAX_EXCHANGES
    # What b says for it, in all of the cycle that follows, is bounded too: seven transmissions of each.
    mallory.wire.run(mallory.wire.now + 120)
    assert sum(kind == "DELETE" for _, kind, _ in mallory.wire.log) <= EXCHANGES * TRANSMISSIONS


def test_pairs_made_and_deleted_without_end() -> None:
    mallory = Mallory()

    def each(number: int) -> bytes:
        spi = 1000 + number // 2
        delete = Isakmp((Delete(3, (spi.to_bytes(4, "big"),)),))
        return mallory.seal(MessageType.DELETE, delete) if number % 2 else mallory.create(spi)

    greatest = storm(mallory, 1500, each)
    assert greatest["graces"] == LINGERING
    assert len(mallory.b.peer._exchanges) < 10


def test_replies_never_acknowledged() -> None:
    mallory = Mallory(responder_nonce=True)
    greatest = storm(mallory, 1000, lambda number: mallory.create(1000 + number))
    assert greatest["unacknowledged"] == UNACKNOWLEDGED


@pytest.mark.parametrize("three_way", [False, True])
def test_more_pairs_than_a_datagram_may_ask_for(three_way: bool) -> None:
    mallory = Mallory(responder_nonce=three_way)
    greatest = storm(mallory, 150, lambda number: mallory.creates(1000 + 20 * number, 20))
    assert greatest["unacknowledged" if three_way else "standing"] > 0
    mallory.wire.run(mallory.wire.now + 120)
    assert sum(kind == "DELETE" for _, kind, _ in mallory.wire.log) <= EXCHANGES * TRANSMISSIONS


def test_a_new_life_with_every_command() -> None:
    mallory = Mallory()
    greatest = storm(mallory, 1000, lambda number: mallory.create(1000 + number, epoch=number))
    assert greatest["past epochs"] == MAX_PAST_EPOCHS


def test_deletes_of_thousands_of_spis_and_commands_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "MAX_ANSWERS", FEWER_ANSWERS)
    mallory = Mallory()

    def each(number: int) -> bytes:
        if number % 50:
            return mallory.seal(MessageType.STATUS)
        spis = tuple(spi.to_bytes(4, "big") for spi in range(number * 100, number * 100 + 500))
        return mallory.seal(MessageType.DELETE, Isakmp((Delete(3, spis),)))

    greatest = storm(mallory, 1000, each)
    assert greatest["tombstones"] == MAX_TOMBSTONES
    assert greatest["answers"] == FEWER_ANSWERS


def test_one_transaction_under_ever_new_authenticators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "MAX_ANSWERS", FEWER_ANSWERS)
    mallory = Mallory()
    greatest = storm(mallory, 3 * FEWER_ANSWERS, lambda _: mallory.seal(MessageType.STATUS, xid=1))
    assert greatest["answers"] == 1
    assert greatest["seen"] == 2 * FEWER_ANSWERS


def test_long_words_are_not_remembered() -> None:
    """What is read once and known from then on is what hosts say over and over, not 25 kB that differ each time."""
    mallory = Mallory()

    def each(number: int) -> bytes:
        long = bytes(25_000 + number)
        # One that means nothing; and a life of one second, which is taken, and answered.
        more = Attribute(99, long) if number % 2 else Attribute(2, long + b"\1")
        transform = Transform(1, 20, (*GOOD_ATTRIBUTES[:1], more, *GOOD_ATTRIBUTES[1:]))
        sa = SecurityAssociation((Proposal(1, 3, (0x1000 + number).to_bytes(4, "big"), (transform,)),))
        notify = Notify(1, b"", NotifyType.KINKVPN_INNER_MTU, long)
        return mallory.seal(MessageType.CREATE, Isakmp((sa, Nonce(b"a good nonce"), *IDS, notify)))

    mallory.send(each(0))
    tracemalloc.start()
    try:
        for number in range(1, 31):
            mallory.send(each(number))
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert mallory.b.outbound
    assert kept < 30 * 25_000, "fifteen answers that have the life in them, and their pairs of SAs"


# ------------------------------------------------------------ nothing that it says is an exception here

numbers = st.sampled_from([0, 1, 2, 3, 4, 5, 11, 12, 20, 255])
attributes = st.builds(
    Attribute,
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 11, 99, 32767]),
    st.sampled_from([0, 1, 2, 3, 61443, 256, 128, 65535]) | st.binary(max_size=20) | st.just(bytes(200) + b"\x07"),
)
transforms = st.builds(Transform, numbers, numbers, st.lists(attributes, max_size=6).map(tuple))
proposals = st.builds(
    Proposal,
    numbers,
    st.just(3),
    st.binary(min_size=4, max_size=4),
    st.lists(transforms, min_size=1, max_size=4).map(tuple),
)
# Near the good one, so that what lies behind it is reached: an attribute more, another number, the good one twice.
good = offer(policy("a"), b"\x12\x34\x56\x78")
near = st.builds(
    lambda proposal, transform, more: SecurityAssociation(
        (Proposal(proposal, 3, b"\x12\x34\x56\x79", (Transform(transform, 20, (*GOOD_ATTRIBUTES, *more)),)),)
    ),
    numbers,
    numbers,
    st.lists(attributes, max_size=3),
)
GOOD_ATTRIBUTES = good.proposals[0].transforms[0].attributes
IDS = identifications_of(policy("a").selector, initiator=True)
inside: st.SearchStrategy[IsakmpPayload] = st.one_of(
    st.just(good),
    near,
    st.builds(SecurityAssociation, st.lists(proposals, min_size=1, max_size=3).map(tuple)),
    st.builds(Nonce, st.binary(min_size=8, max_size=256)),
    st.builds(KeyExchange, st.binary(min_size=1, max_size=300)),
    st.sampled_from(IDS),
    st.builds(
        lambda port, octets: Identification(4, port % 256, port, octets), numbers, st.binary(min_size=8, max_size=8)
    ),
    st.builds(
        Notify, st.sampled_from([0, 1, 3]), st.binary(max_size=16), st.integers(0, 65535), st.binary(max_size=40)
    ),
    st.builds(Delete, st.just(3), st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=5).map(tuple)),
    st.builds(Unknown, st.sampled_from([6, 7, 8, 9, 13, 20, 21, 99, 200]), st.binary(max_size=20)),
)
quick_modes = st.builds(Isakmp, st.lists(inside, max_size=6).map(tuple))
payloads: st.SearchStrategy[KinkPayload] = st.one_of(
    quick_modes,
    quick_modes,
    st.just(Isakmp((good, Nonce(b"a good nonce"), *IDS))),
    st.builds(lambda octets: Isakmp((), 1, 1, (1, octets)), st.binary(max_size=20)),
    st.builds(KinkError, st.integers(0, 2**32 - 1) | st.integers(0, 8)),
    st.builds(KrbError, st.binary(max_size=60)),
    st.builds(TgtReq, st.binary(max_size=60)),
    st.builds(TgtRep, st.binary(max_size=60)),
)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(COMMANDS), st.lists(payloads, max_size=3), st.integers(1, 3), st.integers(1, 2)),
        max_size=8,
    ),
    st.booleans(),
)
def test_whatever_a_peer_asks(
    conversation: list[tuple[MessageType, list[KinkPayload], int, int]], three_way: bool
) -> None:
    mallory = Mallory(responder_nonce=three_way)
    for kind, said, xid, epoch in conversation:
        mallory.send(mallory.seal(kind, *said, xid=xid, epoch=epoch))
        mallory.wire.run(mallory.wire.now + 0.1)
    mallory.wire.run(mallory.wire.now + 200)
    assert len(mallory.b.inbound) <= BOUNDS["inbound"]


@settings(deadline=None)
@given(st.lists(payloads, max_size=3), st.booleans(), st.sampled_from(["create", "status", "delete"]))
def test_whatever_a_peer_answers(said: list[KinkPayload], ackreq: bool, asked: str) -> None:
    """Host b asks, and has its answer from whoever holds the ticket's key."""
    wire = Wire()
    b = Host(wire, "b", kinkhosts.settings("a", policy("b")))
    kerberos = Host(wire, "a", kinkhosts.settings("b", policy("a"))).kerberos
    del wire.hosts["192.0.2.1"]
    if asked == "create":
        b.perform(b.peer.acquired("net", 0.0))
    elif asked == "status":
        b.perform(b.peer.probe()[1])
    else:
        b.perform(b.peer.unknown_spi_seen(4711, 0.0))
    wire.run(0.1)
    command = parse_message(wire.log[0][2])
    ap = command.payloads[0]
    assert isinstance(ap, ApReq)
    accepted = kerberos.accept(ap.ap_req)
    reply = seal_reply(command.xid, 1, accepted.make_reply(), accepted.key, tuple(said), ackreq=ackreq)
    b.perform(b.receive(reply, SOURCE))
    assert ackreq <= ("ACK" in [kind for _, kind, _ in wire.log])
    b.perform(b.receive(reply, SOURCE))
    wire.run(200.0)
    assert b.reserved == set()


@settings(deadline=None)
@given(st.sampled_from(COMMANDS), st.data())
def test_whatever_octets_are_under_the_key(kind: MessageType, data: st.DataObject) -> None:
    mallory = Mallory()
    plaintext = bytearray(build_plaintext((Isakmp((good, Nonce(b"a good nonce"), *IDS)),)))
    for _ in range(data.draw(st.integers(0, 4))):
        plaintext[data.draw(st.integers(0, len(plaintext) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(plaintext)))
    encrypt = Encrypt(mallory.ticket.key.encrypt(bytes(plaintext[: cut if cut % 3 == 0 else None])))
    message = Message(kind, 1, (ApReq(1, mallory.ticket.make_request().ap_req), encrypt))
    mallory.send(build_message(message, mallory.ticket.key.checksum))
    mallory.wire.run(100.0)


@settings(deadline=None)
@given(
    st.lists(st.lists(payloads, max_size=2), max_size=6),
    st.sampled_from(UserToUser),
    st.sampled_from(["create", "status", "delete"]),
)
def test_whatever_a_stranger_answers(said: list[list[KinkPayload]], mode: UserToUser, asked: str) -> None:
    """Host b asks a peer that is not there, and hears whatever anybody without a key can say, again and again."""
    wire = Wire()
    b = Host(wire, "b", kinkhosts.settings("a", policy("b"), user_to_user=mode))
    if asked == "create":
        b.perform(b.peer.acquired("net", 0.0))
    elif asked == "status":
        b.perform(b.peer.probe()[1])
    else:
        b.perform(b.peer.unknown_spi_seen(4711, 0.0))
    wire.run(0.1)
    for answer in said:
        xids = {parse_message(datagram).xid for _, _, datagram in wire.log}
        for xid in xids:
            bare = Message(MessageType.REPLY, xid, tuple(answer), ackreq=len(answer) == 1)
            b.perform(b.receive(build_message(bare), SOURCE))
        wire.run(wire.now + 0.7)
        assert b.outbound == {}
    # Seven transmissions each of a few transactions, however much was answered.
    wire.run(300.0)
    assert len({parse_message(datagram).xid for _, _, datagram in wire.log}) <= 20
    assert len(b.peer._exchanges) <= 1
    assert b.peer.epochs.present is None
    assert b.peer.last_heard is None
