from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import Wire, policies, principal, settings

from esp.suite import SUITES
from kinkvpn.key_exchange import KeyExchanges
from kinkvpn.proto.create import (
    MAX_MODP,
    MAX_QUICK_MODES,
    QUICK_MODE_OCTETS,
    CreateAnswer,
    CreateCommand,
    answer_create,
    batches,
)
from kinkvpn.proto.delete import Doomed
from kinkvpn.proto.events import Count, InstallInbound, InstallOutbound, RemoveInbound, Tally
from kinkvpn.proto.outcome import Cause, Completed, Failed
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.quick_mode import AnswerUnusable, QuickMode, RequestFailed, Unanswered
from kinkvpn.wire.ipsec_doi import Group, NotifyType
from kinkvpn.wire.isakmp import IsakmpPayload, Notify, SecurityAssociation
from kinkvpn.wire.kink import Isakmp, KinkPayload, build_plaintext

if TYPE_CHECKING:
    from kinkvpn.proto.settings import PolicySettings

KEY = Wire().realm.issue(principal("a"), principal("b")).key
DONE = Completed(1.0)
SILENCE = Failed("nobody", peer_may_hold_state=True, cause=Cause.SILENCE)


def command(*asked: PolicySettings) -> CreateCommand:
    peer = settings("b", *asked)
    modes = [
        QuickMode(
            peer,
            one,
            spi=0x1001 + n,
            nonce=bytes([n]) * 16,
            fraction=0.5,
            taken=lambda now: (),
            ephemeral=KeyExchanges().generate(one.pfs[0]) if one.pfs else None,
        )
        for n, one in enumerate(asked)
    ]
    return CreateCommand(modes)


def said(payloads: tuple[KinkPayload, ...]) -> tuple[tuple[IsakmpPayload, ...], ...]:
    assert all(isinstance(payload, Isakmp) for payload in payloads)
    return tuple(payload.payloads for payload in payloads if isinstance(payload, Isakmp))


def respond(asked: tuple[tuple[IsakmpPayload, ...], ...], *granted: PolicySettings) -> CreateAnswer:
    spis = itertools.count(0x2001)
    return answer_create(
        asked,
        peer=settings("a", *granted),
        remote=settings("a").kink.address,
        key=KEY,
        taken=(),
        allocate_spi=lambda: next(spis),
        random=random.Random(1).randbytes,
        now=5.0,
        key_exchange=KeyExchanges(),
    )


def complete(asked: CreateCommand, answers: tuple[tuple[IsakmpPayload, ...], ...]) -> list[object]:
    return list(asked.complete(answers, ackreq=False, key=KEY, now=1.0))


# ------------------------------------------------------------ all of it


def test_many_pairs_in_one_round_trip() -> None:
    asked = command(*policies("a", 5))
    assert asked.subject == "net0, net1, net2, net3, net4"
    assert len(asked.begin(KEY, 0.0)) == 5
    answer = respond(said(asked.payloads()), *policies("b", 5))
    assert not answer.ackreq
    assert not answer.half_open
    assert [type(effect) for effect in answer.effects] == [InstallInbound, InstallOutbound] * 5
    assert len(complete(asked, said(answer.payloads))) == 10
    ours = [one.pair for one in asked.quick_modes]
    assert [(pair.policy, pair.inbound_spi, pair.outbound_spi) for pair in answer.pairs] == [
        (pair.policy, pair.outbound_spi, pair.inbound_spi) for pair in ours if pair is not None
    ]
    assert asked.held(DONE) == asked.release(DONE) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_answer_keeps_the_order_of_the_command(order: tuple[int, ...]) -> None:
    """Whatever is asked first, and however the responder has written it down."""
    theirs, ours = policies("b", 3), policies("a", 3)
    asked = command(*(ours[number] for number in order))
    answer = respond(said(asked.payloads()), *theirs)
    assert [pair.policy for pair in answer.pairs] == [f"net{number}" for number in order]


# ------------------------------------------------------------ part of it


def test_mixed_acceptance() -> None:
    """RFC 4430 §6.3: what is refused has a notify in its place, and then an ACK is asked for."""
    asked = command(*policies("a", 4))
    asked.begin(KEY, 0.0)
    first, second, third, fourth = policies("b", 4)
    other = replace(third, suites=third.suites[1:])
    answer = respond(said(asked.payloads()), first, other, fourth)
    assert answer.ackreq
    assert [refused.notify for refused in answer.refusals] == [NotifyType.NO_PROPOSAL_CHOSEN]
    assert second.name not in {pair.policy for pair in answer.pairs}
    assert [pair.policy for pair in answer.pairs] == ["net0", "net3"]
    assert [half.pair.policy for half in answer.half_open] == ["net2"]
    assert [type(effect) for effect in answer.effects] == [
        *(InstallInbound, InstallOutbound),
        InstallInbound,
        *(InstallInbound, InstallOutbound),
    ]
    answers = said(answer.payloads)
    assert answers[1] == (Notify(3, b"", NotifyType.NO_PROPOSAL_CHOSEN),)
    assert len(complete(asked, answers)) == 6
    assert [one.pair is not None for one in asked.quick_modes] == [True, False, True, True]
    refused = asked.quick_modes[1]
    assert asked.reason(refused, DONE).startswith("the peer answers NO-PROPOSAL-CHOSEN: no policy of its own has ")
    assert asked.release(DONE) == [RemoveInbound(refused.spi)]
    assert asked.held(DONE) == []
    assert not asked.curtailed


def test_one_refused_among_two_way_ones_asks_for_an_ack_too() -> None:
    asked = command(*policies("a", 2))
    answer = respond(said(asked.payloads()), policies("b", 2)[0])
    assert answer.ackreq
    assert answer.half_open == ()


def test_all_refused_is_an_error_and_asks_for_no_ack() -> None:
    asked = command(*policies("a", 3))
    answer = respond(said(asked.payloads()), *policies("b", 3, suites=(SUITES["aes192-gcm16"],)))
    assert not answer.ackreq
    assert len(answer.refusals) == len(answer.payloads) == 3
    assert answer.effects == []
    with pytest.raises(RequestFailed, match=r"^the peer answers NO-PROPOSAL-CHOSEN: .*; its log says"):
        complete(asked, said(answer.payloads))
    with pytest.raises(Refused):
        respond(said(command(*policies("a", 1)).payloads()), *policies("b", 1, suites=(SUITES["aes192-gcm16"],)))
    with pytest.raises(Refused, match="no Quick Mode"):
        respond((), *policies("b", 1))


def test_the_same_spi_twice_is_refused_the_second_time() -> None:
    one = said(command(*policies("a", 1)).payloads())
    answer = respond(one + one, *policies("b", 1))
    assert [refused.notify for refused in answer.refusals] == [NotifyType.INVALID_SPI]
    assert len(answer.pairs) == 1


def test_no_more_is_granted_than_a_datagram_may_ask_for() -> None:
    asked = command(*policies("a", MAX_QUICK_MODES + 2))
    answer = respond(said(asked.payloads()), *policies("b", MAX_QUICK_MODES + 2))
    assert len(answer.pairs) == MAX_QUICK_MODES
    assert len(answer.refusals) == 2


def test_few_dear_key_exchanges_are_done_for_one_datagram() -> None:
    modp, curve = Group.MODP_2048, Group.CURVE25519
    groups = [modp, curve] * 3 + [modp] * 2
    ours = [replace(one, pfs=(group,)) for one, group in zip(policies("a", 8), groups, strict=True)]
    answer = respond(said(command(*ours).payloads()), *policies("b", 8, pfs=(modp, curve)))
    assert [refused.notify for refused in answer.refusals] == [NotifyType.NO_PROPOSAL_CHOSEN]
    assert [half.pair.pfs for half in answer.half_open] == [group.label for group in groups[:-1]]
    assert answer.effects.count(Count(Tally.KEY_EXCHANGES)) == 7
    assert len(groups) - groups.count(curve) == MAX_MODP + 1


def test_one_answer_that_cannot_be_used_spoils_no_other() -> None:
    asked = command(*policies("a", 3))
    good = said(respond(said(asked.payloads()), *policies("b", 3)).payloads)
    assert len(complete(asked, (good[0], (), good[2]))) == 4
    (spoilt,) = asked.held(DONE)
    assert spoilt is asked.quick_modes[1]
    assert isinstance(spoilt.failure, AnswerUnusable)
    assert asked.release(DONE) == []


def test_answers_out_of_order_are_noticed() -> None:
    """By IDci and IDcr: nobody's traffic goes into a pair that was made for another's."""
    asked = command(*policies("a", 2))
    good = said(respond(said(asked.payloads()), *policies("b", 2)).payloads)
    with pytest.raises(AnswerUnusable, match="other selectors"):
        complete(asked, good[::-1])
    assert asked.held(Failed("", peer_may_hold_state=True)) == list(asked.quick_modes)


def test_one_spi_for_two_pairs_is_taken_once() -> None:
    """Pairs are known by it: the second would take the place of the first, which nobody would ever delete."""
    asked = command(*policies("a", 2))
    first, second = said(respond(said(asked.payloads()), *policies("b", 2)).payloads)
    assert isinstance(first[0], SecurityAssociation)
    assert isinstance(second[0], SecurityAssociation)
    proposal = replace(second[0].proposals[0], spi=first[0].proposals[0].spi)
    assert len(complete(asked, (first, (SecurityAssociation((proposal,)), *second[1:])))) == 2
    assert [pair.policy for pair in asked.pairs()] == ["net0"]
    assert isinstance(asked.quick_modes[1].failure, AnswerUnusable)
    assert [doomed.spi for doomed in asked.doomed(DONE, 1.0)] == [asked.quick_modes[1].spi]


# ------------------------------------------------------------ more or less than was asked


def test_a_peer_that_takes_the_first_only() -> None:
    """The other implementation reads one KINK_ISAKMP payload of a message."""
    asked = command(*policies("a", 3))
    answers = said(respond(said(asked.payloads())[:1], *policies("b", 3)).payloads)
    assert len(complete(asked, answers)) == 2
    assert asked.curtailed
    assert [type(one.failure) for one in asked.quick_modes] == [type(None), Unanswered, Unanswered]
    assert asked.release(DONE) == [RemoveInbound(0x1002), RemoveInbound(0x1003)]
    assert asked.held(DONE) == []
    assert asked.overlooked() == ["net1", "net2"]
    assert [pair.policy for pair in asked.pairs()] == ["net0"]


@pytest.mark.parametrize(("notify", "error"), [(14, RequestFailed), (11, AnswerUnusable)])
def test_a_lone_error_is_about_the_whole_command(notify: int, error: type[Exception]) -> None:
    asked = command(*policies("a", 3))
    with pytest.raises(error):
        complete(asked, ((Notify(3, b"", notify),),))
    assert asked.curtailed
    assert {type(one.failure) for one in asked.quick_modes} == {error}


@pytest.mark.parametrize("count", [0, 3])
def test_no_answer_and_more_answers_than_questions(count: int) -> None:
    asked = command(*policies("a", 2))
    with pytest.raises(AnswerUnusable, match=f"{count} Quick Modes answer our 2"):
        complete(asked, ((),) * count)


def test_silence_says_the_same_of_all() -> None:
    asked = command(*policies("a", 2))
    assert asked.held(SILENCE) == list(asked.quick_modes)
    assert asked.doomed(SILENCE, 5.0) == [
        Doomed(f"net{number}", 0x1001 + number, 28805.0, stood=False) for number in range(2)
    ]
    assert asked.release(SILENCE) == []
    assert asked.in_vain(SILENCE)
    assert not asked.in_vain(DONE)
    assert not command(*policies("a", 1)).in_vain(SILENCE)
    assert asked.reason(asked.quick_modes[0], SILENCE) == "nobody"
    assert asked.withdraw() == [RemoveInbound(0x1001), RemoveInbound(0x1002)]


# ------------------------------------------------------------ packing, notifies


@given(st.lists(st.integers(1, 3), max_size=40), st.integers(1, 40))
def test_every_quick_mode_goes_out_once_in_order_and_within_the_bounds(suites: list[int], most: int) -> None:
    all_suites = policies("a", 1)[0].suites
    asked = [
        QuickMode(settings("b"), one, spi=n + 256, nonce=bytes(16), fraction=0, taken=lambda now: ())
        for n, one in enumerate(replace(policies("a", 1)[0], suites=all_suites[:count]) for count in suites)
    ]
    packed = batches(asked, most)
    assert [one for batch in packed for one in batch] == asked
    for batch, following in itertools.zip_longest(packed, packed[1:]):
        octets = [len(build_plaintext((Isakmp(one.payloads()),))) for one in batch]
        assert 1 <= len(batch) <= min(most, MAX_QUICK_MODES)
        assert sum(octets) <= QUICK_MODE_OCTETS or len(batch) == 1
        if following is not None and len(batch) < min(most, MAX_QUICK_MODES):
            next_one = len(build_plaintext((Isakmp(following[0].payloads()),)))
            assert sum(octets) + next_one > QUICK_MODE_OCTETS
