"""The SA database: who carries, what is replaced, which SPIs are free."""

from __future__ import annotations

from itertools import chain, repeat
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tunnel import SELECTOR4, flip, ipv4, parameters

from esp.errors import DropReason, EspError, InvalidSa, UnknownSa
from esp.outbound import OutboundSa
from esp.sa import SPI_MIN
from esp.sad import Sad

SEEDED = Random(5).randbytes


@given(st.lists(st.sampled_from(["add", "drop-oldest", "drop-newest"]), max_size=12))
def test_the_newest_carries(steps: list[str]) -> None:
    sad, alive = Sad(SEEDED), []
    for spi, step in enumerate(steps, SPI_MIN):
        if step == "add":
            sad.add_outbound(parameters(spi=spi), 0.0)
            alive.append(spi)
        elif alive:
            sad.remove_outbound("four", alive.pop(0 if step == "drop-oldest" else -1))
        carrier = sad.carriers.get("four")
        assert (carrier and carrier.parameters.spi) == (alive[-1] if alive else None)
        assert [sa.parameters.spi for sa in sad.of_policy("four")] == alive
        assert sad.outbound() == sad.of_policy("four") == list(sad.all())


def test_two_peers_may_choose_one_spi() -> None:
    sad = Sad(SEEDED)
    sad.add_outbound(parameters(policy="a"), 0.0)
    sad.add_outbound(parameters(policy="b"), 0.0)
    spi = parameters().spi
    assert [sa.parameters.policy for sa in sad.speaking(spi)] == ["a", "b"]
    sad.remove_outbound("a", spi)
    assert list(sad.carriers) == ["b"]
    assert [sa.parameters.policy for sa in sad.speaking(spi)] == ["b"]
    sad.remove_policy("b")
    assert list(sad.speaking(spi)) == list(sad.speaking(spi + 1)) == []


def test_a_counter_is_never_started_again() -> None:
    sad = Sad(SEEDED)
    sad.add_outbound(parameters(), 0.0)
    sad.carriers["four"].seal(ipv4(), 0.0)
    with pytest.raises(InvalidSa, match="outbound SA with SPI 0x00001000 already"):
        sad.add_outbound(parameters(), 0.0)
    assert sad.carriers["four"].sequence == 1


def test_removing_what_is_not_there() -> None:
    sad = Sad(SEEDED)
    for _ in range(2):
        with pytest.raises(UnknownSa, match="no inbound SA with SPI 0x00001000"):
            sad.remove_inbound(0x1000)
        with pytest.raises(UnknownSa, match="no outbound SA of policy 'four' with SPI 0x00001000"):
            sad.remove_outbound("four", 0x1000)
        sad.add_outbound(parameters(spi=0x1001), 0.0)
        sad.remove_outbound("four", 0x1001)


def test_new_keys_under_an_spi_have_a_new_window_and_the_same_keys_have_not() -> None:
    sad, sealer = Sad(SEEDED), OutboundSa(parameters(), 0.0, SEEDED)
    packet = sealer.seal(ipv4(), 0.0).datagram
    sad.add_inbound(parameters(), 0.0)
    assert isinstance(sad.inbound[0x1000].authenticate(packet, 1), bytes)
    sad.add_inbound(parameters(), 1.0)
    assert sad.inbound[0x1000].authenticate(packet, 1) is DropReason.REPLAYED
    sad.add_inbound(parameters(seed=1), 2.0)
    assert sad.inbound[0x1000].sequence == 0
    assert sad.inbound[0x1000].authenticate(packet, 1) is DropReason.AUTHENTICATION_FAILED


def test_the_same_keys_with_the_other_kind_of_numbers_have_a_new_window() -> None:
    """What was sealed with the one kind is not authentic with the other (RFC 4106 §5): nothing can be replayed."""
    for esn in (False, True):
        sad, sealer = Sad(SEEDED), OutboundSa(parameters(esn=esn), 0.0, SEEDED)
        packet = sealer.seal(ipv4(), 0.0).datagram
        sad.add_inbound(parameters(esn=esn), 0.0)
        assert isinstance(sad.inbound[0x1000].authenticate(packet, 1), bytes)
        sad.add_inbound(parameters(esn=not esn), 1.0)
        assert sad.inbound[0x1000].sequence == 0
        assert sad.inbound[0x1000].authenticate(packet, 1) is DropReason.AUTHENTICATION_FAILED


def test_an_spi_that_went_to_another_policy_stays_when_the_first_goes() -> None:
    sad = Sad(SEEDED)
    for policy in ("four", "other"):
        sad.add_inbound(parameters(selector=flip(SELECTOR4), policy=policy), 0.0)
    sad.remove_policy("four")
    assert [sa.parameters.policy for sa in sad.inbound.values()] == ["other"]
    sad.remove_policy("other")
    assert not sad.inbound


def test_a_policy_takes_its_sas_along() -> None:
    sad = Sad(SEEDED)
    for policy, spi in (("a", 300), ("b", 301), ("a", 302)):
        sad.add_inbound(parameters(policy=policy, spi=spi), 0.0)
        sad.add_outbound(parameters(policy=policy, spi=spi), 0.0)
    sad.remove_policy("a")
    assert list(sad.inbound) == [301]
    assert list(sad.carriers) == ["b"]
    assert len(list(sad.all())) == 2


def test_spis_are_nobody_elses() -> None:
    draws = chain([255, 0, 1000, 1000, 2000, 2001], repeat(2001))
    sad = Sad(lambda octets: next(draws).to_bytes(octets))
    sad.add_inbound(parameters(spi=2000), 0.0)
    assert sad.allocate_spi() == 1000
    assert sad.allocate_spi() == 2001
    with pytest.raises(EspError, match="64 draws gave no free SPI"):
        sad.allocate_spi()
    sad.release_spi(2001)
    sad.release_spi(2001)
    assert sad.allocate_spi() == 2001


def test_an_installed_spi_is_kept_by_its_sa() -> None:
    draws = chain(repeat(1000, 3), [1001])
    sad = Sad(lambda octets: next(draws).to_bytes(octets))
    spi = sad.allocate_spi()
    sad.add_inbound(parameters(spi=spi), 0.0)
    sad.release_spi(spi)
    assert sad.allocate_spi() == 1001
    sad.remove_inbound(spi)
