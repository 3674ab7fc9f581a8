"""Quick Mode payloads (RFC 2408 §3, RFC 2407 §4.6) as KINK carries them in KINK_ISAKMP (RFC 4430 §4.2.6, §5). Pure.

What is checked here is what makes a payload readable and safe to hand on: lengths, counts, the few values that
RFC 4430 §5 fixes (DOI, Situation, ID types). What a policy may choose from is checked in ``proto``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from kinkvpn.errors import LocalMisuse, MalformedMessage, UnsupportedDoi
from kinkvpn.wire.cursor import Reader, Writer, pack, read_chain, write_chain
from kinkvpn.wire.ipsec_doi import IPSEC_DOI, SIT_IDENTITY_ONLY, IdType, PayloadType, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# --- specification ---------------------------------------------------------------------------------------------------

# After the generic header of cursor.GENERIC_HEADER:
# +---------------+---------------+---------------+---------------+
# |              Domain of Interpretation  (DOI)                  |  RFC 2408 §3.4
# +---------------+---------------+---------------+---------------+
# |                           Situation                           |  four octets: RFC 2407 §4.2.1
# +---------------+---------------+---------------+---------------+
SA = struct.Struct("!II")
# +---------------+---------------+---------------+---------------+
# |  Proposal #   |  Protocol-Id  |    SPI Size   |# of Transforms|  RFC 2408 §3.5
# +---------------+---------------+---------------+---------------+
# |                        SPI (variable)                         |
# +---------------+---------------+---------------+---------------+
PROPOSAL = struct.Struct("!BBBB")
# +---------------+---------------+---------------+---------------+
# |  Transform #  |  Transform-Id |           RESERVED2           |  RFC 2408 §3.6
# +---------------+---------------+---------------+---------------+
# |                        SA Attributes                          |
# +---------------+---------------+---------------+---------------+
TRANSFORM = struct.Struct("!BBH")
# +-+-------------+---------------+---------------+---------------+
# |A|       Attribute Type        |    AF=0  Attribute Length     |  RFC 2408 §3.3
# |F|                             |    AF=1  Attribute Value      |
# +-+-------------+---------------+---------------+---------------+
# |                   AF=0  Attribute Value                       |
# +---------------+---------------+---------------+---------------+
ATTRIBUTE = struct.Struct("!HH")
ATTRIBUTE_FORMAT = 0x8000
# +---------------+---------------+---------------+---------------+
# |   ID Type     |  Protocol ID  |             Port              |  RFC 2407 §4.6.2
# +---------------+---------------+---------------+---------------+
# |                     Identification Data                       |
# +---------------+---------------+---------------+---------------+
IDENTIFICATION = struct.Struct("!BBH")
# +---------------+---------------+---------------+---------------+
# |              Domain of Interpretation  (DOI)                  |  RFC 2408 §3.14
# +---------------+---------------+---------------+---------------+
# |  Protocol-ID  |   SPI Size    |      Notify Message Type      |
# +---------------+---------------+---------------+---------------+
# |                Security Parameter Index (SPI)                 |
# +---------------+---------------+---------------+---------------+
# |                       Notification Data                       |
# +---------------+---------------+---------------+---------------+
NOTIFY = struct.Struct("!IBBH")
# +---------------+---------------+---------------+---------------+
# |              Domain of Interpretation  (DOI)                  |  RFC 2408 §3.15
# +---------------+---------------+---------------+---------------+
# |  Protocol-Id  |   SPI Size    |           # of SPIs           |
# +---------------+---------------+---------------+---------------+
# |               Security Parameter Index(es) (SPI)              |
# +---------------+---------------+---------------+---------------+
DELETE = struct.Struct("!IBBH")

SHORTEST_NONCE, LONGEST_NONCE = 8, 256  # RFC 2409 §5
ESP_SPI_SIZE = 4  # RFC 4303 §2.1, RFC 4302 §2.4

# RFC 2407 §4.6.2.2 to §4.6.2.9; a subnet is address and mask, a range first and last address.
ID_LENGTHS: Final = {
    IdType.IPV4_ADDR: 4,
    IdType.IPV4_ADDR_SUBNET: 8,
    IdType.IPV6_ADDR: 16,
    IdType.IPV6_ADDR_SUBNET: 32,
    IdType.IPV4_ADDR_RANGE: 8,
    IdType.IPV6_ADDR_RANGE: 32,
}

# --- ours ------------------------------------------------------------------------------------------------------------

# One transaction is SA, Ni, KE, two IDs and notifies (RFC 4430 §6.3), or a D for each protocol (§6.4): 32 leaves room
# for many status notifies. An unbounded chain of empty payloads would make thousands of objects of one datagram.
MAX_PAYLOADS = 32
# Proposal numbers are one octet, a bundle uses one number for up to three protocols; nobody offers more than a handful.
MAX_PROPOSALS = 64
# "# of Transforms" is one octet.
MAX_TRANSFORMS = 255
# Hosts offer the same few transforms in every CREATE, for the same few selectors: what came last is neither read nor
# written again. Four thousand selectors of a hundred octets, or 256 offers of a kilobyte; whoever sends others, which
# takes a key, makes it as slow as it was.
KNOWN_TRANSFORMS = 256
KNOWN_IDENTIFICATIONS = 4096
# Longer ones are no part of that: each could be a whole datagram, and what is in the clear is read before anybody has
# shown a key. A value of eight octets is the longest that anybody means.
LONGEST_KNOWN = 1024
LONGEST_KNOWN_VALUE = 16
# Fifteen attribute classes exist; life type and duration come in pairs.
MAX_ATTRIBUTES = 32


class Attribute(NamedTuple):
    """A data attribute (RFC 2408 §3.3).

    Args:
        type: 0 to 32767.
        value: an int (two octets) goes out as TV (AF=1), bytes as TLV (AF=0).
    """

    type: int
    value: int | bytes


class Transform(NamedTuple):
    """RFC 2408 §3.6. ``identifier`` is a Transform-Id of the proposal's protocol."""

    number: int
    identifier: int
    attributes: tuple[Attribute, ...]


def is_usual(transform: Transform) -> bool:
    """Whether ``transform`` is short enough to be remembered."""
    return all(isinstance(each.value, int) or len(each.value) <= LONGEST_KNOWN_VALUE for each in transform.attributes)


@dataclass(frozen=True, slots=True)
class Proposal:
    """RFC 2408 §3.5. ``spi`` is the sender's inbound SPI, four octets for ESP and AH; at least one transform."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """RFC 2408 §3.4, RFC 2407 §4.6.1; at least one proposal."""

    proposals: tuple[Proposal, ...]
    doi: int = IPSEC_DOI
    situation: int = SIT_IDENTITY_ONLY


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """RFC 2408 §3.7, RFC 4430 §5.7: a Diffie-Hellman public value, as long as its group says."""

    public_value: bytes


class Identification(NamedTuple):
    """RFC 2407 §4.6.2, of the types RFC 4430 §5.3 allows.

    Args:
        type: an IdType.
        protocol: IP protocol number, 0 for any.
        port: in host order, 0 for any.
        value: 4 or 16 octets; twice that for subnets (address, mask) and ranges (first, last).
    """

    type: int
    protocol: int
    port: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Nonce:
    """RFC 2408 §3.13; 8 to 256 octets (RFC 2409 §5)."""

    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notify:
    """RFC 2408 §3.14, RFC 4430 §5.5."""

    protocol: int
    spi: bytes
    type: int
    value: bytes = b""
    doi: int = IPSEC_DOI


@dataclass(frozen=True, slots=True)
class Delete:
    """RFC 2408 §3.15: the sender's inbound SPIs, all of one length; at least one."""

    protocol: int
    spis: tuple[bytes, ...]
    doi: int = IPSEC_DOI


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload type that Quick Mode in KINK does not have; kept for whoever must answer INVALID-PAYLOAD-TYPE."""

    type: int
    body: bytes


IsakmpPayload = SecurityAssociation | KeyExchange | Identification | Nonce | Notify | Delete | Unknown


def read_payloads(reader: Reader, first: int) -> tuple[IsakmpPayload, ...]:
    """The Quick Mode payloads that fill ``reader`` to its end.

    Args:
        reader: over the chain, failing as MalformedQuickMode; ISAKMP payloads follow each other without padding.
        first: InnerNextPload (RFC 4430 §4.2.6).

    Raises:
        MalformedMessage: UnsupportedDoi for a DOI other than the header's, else what ``reader`` fails with.
    """
    payloads = tuple(_read_payload(kind, body) for kind, _, body in read_chain(reader, first, 1, MAX_PAYLOADS))
    reader.expect_end("Quick Mode payloads")
    return payloads


def write_payloads(writer: Writer, payloads: Sequence[IsakmpPayload]) -> None:
    """Append ``payloads`` as a chain; the inverse of :func:`read_payloads`.

    Raises:
        LocalMisuse: a value that does not fit its field, or that ``read_payloads`` would refuse for its length.
    """
    write_chain(writer, [(_payload_type(payload), _build_payload(payload)) for payload in payloads], 1, MAX_PAYLOADS)


def first_type(payloads: Sequence[IsakmpPayload]) -> int:
    """InnerNextPload (RFC 4430 §4.2.6): the payload type (RFC 2408 §3.1) of the first payload, 0 if there is none."""
    return _payload_type(payloads[0]) if payloads else PayloadType.NONE


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_payload(kind: int, body: Reader) -> IsakmpPayload:
    if kind in (PayloadType.PROPOSAL, PayloadType.TRANSFORM):
        # RFC 2408 §3.4: Next Payload must not name them outside an SA payload.
        raise body.fail("Next Payload", f"type {kind} outside an SA payload")
    read = _READERS.get(kind)
    if read is None:
        return Unknown(kind, body.rest())
    payload = read(body)
    if body.remaining:  # before the name is looked up, for every payload there is
        body.expect_end(PayloadType(kind).name)
    return payload


def _read_doi(body: Reader, doi: int, offset: int) -> None:
    """RFC 4430 §4: a payload's DOI must be the header's, which is 1 or the message would not have come so far."""
    if doi != IPSEC_DOI:
        raise UnsupportedDoi("Domain of Interpretation", offset, f"{doi} is not the header's {IPSEC_DOI}")


def _read_sa(body: Reader) -> SecurityAssociation:
    offset = body.position
    doi, situation = body.unpack(SA, "SA")
    _read_doi(body, doi, offset)
    if situation != SIT_IDENTITY_ONLY:
        raise body.fail("Situation", f"{situation:#x} is not SIT_IDENTITY_ONLY", offset + 4)
    proposals = []
    for kind, _, proposal in read_chain(body, PayloadType.PROPOSAL, 1, MAX_PROPOSALS):
        if kind != PayloadType.PROPOSAL:
            raise proposal.fail("Next Payload", f"type {kind} among proposals")
        proposals.append(_read_proposal(proposal))
    return SecurityAssociation(tuple(proposals), doi, situation)


def _read_proposal(body: Reader) -> Proposal:
    offset = body.position
    number, protocol, spi_size, count = body.unpack(PROPOSAL, "Proposal")
    if not _spi_fits(protocol, spi_size):
        raise body.fail("SPI Size", f"{spi_size} for protocol {protocol}", offset + 2)
    spi = body.take(spi_size, "SPI")
    transforms = _read_transforms(body)
    if len(transforms) != count:
        raise body.fail("# of Transforms", f"{count} announced, {len(transforms)} present", offset + 3)
    body.expect_end("Proposal")
    return Proposal(number, protocol, spi, transforms)


def _read_transforms(body: Reader) -> tuple[Transform, ...]:
    if body.remaining > LONGEST_KNOWN:
        return _parse_transforms(body)
    try:
        transforms = _known_transforms(body.peek())
    except MalformedMessage:
        return _parse_transforms(body)  # raises the same, with its place in the whole
    body.rest()
    return transforms


@lru_cache(maxsize=KNOWN_TRANSFORMS)
def _known_transforms(octets: bytes) -> tuple[Transform, ...]:
    reader = Reader(octets)
    transforms = _parse_transforms(reader)
    reader.expect_end("Proposal")
    return transforms


def _parse_transforms(body: Reader) -> tuple[Transform, ...]:
    transforms = []
    for kind, _, transform in read_chain(body, PayloadType.TRANSFORM, 1, MAX_TRANSFORMS):
        if kind != PayloadType.TRANSFORM:
            raise transform.fail("Next Payload", f"type {kind} among transforms")
        transforms.append(_read_transform(transform))
    return tuple(transforms)


def _read_transform(body: Reader) -> Transform:
    number, identifier, _reserved = body.unpack(TRANSFORM, "Transform")
    attributes: list[Attribute] = []
    while body.remaining:
        if len(attributes) == MAX_ATTRIBUTES:
            raise body.fail("SA Attributes", f"more than {MAX_ATTRIBUTES} in a transform")
        attributes.append(_read_attribute(body))
    return Transform(number, identifier, tuple(attributes))


def _read_attribute(body: Reader) -> Attribute:
    kind, value = body.unpack(ATTRIBUTE, "Attribute Type")
    if kind & ATTRIBUTE_FORMAT:
        return Attribute(kind & ~ATTRIBUTE_FORMAT, value)
    return Attribute(kind, body.take(value, "Attribute Value"))


def _read_ke(body: Reader) -> KeyExchange:
    if not body.remaining:
        raise body.fail("Key Exchange Data", "empty")
    return KeyExchange(body.rest())


def _read_id(body: Reader) -> Identification:
    try:
        identification = _known_id(body.peek())
    except MalformedMessage:
        return _parse_id(body)  # raises the same, with its place in the whole
    body.rest()
    return identification


@lru_cache(maxsize=KNOWN_IDENTIFICATIONS)
def _known_id(octets: bytes) -> Identification:
    return _parse_id(Reader(octets))


def _parse_id(body: Reader) -> Identification:
    offset = body.position
    kind, protocol, port = body.unpack(IDENTIFICATION, "Identification")
    if kind not in ID_LENGTHS:
        raise body.fail("ID Type", f"{kind} is none of RFC 4430 §5.3", offset)
    if body.remaining != ID_LENGTHS[kind]:
        raise body.fail("Identification Data", f"{body.remaining} octets, {ID_LENGTHS[kind]} for type {kind}")
    return Identification(kind, protocol, port, body.rest())


def _read_nonce(body: Reader) -> Nonce:
    if not SHORTEST_NONCE <= body.remaining <= LONGEST_NONCE:
        raise body.fail("Nonce Data", f"{body.remaining} octets, {SHORTEST_NONCE} to {LONGEST_NONCE} allowed")
    return Nonce(body.rest())


def _read_notify(body: Reader) -> Notify:
    offset = body.position
    doi, protocol, spi_size, kind = body.unpack(NOTIFY, "Notify")
    _read_doi(body, doi, offset)
    return Notify(protocol, body.take(spi_size, "SPI"), kind, body.rest(), doi)


def _read_delete(body: Reader) -> Delete:
    offset = body.position
    doi, protocol, spi_size, count = body.unpack(DELETE, "Delete")
    _read_doi(body, doi, offset)
    if spi_size == 0 or not _spi_fits(protocol, spi_size):
        raise body.fail("SPI Size", f"{spi_size} for protocol {protocol}", offset + 5)
    if count == 0 or count * spi_size != body.remaining:
        raise body.fail("# of SPIs", f"{count} of {spi_size} octets announced, {body.remaining} octets", offset + 6)
    return Delete(protocol, tuple(body.take(spi_size, "SPI") for _ in range(count)), doi)


def _spi_fits(protocol: int, size: int) -> bool:
    """ESP and AH have four-octet SPIs; other protocols are not ours to judge."""
    return protocol not in (Protocol.ESP, Protocol.AH) or size == ESP_SPI_SIZE


_READERS: Final[dict[int, Callable[[Reader], IsakmpPayload]]] = {
    PayloadType.SA: _read_sa,
    PayloadType.KE: _read_ke,
    PayloadType.ID: _read_id,
    PayloadType.NONCE: _read_nonce,
    PayloadType.NOTIFY: _read_notify,
    PayloadType.DELETE: _read_delete,
}

_TYPES: Final[dict[type, PayloadType]] = {
    SecurityAssociation: PayloadType.SA,
    KeyExchange: PayloadType.KE,
    Identification: PayloadType.ID,
    Nonce: PayloadType.NONCE,
    Notify: PayloadType.NOTIFY,
    Delete: PayloadType.DELETE,
}

# Types that an Unknown cannot stand for: they would be read as something else, or not at all.
_NEVER_UNKNOWN: Final = frozenset(_READERS) | {PayloadType.NONE, PayloadType.PROPOSAL, PayloadType.TRANSFORM}


# --- writing ---------------------------------------------------------------------------------------------------------


def _payload_type(payload: IsakmpPayload) -> int:
    return payload.type if isinstance(payload, Unknown) else _TYPES[type(payload)]


def _build_payload(payload: IsakmpPayload) -> bytes:
    """The body of ``payload``, without the generic header."""
    match payload:
        case SecurityAssociation():
            return _build_sa(payload)
        case Identification():
            return _build_id(payload)
        case Nonce(value):
            if not SHORTEST_NONCE <= len(value) <= LONGEST_NONCE:
                raise LocalMisuse(f"Nonce Data of {len(value)} octets")
            return value
        case KeyExchange(public_value):
            _require(len(public_value) > 0, "Key Exchange Data is empty")
            return public_value
        case Notify():
            return _build_notify(payload)
        case Delete():
            return _build_delete(payload)
    _require(payload.type not in _NEVER_UNKNOWN, f"payload type {payload.type} has a form of its own")
    return payload.body


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LocalMisuse(otherwise)


def _build_sa(payload: SecurityAssociation) -> bytes:
    _require(len(payload.proposals) > 0, "an SA payload without a proposal")
    writer = Writer()
    writer.pack(SA, "SA", payload.doi, payload.situation)
    proposals = [(PayloadType.PROPOSAL, _build_proposal(proposal)) for proposal in payload.proposals]
    write_chain(writer, proposals, 1, MAX_PROPOSALS)
    return writer.getvalue()


def _build_proposal(proposal: Proposal) -> bytes:
    _require(len(proposal.transforms) > 0, "a proposal without a transform")
    if not _spi_fits(proposal.protocol, len(proposal.spi)):
        raise LocalMisuse(f"SPI of {len(proposal.spi)} octets")
    counts = len(proposal.spi), len(proposal.transforms)
    head = pack(PROPOSAL, "Proposal", proposal.number, proposal.protocol, *counts)
    known = all(map(is_usual, proposal.transforms))
    return head + proposal.spi + (_known_octets if known else _build_transforms)(proposal.transforms)


def _build_transforms(transforms: tuple[Transform, ...]) -> bytes:
    writer = Writer()
    chain = [(int(PayloadType.TRANSFORM), _build_transform(transform)) for transform in transforms]
    write_chain(writer, chain, 1, MAX_TRANSFORMS)
    return writer.getvalue()


_known_octets = lru_cache(maxsize=KNOWN_TRANSFORMS)(_build_transforms)


def _build_transform(transform: Transform) -> bytes:
    _require(len(transform.attributes) <= MAX_ATTRIBUTES, f"{len(transform.attributes)} attributes in a transform")
    writer = Writer()
    writer.pack(TRANSFORM, "Transform", transform.number, transform.identifier, 0)
    for attribute in transform.attributes:
        _require(0 <= attribute.type < ATTRIBUTE_FORMAT, f"Attribute Type {attribute.type}")
        if isinstance(attribute.value, int):
            writer.pack(ATTRIBUTE, "Attribute Value", attribute.type | ATTRIBUTE_FORMAT, attribute.value)
        else:
            writer.pack(ATTRIBUTE, "Attribute Length", attribute.type, len(attribute.value))
            writer.put(attribute.value)
    return writer.getvalue()


@lru_cache(maxsize=KNOWN_IDENTIFICATIONS)
def _build_id(payload: Identification) -> bytes:
    _require(payload.type in ID_LENGTHS, f"ID Type {payload.type} is none of RFC 4430 §5.3")
    _require(
        len(payload.value) == ID_LENGTHS[IdType(payload.type)], f"Identification Data of {len(payload.value)} octets"
    )
    writer = Writer()
    writer.pack(IDENTIFICATION, "Identification", payload.type, payload.protocol, payload.port)
    writer.put(payload.value)
    return writer.getvalue()


def _build_notify(payload: Notify) -> bytes:
    writer = Writer()
    writer.pack(NOTIFY, "Notify", payload.doi, payload.protocol, len(payload.spi), payload.type)
    writer.put(payload.spi + payload.value)
    return writer.getvalue()


def _build_delete(payload: Delete) -> bytes:
    sizes = {len(spi) for spi in payload.spis}
    _require(len(sizes) == 1, "a Delete payload needs SPIs of one length")
    (size,) = sizes
    _require(size > 0 and _spi_fits(payload.protocol, size), f"SPI of {size} octets")
    writer = Writer()
    writer.pack(DELETE, "Delete", payload.doi, payload.protocol, size, len(payload.spis))
    writer.put(b"".join(payload.spis))
    return writer.getvalue()
