"""A patient look at a message's structure: what is there of it, whatever is wrong with it. Pure.

``kinkvpn.wire`` refuses a bad message as a whole, as a daemon must. Here each payload that can be delimited is given
on, and what a receiver has to ignore (reserved bits, what padding holds, octets after the end) is looked at too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kinkvpn.decode.findings import Finding, Kind
from kinkvpn.errors import MalformedMessage, UnsupportedDoi, UnsupportedMajorVersion
from kinkvpn.wire import kink
from kinkvpn.wire.cursor import GENERIC_HEADER
from kinkvpn.wire.ipsec_doi import IPSEC_DOI
from kinkvpn.wire.ipsec_doi import PayloadType as QuickModeType
from kinkvpn.wire.isakmp import PROPOSAL, SA, TRANSFORM, IsakmpPayload

# Ours. The strict parser gives up before this; a chain that loops through empty payloads must end somewhere.
MAX_CHUNKS: Final = 256


@dataclass(frozen=True, slots=True)
class Chunk:
    """One payload: its type, where its generic header is, and the body, as far as it is there."""

    type: int
    offset: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """The KINK header (RFC 4430 §4), unjudged."""

    type: int
    major: int
    reserved: int
    length: int
    doi: int
    xid: int
    first: int
    flags: int
    checksum_length: int

    @property
    def ackreq(self) -> bool:
        """The A bit."""
        return bool(self.flags & kink.ACKREQ)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a datagram holds.

    Args:
        header: None where there are fewer than sixteen octets.
        chunks: outer payloads in order.
        findings: about the structure.
        refusal: what the strict parser says of it, None if nothing.
    """

    header: Header | None
    chunks: tuple[Chunk, ...]
    findings: tuple[Finding, ...]
    refusal: MalformedMessage | None


def survey_message(datagram: bytes) -> Survey:
    """Looks at any octets; never raises."""
    try:
        kink.parse_message(datagram)
        refusal = None
    except MalformedMessage as error:
        refusal = error
    findings = [Finding(Kind.MALFORMED, f"malformed: {refusal}")] if refusal else []
    if len(datagram) < kink.HEADER.size:
        return Survey(None, (), tuple(findings), refusal)
    header = _read_header(datagram)
    findings += _header_findings(header, len(datagram), refusal)
    end = min(header.length, len(datagram))
    end -= header.checksum_length if header.checksum_length <= end - kink.HEADER.size else 0
    chunks, more = walk(datagram[:end], kink.HEADER.size, header.first, kink.ALIGNMENT, "payload")
    return Survey(header, tuple(chunks), tuple(findings + more), refusal)


def survey_plaintext(plaintext: bytes) -> tuple[list[Chunk], list[Finding]]:
    """The payloads inside KINK_ENCRYPT (§4.2.7)."""
    findings: list[Finding] = []
    try:
        kink.parse_plaintext(plaintext)
    except MalformedMessage as error:
        findings.append(Finding(Kind.MALFORMED, f"malformed inside KINK_ENCRYPT: {error}"))
    if len(plaintext) < kink.PLAINTEXT_HEADER.size:
        return [], findings
    if any(plaintext[1:4]):
        findings.append(_reserved("RESERVED2 of KINK_ENCRYPT", plaintext[1:4]))
    chunks, more = walk(plaintext, kink.PLAINTEXT_HEADER.size, plaintext[0], kink.ALIGNMENT, "payload in KINK_ENCRYPT")
    return chunks, findings + more


def survey_quick_mode(body: bytes) -> tuple[list[Chunk], list[Finding]]:
    """The Quick Mode payloads of a KINK_ISAKMP body (§4.2.6), and their reserved fields (RFC 2408 §3)."""
    if len(body) < kink.ISAKMP_HEADER.size:
        return [], []
    first, _, reserved = kink.ISAKMP_HEADER.unpack_from(body)
    findings = [_reserved("RESERVED of KINK_ISAKMP", body[2:4])] if reserved else []
    chunks, more = walk(body, kink.ISAKMP_HEADER.size, first, 1, "Quick Mode payload")
    findings += more
    for chunk in chunks:
        if chunk.type == QuickModeType.SA:
            findings += _sa_findings(chunk.body)
    return chunks, findings


def walk(octets: bytes, start: int, first: int, boundary: int, what: str) -> tuple[list[Chunk], list[Finding]]:
    """Every payload of a chain that can be delimited; a body that reaches beyond the end is cut there."""
    chunks, findings = list[Chunk](), list[Finding]()
    kind, at = first, start
    while kind and len(chunks) < MAX_CHUNKS:
        padding = octets[at : at + -at % boundary]
        if any(padding):
            findings.append(Finding(Kind.PADDING_NOT_ZERO, f"padding before the {what} at octet {at} is not zero"))
        at += -at % boundary
        if len(octets) - at < GENERIC_HEADER.size:
            return chunks, findings  # the strict parser has said so
        following, reserved, length = GENERIC_HEADER.unpack_from(octets, at)
        if reserved:
            findings.append(_reserved(f"RESERVED of the {what} at octet {at}", octets[at + 1 : at + 2]))
        chunks.append(Chunk(kind, at, octets[at + GENERIC_HEADER.size : at + max(length, GENERIC_HEADER.size)]))
        if length < GENERIC_HEADER.size:
            return chunks, findings
        kind, at = following, at + length
    if boundary > 1 and what == "payload" and any(octets[at : at + -at % boundary]):
        findings.append(Finding(Kind.PADDING_NOT_ZERO, "padding before the Cksum is not zero"))
    return chunks, findings


def read_outer(chunk: Chunk) -> kink.KinkPayload | None:
    """The payload as the strict parser reads it by itself, None if it refuses."""
    inside = bytes([chunk.type, 0, 0, 0]) + _alone(chunk)
    try:
        if chunk.type == kink.PayloadType.ENCRYPT:
            return kink.Encrypt(chunk.body)
        return kink.parse_plaintext(inside)[0]
    except (MalformedMessage, IndexError):
        return None


def read_quick_mode(chunk: Chunk) -> IsakmpPayload | None:
    """The Quick Mode payload as the strict parser reads it by itself, None if it refuses."""
    body = kink.ISAKMP_HEADER.pack(chunk.type, kink.MAJOR_VERSION << 4, 0) + _alone(chunk)
    payload = read_outer(Chunk(kink.PayloadType.ISAKMP, 0, body))
    return payload.payloads[0] if isinstance(payload, kink.Isakmp) and payload.payloads else None


def _alone(chunk: Chunk) -> bytes:
    length = min(GENERIC_HEADER.size + len(chunk.body), kink.MAX_LENGTH)
    return GENERIC_HEADER.pack(0, 0, length) + chunk.body


def _read_header(datagram: bytes) -> Header:
    kind, version, length, doi, xid, first, flags, checksum_length = kink.HEADER.unpack_from(datagram)
    return Header(kind, version >> 4, version & 15, length, doi, xid, first, flags, checksum_length)


def _header_findings(header: Header, size: int, refusal: MalformedMessage | None) -> list[Finding]:
    """What the strict parser ignores, and beyond the first fault what else is wrong."""
    findings = []
    if header.major != kink.MAJOR_VERSION and not isinstance(refusal, UnsupportedMajorVersion):
        findings.append(Finding(Kind.MALFORMED, f"version {header.major}, there is only 1"))
    if header.doi != IPSEC_DOI and not isinstance(refusal, UnsupportedDoi):
        findings.append(Finding(Kind.MALFORMED, f"DOI {header.doi}, KINK has 1 (IPsec)"))
    if header.reserved:
        text = f"the four bits after MjVer are {header.reserved}, not zero (taken for a minor version by some)"
        findings.append(Finding(Kind.RESERVED_NOT_ZERO, text))
    if header.flags & ~kink.ACKREQ:
        findings.append(_reserved("RESERVED2 beside ACKREQ", bytes([header.flags & ~kink.ACKREQ])))
    if size > header.length >= kink.HEADER.size:
        text = f"{size - header.length} octets after Length {header.length}, ignored by receivers"
        findings.append(Finding(Kind.TRAILING_OCTETS, text))
    return findings


def _sa_findings(body: bytes) -> list[Finding]:
    """Reserved fields of proposals and transforms (RFC 2408 §3.5, §3.6)."""
    proposals, findings = walk(body, SA.size, QuickModeType.PROPOSAL, 1, "proposal")
    for proposal in proposals:
        if len(proposal.body) < PROPOSAL.size:
            continue
        start = PROPOSAL.size + proposal.body[2]
        transforms, more = walk(proposal.body, start, QuickModeType.TRANSFORM, 1, "transform")
        findings += more
        findings += [
            _reserved("RESERVED2 of a transform", transform.body[2:4])
            for transform in transforms
            if len(transform.body) >= TRANSFORM.size and any(transform.body[2:4])
        ]
    return findings


def _reserved(what: str, octets: bytes) -> Finding:
    return Finding(Kind.RESERVED_NOT_ZERO, f"{what} is 0x{octets.hex()}, not zero")
