"""The SA database: who carries, what is replaced, which SPIs are free."""

from __future__ import annotations

from itertools import chain, repeat
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory import kept
from support.tunnel import LEFT, SELECTOR4, flip, ipv4, ipv6, parameters, ports

from esp.errors import DropReason, EspError, InvalidSa, UnknownSa
from esp.headers import DontFragment, HeaderRules
from esp.sa import SPI_MIN, Aggregation, Lifetime
from esp.sad import InboundSa, Limit, OutboundSa, Sad

SEEDED = Random(5).randbytes


def inbound(**changes: object) -> InboundSa:
    return InboundSa(parameters(selector=flip(SELECTOR4), remote=LEFT, **changes), 0.0, {})


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
    sad.remove_outbound("a", parameters().spi)
    assert list(sad.carriers) == ["b"]


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


@given(st.integers(1, 20), st.integers(0, 20))
def test_packets_reach_limits_in_order(soft: int, more: int) -> None:
    sa = OutboundSa(parameters(lifetime=Lifetime(soft_packets=soft, hard_packets=soft + more)), 0.0, SEEDED)
    reached = []
    for _ in range(soft + more):
        sa.seal(ipv4(), 0.0)
        reached.append(sa.reached(0.0))
    expected = [None] * (soft + more)
    expected[soft - 1] = Limit.SOFT
    expected[-1] = Limit.HARD
    assert reached == expected


def test_octets_are_those_of_the_cipher() -> None:
    """RFC 4301 §4.4.2.1: a lifetime in octets counts what the algorithm was applied to; both ends count alike."""
    for suite, octets in (("aes256-gcm16", 24), ("aes128-cbc-sha1", 32)):
        outbound = OutboundSa(parameters(suite, lifetime=Lifetime(soft_octets=octets)), 0.0, SEEDED)
        opener = InboundSa(parameters(suite), 0.0, {})
        assert outbound.reached(0.0) is None
        assert isinstance(opener.authenticate(outbound.seal(ipv4(), 0.0).datagram, 1), bytes)
        assert outbound.octets == opener.octets == octets
        assert outbound.reached(0.0) is Limit.SOFT


def test_seconds_count_from_installation() -> None:
    sa = OutboundSa(parameters(lifetime=Lifetime(soft_seconds=10, hard_seconds=20)), 100.0, SEEDED)
    assert sa.deadline() == 110.0
    assert sa.reached(109.9) is None
    assert sa.reached(110.0) is Limit.SOFT
    assert sa.deadline() == 120.0
    assert sa.reached(119.9) is None
    assert sa.reached(120.0) is Limit.HARD
    assert sa.reached(120.0) is Limit.HARD


@pytest.mark.parametrize("esn", [False, True])
def test_the_counter_asks_for_a_successor_before_its_end(esn: bool) -> None:
    """Whatever lifetimes keying chose: a sixteenth of all numbers is left (RFC 4303 §3.3.3)."""
    start = 2**64 - 2**60 - 2 if esn else 2**32 - 2**28 - 2
    sa = OutboundSa(parameters(sequence=start, esn=esn), 0.0, SEEDED)
    told = []
    for _ in range(4):
        sa.seal(ipv4(), 0.0)
        told.append(sa.reached(0.0))
    assert told.count(Limit.SOFT) == 1
    assert sa.sequence == start + 4


def test_many_flows_of_one_peer_are_matched_again_and_no_worse() -> None:
    sa = inbound()

    def arrive(source: int) -> None:
        for host, passes in (("10.2.0.1", True), ("10.3.0.1", False)):
            packet = ipv4(ports(source, 53), destination=host, protocol=17)
            text = packet + bytes([0, 4])
            assert sa.unwrap(text, 1, 0) == ((packet if passes else DropReason.SELECTOR_MISMATCH),)

    full, later = kept(arrive, 4096, 3 * 4096)
    assert later < 1.2 * full


@pytest.mark.parametrize(
    ("df", "expected"),
    [
        (DontFragment.AUTO, [None, None, None]),
        (DontFragment.COPY, [True, False, True]),
        (DontFragment.SET, [True, True, True]),
        (DontFragment.CLEAR, [False, False, False]),
    ],
)
def test_df_is_copied_set_or_cleared(df: DontFragment, expected: list[bool | None]) -> None:
    """RFC 4301 §5.1.2.1, note 4."""
    sa = OutboundSa(parameters(headers=HeaderRules(df=df)), 0.0, SEEDED)
    whole = bytearray(ipv4(b"x"))
    whole[6] = 0x40
    assert [sa.seal(packet, 0.0).dont_fragment for packet in (bytes(whole), ipv4(b"x"), ipv6(b"x"))] == expected


def test_flows_have_labels_only_where_that_was_asked_for() -> None:
    """RFC 6438 §3; what goes out by the clock belongs to no flow."""
    plain = OutboundSa(parameters(), 0.0, SEEDED)
    labelled = OutboundSa(parameters(headers=HeaderRules(flow_labels=True)), 0.0, SEEDED)
    packets = [ipv4(ports(source, 53), protocol=17) for source in (1, 2, 1)]
    assert [plain.seal(packet, 0.0).flow_label for packet in packets] == [0, 0, 0]
    one, other, again = [labelled.seal(packet, 0.0).flow_label for packet in packets]
    assert one == again != other
    paced = parameters(headers=HeaderRules(flow_labels=True), aggregation=Aggregation(500, 10))
    assert [each.flow_label for each in OutboundSa(paced, 0.0, SEEDED).seal_due(1.0)] == [0] * 10
