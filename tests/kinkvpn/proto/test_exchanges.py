"""What is under way with a peer, of which kind, and what is due; how they come and go is in the tests of peers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kinkvpn.proto.delete import DeleteCommand, Doomed
from kinkvpn.proto.exchanges import MAX_EXCHANGES, Exchanges
from kinkvpn.proto.outcome import Completed
from kinkvpn.proto.status import StatusCommand


def exchange(xid: int, command: Any, deadline: float | None = None) -> Any:
    """As far as this looks at one."""
    return SimpleNamespace(xid=xid, command=command, deadline=deadline, outcome=None)


DELETE, STATUS = DeleteCommand(Doomed("a pair", 0x1234, 0.0)), StatusCommand()


@pytest.mark.parametrize(
    ("command", "busy", "deleting"),
    [(STATUS, False, False), (DELETE, True, True), (object(), True, False)],
    ids=["status", "delete", "another"],
)
def test_what_is_under_way(command: Any, busy: bool, deleting: bool) -> None:
    exchanges = Exchanges()
    entered = exchanges.enter(exchange(7, command))
    assert (exchanges[7], exchanges.busy, exchanges.deleting) == (entered, busy, deleting)
    entered.outcome = Completed(0.1)
    assert not exchanges.busy
    assert not exchanges.deleting


def test_what_is_due_is_looked_at_in_its_turn() -> None:
    exchanges = Exchanges()
    for xid, deadline in ((1, 5.0), (2, 4.0), (3, None), (4, 6.0), (5, 5.0)):
        exchanges.enter(exchange(xid, STATUS, deadline))
    found = []
    for xid in exchanges.due(5.0):
        found.append(xid)
        exchanges[5].deadline = 9.0  # what one of them has brought about
        exchanges.pop(3, None)
    assert found == [1, 2]


def test_there_is_an_end_of_them() -> None:
    exchanges = Exchanges()
    for xid in range(MAX_EXCHANGES + 4):
        exchanges.enter(exchange(xid, STATUS))
    assert not exchanges.crowded(2)
    assert exchanges.crowded(1)
