"""Quick Mode payloads (RFC 2408 §3, RFC 2407 §4.6) as KINK carries them (RFC 4430 §5). CONTRACT STUB."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Attribute:
    """RFC 2408 §3.3: int value is TV (AF=1), bytes value is TLV (AF=0)."""

    type: int
    value: int | bytes


@dataclass(frozen=True, slots=True)
class Transform:
    number: int
    identifier: int
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    proposals: tuple[Proposal, ...]
    doi: int = 1
    situation: int = 1


@dataclass(frozen=True, slots=True)
class KeyExchange:
    public_value: bytes


@dataclass(frozen=True, slots=True)
class Identification:
    type: int
    protocol: int
    port: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Nonce:
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notify:
    protocol: int
    spi: bytes
    type: int
    value: bytes = b""
    doi: int = 1


@dataclass(frozen=True, slots=True)
class Delete:
    protocol: int
    spis: tuple[bytes, ...]
    doi: int = 1


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload type Quick Mode does not define here; kept for whoever must answer INVALID-PAYLOAD-TYPE."""

    type: int
    body: bytes


IsakmpPayload = SecurityAssociation | KeyExchange | Identification | Nonce | Notify | Delete | Unknown
