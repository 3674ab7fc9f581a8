"""Transactions: who answers whom, what is sent again, what was never answered."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from kinkvpn.decode.conversation import MAX_TRANSACTIONS, Conversations
from kinkvpn.decode.datagrams import Datagram, Endpoint
from kinkvpn.decode.survey import Header
from kinkvpn.wire.kink import ACKREQ, MessageType

A, B = Endpoint(ip_address("192.0.2.1"), 910), Endpoint(ip_address("192.0.2.2"), 910)


class Talk:
    """Messages between A and B, by number."""

    def __init__(self) -> None:
        self.conversations, self.count = Conversations(), 0

    def say(
        self,
        kind: MessageType,
        xid: int,
        at: float,
        *,
        octets: bytes = b"",
        epoch: int | None = 7,
        ackreq: bool = False,
        source: Endpoint = A,
        destination: Endpoint = B,
    ) -> dict[str, Any]:
        self.count += 1
        datagram = Datagram(self.count, at, source, destination, octets or self.count.to_bytes(4))
        header = Header(kind, 1, 0, 16, 1, xid, 0, ACKREQ if ackreq else 0, 0)
        transaction = self.conversations.place(datagram, header, epoch)
        return self.conversations.enter(transaction, header, self.count, datagram)

    def reply(self, xid: int, at: float, **more: Any) -> dict[str, Any]:
        return self.say(MessageType.REPLY, xid, at, source=B, destination=A, epoch=None, **more)

    def open_ends(self) -> tuple[list[int], list[int]]:
        self.conversations.finish()
        return self.conversations.unanswered.numbers, self.conversations.unacknowledged.numbers


def test_a_reply_answers_the_command_with_its_xid() -> None:
    talk = Talk()
    assert talk.say(MessageType.CREATE, 5, 1.0)["role"] == "command"
    relation = talk.reply(5, 1.0125)
    assert (relation["answers"], relation["after_ms"]) == (1, 12.5)
    assert talk.open_ends() == ([], [])


def test_a_reply_with_another_xid_or_of_another_host_answers_nothing() -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 5, 1.0)
    assert talk.reply(6, 1.1)["answers"] is None
    stranger = Endpoint(ip_address("192.0.2.3"), 910)
    assert talk.say(MessageType.REPLY, 5, 1.2, source=stranger, destination=A)["answers"] is None
    assert talk.open_ends() == ([1], [])


def test_the_same_xid_in_the_other_direction_is_another_transaction() -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 0, 1.0)
    talk.say(MessageType.CREATE, 0, 1.1, source=B, destination=A)
    assert talk.say(MessageType.REPLY, 0, 1.2)["answers"] == 2
    assert talk.reply(0, 1.3)["answers"] == 1


def test_retransmissions_name_the_first() -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 5, 1.0)
    again = talk.say(MessageType.CREATE, 5, 2.0)
    assert (again["repeats"], again["identical"], again["repeat_after_ms"]) == (1, False, 1000.0)
    assert talk.reply(5, 2.5)["after_ms"] == 500.0
    assert talk.open_ends() == ([], [])


def test_the_same_octets_name_the_very_message_that_is_repeated() -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 5, 1.0, octets=b"a")
    talk.say(MessageType.CREATE, 5, 2.0, octets=b"b")
    again = talk.say(MessageType.CREATE, 5, 3.0, octets=b"b")
    assert (again["repeats"], again["identical"]) == (2, True)


def test_an_ack_acknowledges_the_reply_that_asked_for_it() -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 5, 1.0)
    talk.reply(5, 1.1, ackreq=True)
    assert talk.say(MessageType.ACK, 5, 1.2)["acknowledges"] == 2
    assert talk.open_ends() == ([], [])


def test_a_reply_that_waits_for_its_ack_is_an_open_end() -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 5, 1.0)
    talk.reply(5, 1.1, ackreq=True)
    assert talk.open_ends() == ([], [2])


@pytest.mark.parametrize(("kind", "epoch"), [(MessageType.STATUS, 7), (MessageType.CREATE, 8)])
def test_an_xid_that_comes_again_with_another_command_or_epoch_is_new(kind: MessageType, epoch: int) -> None:
    talk = Talk()
    talk.say(MessageType.CREATE, 0, 1.0)
    assert talk.say(kind, 0, 9.0, epoch=epoch)["repeats"] is None
    assert talk.open_ends() == ([1, 2], [])


def test_memory_is_bounded_and_what_is_forgotten_was_unanswered() -> None:
    talk = Talk()
    for xid in range(MAX_TRANSACTIONS + 10):
        talk.say(MessageType.STATUS, xid, 1.0)
    assert talk.conversations.unanswered.count == 10
    talk.conversations.finish()
    assert talk.conversations.unanswered.count == MAX_TRANSACTIONS + 10
    assert len(talk.conversations.unanswered.numbers) == 1000
