"""Which payloads a message may have, and in which order (RFC 4430 §6). Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from kinkvpn.decode import numbers
from kinkvpn.decode.findings import Finding, Kind
from kinkvpn.wire.ipsec_doi import PayloadType as Q
from kinkvpn.wire.kink import MessageType
from kinkvpn.wire.kink import PayloadType as P

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGES: Final = frozenset(MessageType)
PAYLOADS: Final = frozenset(P)

# §6.1 to §6.6. Outside and inside KINK_ENCRYPT together; "any other payloads" (§6) are left to the reader.
ALLOWED: Final = {
    MessageType.CREATE: {P.AP_REQ, P.ENCRYPT, P.ISAKMP},
    MessageType.DELETE: {P.AP_REQ, P.ENCRYPT, P.ISAKMP},
    MessageType.STATUS: {P.AP_REQ, P.ENCRYPT, P.ISAKMP},
    MessageType.ACK: {P.AP_REQ, P.ENCRYPT},
    MessageType.GETTGT: {P.TGT_REQ},
    MessageType.REPLY: {P.AP_REP, P.ENCRYPT, P.ISAKMP, P.KRB_ERROR, P.ERROR, P.TGT_REP},
}
# §6.2 to §6.6: what stands first in a command, and makes it one.
FIRST: Final = {
    **dict.fromkeys((MessageType.CREATE, MessageType.DELETE, MessageType.STATUS, MessageType.ACK), P.AP_REQ),
    MessageType.GETTGT: P.TGT_REQ,
}
# §6.1: a REPLY has one of these; KINK_TGT_REP in the answer to GETTGT (§6.6) and when a TGT was lost (§3.7.1).
ANSWERS: Final = {P.AP_REP, P.KRB_ERROR, P.ERROR, P.TGT_REP}

# §6.3, §6.4: SA, Ni, [KE], [IDci, IDcr], [N]; Delete payloads, [N].
ORDER: Final = {Q.SA: 0, Q.DELETE: 0, Q.NONCE: 1, Q.KE: 2, Q.ID: 3, Q.NOTIFY: 4}
QUICK_MODE: Final = {
    MessageType.CREATE: {Q.SA, Q.NONCE, Q.KE, Q.ID, Q.NOTIFY},
    MessageType.DELETE: {Q.DELETE, Q.NOTIFY},
    MessageType.STATUS: {Q.NOTIFY},
    MessageType.REPLY: {Q.SA, Q.NONCE, Q.KE, Q.ID, Q.NOTIFY, Q.DELETE},
}


def check_payloads(kind: int, outer: Sequence[int], inner: Sequence[int], *, ackreq: bool) -> list[Finding]:
    """Looks at the payload types of a message: ``outer`` as sent, ``inner`` inside KINK_ENCRYPT."""
    findings = [
        Finding(Kind.UNKNOWN_NUMBER, f"payload type {payload} is unknown")
        for payload in (*outer, *inner)
        if payload not in PAYLOADS
    ]
    if kind not in MESSAGES:
        return [Finding(Kind.UNKNOWN_NUMBER, f"message type {kind} is unknown"), *findings]
    message = MessageType(kind)
    findings += _misplaced(message, outer, inner)
    first = FIRST.get(message)
    if first is not None and list(outer[:1]) != [first]:
        if first in outer:
            text = f"{_name(first)} is not the first payload of this {message.name}"
            findings.append(Finding(Kind.PAYLOAD_ORDER, text))
        else:
            findings.append(Finding(Kind.NO_AP_PAYLOAD, f"a {message.name} without {_name(first)}"))
    if message is MessageType.REPLY and not ANSWERS & set(outer):
        findings.append(Finding(Kind.NO_AP_PAYLOAD, "a REPLY without AP-REP, error or TGT answers nothing"))
    if message is MessageType.REPLY and P.AP_REP in outer and outer[0] != P.AP_REP:
        findings.append(Finding(Kind.PAYLOAD_ORDER, "KINK_AP_REP is not the first payload of this REPLY"))
    if P.ENCRYPT in outer[:-1]:
        findings.append(Finding(Kind.PAYLOAD_ORDER, "KINK_ENCRYPT is not the last payload (§4.2.7)"))
    if ackreq and message is not MessageType.REPLY:
        findings.append(Finding(Kind.ACKREQ_OUT_OF_PLACE, f"ACKREQ in a {message.name}: only a REPLY asks for an ACK"))
    return findings


def _misplaced(message: MessageType, outer: Sequence[int], inner: Sequence[int]) -> list[Finding]:
    findings = []
    strangers = [payload for payload in (*outer, *inner) if payload in PAYLOADS and payload not in ALLOWED[message]]
    if strangers:
        findings.append(Finding(Kind.PAYLOAD_OUT_OF_PLACE, f"{_names(strangers)} in a {message.name}"))
    bare = [payload for payload in outer if payload in (P.ISAKMP, P.KRB_ERROR, P.ERROR)]
    if bare and {P.AP_REQ, P.AP_REP} & set(outer):
        text = f"{_names(bare)} outside KINK_ENCRYPT, though there is a key (§6)"
        findings.append(Finding(Kind.PAYLOAD_OUT_OF_PLACE, text))
    return findings


def check_quick_mode(kind: int, types: Sequence[int]) -> list[Finding]:
    """Looks at the payload types of one KINK_ISAKMP payload in a message of type ``kind``."""
    if kind not in MESSAGES:
        return []
    message, findings = MessageType(kind), list[Finding]()
    allowed = QUICK_MODE.get(message, set())
    strangers = dict.fromkeys(payload for payload in types if payload in ORDER and payload not in allowed)
    if strangers:
        text = f"{', '.join(map(_quick, strangers))} in a {message.name}"
        findings.append(Finding(Kind.PAYLOAD_OUT_OF_PLACE, text))
    ranks = [(ORDER[Q(payload)], payload) for payload in types if payload in ORDER]
    for (before, earlier), (after, later) in itertools.pairwise(ranks):
        if before > after:
            text = f"{_quick(later)} stands after {_quick(earlier)} (§6.3: SA, nonce, KE, IDs, notifies)"
            findings.append(Finding(Kind.PAYLOAD_ORDER, text))
    if message is MessageType.CREATE and Q.SA in types and Q.NONCE not in types:
        findings.append(Finding(Kind.PAYLOAD_ORDER, "no nonce: Ni is mandatory in a CREATE (§5.4)"))
    if types.count(Q.ID) not in (0, 2):
        findings.append(Finding(Kind.PAYLOAD_ORDER, f"{types.count(Q.ID)} ID payloads: there are two, or none"))
    return findings


def _name(payload: int) -> str:
    return numbers.spoken(numbers.payload_name(payload))


def _names(payloads: Sequence[int]) -> str:
    return ", ".join(map(_name, dict.fromkeys(payloads)))


def _quick(payload: int) -> str:
    return numbers.spoken(numbers.quick_mode_name(payload))
