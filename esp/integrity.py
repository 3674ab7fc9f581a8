"""What an ICV is made with where the cipher makes none: HMAC and AES-XCBC-MAC (RFC 4303 §2.8, RFC 4302 §2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from esp.suite import Integrity

if TYPE_CHECKING:
    from collections.abc import Callable

# Each ICV is the first octets of what the algorithm gives: RFC 2403 §3, RFC 2404 §3, RFC 4868 §2.6, RFC 3566 §4.
_HMACS: dict[Integrity, tuple[type[HashAlgorithm], int]] = {
    Integrity.HMAC_MD5_96: (MD5, 12),
    Integrity.HMAC_SHA1_96: (SHA1, 12),
    Integrity.HMAC_SHA2_256_128: (SHA256, 16),
    Integrity.HMAC_SHA2_384_192: (SHA384, 24),
    Integrity.HMAC_SHA2_512_256: (SHA512, 32),
}
_BLOCK = 16  # AES
_XCBC_ICV = 12  # RFC 3566 §4


class Icv(Protocol):
    """An integrity algorithm, keyed once for all packets of an SA."""

    def of(self, octets: bytes) -> bytes:
        """The ICV of ``octets``: all that it covers, what is not sent with it included."""


def make_icv(integrity: Integrity, key: bytes) -> Icv:
    """The ICVs of ``integrity`` under ``key``, which is as long as the algorithm's document says."""
    return _Xcbc(key) if integrity is Integrity.AES_XCBC_96 else _Hmac(*_HMACS[integrity], key)


class _Hmac:
    """RFC 2104."""

    __slots__ = ("_keyed", "_octets")

    def __init__(self, algorithm: type[HashAlgorithm], octets: int, key: bytes) -> None:
        self._keyed = HMAC(key, algorithm())
        self._octets = octets

    def of(self, octets: bytes) -> bytes:
        hmac = self._keyed.copy()
        hmac.update(octets)
        return hmac.finalize()[: self._octets]


class _Xcbc:
    """AES-XCBC-MAC-96 (RFC 3566 §4): CBC under K1, of which the last block has K2 or K3 added.

    One chain runs through all packets, as making a cipher for each costs more than the packet. Each MAC begins with a
    chain of zeros, and this one stands where the MAC before ended: a block ahead of the packet takes it back.
    """

    __slots__ = ("_back", "_chain", "_full", "_padded", "_update")

    def __init__(self, key: bytes) -> None:
        derive = _ecb(key).encryptor().update
        one, two, three = (derive(bytes([number]) * _BLOCK) for number in (1, 2, 3))
        self._update: Callable[[bytes], bytes] = (
            BlockCipher(algorithms.AES(one), modes.CBC(bytes(_BLOCK))).encryptor().update
        )
        self._full, self._padded = int.from_bytes(two), int.from_bytes(three)
        # Encrypted, it is zeros; what stands in the chain is added before that, so it has to be added here, too.
        self._back = int.from_bytes(_ecb(one).decryptor().update(bytes(_BLOCK)))
        self._chain = 0

    def of(self, octets: bytes) -> bytes:
        added = self._full
        if len(octets) % _BLOCK or not octets:
            octets += b"\x80" + bytes(-(len(octets) + 1) % _BLOCK)
            added = self._padded
        back = (self._back ^ self._chain).to_bytes(_BLOCK)
        last = (int.from_bytes(octets[-_BLOCK:]) ^ added).to_bytes(_BLOCK)
        mac = self._update(back + octets[:-_BLOCK] + last)[-_BLOCK:]
        self._chain = int.from_bytes(mac)
        return mac[:_XCBC_ICV]


def _ecb(key: bytes) -> BlockCipher[modes.ECB]:
    return BlockCipher(algorithms.AES(key), modes.ECB())  # noqa: S305 # single blocks (RFC 3566 §4)
