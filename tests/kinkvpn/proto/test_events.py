from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
from support.kinkhosts import Wire, principal

from esp.sa import Endpoint
from kinkvpn.proto import events
from kinkvpn.proto.events import Effect, Event, Path, ReplyReceived, SendMessage, TicketReady
from kinkvpn.wire.kink import Message, MessageType


@pytest.mark.parametrize("kind", [*get_args(Event), *get_args(Effect)])
def test_frozen_and_slotted(kind: type) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined] # set by dataclass
    assert "__slots__" in vars(kind)


def test_a_path_is_plain_unless_it_says_more() -> None:
    assert Path(Endpoint("192.0.2.1", 910)) == (("192.0.2.1", 910), False, "")


def test_no_octets_and_no_tickets_in_a_repr() -> None:
    ticket = Wire().realm.issue(principal("a"), principal("b"))
    shown = [
        TicketReady(ticket),
        ReplyReceived(Message(MessageType.REPLY, 1, (), checksum=b"sss"), b"sss"),
        SendMessage(b"sss", Path(Endpoint("192.0.2.1", 910))),
    ]
    for each in shown:
        assert "sss" not in repr(each)
        assert "Ticket(" not in repr(each)


def test_tallies_are_named_after_their_values() -> None:
    assert all(tally.value == tally.name.lower() for tally in events.Tally)
