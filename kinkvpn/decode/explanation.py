"""Payloads in words: names for numbers, units for values, subnets for IDs. No key and no nonce goes in. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any

from kinkvpn.decode import numbers
from kinkvpn.decode.datagrams import Endpoint
from kinkvpn.decode.findings import Finding, Kind
from kinkvpn.decode.numbers import hexadecimal, name_of, named
from kinkvpn.errors import MalformedMessage
from kinkvpn.proto import extensions, lease
from kinkvpn.proto.identification import addresses_of
from kinkvpn.proto.lease import Wanted
from kinkvpn.wire.ipsec_doi import IdType, LifeType, NotifyType, Protocol, SaAttribute
from kinkvpn.wire.isakmp import (
    Attribute,
    Delete,
    Identification,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    Transform,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinkvpn.proto.lease import Lease
    from kinkvpn.wire.isakmp import IsakmpPayload

Tree = dict[str, Any]

UNITS = {SaAttribute.KEY_LENGTH: "bits"}
LIFE_UNITS = {LifeType.SECONDS: "s", LifeType.KILOBYTES: "kB"}


def explain_quick_mode(payload: IsakmpPayload, findings: list[Finding]) -> Tree:
    """What a Quick Mode payload says; numbers without a name are added to ``findings``."""
    match payload:
        case SecurityAssociation(proposals):
            return {"proposals": [_proposal(proposal, findings) for proposal in proposals]}
        case Nonce(value):
            return {"nonce_octets": len(value)}
        case KeyExchange(value):
            return {"public_value_octets": len(value)}
        case Identification():
            return {"id_type": named(IdType, payload.type), "selector": selector(payload)}
        case Notify():
            return _notify(payload, findings)
        case Delete(protocol, spis):
            return {"protocol": _protocol(protocol, findings), "spis": [hexadecimal(spi) for spi in spis]}
    _unknown(f"payload type {payload.type} is none of Quick Mode in KINK", findings)
    return {"body_octets": len(payload.body)}


def selector(payload: Identification) -> str:
    """``10.1.0.0/24 tcp port 80``, as an operator writes it."""
    named = addresses_of(payload)
    half = len(payload.value) // 2
    if isinstance(named, IPv4Network | IPv6Network):
        text = str(named)
    elif payload.type in (IdType.IPV4_ADDR_RANGE, IdType.IPV6_ADDR_RANGE):
        text = f"{ip_address(payload.value[:half])} to {ip_address(payload.value[half:])}"
    else:
        text = f"{ip_address(payload.value[:half])} mask {ip_address(payload.value[half:])}"
    if payload.protocol:
        text += f" {numbers.IP_PROTOCOLS.get(payload.protocol, f'protocol {payload.protocol}')}"
    return text + (f" port {payload.port}" if payload.port else "")


def group_of(payload: SecurityAssociation) -> Tree | None:
    """The Diffie-Hellman group that an SA payload names, if it names one."""
    for proposal in payload.proposals:
        for transform in proposal.transforms:
            for attribute in transform.attributes:
                if attribute.type == SaAttribute.GROUP_DESCRIPTION:
                    return named(numbers.values_of(attribute.type), _number(attribute.value))
    return None


def _proposal(proposal: Proposal, findings: list[Finding]) -> Tree:
    transforms = [_transform(proposal.protocol, transform, findings) for transform in proposal.transforms]
    return {
        "number": proposal.number,
        "protocol": _protocol(proposal.protocol, findings),
        "spi": hexadecimal(proposal.spi),
        "transforms": transforms,
    }


def _transform(protocol: int, transform: Transform, findings: list[Finding]) -> Tree:
    identifier = numbers.transform_name(protocol, transform.identifier)
    if identifier["name"] is None:
        _unknown(f"transform {transform.number} has the unknown id {transform.identifier}", findings)
    attributes = _attributes(transform.attributes, findings)
    return {"number": transform.number, "id": identifier, "attributes": attributes}


def _attributes(attributes: Sequence[Attribute], findings: list[Finding]) -> list[Tree]:
    explained, life = [], LifeType.SECONDS
    for attribute in attributes:
        value = _number(attribute.value)
        if attribute.type == SaAttribute.LIFE_TYPE and name_of(LifeType, value):
            life = LifeType(value)
        explained.append(_attribute(attribute, value, life, findings))
    return explained


def _attribute(attribute: Attribute, value: int, life: LifeType, findings: list[Finding]) -> Tree:
    table = numbers.values_of(attribute.type)
    name, meaning = name_of(SaAttribute, attribute.type), name_of(table, value)
    if name is None:
        _unknown(f"attribute class {attribute.type} is unknown", findings)
    elif table is not None and meaning is None:
        _unknown(f"{name} has the unknown value {value}", findings)
    unit = UNITS.get(SaAttribute(attribute.type)) if name else None
    if attribute.type == SaAttribute.LIFE_DURATION:
        unit = LIFE_UNITS[life]
    return {"type": named(SaAttribute, attribute.type), "value": value, "meaning": meaning, "unit": unit}


def _notify(payload: Notify, findings: list[Finding]) -> Tree:
    kind = numbers.notify_name(payload.type)
    if kind["name"] is None:
        _unknown(f"notify type {payload.type} is unknown", findings)
    return {
        "notify": kind,
        "protocol": named(Protocol, payload.protocol),
        "spi": hexadecimal(payload.spi) if payload.spi else None,
        "data": hexadecimal(payload.value) if payload.value else None,
        "meaning": _meaning(payload, findings),
    }


def _meaning(payload: Notify, findings: list[Finding]) -> str | None:
    """What its data say, of those whose data have a layout: RFC 4430 §5.5, docs/extensions.md."""
    if payload.type == NotifyType.INVALID_PAYLOAD_TYPE and len(payload.value) == 1:
        return f"about a payload of type {numbers.spoken(numbers.quick_mode_name(payload.value[0]))}"
    if extensions.wants_aggfrag([payload]):
        return "IP-TFS: AGGFRAG payloads and nothing else"
    if payload.type == NotifyType.KINKVPN_PADDING and payload.value.startswith(extensions.MAGIC):
        return f"fills the message up, by {len(payload.value)} octets"
    try:
        if lease.is_configuration(payload):
            return _lease(lease.parse(payload))
        told = extensions.parse(payload)
    except MalformedMessage as error:
        findings.append(Finding(Kind.EXTENSION_MALFORMED, f"not as docs/extensions.md has it: {error}"))
        return None
    match told:
        case None:
            return None
        case extensions.Capability():
            return ", ".join(flag.name.lower().replace("_", " ") for flag in told if flag.name) or "none"
        case extensions.Observed(endpoint, marked):
            seen = Endpoint(ip_address(endpoint.address), endpoint.port)
            return f"the receiver is seen at {seen}" + (", behind the non-ESP marker" if marked else "")
        case bytes():
            return f"machine {told.hex()} of its principal's"
    return f"{told} octets"


def _lease(told: Wanted | Lease) -> str:
    """What is asked for, or lent."""
    addresses = ", ".join(map(str, told.addresses))
    if isinstance(told, Wanted):
        return f"asks for {addresses or 'an address'}"
    more = {"to": told.routes, "name servers": told.servers, "domains": told.domains}
    return "; ".join([f"lends {addresses}", *(f"{what} {', '.join(map(str, of))}" for what, of in more.items() if of)])


def _protocol(protocol: int, findings: list[Finding]) -> Tree:
    found = named(Protocol, protocol)
    if found["name"] is None:
        _unknown(f"protocol {protocol} is unknown", findings)
    return found


def _number(value: int | bytes) -> int:
    """Durations come in two octets or as many as it takes; what is longer than 16 is no number any more."""
    return value if isinstance(value, int) else int.from_bytes(value[:16], "big")


def _unknown(text: str, findings: list[Finding]) -> None:
    findings.append(Finding(Kind.UNKNOWN_NUMBER, text))
