"""From a Kerberos session key to the keys of a pair of SAs (RFC 4430 §7, RFC 2409 §5.5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kinkvpn.proto.settings import PrfForm

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.ports import SessionKey

_PROTOCOL_AND_SPI = struct.Struct("!B4s")


def prf_of(key: SessionKey, form: PrfForm) -> Callable[[bytes], bytes]:
    """The PRF that keys SAs under ``key``, in the form the peer uses (docs/decisions.md, "PRF")."""
    return key.prf_rfc3962_literal if form is PrfForm.RFC3962_LITERAL else key.prf


def derive_keymat(
    prf: Callable[[bytes], bytes],
    *,
    protocol: int,
    spi: bytes,
    initiator_nonce: bytes,
    responder_nonce: bytes = b"",
    shared_secret: bytes = b"",
    octets: int,
) -> bytes:
    """KEYMAT of the SA that its receiver knows under ``spi`` (RFC 4430 §7).

    KEYMAT = K1 | K2 | ..., K1 = prf(seed), Kn = prf(K(n-1) | seed),
    seed = [g(qm)^xy |] protocol | SPI | Ni_b [| Nr_b] (RFC 2409 §5.5).

    Args:
        prf: keyed with the ticket's session key, which stands where IKE has SKEYID_d.
        protocol: IPsec DOI protocol identifier of the SA.
        spi: four octets, chosen by the receiver of the SA.
        initiator_nonce, responder_nonce: nonce payload bodies without their headers; no Nr counts as empty.
        shared_secret: g(qm)^xy when KE payloads were exchanged.
        octets: how much is needed.
    """
    seed = shared_secret + _PROTOCOL_AND_SPI.pack(protocol, spi) + initiator_nonce + responder_nonce
    block = prf(seed)
    keymat = bytearray(block)
    while len(keymat) < octets:
        block = prf(block + seed)
        keymat += block
    return bytes(keymat[:octets])
