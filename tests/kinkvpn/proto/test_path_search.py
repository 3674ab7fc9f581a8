"""What a path carries is found by trying, while there is traffic, and found again when it changes without a word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import Host, Wire, policy, settings

from esp.sa import Endpoint
from kinkvpn.proto.acquaintance import Ourselves
from kinkvpn.proto.events import ConfirmPath, Tally
from kinkvpn.proto.path_search import CONFIRM_SECONDS, PATIENCE, RAISE_SECONDS, REST_SECONDS, SIZES
from kinkvpn.proto.ports import TicketRefusal
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.wire.kink import MessageType, parse_message

B = "192.0.2.2"
IN_FRONT = 20 + 8 + 4  # IPv4, UDP, non-ESP marker


class Path:
    """Host a sends large packets to host b, through a path that tells nobody what it does not carry."""

    def __init__(self, carries: int = 65_535, *, inner: int | None = None, mtu: int = 1500, **changes: Any) -> None:
        self.carries = carries
        self.wire = Wire()
        ourselves = Ourselves(inner, path_mtu=lambda _: mtu)
        self.a = Host(self.wire, "a", settings("b", policy("a"), **changes), ourselves=ourselves)
        self.b = Host(self.wire, "b", settings("a", policy("b")))
        self.wire.meddle = self._carry
        self.tried: list[int] = []

    def _carry(self, sender: Host, datagram: bytes) -> list[bytes]:
        octets = len(datagram) + IN_FRONT
        if sender is self.a and parse_message(datagram).type is MessageType.STATUS:
            self.tried.append(octets)
        return [datagram] if octets <= self.carries else []

    def flow(self, seconds: float) -> None:
        """Packets for so long."""
        for second in range(int(seconds)):
            self.a.perform(self.a.peer.path.used(self.wire.now))
            self.wire.run(self.wire.now + min(1.0, seconds - second))

    @property
    def found(self) -> list[int]:
        assert {each.address for each in self.a.paths} <= {B}
        return [each.octets for each in self.a.paths]

    @property
    def octets(self) -> int | None:
        return self.a.peer.path.octets


def test_a_path_that_carries_all_is_tried_once_in_a_while_and_not_when_idle() -> None:
    path = Path()
    path.flow(1)
    assert (path.octets, path.found, path.tried) == (1500, [1500], [1500])
    path.flow(CONFIRM_SECONDS * 4)
    assert path.tried == [1500] * 5
    path.wire.run(path.wire.now + 10_000)
    assert path.tried == [1500] * 5
    assert path.a.counts[Tally.PATHS_PROBED] == 5
    assert path.a.counts[Tally.PATH_BLACK_HOLES] == 0
    assert [tell.event for tell in path.a.told] == ["path_found"]


def test_nothing_is_tried_that_the_device_has_no_room_for() -> None:
    """A packet of 1,400 octets leaves in 1,464 or fewer, whichever suite is agreed on."""
    path = Path(inner=1400)
    path.flow(1)
    assert path.found == path.tried == [1476]
    narrow = Path(mtu=1204 - 4)
    narrow.flow(10)
    assert narrow.tried == []


def test_a_black_hole_is_noticed_within_seconds_and_searched() -> None:
    path = Path()
    path.flow(1)
    path.carries = 1280
    path.flow(CONFIRM_SECONDS + PATIENCE + 1)
    assert path.octets == 1200, "at once, what every path carries; the rest is found while packets pass"
    path.flow(10)
    assert path.octets == 1280
    assert path.found[:3] == [1500, 1200, 1280]
    assert path.a.counts[Tally.PATH_BLACK_HOLES] == 1
    assert [tell.warning for tell in path.a.events("path_found")] == [False, True, False]
    tried = len(path.tried)
    path.flow(60)
    assert set(path.tried[tried:]) == {1280}, "the search is over"
    path.carries = 65_535
    path.flow(RAISE_SECONDS)
    assert path.octets == 1500


def test_a_narrow_path_is_no_black_hole() -> None:
    path = Path(1420)
    path.flow(20)
    assert path.octets == 1420
    assert path.a.counts[Tally.PATH_BLACK_HOLES] == 0


@given(st.integers(1200, 1600), st.integers(1204, 9100))
def test_the_widest_size_that_goes_through_is_found(carries: int, mtu: int) -> None:
    path = Path(carries, mtu=mtu)
    path.flow(60)
    ceiling = mtu & ~3
    best = max(each for each in (1200, *SIZES, ceiling) if each <= min(carries, ceiling))
    assert path.octets is not None
    assert best - 8 < path.octets <= best
    assert path.a.paths[-1] == ConfirmPath(B, path.octets)
    assert max(path.tried) <= mtu


def test_silence_of_the_peer_says_nothing_of_sizes() -> None:
    path = Path()
    path.flow(1)
    path.carries = 0
    path.flow(CONFIRM_SECONDS + 2 * PATIENCE + 1)
    tried = len(path.tried)
    assert path.tried == [1500] * 4 + [1200] * 3
    path.flow(REST_SECONDS - 10)
    assert (path.octets, path.found, len(path.tried)) == (1500, [1500], tried)
    path.carries = 65_535
    path.flow(15)
    assert path.found[-1] == 1500


def test_a_peer_that_answers_no_padding_is_left_alone() -> None:
    path = Path()
    path.carries = 1000
    path.flow(2 * PATIENCE + 1)
    assert (path.octets, path.found) == (None, [])


def test_without_a_ticket_nothing_is_tried() -> None:
    path = Path()
    (xid,) = {effect.xid for effect in path.a.peer.path.used(0) if hasattr(effect, "xid")}
    path.a.perform(path.a.peer.ticket_refused(xid, TicketRefusal("no KDC"), 0))
    path.flow(REST_SECONDS - 1)
    assert path.tried == []
    path.flow(2)
    assert path.found == [1500]


def test_what_icmp_has_said_is_confirmed_and_more_tried_later() -> None:
    path = Path()
    path.flow(1)
    path.carries = 1402
    path.a.perform(path.a.peer.path.narrowed(B, 1402, path.wire.now))
    path.flow(CONFIRM_SECONDS + 1)
    assert (path.found, path.tried) == ([1500, 1400], [1500, 1400])
    path.a.perform(path.a.peer.path.narrowed("192.0.2.9", 1300, path.wire.now))
    assert path.octets == 1400
    path.carries = 65_535
    path.flow(RAISE_SECONDS + CONFIRM_SECONDS)
    assert path.octets == 1500


def test_a_trial_that_icmp_has_overtaken_proves_nothing() -> None:
    path = Path()
    path.a.perform(path.a.peer.path.used(0))
    path.wire.run(0.015)
    path.a.perform(path.a.peer.path.narrowed(B, 1280, path.wire.now))
    path.wire.run(1)
    assert (path.octets, path.found) == (1280, [])


def test_another_address_is_another_path() -> None:
    path = Path()
    path.flow(1)
    path.a.peer.contact.whereabouts.esp = Endpoint("2001:db8::2", 4500)
    path.b.endpoint = Endpoint("2001:db8::2", 910)
    path.wire.hosts["2001:db8::2"] = path.b
    path.flow(1)
    assert path.a.paths[-1] == ConfirmPath("2001:db8::2", 1500)
    assert path.tried[-1] == 1500 - 20  # without the 20 octets that IPv6's header is longer


@pytest.mark.parametrize("changes", [{"path_probe": False}, {"extensions": False}, {"kink_over": KinkOver.KINK_PORT}])
def test_it_can_be_turned_off(changes: dict[str, Any]) -> None:
    path = Path(**changes)
    path.flow(20)
    assert path.tried == []


def test_trials_may_not_be_fragmented_and_the_question_may() -> None:
    path = Path(1300)
    sent: list[tuple[int, bool]] = []
    perform = path.a.perform

    def watch(effects: list[Any]) -> None:
        sent.extend((len(each.datagram) + IN_FRONT, each.whole) for each in effects if hasattr(each, "whole"))
        perform(effects)

    path.a.perform = watch
    path.flow(10)
    assert (1500, True) in sent
    assert (1200, False) in sent
    assert {whole for octets, whole in sent if octets > 1200} == {True}
