"""Seal and open over pyca/cryptography: bytes and a sequence number in, bytes out (RFC 4106, RFC 3602, RFC 4868).

One cipher context for each SA, set up once: a key schedule for each packet would cost more than sealing it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from esp.errors import AuthenticationFailed
from esp.suite import Cipher, Integrity
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from esp.suite import Suite


class Sealer(Protocol):
    """The sending half of a suite, keyed for one SA."""

    def seal(self, sequence: int, text: bytes) -> bytes:
        """The whole ESP packet: header, IV, encrypted ``text`` (payload and trailer), ICV.

        Args:
            sequence: all 64 bits; never the same twice for one sealer.
            text: a multiple of the suite's ``block_octets``.
        """


class Opener(Protocol):
    """The receiving half of a suite, keyed for one SA."""

    def open(self, packet: bytes, sequence: int) -> bytes:
        """Payload and trailer of the whole ESP ``packet``.

        Args:
            sequence: its number as the receiver has inferred it (RFC 4303 §2.2.1). The low 32 bits are on the wire; the
                high ones are authenticated with extended numbers, and mean nothing without.
            packet: at least header, IV and ICV long; what is between is a multiple of the suite's ``block_octets``.

        Raises:
            AuthenticationFailed: the ICV is not that of the packet. Nothing has been decrypted, or nothing is given.
        """


def make_sealer(suite: Suite, spi: int, keymat: bytes, random: Callable[[int], bytes], *, esn: bool = False) -> Sealer:
    """The sealer of ``suite`` under ``keymat``.

    Args:
        spi: in host order.
        keymat: exactly ``suite.keymat_octets``.
        random: gives unpredictable octets where the IV needs them.
        esn: sequence numbers are extended: what does not travel of them is authenticated (RFC 4303 §2.2.1).
    """
    key, salt, integrity_key = suite.split(keymat)
    if suite.cipher is Cipher.AES_GCM:
        return (_EsnGcmSealer if esn else _GcmSealer)(spi, key, salt, int.from_bytes(random(8)))
    return _CbcSealer(spi, key, _Icv(suite, integrity_key, esn=esn), random)


def make_opener(suite: Suite, keymat: bytes, *, esn: bool = False) -> Opener:
    """The opener of ``suite`` under ``keymat``; arguments as those of :func:`make_sealer`."""
    key, salt, integrity_key = suite.split(keymat)
    if suite.cipher is Cipher.AES_GCM:
        return (_EsnGcmOpener if esn else _GcmOpener)(key, salt)
    return _CbcOpener(key, _Icv(suite, integrity_key, esn=esn))


# SPI, sequence number, and the IV of GCM: the sequence number, the one counter that cannot repeat within an SA, under a
# random mask. The mask is for a key that comes twice: whoever keeps back a retransmission of a CREATE until the
# responder has restarted gets the same session key, SPI and Ni, so the same KEYMAT (RFC 4430 §7), with the counter at
# the start again. RFC 4106 §3.1 asks that an IV be unique under a key, however it is made. 64 bits, so that it holds
# with extended numbers too.
_GCM_HEADER = struct.Struct("!IIQ")
# What is authenticated besides the text with extended numbers: SPI and all of the number (RFC 4106 §5).
_ESN_HEADER = struct.Struct("!IQ")


class _GcmSealer:
    """AES-GCM: nonce is salt and IV (RFC 4106 §4), additional data is SPI and sequence number (§5)."""

    __slots__ = ("_encrypt", "_mask", "_salt", "_spi")

    def __init__(self, spi: int, key: bytes, salt: bytes, mask: int) -> None:
        self._spi = spi
        self._salt = salt
        self._mask = mask
        self._encrypt = AESGCM(key).encrypt

    def seal(self, sequence: int, text: bytes) -> bytes:
        header = _GCM_HEADER.pack(self._spi, sequence & 0xFFFFFFFF, sequence ^ self._mask)
        return header + self._encrypt(self._salt + header[8:], text, header[:8])


class _EsnGcmSealer(_GcmSealer):
    """Likewise with extended numbers, of which the low half alone is sent."""

    __slots__ = ()

    def seal(self, sequence: int, text: bytes) -> bytes:
        header = _GCM_HEADER.pack(self._spi, sequence & 0xFFFFFFFF, sequence ^ self._mask)
        return header + self._encrypt(self._salt + header[8:], text, _ESN_HEADER.pack(self._spi, sequence))


class _GcmOpener:
    __slots__ = ("_decrypt", "_salt")

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._salt = salt
        self._decrypt = AESGCM(key).decrypt

    def open(self, packet: bytes, sequence: int) -> bytes:
        try:
            return self._decrypt(self._salt + packet[8:16], packet[16:], packet[:8])
        except InvalidTag:
            raise AuthenticationFailed from None


class _EsnGcmOpener(_GcmOpener):
    __slots__ = ()

    def open(self, packet: bytes, sequence: int) -> bytes:
        additional = packet[:4] + (sequence >> 32).to_bytes(4) + packet[4:8]
        try:
            return self._decrypt(self._salt + packet[8:16], packet[16:], additional)
        except InvalidTag:
            raise AuthenticationFailed from None


_HASHES: dict[Integrity, type[HashAlgorithm]] = {
    Integrity.HMAC_SHA1_96: SHA1,
    Integrity.HMAC_SHA2_256_128: SHA256,
}
_BLOCK = 16  # AES; also its CBC IV (RFC 3602 §3)
_IV_END = ESP_HEADER.size + _BLOCK


class _Icv:
    """HMAC over everything before the ICV (RFC 4303 §3.3.2.1), keyed once for all packets."""

    __slots__ = ("_esn", "_hmac", "octets")

    def __init__(self, suite: Suite, key: bytes, *, esn: bool) -> None:
        assert suite.integrity is not None  # a table entry without one is an AEAD
        self._hmac = HMAC(key, _HASHES[suite.integrity]())
        self._esn = esn
        self.octets = suite.icv_octets

    def of(self, packet: bytes, sequence: int) -> bytes:
        """The ICV of ``packet``, which has none yet; of extended numbers the high half stands behind it, unsent."""
        hmac = self._hmac.copy()
        hmac.update(packet + (sequence >> 32).to_bytes(4) if self._esn else packet)
        return hmac.finalize()[: self.octets]


class _CbcSealer:
    """AES-CBC, then HMAC over everything before the ICV (RFC 3602 §3, RFC 4303 §3.3.2.1).

    One encryptor runs through all packets of the SA. It would chain each packet to the one before, whose last block
    everybody has seen; so each packet begins with a block of fresh randomness, and the *ciphertext* of that block is
    the packet's IV. It is a permutation of 128 random bits: uniform, and unpredictable as RFC 3602 §3 demands.
    """

    __slots__ = ("_encrypt", "_icv", "_random", "_spi")

    def __init__(self, spi: int, key: bytes, icv: _Icv, random: Callable[[int], bytes]) -> None:
        self._spi = spi
        self._encrypt = BlockCipher(algorithms.AES(key), modes.CBC(bytes(_BLOCK))).encryptor().update
        self._icv = icv
        self._random = random

    def seal(self, sequence: int, text: bytes) -> bytes:
        header = ESP_HEADER.pack(self._spi, sequence & 0xFFFFFFFF)
        packet = header + self._encrypt(self._random(_BLOCK) + text)
        return packet + self._icv.of(packet, sequence)


class _CbcOpener:
    """HMAC first, and only then AES-CBC (RFC 4303 §3.4.4.1).

    One decryptor runs through all packets: a block of CBC needs only the block before it, and the IV goes in as that
    one. What comes out for the IV itself means nothing and is cut off.
    """

    __slots__ = ("_decrypt", "_icv")

    def __init__(self, key: bytes, icv: _Icv) -> None:
        self._decrypt = BlockCipher(algorithms.AES(key), modes.CBC(bytes(_BLOCK))).decryptor().update
        self._icv = icv

    def open(self, packet: bytes, sequence: int) -> bytes:
        end = len(packet) - self._icv.octets
        if not bytes_eq(self._icv.of(packet[:end], sequence), packet[end:]):
            raise AuthenticationFailed
        return self._decrypt(packet[_IV_END - _BLOCK : end])[_BLOCK:]
