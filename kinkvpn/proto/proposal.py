"""What is offered, chosen and agreed: SA payloads in terms of suites (RFC 4430 §3.2, §5.1, RFC 2407 §4.5)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from esp.sa import Encapsulation, Mode, SecurityProtocol
from esp.suite import SUITES, Cipher, Integrity, Suite
from kinkvpn.errors import KinkvpnError
from kinkvpn.proto.settings import Esn
from kinkvpn.wire.ipsec_doi import (
    AhTransform,
    EncapsulationMode,
    ExtendedSequenceNumber,
    Group,
    LifeType,
    NotifyType,
    Protocol,
    SaAttribute,
)
from kinkvpn.wire.isakmp import KNOWN_TRANSFORMS, Attribute, Proposal, SecurityAssociation, Transform, is_usual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.proto.settings import PolicySettings

# A TV attribute holds two octets; a longer life goes out as a TLV of four (RFC 2408 §3.3).
_LONGEST_TV = 0xFFFF
# Ours. A TLV can hold a number of 65,535 octets; 2^47 s or kB is for ever, and fits every counter in octets.
_LONGEST_LIFE = 2**47

_OFFERED_MODE = {
    (Mode.TUNNEL, Encapsulation.RAW): EncapsulationMode.TUNNEL,
    (Mode.TRANSPORT, Encapsulation.RAW): EncapsulationMode.TRANSPORT,
    (Mode.TUNNEL, Encapsulation.UDP): EncapsulationMode.UDP_TUNNEL,
    (Mode.TRANSPORT, Encapsulation.UDP): EncapsulationMode.UDP_TRANSPORT,
}
# Without the attribute there is none (RFC 2407 §4.5); 0 is nobody's number.
_GROUPS: dict[int, Group | None] = {0: None} | {int(group): group for group in Group}
# The draft's numbers for UDP encapsulation are understood, and answered as they were asked (docs/decisions.md).
_UNDERSTOOD_MODE = {int(number): ways for ways, number in _OFFERED_MODE.items()} | {
    int(EncapsulationMode.UDP_TUNNEL_DRAFT): (Mode.TUNNEL, Encapsulation.UDP),
    int(EncapsulationMode.UDP_TRANSPORT_DRAFT): (Mode.TRANSPORT, Encapsulation.UDP),
}


PROTOCOLS = {SecurityProtocol.ESP: Protocol.ESP, SecurityProtocol.AH: Protocol.AH}
_OF_NUMBER = {int(number): protocol for protocol, number in PROTOCOLS.items()}
_AH_TRANSFORMS = {
    Integrity.HMAC_MD5_96: AhTransform.MD5,
    Integrity.HMAC_SHA1_96: AhTransform.SHA,
    Integrity.HMAC_SHA2_256_128: AhTransform.SHA2_256,
    Integrity.HMAC_SHA2_384_192: AhTransform.SHA2_384,
    Integrity.HMAC_SHA2_512_256: AhTransform.SHA2_512,
    Integrity.AES_XCBC_96: AhTransform.AES_XCBC_MAC,
}


class Refused(KinkvpnError):
    """A command cannot be granted; carries the notify to answer with (RFC 4430 §5.5).

    Args:
        notify: error notify type.
        reason: for the operator: which side, which field.
        value: notification data.
        spi: the SPI that the notify is about, or empty.
    """

    def __init__(self, notify: NotifyType, reason: str, *, value: bytes = b"", spi: bytes = b"") -> None:
        super().__init__(reason)
        self.notify = notify
        self.value = value
        self.spi = spi


@dataclass(frozen=True, slots=True)
class Terms:
    """What one transform says, as far as it can be kept here.

    Args:
        suite: the algorithms.
        mode, encapsulation: attribute 4.
        seconds: the shortest life duration in seconds, None for the DOI's default.
        kilobytes: likewise in kilobytes.
        group: Group Description (attribute 3), None without PFS.
        esn: sequence numbers are extended (attribute 11, RFC 4304).
        protocol: of the proposal.
    """

    suite: Suite
    mode: Mode
    encapsulation: Encapsulation
    seconds: int | None
    kilobytes: int | None
    group: Group | None = None
    esn: bool = False
    protocol: SecurityProtocol = SecurityProtocol.ESP


class Agreement(NamedTuple):
    """One proposal and one of its transforms, agreed upon.

    Args:
        proposal, transform: as they stand in the SA payload of the side that proposed them.
        terms: what the transform means, lifetimes as agreed.
        optimistic: it is the first transform of the first proposal (RFC 4430 §3.2).
    """

    proposal: Proposal
    transform: Transform
    terms: Terms
    optimistic: bool


def offer(policy: PolicySettings, spi: bytes, group: Group | None = None) -> SecurityAssociation:
    """Our proposal: one, with a transform per suite, the preferred one first; that one with extended numbers before it.

    One proposal means one SPI for whatever is chosen, so an inbound SA made on optimism only ever changes its keys.

    Args:
        spi: four octets, ours, inbound.
        group: of the KE payload that goes with it; all transforms have the same (RFC 2409 §5.5).
    """
    lives, way = (policy.lifetime_seconds, policy.lifetime_kilobytes), (policy.mode, policy.encapsulation)
    transforms = _transforms(policy.suites, lives, way, group, policy.esn, policy.protocol)
    return SecurityAssociation((Proposal(1, PROTOCOLS[policy.protocol], spi, transforms),))


@lru_cache(maxsize=KNOWN_TRANSFORMS)
def _transforms(
    suites: tuple[Suite, ...],
    lives: tuple[int, int | None],
    way: tuple[Mode, Encapsulation],
    group: Group | None,
    esn: Esn,
    protocol: SecurityProtocol,
) -> tuple[Transform, ...]:
    # One transform more, not twice as many: a CREATE has room for few (QUICK_MODE_OCTETS), and hosts that agree on
    # their first suite, as they mostly do, take it.
    first = () if suites[0].legacy else suites[:1]  # nothing that wears out sooner than its counter (RFC 4304 §4)
    extended = {Esn.AUTO: first, Esn.ALWAYS: suites, Esn.NEVER: ()}[esn]
    offered = [(suite, True) for suite in extended] + [(suite, False) for suite in suites if esn.allows(False)]
    return tuple(
        Transform(number, _identifier(suite, protocol), _attributes(suite, lives, way, group, esn))
        for number, (suite, esn) in enumerate(offered, 1)
    )


def _attributes(
    suite: Suite, lives: tuple[int, int | None], way: tuple[Mode, Encapsulation], group: Group | None, esn: bool
) -> tuple[Attribute, ...]:
    seconds, kilobytes = lives
    return (
        Attribute(SaAttribute.LIFE_TYPE, LifeType.SECONDS),
        _duration(seconds),
        *_kilobytes(kilobytes),
        *(() if group is None else (Attribute(SaAttribute.GROUP_DESCRIPTION, group),)),
        Attribute(SaAttribute.ENCAPSULATION_MODE, _OFFERED_MODE[way]),
        *(Attribute(kind, value) for kind, value in _algorithms(suite)),
        *((Attribute(SaAttribute.EXTENDED_SEQUENCE_NUMBER, ExtendedSequenceNumber.ESN_64),) if esn else ()),
    )


def _algorithms(suite: Suite) -> Iterator[tuple[SaAttribute, int]]:
    """What attributes say of ``suite``; one that does not apply MUST NOT be sent (RFC 2407 §4.5)."""
    if suite.key_length is not None:
        yield SaAttribute.KEY_LENGTH, suite.key_length
    if suite.authentication is not None:
        yield SaAttribute.AUTHENTICATION_ALGORITHM, suite.authentication


def _identifier(suite: Suite, protocol: SecurityProtocol) -> int:
    if protocol is SecurityProtocol.AH:
        assert suite.integrity is not None  # the configuration has seen to it
        return _AH_TRANSFORMS[suite.integrity]
    return suite.transform


# The attributes of a transform that say no more and no less than a suite has. AH names its algorithm twice: by the
# transform and by the attribute that it has to have (RFC 2407 §4.4.3).
_MEANT: dict[tuple[SecurityProtocol, int, frozenset[tuple[int, int]]], Suite] = {
    (protocol, _identifier(suite, protocol), frozenset(_algorithms(suite))): suite
    for suite in SUITES.values()
    for protocol in SecurityProtocol
    if protocol is SecurityProtocol.ESP or suite.cipher is Cipher.NULL
}


def _kilobytes(kilobytes: int | None) -> tuple[Attribute, ...]:
    """The second pair of type and duration: both lives hold, and the first that ends is the SA's (RFC 2407 §4.5)."""
    if kilobytes is None:
        return ()
    return Attribute(SaAttribute.LIFE_TYPE, LifeType.KILOBYTES), _duration(kilobytes)


def _duration(life: int) -> Attribute:
    value = life if life <= _LONGEST_TV else life.to_bytes(4 if life < 2**32 else 8, "big")
    return Attribute(SaAttribute.LIFE_DURATION, value)


def choose(offered: SecurityAssociation, policy: PolicySettings, *, pfs: bool = False) -> Agreement:
    """The first offered transform that ``policy`` allows, in the initiator's order (RFC 4430 §3.2).

    Args:
        offered: the initiator's SA payload.
        policy: ours.
        pfs: a KE payload came with it; then a transform has to name its group, and else none may (RFC 2409 §5.5).

    Raises:
        Refused: NO-PROPOSAL-CHOSEN; the reason lists both sides, offered and allowed.
    """
    for proposal, transform, terms in _readable(offered):
        if _allowed(terms, policy) and (terms.group in policy.pfs if pfs else terms.group is None):
            first = offered.proposals[0]
            optimistic = proposal is first and transform is first.transforms[0]
            return Agreement(proposal, transform, terms, optimistic)
    raise Refused(
        NotifyType.NO_PROPOSAL_CHOSEN,
        f"peer offers {_described(offered)}; policy {policy.name} allows {_AH_BY[policy.protocol]}"
        f"{', '.join(suite.name for suite in policy.suites)} in {policy.encapsulation.value} {policy.mode.value} mode"
        f"{_groups(policy) if pfs else ''}{_NUMBERS[policy.esn]}",
    )


_AH_BY = {SecurityProtocol.ESP: "", SecurityProtocol.AH: "AH by "}
_NUMBERS = {Esn.AUTO: "", Esn.ALWAYS: ", with ESN", Esn.NEVER: ", without ESN"}


def _groups(policy: PolicySettings) -> str:
    return f", with PFS by {', '.join(group.label for group in policy.pfs)}"


def _allowed(terms: Terms, policy: PolicySettings) -> bool:
    return (
        terms.protocol is policy.protocol
        and terms.suite in policy.suites
        and terms.mode is policy.mode
        and terms.encapsulation is policy.encapsulation
        and policy.esn.allows(terms.esn)
    )


def _readable(offered: SecurityAssociation) -> Iterator[tuple[Proposal, Transform, Terms]]:
    numbers = [proposal.number for proposal in offered.proposals]
    for proposal in offered.proposals:
        # Equal proposal numbers are a bundle, to be taken whole (RFC 2408 §4.2); no bundle is offered here.
        protocol = _OF_NUMBER.get(proposal.protocol)
        if protocol is None or len(proposal.spi) != 4 or numbers.count(proposal.number) > 1:
            continue
        for transform in proposal.transforms:
            terms = read_terms(transform, protocol)
            if terms is not None:
                yield proposal, transform, terms


def read_terms(transform: Transform, protocol: SecurityProtocol = SecurityProtocol.ESP) -> Terms | None:
    """What ``transform`` means, or None when some algorithm, attribute or value is not known here."""
    return (_known_terms if is_usual(transform) else _read_terms)(transform, protocol)


def _read_terms(transform: Transform, protocol: SecurityProtocol) -> Terms | None:
    single: dict[int, int] = {}
    lives: dict[int, int] = {}
    life_type: int | None = None
    for attribute in transform.attributes:
        value = _number(attribute)
        if attribute.type == SaAttribute.LIFE_TYPE:
            life_type = value
        elif attribute.type == SaAttribute.LIFE_DURATION:
            # A duration belongs to the type before it (RFC 2407 §4.5).
            if life_type not in (LifeType.SECONDS, LifeType.KILOBYTES) or not 0 < value <= _LONGEST_LIFE:
                return None
            lives[life_type] = min(value, lives.get(life_type, value))
        elif attribute.type in single:
            return None
        else:
            single[attribute.type] = value
    described = single.pop(SaAttribute.GROUP_DESCRIPTION, 0)
    # "Any attribute value but the value for 64-bit sequence numbers" ends it (RFC 4304 §3).
    esn = single.pop(SaAttribute.EXTENDED_SEQUENCE_NUMBER, None)
    ways = _UNDERSTOOD_MODE.get(single.pop(SaAttribute.ENCAPSULATION_MODE, 0))
    suite = _MEANT.get((protocol, transform.identifier, frozenset(single.items())))
    if ways is None or suite is None or described not in _GROUPS or esn not in (None, ExtendedSequenceNumber.ESN_64):
        return None
    seconds, kilobytes = lives.get(LifeType.SECONDS), lives.get(LifeType.KILOBYTES)
    return Terms(suite, *ways, seconds, kilobytes, _GROUPS[described], esn is not None, protocol)


_known_terms = lru_cache(maxsize=KNOWN_TRANSFORMS)(_read_terms)


def answer(agreement: Agreement, spi: bytes, policy: PolicySettings) -> SecurityAssociation:
    """The SA payload of the REPLY: the chosen proposal and transform as they came, with our SPI.

    Every number and attribute is repeated verbatim; only a life longer than ours is lowered (RFC 4430 §3.2). A life
    that the initiator did not name is not added: nothing but what it named may be in the answer.
    """
    lowered = _known_lowered if is_usual(agreement.transform) else _lowered
    transforms = (lowered(agreement.transform, policy.lifetime_seconds, policy.lifetime_kilobytes),)
    return SecurityAssociation((Proposal(agreement.proposal.number, agreement.proposal.protocol, spi, transforms),))


def _lowered(transform: Transform, seconds: int, kilobytes: int | None) -> Transform:
    attributes = tuple(_at_most(transform.attributes, seconds, kilobytes))
    return Transform(transform.number, transform.identifier, attributes)


_known_lowered = lru_cache(maxsize=KNOWN_TRANSFORMS)(_lowered)


def _at_most(attributes: tuple[Attribute, ...], seconds: int, kilobytes: int | None) -> Iterator[Attribute]:
    most = {int(LifeType.SECONDS): seconds, int(LifeType.KILOBYTES): kilobytes}
    limit: int | None = None
    for attribute in attributes:
        if attribute.type == SaAttribute.LIFE_TYPE:
            limit = most.get(_number(attribute))
        too_long = attribute.type == SaAttribute.LIFE_DURATION and limit is not None and _number(attribute) > limit
        yield _duration(limit) if too_long and limit is not None else attribute


def _number(attribute: Attribute) -> int:
    return attribute.value if isinstance(attribute.value, int) else int.from_bytes(attribute.value, "big")


def agree(offered: SecurityAssociation, answered: SecurityAssociation) -> Agreement:
    """Hold the responder's answer against our offer (RFC 4430 §3.2): only lifetimes may differ, and only downwards.

    Raises:
        Refused: something else was changed, or a lifetime was raised; to be treated as NO-PROPOSAL-CHOSEN.
    """
    if len(answered.proposals) != 1 or len(answered.proposals[0].transforms) != 1:
        raise _mismatch("the answer holds other than one proposal with one transform")
    proposal, transform = answered.proposals[0], answered.proposals[0].transforms[0]
    for ours in offered.proposals:
        for candidate in ours.transforms:
            if (ours.number, candidate.number) == (proposal.number, transform.number):
                if proposal.protocol != ours.protocol or len(proposal.spi) != 4:
                    raise _mismatch("another protocol or SPI size")
                terms = _kept(candidate, transform, _OF_NUMBER[ours.protocol])
                first = offered.proposals[0]
                optimistic = ours is first and candidate is first.transforms[0]
                return Agreement(proposal, transform, terms, optimistic)
    raise _mismatch(f"proposal {proposal.number} transform {transform.number} was never offered")


def _kept(offered: Transform, answered: Transform, protocol: SecurityProtocol) -> Terms:
    ours, theirs = read_terms(offered, protocol), read_terms(answered, protocol)
    if ours is None or theirs is None:
        raise _mismatch("a transform that means nothing here")
    if offered.identifier != answered.identifier or _fixed(offered) != _fixed(answered):
        raise _mismatch(f"offered {ours.suite.name}, answered {theirs.suite.name} or another mode, group or ESN")
    for what, mine, its in (
        ("seconds", ours.seconds, theirs.seconds),
        ("kilobytes", ours.kilobytes, theirs.kilobytes),
    ):
        if mine is not None and (its is None or its > mine):
            raise _mismatch(f"the lifetime in {what} was raised or left out")
    return theirs


def _fixed(transform: Transform) -> list[tuple[int, int]]:
    """The attributes that "MUST be identical" (RFC 4430 §3.2): all but lifetimes, in whatever order and format."""
    lives = (SaAttribute.LIFE_TYPE, SaAttribute.LIFE_DURATION)
    return sorted((a.type, _number(a)) for a in transform.attributes if a.type not in lives)


def _mismatch(reason: str) -> Refused:
    return Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"the peer's answer does not keep to our offer: {reason}")


def _described(offered: SecurityAssociation) -> str:
    numbers = [proposal.number for proposal in offered.proposals]
    parts: list[str] = []
    for proposal in offered.proposals:
        if numbers.count(proposal.number) > 1:
            parts.append(f"protocol {proposal.protocol} in a bundle")
        elif proposal.protocol not in _OF_NUMBER:
            parts.append(f"protocol {proposal.protocol}")
        else:
            protocol = _OF_NUMBER[proposal.protocol]
            parts += (_described_transform(transform, protocol) for transform in proposal.transforms)
    return ", ".join(parts[:8]) or "nothing"


def _described_transform(transform: Transform, protocol: SecurityProtocol) -> str:
    terms = read_terms(transform, protocol)
    if terms is None:
        return f"{_AH_BY[protocol]}transform {transform.identifier} (not known here)"
    group = "" if terms.group is None else f" with PFS by {terms.group.label}"
    esn = " with ESN" if terms.esn else ""
    return f"{_AH_BY[protocol]}{terms.suite.name} in {terms.encapsulation.value} {terms.mode.value} mode{group}{esn}"
