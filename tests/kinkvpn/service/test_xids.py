"""Numbers of exchanges: whose they are, none twice, and bounded; in whole hosts they are in test_keying."""

from __future__ import annotations

from typing import Any

from kinkvpn.service.xids import Xids


class Owner:
    """A peer with exchanges under way."""

    def __init__(self) -> None:
        self.under_way: set[int] = set()

    def owns(self, xid: int) -> bool:
        return xid in self.under_way


def drawn(*numbers: int) -> Xids:
    left = list(numbers)
    return Xids(lambda octets: left.pop(0).to_bytes(octets, "big"))


def assign(xids: Xids, owner: Any) -> int:
    xid = xids.assign(owner)
    owner.under_way.add(xid)
    return xid


def test_each_has_its_owner_and_no_two_are_the_same() -> None:
    xids, one, other = drawn(5, 5, 5, 0xFFFFFFFF), Owner(), Owner()
    assert (assign(xids, one), assign(xids, other)) == (5, 0xFFFFFFFF)
    assert (xids.owner(5), xids.owner(0xFFFFFFFF), xids.owner(6)) == (one, other, None)


def test_those_that_are_over_go_as_far_as_the_oldest_that_is_not() -> None:
    xids, owner = drawn(*range(1, 7)), Owner()
    for _ in range(5):
        assign(xids, owner)
    owner.under_way -= {1, 2, 4}
    assign(xids, owner)
    assert [xid for xid in range(1, 7) if xids.owner(xid)] == [3, 4, 5, 6]
