from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import policy

from esp.sa import Encapsulation, Mode, SecurityProtocol
from esp.suite import SUITES, Cipher, Suite
from kinkvpn.proto.proposal import Refused, agree, answer, choose, offer, read_terms
from kinkvpn.proto.settings import Esn
from kinkvpn.wire.ipsec_doi import AuthenticationAlgorithm, EspTransform, Group, NotifyType, SaAttribute
from kinkvpn.wire.isakmp import Attribute, Proposal, SecurityAssociation, Transform

if TYPE_CHECKING:
    from kinkvpn.proto.settings import PolicySettings

SPI = b"\0\0\x12\x34"
LIFE_TYPE, DURATION, MODE, AUTH, BITS = (
    SaAttribute.LIFE_TYPE,
    SaAttribute.LIFE_DURATION,
    SaAttribute.ENCAPSULATION_MODE,
    SaAttribute.AUTHENTICATION_ALGORITHM,
    SaAttribute.KEY_LENGTH,
)

PLAIN = policy(esn=Esn.NEVER)
ESN = Attribute(SaAttribute.EXTENDED_SEQUENCE_NUMBER, 1)

# Attributes as likely to make sense as not.
VALUES = st.sampled_from([0, 1, 2, 3, 4, 5, 128, 192, 256, 3600, 28800, 61443, 61444]) | st.integers(0, 65535)
ATTRIBUTES = st.builds(Attribute, st.sampled_from([1, 2, 3, 4, 5, 6, 7, 11, 99]), VALUES | st.binary(max_size=9))
SENSIBLE = st.sampled_from(sorted(SUITES)).flatmap(
    lambda name: st.sampled_from([1, 2, 3, 4, 61443]).map(lambda mode: _transform(name, mode=mode))
)
TRANSFORMS = SENSIBLE | st.builds(
    Transform, st.integers(0, 3), st.sampled_from([3, 11, 12, 20]), st.lists(ATTRIBUTES, max_size=8).map(tuple)
)
PROPOSALS = st.builds(
    Proposal,
    st.integers(0, 2),
    st.sampled_from([2, 3, 3, 3]),
    st.binary(min_size=4, max_size=4),
    st.lists(TRANSFORMS, max_size=3).map(tuple),
)
OFFERS = st.builds(SecurityAssociation, st.lists(PROPOSALS, max_size=3).map(tuple))
POLICIES = st.builds(
    lambda suites, mode, encapsulation, life, kilobytes, esn: policy(
        suites=tuple(SUITES[name] for name in suites),
        mode=mode,
        encapsulation=encapsulation,
        lifetime_seconds=life,
        lifetime_kilobytes=kilobytes,
        esn=esn,
    ),
    st.lists(st.sampled_from(sorted(SUITES)), min_size=1, max_size=4, unique=True),
    st.sampled_from(Mode),
    st.sampled_from(Encapsulation),
    st.integers(1, 2**32 - 1),
    st.none() | st.integers(1, 2**40),
    st.sampled_from(Esn),
)


def _transform(name: str, *, number: int = 1, mode: int = 3, life: tuple[Attribute, ...] = ()) -> Transform:
    suite = SUITES[name]
    authentication = () if suite.authentication is None else (Attribute(AUTH, suite.authentication),)
    bits = () if suite.key_length is None else (Attribute(BITS, suite.key_length),)
    return Transform(number, suite.transform, (*life, Attribute(MODE, mode), *bits, *authentication))


def _sa(*transforms: Transform, number: int = 1, protocol: int = 3, spi: bytes = SPI) -> SecurityAssociation:
    return SecurityAssociation((Proposal(number, protocol, spi, transforms),))


def _seconds(value: int | bytes) -> tuple[Attribute, ...]:
    return (Attribute(LIFE_TYPE, 1), Attribute(DURATION, value))


def _kilobytes(value: int | bytes) -> tuple[Attribute, ...]:
    return (Attribute(LIFE_TYPE, 2), Attribute(DURATION, value))


# ------------------------------------------------------------ the whole way


@given(POLICIES, POLICIES)
def test_two_policies_meet_or_the_responder_refuses(ours: PolicySettings, theirs: PolicySettings) -> None:
    offered = offer(ours, SPI)
    # RFC 4304: the first suite with extended numbers, then all without; all with, or all without, where that is said.
    choices = {
        Esn.AUTO: [(s, True) for s in ours.suites[:1] if not s.legacy] + [(s, False) for s in ours.suites],
        Esn.ALWAYS: [(suite, True) for suite in ours.suites],
        Esn.NEVER: [(suite, False) for suite in ours.suites],
    }[ours.esn]
    allowed = {Esn.AUTO: (True, False), Esn.ALWAYS: (True,), Esn.NEVER: (False,)}[theirs.esn]
    common = [(suite, esn) for suite, esn in choices if suite in theirs.suites and esn in allowed]
    fits = common and (ours.mode, ours.encapsulation) == (theirs.mode, theirs.encapsulation)
    if not fits:
        with pytest.raises(Refused) as refused:
            choose(offered, theirs)
        assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
        return
    chosen = choose(offered, theirs)
    assert (chosen.terms.suite, chosen.terms.esn) == common[0]
    assert chosen.optimistic == (common[0] == choices[0])
    agreed = agree(offered, answer(chosen, b"\0\0\x56\x78", theirs))
    assert (agreed.terms.suite, agreed.terms.esn) == common[0]
    assert agreed.optimistic == chosen.optimistic
    assert agreed.terms.seconds == min(ours.lifetime_seconds, theirs.lifetime_seconds)
    limits = [life for life in (ours.lifetime_kilobytes, theirs.lifetime_kilobytes) if life is not None]
    assert agreed.terms.kilobytes == (None if ours.lifetime_kilobytes is None else min(limits))
    assert agreed.proposal.spi == b"\0\0\x56\x78"


@given(OFFERS, POLICIES)
def test_whatever_is_offered_only_what_the_policy_allows_is_chosen(
    offered: SecurityAssociation, allowed: PolicySettings
) -> None:
    try:
        chosen = choose(offered, allowed)
    except Refused:
        return
    assert chosen.terms.suite in allowed.suites
    assert allowed.esn.allows(chosen.terms.esn)
    assert chosen.terms.esn == (SaAttribute.EXTENDED_SEQUENCE_NUMBER in [a.type for a in chosen.transform.attributes])
    assert (chosen.terms.mode, chosen.terms.encapsulation) == (allowed.mode, allowed.encapsulation)
    assert chosen.proposal in offered.proposals
    assert chosen.transform in chosen.proposal.transforms
    assert chosen.proposal.protocol == 3
    assert [proposal.number for proposal in offered.proposals].count(chosen.proposal.number) == 1


@given(POLICIES, OFFERS)
def test_whatever_is_answered_only_what_was_offered_is_agreed(
    ours: PolicySettings, answered: SecurityAssociation
) -> None:
    offered = offer(ours, SPI)
    try:
        agreed = agree(offered, answered)
    except Refused:
        return
    assert agreed.terms.suite in ours.suites
    assert agreed.terms.seconds is not None
    assert agreed.terms.seconds <= ours.lifetime_seconds


@given(POLICIES, st.data())
def test_a_changed_attribute_is_never_agreed(ours: PolicySettings, data: st.DataObject) -> None:
    """Any one attribute of a faithful answer, replaced, left out or added: agreed only if it is a shorter life."""
    offered = offer(ours, SPI)
    faithful = answer(choose(offered, ours), SPI, ours).proposals[0]
    attributes = list(faithful.transforms[0].attributes)
    where = data.draw(st.integers(0, len(attributes)))
    changed = data.draw(st.lists(ATTRIBUTES, max_size=1))
    attributes[where : where + data.draw(st.integers(0, 1))] = changed
    if tuple(attributes) == faithful.transforms[0].attributes:
        return
    transform = faithful.transforms[0]._replace(attributes=tuple(attributes))
    try:
        agreed = agree(offered, SecurityAssociation((replace(faithful, transforms=(transform,)),)))
    except Refused:
        return
    others = [_plain(a) for a in attributes if a.type not in (LIFE_TYPE, DURATION)]
    meant = [_plain(a) for a in faithful.transforms[0].attributes if a.type not in (LIFE_TYPE, DURATION)]
    assert sorted(others) == sorted(meant)
    assert agreed.terms.seconds is not None
    assert agreed.terms.seconds <= ours.lifetime_seconds


def _plain(attribute: Attribute) -> tuple[int, int]:
    value = attribute.value
    return attribute.type, value if isinstance(value, int) else int.from_bytes(value, "big")


# ------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("attributes", "seconds", "kilobytes"),
    [
        ((), None, None),
        (_seconds(3600), 3600, None),
        (_seconds(b"\0\1\0\0"), 65536, None),
        (_kilobytes(500), None, 500),
        (_seconds(3600) + _kilobytes(500), 3600, 500),
        (_seconds(3600) + _seconds(1800) + _seconds(7200), 1800, None),
        ((Attribute(LIFE_TYPE, 1),), None, None),
    ],
)
def test_lifetimes(attributes: tuple[Attribute, ...], seconds: int | None, kilobytes: int | None) -> None:
    terms = read_terms(_transform("aes256-gcm16", life=attributes))
    assert terms is not None
    assert (terms.seconds, terms.kilobytes) == (seconds, kilobytes)


@pytest.mark.parametrize(
    "attributes",
    [
        (Attribute(DURATION, 3600),),  # of what type?
        (Attribute(LIFE_TYPE, 3), Attribute(DURATION, 3600)),
        _seconds(0),
        _seconds(b""),
        _kilobytes(b"\1" + bytes(8)),  # for ever, and a little more
        _kilobytes(bytes([255]) * 60000),
        (Attribute(SaAttribute.GROUP_DESCRIPTION, 2),),  # 1,024 bits: refused wherever it is offered
        (Attribute(SaAttribute.GROUP_DESCRIPTION, 14),) * 2,
        (Attribute(SaAttribute.EXTENDED_SEQUENCE_NUMBER, 0),),  # reserved: RFC 4304 §2, §3
        (Attribute(SaAttribute.EXTENDED_SEQUENCE_NUMBER, 2),),
        (ESN, ESN),
        (Attribute(BITS, 256),),  # twice
        (Attribute(99, b"what"),),
    ],
)
def test_what_is_not_understood_makes_a_transform_unreadable(attributes: tuple[Attribute, ...]) -> None:
    assert read_terms(_transform("aes256-gcm16", life=attributes)) is None


def test_a_transform_without_encapsulation_mode_or_key_length_means_nothing() -> None:
    full = _transform("aes256-gcm16")
    for attribute in full.attributes:
        assert read_terms(full._replace(attributes=tuple(a for a in full.attributes if a != attribute))) is None


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_every_suite_is_said_in_one_way(suite: Suite) -> None:
    """RFC 2407 §4.5: Key Length where a cipher has several, and MUST NOT where it has one."""
    full = _transform(suite.name)
    terms = read_terms(full)
    assert terms is not None
    assert terms.suite is suite
    kinds = {attribute.type for attribute in full.attributes}
    assert (BITS in kinds) == suite.name.startswith(("aes", "camellia"))
    # Nothing may be left out or be another, and what a suite does not have may not be there.
    for kind in (BITS, AUTH):
        others = tuple(attribute for attribute in full.attributes if attribute.type != kind)
        assert kind not in kinds or read_terms(full._replace(attributes=others)) is None
        for value in (0, 77):
            assert read_terms(full._replace(attributes=(*others, Attribute(kind, value)))) is None


def test_numbers_may_be_of_either_form() -> None:
    """RFC 2407 §4.5: basic attributes MUST NOT be sent as variable ones; whoever does is understood (RFC 2408 §3.3)."""
    basic = _transform("aes192-ctr-sha384")
    wide = tuple(Attribute(one.type, int(one.value).to_bytes(4)) for one in basic.attributes)
    assert read_terms(basic._replace(attributes=wide)) == read_terms(basic)
    assert read_terms(basic._replace(attributes=tuple(reversed(wide)))) == read_terms(basic)


def test_numbers_of_suites_are_those_of_the_registry() -> None:
    """By name: the table of suites knows nothing of this one."""
    transforms = {
        EspTransform(suite.transform).name.removesuffix("_PRIVATE"): suite.cipher.name for suite in SUITES.values()
    }
    assert {wire: cipher for wire, cipher in transforms.items() if wire != cipher} == {
        **{f"AES_{mode}_{icv}": f"AES_{mode}" for mode in ("GCM", "CCM") for icv in (8, 12, 16)},
        "NULL_AUTH_AES_GMAC": "AES_GMAC",
        "CAMELLIA": "CAMELLIA_CBC",
        "TRIPLE_DES": "TRIPLE_DES_CBC",
    }
    algorithms = {
        (AuthenticationAlgorithm(suite.authentication).name, suite.integrity.name)
        for suite in SUITES.values()
        if suite.authentication is not None and suite.integrity is not None
    }
    assert algorithms == {
        *(("HMAC_MD5", "HMAC_MD5_96"), ("HMAC_SHA", "HMAC_SHA1_96"), ("AES_XCBC_MAC", "AES_XCBC_96")),
        *(("HMAC_SHA2_256", "HMAC_SHA2_256_128"), ("HMAC_SHA2_384", "HMAC_SHA2_384_192")),
        ("HMAC_SHA2_512", "HMAC_SHA2_512_256"),
    }


@pytest.mark.parametrize(("mode", "encapsulation"), [(1, "raw"), (2, "raw"), (3, "udp"), (4, "udp"), (61443, "udp")])
def test_encapsulation_modes(mode: int, encapsulation: str) -> None:
    terms = read_terms(_transform("aes256-gcm16", mode=mode))
    assert terms is not None
    assert terms.encapsulation is Encapsulation(encapsulation)
    assert terms.mode is (Mode.TRANSPORT if mode in (2, 4) else Mode.TUNNEL)


# ------------------------------------------------------------ choosing


def test_first_recognised_is_optimistic_only_if_it_is_first() -> None:
    unknown = Transform(1, 99, ())
    known = _transform("aes256-gcm16", number=2)
    assert not choose(_sa(unknown, known), policy()).optimistic
    assert choose(_sa(known, unknown), policy()).optimistic


def test_ah_bundles_and_odd_spis_are_passed_over() -> None:
    good = _transform("aes256-gcm16")
    esp, ah = Proposal(1, 3, SPI, (good,)), Proposal(1, 2, SPI, (good,))
    other = Proposal(2, 3, b"\0\0\1\1", (good,))
    with pytest.raises(Refused, match="peer offers protocol 3 in a bundle, protocol 2 in a bundle;"):
        choose(SecurityAssociation((esp, ah)), policy())
    with pytest.raises(Refused, match=r"peer offers AH by transform 20 \(not known here\);"):
        choose(SecurityAssociation((ah,)), policy())
    with pytest.raises(Refused, match="peer offers protocol 4;"):
        choose(SecurityAssociation((replace(ah, protocol=4),)), policy())
    assert choose(SecurityAssociation((esp, ah, other)), policy()).proposal is other
    assert not choose(SecurityAssociation((esp, ah, other)), policy()).optimistic
    with pytest.raises(Refused):
        choose(_sa(good, spi=b"\1\2"), policy())


def test_a_refusal_says_what_both_sides_want() -> None:
    offered = _sa(_transform("aes128-cbc-sha1", mode=1), Transform(2, 99, ()))
    with pytest.raises(Refused, match=r"aes128-cbc-sha1 in raw tunnel mode.*99.*not known.*policy net.*aes256-gcm16"):
        choose(offered, policy())
    with pytest.raises(Refused, match="nothing"):
        choose(SecurityAssociation(()), policy())


# ------------------------------------------------------------ answering


def test_the_answer_repeats_the_offer_and_lowers_the_life() -> None:
    life = _seconds(b"\0\1\0\0") + _kilobytes(70)
    transform = _transform("aes128-gcm16", number=7, mode=61443, life=life)
    chosen = choose(_sa(transform, number=5), policy())
    (proposal,) = answer(chosen, b"\0\0\x56\x78", policy(lifetime_seconds=70000, lifetime_kilobytes=70)).proposals
    assert (proposal.number, proposal.spi, proposal.transforms) == (5, b"\0\0\x56\x78", (transform,))
    (proposal,) = answer(chosen, b"\0\0\x56\x78", policy(lifetime_seconds=60)).proposals
    assert proposal.transforms[0].attributes[:4] == _seconds(60) + _kilobytes(70)
    (proposal,) = answer(chosen, b"\0\0\x56\x78", policy(lifetime_seconds=70000, lifetime_kilobytes=69)).proposals
    assert proposal.transforms[0].attributes[:4] == _seconds(b"\0\1\0\0") + _kilobytes(69)
    assert proposal.transforms[0].attributes[4:] == transform.attributes[4:]


def test_long_lives_are_sent_as_tlv() -> None:
    assert (
        Attribute(DURATION, 65535) in offer(policy(lifetime_seconds=65535), SPI).proposals[0].transforms[0].attributes
    )
    long = offer(policy(lifetime_seconds=65536), SPI).proposals[0].transforms[0].attributes
    assert Attribute(DURATION, b"\0\1\0\0") in long
    longest = offer(policy(lifetime_kilobytes=2**40), SPI).proposals[0].transforms[0].attributes
    assert longest[2:4] == _kilobytes(bytes([0, 0, 1, 0, 0, 0, 0, 0]))


def test_kilobytes_are_a_second_pair_of_type_and_duration() -> None:
    (proposal,) = offer(policy(lifetime_seconds=600, lifetime_kilobytes=5000), SPI).proposals
    for transform in proposal.transforms:
        assert transform.attributes[:4] == _seconds(600) + _kilobytes(5000)


# ------------------------------------------------------------ agreeing


@pytest.mark.parametrize(
    ("answered", "why"),
    [
        (SecurityAssociation(()), "other than one"),
        (SecurityAssociation(offer(PLAIN, SPI).proposals * 2), "other than one"),
        (offer(PLAIN, SPI), "other than one"),
        (_sa(_transform("aes256-gcm16", number=9, life=_seconds(28800))), "never offered"),
        (_sa(_transform("aes256-gcm16", life=_seconds(28800)), number=2), "never offered"),
        (_sa(_transform("aes256-gcm16", life=_seconds(28800)), protocol=2), "another protocol"),
        (_sa(_transform("aes256-gcm16", life=_seconds(28800)), spi=b"\1"), "SPI size"),
        (_sa(_transform("aes256-gcm16", life=_seconds(28801))), "raised"),
        (_sa(_transform("aes256-gcm16")), "left out"),
        (_sa(_transform("aes256-gcm16", life=_kilobytes(1))), "left out"),
        (_sa(_transform("aes128-gcm16", life=_seconds(28800))), "aes128-gcm16"),
        (_sa(_transform("aes256-gcm16", mode=1, life=_seconds(28800))), "another mode, group or ESN"),
        (_sa(_transform("aes256-gcm16", mode=61443, life=_seconds(28800))), "another mode, group or ESN"),
        (_sa(Transform(1, 20, ())), "means nothing"),
    ],
)
def test_unfaithful_answers(answered: SecurityAssociation, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        agree(offer(PLAIN, SPI), answered)
    assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN


def test_a_lower_life_and_one_more_limit_are_fine() -> None:
    agreed = agree(offer(PLAIN, SPI), _sa(_transform("aes256-gcm16", life=_seconds(60) + _kilobytes(9))))
    assert agreed.optimistic
    assert (agreed.terms.seconds, agreed.terms.kilobytes) == (60, 9)


# ------------------------------------------------------------ ESN


def _esn_of(offered: SecurityAssociation) -> list[bool]:
    terms = [read_terms(transform) for transform in offered.proposals[0].transforms]
    return [each.esn for each in terms if each is not None]


def test_extended_numbers_are_offered_first_and_then_all_without() -> None:
    assert _esn_of(offer(policy(), SPI)) == [True, False, False, False]
    assert _esn_of(offer(policy(esn=Esn.ALWAYS), SPI)) == [True] * 3
    assert _esn_of(offer(PLAIN, SPI)) == [False] * 3
    first, second, *_ = offer(policy(), SPI).proposals[0].transforms
    assert first.attributes == (*second.attributes, ESN)
    assert (first.identifier, first.number, second.number) == (second.identifier, 1, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen", "optimistic"),
    [
        (Esn.AUTO, Esn.AUTO, True, True),
        (Esn.AUTO, Esn.ALWAYS, True, True),
        (Esn.AUTO, Esn.NEVER, False, False),
        (Esn.ALWAYS, Esn.AUTO, True, True),
        (Esn.ALWAYS, Esn.NEVER, None, False),
        (Esn.NEVER, Esn.AUTO, False, True),
        (Esn.NEVER, Esn.ALWAYS, None, False),
    ],
)
def test_what_two_hosts_agree_on(ours: Esn, theirs: Esn, chosen: bool | None, optimistic: bool) -> None:
    offered = offer(policy(esn=ours), SPI)
    if chosen is None:
        with pytest.raises(Refused, match="ESN") as refused:
            choose(offered, policy(esn=theirs))
        assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
        return
    agreement = choose(offered, policy(esn=theirs))
    agreed = agree(offered, answer(agreement, SPI, policy(esn=theirs)))
    assert (agreed.terms.esn, agreed.optimistic) == (agreement.terms.esn, agreement.optimistic) == (chosen, optimistic)


def test_an_answer_that_adds_or_drops_extended_numbers_is_none() -> None:
    extended, plain, *_ = offer(policy(), SPI).proposals[0].transforms
    for number, attributes in ((extended.number, plain.attributes), (plain.number, extended.attributes)):
        with pytest.raises(Refused, match="another mode, group or ESN"):
            agree(offer(policy(), SPI), _sa(plain._replace(number=number, attributes=attributes)))


# ------------------------------------------------------------ PFS


@pytest.mark.parametrize("group", Group)
def test_every_transform_of_an_offer_with_pfs_names_the_group(group: Group) -> None:
    offered = offer(policy(), SPI, group)
    assert [read_terms(transform).group for transform in offered.proposals[0].transforms] == [group] * 4
    chosen = choose(offered, policy(pfs=(Group.ECP_256, group)), pfs=True)
    assert (chosen.terms.group, chosen.optimistic) == (group, True)
    reply = answer(chosen, SPI, policy())
    assert agree(offered, reply).terms.group is group
    without = answer(choose(offer(policy(), SPI), policy()), SPI, policy())
    with pytest.raises(Refused, match="another mode, group or ESN"):
        agree(offered, without)


@pytest.mark.parametrize(
    ("offered", "allowed", "ke"),
    [
        (Group.MODP_2048, (Group.CURVE25519,), True),  # a group that is not allowed
        (None, (Group.CURVE25519,), True),  # a KE payload, and nothing says of which group
        (Group.CURVE25519, (Group.CURVE25519,), False),  # a group, and no KE payload
    ],
)
def test_group_and_ke_go_together(offered: Group | None, allowed: tuple[Group, ...], ke: bool) -> None:
    with pytest.raises(Refused) as refused:
        choose(offer(policy(), SPI, offered), policy(pfs=allowed), pfs=ke)
    assert refused.value.notify is NotifyType.NO_PROPOSAL_CHOSEN
    if offered is not None:
        assert f"PFS by {offered.label}" in str(refused.value)
    if ke:
        assert "with PFS by x25519" in str(refused.value)


AH_SUITES = [suite for suite in SUITES.values() if suite.cipher is Cipher.NULL]


@pytest.mark.parametrize("suite", AH_SUITES, ids=lambda one: one.name)
@pytest.mark.parametrize("mode", Mode, ids=str)
def test_ah_is_offered_taken_and_agreed_upon(suite: Suite, mode: Mode) -> None:
    """RFC 2407 §4.4.3: the transform says the algorithm, and so has to the attribute."""
    ours = policy(
        suites=(suite,), legacy=True, protocol=SecurityProtocol.AH, encapsulation=Encapsulation.RAW, mode=mode
    )
    offered = offer(ours, SPI)
    (proposal,) = offered.proposals
    assert proposal.protocol == 2
    numbers = {"md5": (2, 1), "sha1": (3, 2), "sha256": (5, 5), "sha384": (6, 6), "sha512": (7, 7), "xcbc": (9, 9)}
    transform, algorithm = numbers[suite.name.removeprefix("null-")]
    for each in proposal.transforms:
        assert each.identifier == transform
        attributes = {one.type: one.value for one in each.attributes}
        assert attributes[5] == algorithm
        assert attributes[4] == (1 if mode is Mode.TUNNEL else 2)
        assert 6 not in attributes, "no key length"
    chosen = choose(offered, ours)
    assert (chosen.terms.suite, chosen.terms.protocol, chosen.terms.mode) == (suite, SecurityProtocol.AH, mode)
    agreed = agree(offered, answer(chosen, b"\0\0\1\1", ours))
    assert agreed.terms == chosen.terms
    for other in (replace(ours, protocol=SecurityProtocol.ESP), replace(ours, suites=(SUITES["aes256-gcm16"],))):
        with pytest.raises(Refused, match=rf"peer offers AH by {suite.name} in raw {mode.value} mode.*; policy"):
            choose(offered, other)
    esp = offer(replace(ours, protocol=SecurityProtocol.ESP), SPI)
    with pytest.raises(Refused, match=r"policy net allows AH by "):
        choose(esp, ours)
