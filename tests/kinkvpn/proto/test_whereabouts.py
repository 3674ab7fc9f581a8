from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import policy

from esp.sa import Encapsulation, Endpoint, SaParameters
from esp.suite import SUITES
from kinkvpn.proto.events import InstallInbound, InstallOutbound, Path, RemoveInbound
from kinkvpn.proto.whereabouts import MAPPING_SECONDS, ORDER_KEPT, KinkOver, Whereabouts

KINK, ESP = Endpoint("192.0.2.2", 910), Endpoint("192.0.2.2", 4500)
NAT_KINK, NAT_ESP = Endpoint("203.0.113.1", 20_000), Endpoint("203.0.113.1", 20_001)
ELSEWHERE = Endpoint("203.0.113.2", 4500)
NOWHERE = Endpoint("", 910), Endpoint("", 4500)
AUTO, KINK_PORT, ESP_PORT = KinkOver


def sent(where: Whereabouts, now: float = 0.0, over: int = 7) -> list[Path]:
    """Where each transmission of one command goes."""
    return [where.path(number, now) for number in range(1, over + 1)]


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (AUTO, [Path(KINK), Path(KINK), Path(ESP, True), Path(KINK), Path(ESP, True)]),
        (KINK_PORT, [Path(KINK)] * 5),
        (ESP_PORT, [Path(ESP, True)] * 5),
    ],
)
def test_as_configured(over: KinkOver, expected: list[Path]) -> None:
    where = Whereabouts(KINK, ESP, over)
    assert where.known
    assert not where.elsewhere
    assert sent(where, over=5) == expected


@pytest.mark.parametrize("over", KinkOver)
def test_without_an_address_it_has_to_be_heard(over: KinkOver) -> None:
    where = Whereabouts(*NOWHERE, over)
    assert not where.known
    assert where.paths(0.0) == ()
    assert where.heard(Path(NAT_ESP, True), (5, 0), 1.0)
    assert where.known
    assert where.elsewhere
    assert sent(where, 1.0, 3) == [Path(NAT_ESP, True)] * 3


def test_raw_esp_tells_an_address_and_no_port() -> None:
    where = Whereabouts(KINK, ESP)
    before = where.paths(0.0)
    where.esp_moved(Endpoint(ESP.address, 0), 1.0)
    assert (where.esp, where.paths(1.0)) == (ESP, before)
    where.esp_moved(Endpoint("203.0.113.9", 0), 2.0)
    moved = Endpoint("203.0.113.9", ESP.port)
    assert where.esp == moved
    assert where.elsewhere
    assert where.paths(2.0) == (Path(KINK), Path(moved, True), Path(ESP, True))
    assert not where.answered(Path(NAT_KINK), 1.5, 3.0), "older than what was heard"


def test_where_it_was_heard_comes_first_and_where_it_was_configured_last() -> None:
    where = Whereabouts(KINK, ESP)
    assert where.heard(Path(NAT_ESP, True, "192.0.2.9"), (5, 0), 1.0)
    assert where.esp == NAT_ESP
    assert where.paths(1.0) == (Path(NAT_ESP, True, "192.0.2.9"), Path(KINK), Path(ESP, True))
    assert where.heard(Path(ELSEWHERE, True), (6, 0), 2.0)
    assert where.paths(2.0)[:2] == (Path(ELSEWHERE, True), Path(NAT_ESP, True, "192.0.2.9"))
    assert where.heard(Path(KINK), (7, 0), 3.0)
    assert where.esp == ESP, "home again"


def test_a_new_address_on_the_kink_port_is_taken_for_that_of_esp_too() -> None:
    where = Whereabouts(KINK, ESP)
    assert where.heard(Path(NAT_KINK), (5, 0), 1.0)
    assert where.esp == Endpoint(NAT_KINK.address, ESP.port)
    where.esp_moved(NAT_ESP, 2.0)
    assert not where.heard(Path(NAT_KINK), (6, 0), 3.0), "the same address: ESP knows its port better"
    assert where.esp == NAT_ESP


def test_a_mapping_that_nobody_keeps_alive_is_not_trusted_for_long() -> None:
    where = Whereabouts(KINK, ESP)
    where.esp_moved(NAT_ESP, 0.0)
    where.heard(Path(NAT_KINK), (5, 0), 1.0)
    assert where.path(1, 1.0) == Path(NAT_KINK)
    assert where.path(1, 1.0 + MAPPING_SECONDS) == Path(NAT_ESP, True)


def test_behind_a_nat_of_our_own_the_esp_port_comes_first() -> None:
    where = Whereabouts(KINK, ESP)
    where.behind_nat = True
    assert sent(where, over=3) == [Path(ESP, True), Path(ESP, True), Path(KINK)]
    only = Whereabouts(KINK, ESP, KINK_PORT)
    only.behind_nat = True
    assert sent(only, over=3) == [Path(KINK)] * 3


def test_a_late_command_moves_nothing() -> None:
    where = Whereabouts(KINK, ESP)
    assert where.heard(Path(NAT_ESP, True), (5, 7), 1.0)
    for authenticator in ((5, 7), (5, 6), (4, 999_999)):
        assert not where.heard(Path(ELSEWHERE, True), authenticator, 2.0)
    assert where.esp == NAT_ESP
    assert not where.heard(Path(ELSEWHERE, True), (4, 0), 0.9 + ORDER_KEPT)
    assert where.heard(Path(ELSEWHERE, True), (4, 0), 1.0 + ORDER_KEPT), "a clock that was set back"


def test_a_reply_moves_only_what_was_not_heard_meanwhile() -> None:
    where = Whereabouts(KINK, ESP)
    where.esp_moved(NAT_ESP, 5.0)
    assert not where.answered(Path(ELSEWHERE, True), since=4.9, now=6.0)
    assert where.answered(Path(ELSEWHERE, True), since=5.0, now=6.0)
    assert where.esp == ELSEWHERE


def test_esp_does_not_take_kink_along_where_that_may_not_go_there() -> None:
    where = Whereabouts(KINK, ESP, KINK_PORT)
    where.esp_moved(NAT_ESP, 1.0)
    assert where.esp == NAT_ESP
    assert where.paths(1.0) == (Path(KINK),)


def test_sas_are_placed_where_the_peer_is() -> None:
    where = Whereabouts(KINK, ESP)
    suite = SUITES["aes256-gcm16"]
    sa = SaParameters(1000, suite, bytes(suite.keymat_octets), "net", policy().selector, ESP)
    raw = SaParameters(
        1000, suite, bytes(suite.keymat_octets), "net", policy().selector, ESP, encapsulation=Encapsulation.RAW
    )
    where.esp_moved(NAT_ESP, 1.0)
    inbound, outbound, removed, bare = where.place(
        [InstallInbound(sa), InstallOutbound(sa), RemoveInbound(7), InstallOutbound(raw)]
    )
    assert isinstance(inbound, InstallInbound)
    assert isinstance(outbound, InstallOutbound)
    assert isinstance(bare, InstallOutbound)
    assert inbound.sa.remote == outbound.sa.remote == NAT_ESP
    assert bare.sa.remote == Endpoint(NAT_ESP.address, 0)
    assert removed == RemoveInbound(7)


endpoints = st.builds(Endpoint, st.sampled_from(["192.0.2.2", "203.0.113.1", "203.0.113.2"]), st.integers(1, 3))
paths = st.builds(Path, endpoints, st.booleans())


@given(
    st.sampled_from(KinkOver),
    st.booleans(),
    st.lists(st.tuples(paths, st.integers(0, 9), st.integers(0, 30)), max_size=15),
)
def test_whatever_was_heard(over: KinkOver, behind_nat: bool, steps: list[tuple[Path, int, int]]) -> None:
    """Every place has its turn, none twice in a round, and only an authenticator that is newer moves the peer."""
    where = Whereabouts(KINK, ESP, over)
    where.behind_nat = behind_nat
    now, newest = 0.0, (-1, 0)
    for path, ctime, pause in steps:
        now += pause
        before = where.esp, where.paths(now)
        where.heard(path, (ctime, 1), now)
        if (ctime, 1) <= newest:
            assert (where.esp, where.paths(now)) == before
        else:
            newest = ctime, 1
            assert where.esp.address == path.remote.address
            assert path in where.paths(now)
        found = where.paths(now)
        assert 1 <= len({(path.remote, path.marked) for path in found}) == len(found) <= 5
        transmissions = sent(where, now, 2 + 2 * len(found))
        assert transmissions[0] == transmissions[1] == found[0]
        assert set(transmissions) == set(found)
        assert all(one != other for one, other in pairwise(transmissions[1:])) or len(found) == 1


@pytest.mark.parametrize(
    ("over", "left"),
    [(AUTO, [Path(NAT_ESP, True), Path(NAT_KINK)]), (KINK_PORT, [Path(NAT_KINK)]), (ESP_PORT, [Path(NAT_ESP, True)])],
)
def test_where_it_was_heard_by_a_way_that_is_not_gone_any_more_is_forgotten(over: KinkOver, left: list[Path]) -> None:
    where = Whereabouts(KINK, ESP)
    where.heard(Path(NAT_KINK), (5, 0), 1.0)
    where.heard(Path(NAT_ESP, True), (6, 0), 1.0)
    where.go_over(over)
    assert [path for path in where.paths(1.0) if path.remote in (NAT_KINK, NAT_ESP)] == left
