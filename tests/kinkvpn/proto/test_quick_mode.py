from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from support.kinkhosts import Wire, policy, principal, settings

from esp.headers import DEFAULT_RULES, Ecn, HeaderRules
from esp.policy import Selector
from esp.sa import (
    Aggregation,
    Confidentiality,
    Encapsulation,
    Endpoint,
    Lifetime,
    Mode,
    SaParameters,
    SecurityProtocol,
    check_parameters,
)
from esp.suite import SUITES
from kinkvpn.key_exchange import KeyExchanges, restore
from kinkvpn.proto.events import Count, Effect, InstallInbound, InstallOutbound, RemoveInbound, RemoveOutbound, Tally
from kinkvpn.proto.identification import identifications_of
from kinkvpn.proto.lifetime import HARD_PACKETS, HARD_PACKETS_ESN, soft_count, soft_seconds
from kinkvpn.proto.proposal import Refused, offer
from kinkvpn.proto.quick_mode import (
    AnswerUnusable,
    KeyExchangeRefused,
    QuickMode,
    QuickModeAnswer,
    RequestFailed,
    SaPair,
    answer_quick_mode,
    moved,
    notify_name,
    teardown,
)
from kinkvpn.proto.settings import Esn
from kinkvpn.wire.ipsec_doi import Group, NotifyType, Protocol
from kinkvpn.wire.isakmp import (
    Attribute,
    Delete,
    Identification,
    IsakmpPayload,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    Transform,
    Unknown,
)

if TYPE_CHECKING:
    from kinkvpn.proto.settings import PeerSettings, PolicySettings

KEY = Wire().realm.issue(principal("a"), principal("b")).key
NI, A_SPI, B_SPI = b"initiator's nonc", 0x1001, 0x2002
A_ADDRESS = settings("a").kink.address


def command(taken: set[int] = set(), **changes: Any) -> QuickMode:  # noqa: B006 - never changed
    asked = policy("a", **changes)
    return QuickMode(settings("b", asked), asked, spi=A_SPI, nonce=NI, fraction=0.5, taken=lambda now: taken)


def with_ke(group: Group, **changes: Any) -> QuickMode:
    asked = policy("a", pfs=(group,), **changes)
    ephemeral = KeyExchanges().generate(group)
    return QuickMode(
        settings("b", asked), asked, spi=A_SPI, nonce=NI, fraction=0.5, taken=lambda now: (), ephemeral=ephemeral
    )


def quick_mode(asked: QuickMode) -> tuple[IsakmpPayload, ...]:
    return asked.payloads()


def respond(
    payloads: tuple[IsakmpPayload, ...],
    *policies: PolicySettings,
    taken: set[int] | None = None,
    remote: str = A_ADDRESS,
    **changes: Any,
) -> QuickModeAnswer:
    peer: PeerSettings = settings("a", *(policies or (policy("b", **changes),)))
    return answer_quick_mode(
        payloads,
        peer=peer,
        remote=remote,
        key=KEY,
        taken=taken or set(),
        allocate_spi=lambda: B_SPI,
        random=random.Random(1).randbytes,
        now=5.0,
        key_exchange=KeyExchanges(),
    )


def answered(answer: QuickModeAnswer) -> tuple[IsakmpPayload, ...]:
    return answer.payloads


def sas(effects: list[Effect]) -> list[SaParameters]:
    return [effect.sa for effect in effects if isinstance(effect, InstallInbound | InstallOutbound)]


# ------------------------------------------------------------ both halves


@pytest.mark.parametrize("nonce", [False, True])
@pytest.mark.parametrize("suites", [("aes256-gcm16",), ("aes128-cbc-sha1",), ("aes192-gcm16", "aes128-cbc-sha256")])
def test_both_halves_make_the_same_pair(nonce: bool, suites: tuple[str, ...]) -> None:
    asked = command(suites=tuple(SUITES[name] for name in suites))
    (optimistic,) = sas(asked.begin(KEY, 1.0))
    answer = respond(quick_mode(asked), suites=(SUITES[suites[-1]],), responder_nonce=nonce)
    three_way = nonce or len(suites) > 1
    assert answer.three_way is three_way
    assert any(isinstance(payload, Nonce) for payload in answered(answer)) is three_way
    done = asked.complete(answered(answer), key=KEY, now=3.0)
    assert [type(effect) for effect in done] == [InstallInbound, InstallOutbound]
    a_in, a_out = sas(done)
    b_in, b_out = sas([answer.inbound, answer.outbound])
    assert (a_in.spi, a_out.spi, b_in.spi, b_out.spi) == (A_SPI, B_SPI, B_SPI, A_SPI)
    assert a_in.keymat == b_out.keymat
    assert a_out.keymat == b_in.keymat
    assert a_in.keymat != a_out.keymat
    assert len(a_in.keymat) == SUITES[suites[-1]].keymat_octets
    # Optimism was right exactly in the two-way case (RFC 4430 §3.2).
    assert (optimistic.keymat == a_in.keymat) is not three_way
    esn = len(suites) == 1  # offered with the first suite
    assert asked.pair == SaPair("net", A_SPI, B_SPI, suites[-1], True, 28800, 3.0, 2.0, esn=esn)
    assert answer.pair == SaPair("net", B_SPI, A_SPI, suites[-1], False, 28800, 5.0, esn=esn)
    assert {sa.esn for sa in (a_in, a_out, b_in, b_out)} == {esn}
    assert optimistic.esn


@pytest.mark.parametrize("nonce", [False, True])
def test_a_responder_without_extended_numbers_makes_it_three_way(nonce: bool) -> None:
    """RFC 4430 §3.2: the second transform, the same suite without them; keyed from Ni and Nr."""
    asked = command()
    (optimistic,) = sas(asked.begin(KEY, 1.0))
    answer = respond(quick_mode(asked), esn=Esn.NEVER, responder_nonce=nonce)
    assert answer.three_way
    a_in, a_out = sas(asked.complete(answered(answer), key=KEY, now=3.0))
    b_in, b_out = sas([answer.inbound, answer.outbound])
    assert [sa.esn for sa in (optimistic, a_in, a_out, b_in, b_out)] == [True, False, False, False, False]
    assert (a_in.keymat, a_out.keymat) == (b_out.keymat, b_in.keymat)
    assert a_in.keymat != optimistic.keymat
    assert a_in.lifetime.hard_packets == b_out.lifetime.hard_packets == HARD_PACKETS


def test_the_other_implementation_passes_over_extended_numbers_and_is_two_way() -> None:
    """It knows no attribute 11, and counts "first" over the rest: Ni alone keys the second transform."""
    asked = command()
    (optimistic,) = sas(asked.begin(KEY, 1.0))
    payloads = answered(respond(quick_mode(asked), esn=Esn.NEVER))
    without = tuple(payload for payload in payloads if not isinstance(payload, Nonce))
    a_in, a_out = sas(asked.complete(without, key=KEY, now=3.0))
    assert a_in.keymat == optimistic.keymat
    assert [optimistic.esn, a_in.esn, a_out.esn] == [True, False, False]


def test_another_choice_without_a_nonce_is_keyed_from_ni_alone() -> None:
    """The other implementation counts "first" over what it recognises (docs/decisions.md)."""
    asked = command()
    answer = respond(quick_mode(asked), suites=policy().suites[1:])
    without = tuple(payload for payload in answered(answer) if not isinstance(payload, Nonce))
    done = asked.complete(without, key=KEY, now=3.0)
    twin = command(suites=policy().suites[1:])
    assert sas(done)[0].keymat == sas(twin.begin(KEY, 0.0))[0].keymat


def test_where_an_sa_goes() -> None:
    asked = quick_mode(command())
    known, roaming = respond(asked), respond(asked, remote="198.51.100.9")
    assert sas([known.inbound, known.outbound])[1].remote == Endpoint(A_ADDRESS, 4500)
    assert sas([roaming.inbound, roaming.outbound])[1].remote == Endpoint("198.51.100.9", 4500)
    raw = respond(quick_mode(command(encapsulation=Encapsulation.RAW)), encapsulation=Encapsulation.RAW)
    assert sas([raw.inbound, raw.outbound])[1].remote == Endpoint(A_ADDRESS, 0)


def test_each_of_several_proposals_has_an_spi_of_its_own() -> None:
    """What is keyed is the SPI of the proposal that is taken, and only that one has to be free (RFC 2408 §4.2)."""
    sa, *rest = quick_mode(command(esn=Esn.NEVER))
    assert isinstance(sa, SecurityAssociation)
    (proposal,) = sa.proposals
    first, second = (
        replace(proposal, number=number, spi=spi.to_bytes(4, "big"), transforms=(transform,))
        for number, spi, transform in zip((1, 2), (0x5001, 0x5002), proposal.transforms, strict=False)
    )
    both = SecurityAssociation((first, second))
    taken_first = respond((both, *rest), taken={0x5002})
    assert (taken_first.pair.outbound_spi, taken_first.three_way) == (0x5001, False)
    other = respond((both, *rest), suites=policy().suites[1:], taken={0x5001})
    assert (other.pair.outbound_spi, other.three_way) == (0x5002, True)
    (answer,) = [payload for payload in answered(other) if isinstance(payload, SecurityAssociation)]
    assert [proposal.number for proposal in answer.proposals] == [2]
    with pytest.raises(Refused, match="not free"):
        respond((both, *rest), taken={0x5001})


# ------------------------------------------------------------ PFS


@pytest.mark.parametrize("group", Group)
@pytest.mark.parametrize("second", [False, True])
def test_both_halves_make_the_same_pair_with_ke(group: Group, second: bool) -> None:
    asked = with_ke(group)
    # "A creates an optimistic inbound SA (B->A) unless using a KE" (RFC 4430 §3.2).
    assert asked.begin(KEY, 1.0) == []
    assert [type(payload) for payload in quick_mode(asked)] == [
        *(SecurityAssociation, Nonce, KeyExchange),
        *(Identification, Identification),
    ]
    answer = respond(quick_mode(asked), pfs=(Group.ECP_384, group), suites=policy().suites[second:])
    assert answer.three_way
    assert answer.key_exchanges == 1
    assert [type(payload) for payload in answered(answer)] == [
        *(SecurityAssociation, Nonce, KeyExchange),
        *(Identification, Identification),
    ]
    counted, *done = asked.complete(answered(answer), key=KEY, now=3.0)
    assert counted == Count(Tally.KEY_EXCHANGES)
    a_in, a_out = sas(done)
    b_in, b_out = sas([answer.inbound, answer.outbound])
    assert (a_in.keymat, a_out.keymat) == (b_out.keymat, b_in.keymat)
    assert asked.pair is not None
    assert asked.pair.pfs == answer.pair.pfs == group.label
    # Same ticket, SPIs and nonces, other private keys: other keys.
    again = with_ke(group)
    other = respond(quick_mode(again), pfs=(group,))
    assert sas([other.outbound])[0].keymat != b_out.keymat


def test_the_secret_comes_first_in_what_keys_are_made_from() -> None:
    """RFC 4430 §7, RFC 2409 §5.5: prf(SKEYID_d, g(qm)^xy | protocol | SPI | Ni_b | Nr_b)."""
    ours, theirs = restore(Group.ECP_256, 0x1234567), restore(Group.ECP_256, 0x7654321)
    asked = policy("a", pfs=(Group.ECP_256,))
    half = QuickMode(settings("b", asked), asked, spi=A_SPI, nonce=NI, fraction=0, taken=lambda now: (), ephemeral=ours)
    reply = answered(respond(quick_mode(half), pfs=(Group.ECP_256,)))
    nr = next(payload.value for payload in reply if isinstance(payload, Nonce))
    reply = tuple(KeyExchange(theirs.public) if isinstance(payload, KeyExchange) else payload for payload in reply)
    inbound, _ = sas(half.complete(reply, key=KEY, now=0.0))
    seed = theirs.shared_secret(ours.public) + b"\3" + A_SPI.to_bytes(4, "big") + NI + nr
    assert inbound.keymat.startswith(KEY.prf(seed))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda ke: (), "0 KE payloads"),
        (lambda ke: (ke, ke), "2 KE payloads"),
        (lambda ke: (KeyExchange(ke.public_value[1:]),), "31 octets"),
        (lambda ke: (KeyExchange(bytes(32)),), "small order"),
    ],
)
def test_an_answer_with_a_bad_ke_cannot_be_used(change: Any, why: str) -> None:
    asked = with_ke(Group.CURVE25519)
    reply = answered(respond(quick_mode(asked), pfs=(Group.CURVE25519,)))
    (ke,) = [payload for payload in reply if isinstance(payload, KeyExchange)]
    with pytest.raises(AnswerUnusable, match=why):
        asked.complete((*(p for p in reply if p is not ke), *change(ke)), key=KEY, now=0.0)
    assert asked.pair is None


def test_a_ke_in_the_answer_to_none_cannot_be_used() -> None:
    asked = command()
    reply = answered(respond(quick_mode(asked)))
    with pytest.raises(AnswerUnusable, match="to none of ours"):
        asked.complete((*reply, KeyExchange(bytes(32))), key=KEY, now=0.0)


@pytest.mark.parametrize(
    ("policy_of_b", "notify", "value", "why"),
    [
        ({}, 1, b"\4", "policy net has none"),
        ({"pfs": (Group.ECP_256,)}, 14, b"", "with PFS by ecp256"),
    ],
)
def test_what_a_responder_says_of_a_ke_that_it_does_not_take(
    policy_of_b: dict[str, Any], notify: int, value: bytes, why: str
) -> None:
    with pytest.raises(Refused, match=why) as refused:
        respond(quick_mode(with_ke(Group.CURVE25519)), **policy_of_b)
    assert (refused.value.notify, refused.value.value) == (notify, value)


@pytest.mark.parametrize("public", [bytes(32), bytes(31), b"\1" + bytes(31)])
def test_a_responder_refuses_a_value_that_is_none(public: bytes) -> None:
    asked = [
        KeyExchange(public) if isinstance(payload, KeyExchange) else payload
        for payload in quick_mode(with_ke(Group.CURVE25519))
    ]
    with pytest.raises(Refused, match="x25519") as refused:
        respond(tuple(asked), pfs=(Group.CURVE25519,))
    assert refused.value.notify is NotifyType.PAYLOAD_MALFORMED


def test_a_responder_may_insist() -> None:
    with pytest.raises(Refused, match="requires it") as refused:
        respond(quick_mode(command()), pfs=(Group.CURVE25519,), pfs_required=True)
    assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
    assert not respond(quick_mode(command()), pfs=(Group.CURVE25519,)).three_way


def test_a_host_without_key_exchanges_does_no_pfs() -> None:
    peer = settings("a", policy("b", pfs=(Group.CURVE25519,)))
    with pytest.raises(Refused) as refused:
        answer_quick_mode(
            quick_mode(with_ke(Group.CURVE25519)),
            peer=peer,
            remote=A_ADDRESS,
            key=KEY,
            taken=(),
            allocate_spi=lambda: B_SPI,
            random=bytes,
            now=0.0,
        )
    assert refused.value.notify is NotifyType.INVALID_PAYLOAD_TYPE


@pytest.mark.parametrize("mode", Mode)
def test_ah_has_outer_addresses_of_one_family(mode: Mode) -> None:
    """Its ICV covers both. A CREATE that comes over the other family could only end in an SA that cannot be."""
    a, b = ip_network("192.0.2.1/32"), ip_network("192.0.2.2/32")
    ah = {"protocol": SecurityProtocol.AH, "encapsulation": Encapsulation.RAW, "suites": (SUITES["null-sha256"],)}
    asked = quick_mode(command(selector=Selector(a, b), mode=mode, **ah))
    peer = replace(settings("a", policy("b", selector=Selector(b, a), mode=mode, **ah)), local="192.0.2.2")

    def answered_from(remote: str) -> str:
        answer = answer_quick_mode(
            asked, peer=peer, remote=remote, key=KEY, taken=(), allocate_spi=lambda: B_SPI, random=bytes, now=0.0
        )
        return answer.outbound.sa.local

    assert answered_from(A_ADDRESS) == "192.0.2.2"
    with pytest.raises(Refused, match=r"AH from 192\.0\.2\.2 to 2001:db8::1, which are of two address families"):
        answered_from("2001:db8::1")


def test_a_refusal_of_ke_is_told_from_others() -> None:
    refusal = Notify(3, b"", NotifyType.INVALID_PAYLOAD_TYPE, b"\4")
    with pytest.raises(KeyExchangeRefused):
        with_ke(Group.CURVE25519).complete((refusal,), key=KEY, now=0.0)
    for asked, answer in ((command(), refusal), (with_ke(Group.CURVE25519), replace(refusal, value=b"\5"))):
        with pytest.raises(RequestFailed) as failed:
            asked.complete((answer,), key=KEY, now=0.0)
        assert not isinstance(failed.value, KeyExchangeRefused)


def test_the_private_key_goes_with_the_transaction() -> None:
    asked = with_ke(Group.CURVE25519)
    reply = answered(respond(quick_mode(asked), pfs=(Group.CURVE25519,)))
    before = quick_mode(asked)
    asked.forget()
    assert quick_mode(asked) == before, "what is sent again is the same"
    with pytest.raises(AnswerUnusable):
        asked.complete(reply, key=KEY, now=0.0)


# ------------------------------------------------------------ lifetimes


def test_a_lowered_life_is_kept_by_both() -> None:
    asked = command(lifetime_seconds=7200)
    answer = respond(quick_mode(asked), lifetime_seconds=600)
    assert answer.pair.lifetime == 600
    done = asked.complete(answered(answer), key=KEY, now=3.0)
    assert asked.pair is not None
    assert asked.pair.lifetime == 600
    # The responder counts since the CREATE, three seconds longer: what is sent to its inbound SA ends with that one.
    assert [sa.lifetime.hard_seconds for sa in sas(done)] == [600, 597]
    for sa in sas(done):
        assert sa.lifetime.soft_seconds == soft_seconds(600, 0.5)
        assert sa.lifetime.hard_packets == HARD_PACKETS_ESN
        assert sa.lifetime.soft_packets == soft_count(HARD_PACKETS_ESN, 0.5)
        assert sa.lifetime.hard_octets is sa.lifetime.soft_octets is None
    # A responder does not rekey: no soft life (RFC 4430 §3.6), but for the counter, which no message tells of.
    there = sas([answer.inbound, answer.outbound])[0].lifetime
    assert replace(there, soft_packets=None) == Lifetime(hard_seconds=600, hard_packets=HARD_PACKETS_ESN)
    assert there.soft_packets is not None
    assert there.soft_packets > soft_count(HARD_PACKETS_ESN, 0), "after every initiator's"


def test_a_life_that_the_exchange_has_used_up_ends_at_once() -> None:
    asked = command(lifetime_seconds=20)
    answer = respond(quick_mode(asked), lifetime_seconds=20)
    inbound, outbound = sas(asked.complete(answered(answer), key=KEY, now=31.5))
    assert inbound.lifetime.hard_seconds == 20
    assert (outbound.lifetime.soft_seconds, outbound.lifetime.hard_seconds) == (1, 1)
    check_parameters(outbound)


def changed_sa(payloads: tuple[IsakmpPayload, ...], **changes: Any) -> tuple[IsakmpPayload, ...]:
    """``payloads`` with another transform, proposal SPI or such in the SA payload."""

    def change(payload: IsakmpPayload) -> IsakmpPayload:
        if not isinstance(payload, SecurityAssociation):
            return payload
        return SecurityAssociation(tuple(replace(proposal, **changes) for proposal in payload.proposals))

    return tuple(change(payload) for payload in payloads)


def life(*attributes: tuple[int, int]) -> tuple[Transform, ...]:
    (first, *_) = offer(policy(), bytes(4)).proposals[0].transforms
    given_lives = tuple(Attribute(*attribute) for attribute in attributes)
    return (first._replace(attributes=given_lives + first.attributes[2:]),)


def test_a_raised_life_is_refused() -> None:
    asked = command()
    answer = changed_sa(answered(respond(quick_mode(asked))), transforms=life((1, 1), (2, 28801)))
    with pytest.raises(AnswerUnusable, match="raised"):
        asked.complete(answer, key=KEY, now=0.0)
    assert asked.pair is None


def test_no_life_means_eight_hours_to_the_initiator() -> None:
    """RFC 2407 §4.5; the shorter of that and ours is what stands."""
    offered = changed_sa(quick_mode(command()), transforms=life())
    assert respond(offered, lifetime_seconds=86400).pair.lifetime == 28800
    assert respond(offered, lifetime_seconds=600).pair.lifetime == 600


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [(2000, 5000, 2000), (5000, 2000, 2000), (5000, None, 5000), (None, None, None)]
)
def test_the_shorter_life_in_kilobytes_is_kept_by_both(
    ours: int | None, theirs: int | None, agreed: int | None
) -> None:
    asked = command(lifetime_kilobytes=ours)
    answer = respond(quick_mode(asked), lifetime_kilobytes=theirs)
    done = asked.complete(answered(answer), key=KEY, now=0.0)
    octets = None if agreed is None else 1024 * agreed
    for sa in sas([answer.inbound, answer.outbound]):
        assert (sa.lifetime.hard_octets, sa.lifetime.soft_octets) == (octets, None)
    for sa in sas(done):
        assert sa.lifetime.hard_octets == octets
        assert sa.lifetime.soft_octets == (None if octets is None else soft_count(octets, 0.5))


def test_a_life_in_kilobytes_that_the_initiator_did_not_name_is_the_responders_to_watch() -> None:
    """It is not added to the answer, which repeats the offer: whoever knows the limit rekeys before it."""
    asked = command()
    answer = respond(quick_mode(asked), lifetime_kilobytes=2000)
    for sa in sas([answer.inbound, answer.outbound]):
        assert sa.lifetime.hard_octets == 2_048_000
        assert sa.lifetime.soft_octets is not None
        assert 1_792_000 <= sa.lifetime.soft_octets <= 1_920_000
    for sa in sas(asked.complete(answered(answer), key=KEY, now=0.0)):
        assert sa.lifetime.hard_octets is None


@pytest.mark.parametrize("raised", [((1, 1), (2, 28800), (1, 2), (2, 2001)), ((1, 1), (2, 28800))])
def test_a_raised_life_in_kilobytes_is_refused(raised: tuple[tuple[int, int], ...]) -> None:
    asked = command(lifetime_kilobytes=2000)
    answer = changed_sa(answered(respond(quick_mode(asked))), transforms=life(*raised))
    with pytest.raises(AnswerUnusable, match="kilobytes was raised or left out"):
        asked.complete(answer, key=KEY, now=0.0)
    assert asked.pair is None


def test_a_life_in_packets_is_each_hosts_own() -> None:
    asked = command(lifetime_packets=5000)
    answer = respond(quick_mode(asked), lifetime_packets=3000)
    assert {sa.lifetime.hard_packets for sa in sas([answer.inbound, answer.outbound])} == {3000}
    done = asked.complete(answered(answer), key=KEY, now=0.0)
    assert {(sa.lifetime.soft_packets, sa.lifetime.hard_packets) for sa in sas(done)} == {(soft_count(5000, 0.5), 5000)}


# ------------------------------------------------------------ identities and policies


def test_ids_name_the_policy() -> None:
    other = replace(policy("b", "other"), selector=replace(policy("b").selector, protocol=17))
    asked = quick_mode(command(selector=replace(policy("a").selector, protocol=17)))
    assert respond(asked, policy("b"), other).pair.policy == "other"
    with pytest.raises(Refused, match=r"10\.2\.0\.0/16 <-> 10\.1\.0\.0/16") as refused:
        respond(asked, policy("b"))
    assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
    with pytest.raises(
        Refused, match=r"for 10\.2\.0\.0/16 protocol 17 <-> 10\.1\.0\.0/16 protocol 17, which none"
    ) as told:
        respond(asked, *(policy("b", f"other{number}") for number in range(9)))
    assert str(told.value).count("<->") == 5, "what was asked for, and the first four of what there is"
    assert str(told.value).endswith(", 5 more)")


def test_ids_are_echoed_and_an_initiator_holds_them_to_it() -> None:
    asked = command()
    reply = answered(respond(quick_mode(asked)))
    assert reply[-2:] == identifications_of(policy("a").selector, initiator=True)
    with pytest.raises(AnswerUnusable, match="selectors"):
        asked.complete((*reply[:-2], reply[-1], reply[-2]), key=KEY, now=0.0)
    with pytest.raises(AnswerUnusable, match="1 ID payloads"):
        asked.complete(reply[:-1], key=KEY, now=0.0)
    assert asked.complete(reply[:-2], key=KEY, now=0.0)


def test_without_ids_the_first_policy_is_meant() -> None:
    asked = command(send_ids=False)
    assert len(quick_mode(asked)) == 2
    answer = respond(quick_mode(asked), policy("b", "first"), policy("b", "second"))
    assert answer.pair.policy == "first"
    assert asked.complete(answered(answer), key=KEY, now=0.0)


# ------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "notify", "value"),
    [
        (lambda p: (*p, KeyExchange(b"g^x")), 1, b"\4"),
        (lambda p: (*p, Unknown(77, b"?")), 1, b"\x4d"),
        (lambda p: (*p, Delete(3, (bytes(4),))), 16, b""),
        (lambda p: p[1:], 16, b""),  # no SA
        (lambda p: (p[0], *p), 16, b""),  # two
        (lambda p: (p[0], *p[2:]), 16, b""),  # no Ni
        (lambda p: (*p, Nonce(NI)), 16, b""),
        (lambda p: p[:3], 16, b""),  # one ID
        (lambda p: (*p, p[-1]), 16, b""),
        (lambda p: changed_sa(p, transforms=(Transform(1, 99, ()),)), 14, b""),
        (lambda p: changed_sa(p, spi=b"\0\0\0\xff"), 11, b""),  # reserved
        (lambda p: changed_sa(p, spi=b"\0\0\x30\x03"), 11, b""),  # taken
        (lambda p: (), 16, b""),
    ],
)
def test_what_a_responder_refuses(change: Any, notify: int, value: bytes) -> None:
    with pytest.raises(Refused) as refused:
        respond(change(quick_mode(command())), taken={0x3003})
    assert refused.value.notify == notify
    assert refused.value.value == value


def test_a_notify_in_a_request_is_no_reason_to_refuse() -> None:
    """RFC 4430 §5.5: unknown notifies in a request are ignored."""
    assert respond((*quick_mode(command()), Notify(3, b"", 14), Notify(3, b"", 40000)))


@pytest.mark.parametrize("notify", [1, 14, 16, 8191, 16383])
def test_any_error_notify_fails_the_request(notify: int) -> None:
    asked = command()
    reply = answered(respond(quick_mode(asked)))
    with pytest.raises(RequestFailed, match=notify_name(notify)):
        asked.complete((*reply, Notify(3, b"", notify)), key=KEY, now=0.0)
    assert asked.complete((*reply, Notify(3, b"", 24576)), key=KEY, now=0.0)


def test_invalid_spi_says_that_the_peer_has_something() -> None:
    with pytest.raises(AnswerUnusable, match="INVALID-SPI"):
        command().complete((Notify(3, bytes(4), 11),), key=KEY, now=0.0)


@pytest.mark.parametrize("spi", [0, 255, 0x3003])
def test_an_answer_may_not_name_an_spi_that_is_not_free(spi: int) -> None:
    asked = command({0x3003})
    reply = changed_sa(answered(respond(quick_mode(asked))), spi=spi.to_bytes(4, "big"))
    with pytest.raises(AnswerUnusable, match="not free"):
        asked.complete(reply, key=KEY, now=0.0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda p: (), "0 SA"),
        (lambda p: (p[0], *p), "2 SA"),
        (lambda p: (*p, Nonce(NI), Nonce(NI)), "more than one Nr"),
        (lambda p: (SecurityAssociation((Proposal(9, 3, bytes(4), ()),)), *p[1:]), "one transform"),
    ],
)
def test_answers_that_cannot_be_used(change: Any, why: str) -> None:
    asked = command()
    with pytest.raises(AnswerUnusable, match=why):
        asked.complete(change(answered(respond(quick_mode(asked)))), key=KEY, now=0.0)


def test_small_things() -> None:
    assert notify_name(14) == "NO-PROPOSAL-CHOSEN"
    assert notify_name(9999) == "notify 9999"
    pair = SaPair("net", 1, 2, "s", False, 60, 1.0)
    assert teardown(pair) == [RemoveOutbound("net", 2), RemoveInbound(1)]
    assert moved(pair, 9.0) == SaPair("net", 1, 2, "s", False, 60, 9.0)
    assert command().withdraw() == [RemoveInbound(A_SPI)]


# ------------------------------------------------------------ IP-TFS

RATE, OTHER_RATE = Aggregation(1400, 100.0), Aggregation(500, 10.0)


def test_both_sides_say_that_they_want_iptfs_each_at_a_rate_of_its_own() -> None:
    asked = command(aggregation=RATE)
    answer = respond(quick_mode(asked), aggregation=OTHER_RATE)
    assert not answer.three_way
    for each in sas(asked.begin(KEY, 1.0) + asked.complete(answered(answer), key=KEY, now=3.0)):
        assert each.aggregation == RATE
    assert {each.aggregation for each in sas([answer.inbound, answer.outbound])} == {OTHER_RATE}
    (notify,) = (each for each in answered(answer) if isinstance(each, Notify))
    assert (notify.protocol, notify.spi) == (Protocol.ESP, B_SPI.to_bytes(4))


def test_who_is_for_iptfs_alone_gets_no_pair_without() -> None:
    with pytest.raises(Refused, match="asks for no IP-TFS") as refused:
        respond(quick_mode(command()), aggregation=RATE)
    assert refused.value.notify == NotifyType.NO_PROPOSAL_CHOSEN
    asked = command(aggregation=RATE)
    asked.begin(KEY, 1.0)
    answer = respond(quick_mode(asked))
    assert answer.inbound.sa.aggregation is None
    with pytest.raises(AnswerUnusable, match="no IP-TFS"):
        asked.complete(answered(answer), key=KEY, now=3.0)


def test_flags_that_ask_for_more_than_we_do_ask_for_nothing() -> None:
    """RFC 9347 §6.1.4: congestion information has to come back where C is set, and none would."""
    *rest, notify = quick_mode(command(aggregation=RATE))
    assert isinstance(notify, Notify)
    for flags in (1, 2, 0x80):
        with pytest.raises(Refused, match="asks for no IP-TFS"):
            respond((*rest, replace(notify, value=notify.value[:-1] + bytes([flags]))), aggregation=RATE)


def test_padding_is_the_senders_own_affair() -> None:
    asked = command(confidentiality=Confidentiality(1400, 0.5))
    answer = respond(quick_mode(asked))
    assert [each.confidentiality for each in sas(asked.complete(answered(answer), key=KEY, now=3.0))] == [
        Confidentiality(1400, 0.5)
    ] * 2
    assert answer.inbound.sa.confidentiality is None


def test_header_rules_are_each_host_s_own() -> None:
    """No message has a word for them: they go from the policy into both SAs, and nowhere else."""
    rules = HeaderRules(Ecn.COMPATIBLE, bytes([46]) * 64)
    asked = command(headers=rules)
    answer = respond(quick_mode(asked))
    assert {each.headers for each in sas(asked.complete(answered(answer), key=KEY, now=3.0))} == {rules}
    assert answer.inbound.sa.headers == DEFAULT_RULES
