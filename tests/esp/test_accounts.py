from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from esp.accounts import Accounts
from esp.errors import DropReason


def test_what_was_carried_and_dropped_is_in_the_totals() -> None:
    accounts = Accounts()
    accounts.add(2, 300)
    accounts.add(1, 50, 4, 400)
    accounts.opened([b"12345", b"678"])
    accounts.opened([])
    totals = accounts.totals(7, {"ect0": 1})
    assert (totals.packets_out, totals.octets_out) == (3, 350)
    assert (totals.packets_in, totals.octets_in) == (6, 408)
    assert (totals.events_lost, totals.unused_ecn, totals.drops) == (7, {"ect0": 1}, {})


def test_a_drop_is_counted_once_in_all_and_once_of_its_sa() -> None:
    accounts, sa = Accounts(), SimpleNamespace(drops=Counter())
    named: Any = sa
    accounts.drop(DropReason.NOT_IP)
    accounts.drop(DropReason.TOO_BIG, named)
    accounts.count(DropReason.TUN_REFUSED, 3)
    accounts.count(DropReason.LINK_REFUSED, 0)
    drops = {DropReason.NOT_IP: 1, DropReason.TOO_BIG: 1, DropReason.TUN_REFUSED: 3}
    assert accounts.totals(0, {}).drops == drops, "what was none is not there"
    assert sa.drops == {DropReason.TOO_BIG: 1}


def test_totals_are_a_copy() -> None:
    accounts, unused = Accounts(), {"ect0": 1}
    before = accounts.totals(0, unused)
    accounts.drop(DropReason.NOT_IP)
    unused["ect0"] = 2
    assert (before.drops, before.unused_ecn) == ({}, {"ect0": 1})
