from __future__ import annotations

from support.kinkhosts import Wire, principal

from kinkvpn.proto.status import StatusCommand
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import MessageType


def test_nothing_is_said_and_any_answer_is_good() -> None:
    key = Wire().realm.issue(principal("a"), principal("b")).key
    command = StatusCommand()
    assert command.type is MessageType.STATUS
    assert command.subject == "status"
    assert command.payloads() == ()
    assert command.begin(key, 0.0) == command.withdraw() == []
    assert command.complete(((Notify(3, b"", 14),),), ackreq=True, key=key, now=0.0) == []
    assert command.outcome is None
