from __future__ import annotations

import dataclasses
import re
from pathlib import Path as FilePath
from typing import get_args

import pytest
from support.kinkhosts import Wire, principal

from esp.sa import Endpoint
from kinkvpn.proto import events
from kinkvpn.proto.events import Count, Effect, Event, Path, ReplyReceived, SendMessage, TicketReady
from kinkvpn.wire.kink import Message, MessageType

COUNTERS = FilePath(__file__).parents[3] / "docs/counters.md"


@pytest.mark.parametrize("kind", [*get_args(Event), *get_args(Effect)])
def test_frozen_and_slotted(kind: type) -> None:
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # set by dataclass
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


@pytest.mark.parametrize("kind", [events.Tally, events.Family])
def test_tallies_are_named_after_their_values(kind: type[events.Tally | events.Family]) -> None:
    assert all(each.value == each.name.lower() for each in kind)


def test_every_counter_is_in_the_page_that_promises_its_name() -> None:
    """A new tally or family needs a line in docs/counters.md, and no name leaves it again."""
    keying, _, engine = COUNTERS.read_text().partition("\n## `unused_ecn`")
    assert engine
    listed = re.findall(r"^\| `(\w+)` \|", keying, re.MULTILINE)
    assert sorted(listed) == sorted([*events.Tally, *events.Family])


def test_labels_tell_more_of_the_same_event() -> None:
    label = events.Label(events.Family.EXCHANGES, "create.completed")
    assert Count(events.Tally.DUPLICATE, (label,)) == Count(events.Tally.DUPLICATE)
