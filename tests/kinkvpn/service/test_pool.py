from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from kinkvpn.service import pool as module
from kinkvpn.service.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

    from kinkvpn.proto.lease import Address

FOUR, SIX = ip_network("10.8.0.0/29"), ip_network("fd00:8::/64")
GATEWAY = ip_address("10.8.0.1")


def test_one_of_each_family_and_the_same_again() -> None:
    pool = Pool([FOUR, SIX])
    four, six = pool.take("alice")
    assert four in FOUR
    assert six in SIX
    assert pool.take("alice") == (four, six)
    pool.give_back("alice")
    pool.take("bob")
    assert pool.take("alice") == (four, six)


def test_another_pool_gives_the_same_unless_it_is_taken() -> None:
    first = Pool([FOUR]).take("alice")
    assert Pool([FOUR]).take("alice") == first
    assert Pool([FOUR], kept={*first}).take("alice") != first


def test_what_is_no_host_s_is_lent_to_nobody() -> None:
    pool = Pool([FOUR], kept={GATEWAY})
    found = {pool.take(f"p{number}") for number in range(5)}
    assert found == {(ip_address(f"10.8.0.{number}"),) for number in range(2, 7)}
    assert pool.take("one too many") == ()
    assert Pool([ip_network("10.8.0.8/31")]).take("alice")
    assert Pool([ip_network("10.8.0.9/32")]).take("alice") == (ip_address("10.8.0.9"),)


def test_who_has_gone_the_longest_makes_room() -> None:
    pool = Pool([FOUR])
    names = [f"p{number}" for number in range(6)]
    leases = {name: pool.take(name) for name in names}
    pool.give_back("p3")
    pool.give_back("p1")
    assert pool.take("new") == leases["p3"]
    assert pool.take("p1") == leases["p1"]
    assert pool.take("p3") == ()


def test_fixed_addresses_are_somebody_s_alone() -> None:
    fixed = {"alice": (ip_address("10.8.0.2"), ip_address("fd99::2"))}
    pool = Pool([ip_network("10.8.0.0/30")], fixed)
    assert pool.take("bob") == (ip_address("10.8.0.1"),)
    assert pool.take("carol") == ()
    assert pool.take("alice") == fixed["alice"]
    pool.give_back("alice")
    assert pool.take("dave") == ()


def test_what_is_wanted_is_given_if_it_is_free() -> None:
    pool = Pool([FOUR], kept={GATEWAY})
    wanted = [ip_address("10.8.0.5")]
    assert pool.take("alice", wanted) == tuple(wanted)
    assert pool.take("bob", wanted) != tuple(wanted)
    pool.give_back("alice")
    assert not pool.is_free(wanted[0]), "she may come back"
    assert pool.take("alice", [ip_address("10.8.0.6"), *wanted]) == (ip_address("10.8.0.6"),)
    assert pool.is_free(wanted[0]), "she has another"
    for other in (GATEWAY, ip_address("10.8.0.7"), ip_address("10.9.0.1"), ip_address("fd00:8::9")):
        assert Pool([FOUR], kept={GATEWAY}).take("alice", [other]) != (other,)


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    pool = Pool([SIX])
    first = {name: pool.take(name) for name in ("a", "b", "c")}
    for name in first:
        pool.give_back(name)
    assert pool.take("other", first["a"]) == first["a"], "the first of three was forgotten"


def test_one_search_in_vain_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many have gone who had nothing of what is wanted: the gateway waits for it."""
    pool = Pool([ip_network("10.8.0.0/31"), SIX])
    stay = {name: pool.take(name) for name in ("a", "b")}
    for number in range(9):
        pool.take(f"six {number}")
        pool.give_back(f"six {number}")
    searches: list[str] = []

    def counted(holder: module.Holder, spans: Sequence[module.Span]) -> Iterator[Address]:
        searches.append(holder.principal)
        return candidates(holder, spans)

    candidates = module._candidates
    monkeypatch.setattr(module, "_candidates", counted)
    assert [address.version for address in pool.take("new")] == [6]
    assert searches == ["new", "new"], "one of each family"
    pool.give_back("a")
    assert pool.take("another")[0] == stay["a"][0]


def test_each_machine_of_somebody_has_its_own() -> None:
    pool = Pool([FOUR, SIX])
    laptop, desktop = (pool.take("alice", machine=each) for each in (b"laptop", b"desktop"))
    assert not {*laptop} & {*desktop}
    pool.give_back("alice", b"laptop")
    assert pool.take("alice", machine=b"desktop") == desktop
    assert pool.take("alice", machine=b"laptop") == laptop
    assert Pool([FOUR, SIX]).take("alice", machine=b"laptop") == laptop, "a gateway that knows nothing any more"


def test_fixed_addresses_are_those_of_the_first_machine_that_comes() -> None:
    fixed = {"alice": (ip_address("10.8.0.2"),)}
    pool = Pool([FOUR], fixed)
    other = pool.take("alice", machine=b"1")
    assert other == fixed["alice"]
    second = pool.take("alice", machine=b"2")
    assert second != fixed["alice"]
    pool.give_back("alice", b"1")
    pool.give_back("alice", b"2")
    assert pool.take("alice", machine=b"2") == fixed["alice"]
    assert pool.take("bob", second) == second, "what a machine had that has a fixed one now is free"


def test_nobody_has_others_forgotten_by_coming_from_ever_other_machines() -> None:
    pool = Pool([SIX])
    alices = pool.take("alice")
    pool.give_back("alice")
    first = pool.take("mallory", machine=b"0")
    pool.give_back("mallory", b"0")
    for number in range(1, 2 * module.MAX_REMEMBERED):
        machine = number.to_bytes(2)
        pool.take("mallory", machine=machine)
        pool.give_back("mallory", machine)
    assert pool.take("bob", alices) != alices
    assert pool.take("carol", first) == first


def test_what_is_not_here_is_not_given_back() -> None:
    pool = Pool([FOUR])
    pool.give_back("nobody")
    assert pool.take("nobody")


def test_other_addresses_from_now_on_and_who_has_what_it_would_not_get() -> None:
    pool = Pool([ip_network("10.8.0.0/30")], {"alice": (ip_address("10.8.0.2"),)})
    for name in ("alice", "bob", "carol"):
        pool.take(name)
    for name in ("bob", "carol"):
        pool.give_back(name)
    wider = [FOUR, SIX]
    assert pool.change(wider, {"alice": (ip_address("10.8.0.2"),)}) == []
    assert [address.version for address in pool.take("carol")] == [4, 6], "she had none"
    assert pool.take("bob", [ip_address("10.8.0.1")])[0] == ip_address("10.8.0.1"), "he had that"
    assert pool.change(wider, {"dave": (ip_address("10.8.0.1"),)}) == [("bob", b"")], "alice has hers as anybody has"
    pool.give_back("bob")
    assert pool.take("dave")[0] == ip_address("10.8.0.1")
    assert pool.take("bob")[0] != ip_address("10.8.0.1")
    assert pool.change([SIX], {}) == [(name, b"") for name in ("alice", "carol", "dave", "bob")]


FIXED = [{}, {"1": (ip_address("10.8.0.3"),)}, {"2": (ip_address("10.8.0.3"),), "3": (ip_address("10.9.0.1"),)}]
NETWORKS = [[FOUR], [FOUR, ip_network("10.7.0.0/29")], [ip_network("10.8.0.0/30")]]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["take", "leave", "change"]), st.integers(0, 12)), max_size=60))
def test_nobody_has_what_somebody_else_has_or_is_not_lent(steps: list[tuple[str, int]]) -> None:
    networks, fixed = NETWORKS[0], FIXED[0]
    here: dict[str, tuple[Address, ...]]
    pool, here = Pool(networks, fixed, {GATEWAY}), {}
    for what, number in steps:
        match what:
            case "take":
                here[str(number)] = pool.take(str(number))
            case "leave":
                pool.give_back(str(number))
                here.pop(str(number), None)
            case "change":
                networks, fixed = NETWORKS[number % 3], FIXED[number // 3 % 3]
                for gone in pool.change(networks, fixed):
                    pool.give_back(gone.principal)
                    del here[gone.principal]
        held = [address for addresses in here.values() for address in addresses]
        assert len(held) == len(set(held))
        for name, addresses in here.items():
            own = fixed.get(name, ())
            others = {address for other, theirs in fixed.items() if other != name for address in theirs}
            assert not {*addresses} & ({GATEWAY} | others)
            assert all(address in own or any(address in network for network in networks) for address in addresses)
            assert not own or {*own} == {*addresses}
