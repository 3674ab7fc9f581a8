"""Sealing and opening whole messages: AP payload, KINK_ENCRYPT, Cksum, in the one right order (RFC 4430 §4, §6).

Opening verifies before it looks inside: AP-REP, then Cksum over the datagram, then KINK_ENCRYPT, then the parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kinkvpn.errors import AuthenticationFailed
from kinkvpn.wire.kink import (
    ApRep,
    ApReq,
    Encrypt,
    KinkPayload,
    Message,
    MessageType,
    build_message,
    build_plaintext,
    parse_plaintext,
    signed_octets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinkvpn.proto.ports import OutstandingRequest, SessionKey


class Opened(NamedTuple):
    """A message that verified: the peer's epoch and the payloads beside the AP payload, decrypted.

    Args:
        answered: which of the outstanding requests a REPLY answers.
    """

    epoch: int
    payloads: tuple[KinkPayload, ...]
    ackreq: bool
    answered: int = 0


def _seal(
    kind: MessageType,
    xid: int,
    ap: ApReq | ApRep,
    key: SessionKey,
    payloads: tuple[KinkPayload, ...],
    ackreq: bool = False,
) -> bytes:
    inside = (Encrypt(key.encrypt(build_plaintext(payloads))),) if payloads else ()
    return build_message(Message(kind, xid, (ap, *inside), ackreq=ackreq), key.checksum)


def seal_command(
    kind: MessageType,
    xid: int,
    epoch: int,
    request: OutstandingRequest,
    key: SessionKey,
    payloads: tuple[KinkPayload, ...] = (),
) -> bytes:
    """A command or an ACK: AP-REQ, everything else inside KINK_ENCRYPT, Cksum (RFC 4430 §6.2 to §6.5)."""
    return _seal(kind, xid, ApReq(epoch, request.ap_req), key, payloads)


def seal_reply(
    xid: int,
    epoch: int,
    ap_rep: bytes,
    key: SessionKey,
    payloads: tuple[KinkPayload, ...] = (),
    *,
    ackreq: bool = False,
) -> bytes:
    """An authenticated REPLY (RFC 4430 §6.1)."""
    return _seal(MessageType.REPLY, xid, ApRep(epoch, ap_rep), key, payloads, ackreq)


def bare_reply(xid: int, payload: KinkPayload) -> bytes:
    """A REPLY that no key protects: a lone KINK_ERROR or KINK_KRB_ERROR (RFC 4430 §6.3, last form)."""
    return build_message(Message(MessageType.REPLY, xid, (payload,)))


def open_command(message: Message, datagram: bytes, ap: ApReq, key: SessionKey) -> Opened:
    """Verify and decrypt a command whose AP-REQ gave ``key``.

    Raises:
        AuthenticationFailed: Cksum missing or wrong, or ciphertext not made with this key.
        MalformedMessage: authentic, and still not well formed inside.
    """
    return _open(message, datagram, ap, key)


def open_reply(
    message: Message, datagram: bytes, ap: ApRep, outstanding: Sequence[OutstandingRequest], key: SessionKey
) -> Opened:
    """Verify and decrypt a REPLY that answers one of the ``outstanding`` requests (RFC 4430 §9).

    Raises:
        AuthenticationFailed: no outstanding authenticator fits the AP-REP, or Cksum or ciphertext is wrong.
        MalformedMessage: authentic, and still not well formed inside.
    """
    for number, request in enumerate(outstanding):
        try:
            request.verify_reply(ap.ap_rep)
        except AuthenticationFailed:
            continue
        return _open(message, datagram, ap, key)._replace(answered=number)
    raise AuthenticationFailed("the AP-REP answers none of the outstanding requests")


def _open(message: Message, datagram: bytes, ap: ApReq | ApRep, key: SessionKey) -> Opened:
    key.verify(signed_octets(datagram), message.checksum)
    payloads: list[KinkPayload] = []
    for payload in message.payloads:
        if isinstance(payload, Encrypt):
            payloads.extend(parse_plaintext(key.decrypt(payload.ciphertext)))
        elif payload is not ap:
            payloads.append(payload)  # in the clear, but under the Cksum: §6 lets a peer choose
    return Opened(ap.epoch, tuple(payloads), message.ackreq)
