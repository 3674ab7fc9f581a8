"""Combined modes, which encrypt and authenticate in one (RFC 4303 §3.2.3): GCM, CCM and GMAC of AES, ChaCha20-Poly1305.

All have the shape that RFC 4106 gave to GCM: the nonce is a salt of the SA and the IV of eight octets in the packet,
and what is authenticated besides the text is SPI and sequence number (RFC 4309 §5, RFC 4543 §3.3, RFC 7634 §2.1).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.constant_time import bytes_eq

from esp.errors import AuthenticationFailed
from esp.suite import Cipher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esp.suite import Suite

_TAG = 16  # GCM's, before it is cut


class Aead(Protocol):
    """An algorithm keyed for one SA, as RFC 5116 §2 has it: the ICV stands behind the ciphertext."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Ciphertext and ICV."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """The text.

        Raises:
            InvalidTag: the ICV is another.
        """


def make_aead(suite: Suite, key: bytes) -> Aead:
    """The algorithm of ``suite`` under ``key``, without the salt."""
    if suite.cipher is Cipher.AES_CCM:
        return AESCCM(key, tag_length=suite.icv_octets)
    if suite.cipher is Cipher.CHACHA20_POLY1305:
        return ChaCha20Poly1305(key)
    if suite.cipher is Cipher.AES_GMAC:
        return _Gmac(key)
    return AESGCM(key) if suite.icv_octets == _TAG else _ShortGcm(key, suite.icv_octets)


class _ShortGcm:
    """AES-GCM with an ICV of 8 or 12 octets, the first ones of the tag (RFC 4106 §6).

    OpenSSL would verify a short tag, but only in a cipher made for each packet, at three times the cost. So the text is
    got by counter mode, which is what GCM is underneath, and sealed again for its tag. It leaves only if that agrees.
    """

    __slots__ = ("_cut", "_gcm", "_octets", "_stream")

    def __init__(self, key: bytes, octets: int) -> None:
        self._gcm = AESGCM(key)
        self._stream = BlockCipher(algorithms.AES(key), modes.CTR(bytes(16))).decryptor()
        self._octets = octets
        self._cut = octets - _TAG

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        return self._gcm.encrypt(nonce, data, associated_data)[: self._cut]

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        # The first counter is the tag's; the text begins with the second (NIST SP 800-38D §7.1, nonces of 96 bits).
        self._stream.reset_nonce(nonce + b"\0\0\0\2")
        text = self._stream.update(data[: -self._octets])
        if not bytes_eq(self.encrypt(nonce, text, associated_data)[-self._octets :], data[-self._octets :]):
            raise InvalidTag
        return text


class _Gmac:
    """NULL_AUTH_AES-GMAC: GCM of nothing; IV and text are among what it authenticates (RFC 4543 §3.3, §3.5)."""

    __slots__ = ("_gcm",)

    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        return data + self._gcm.encrypt(nonce, b"", associated_data + nonce[4:] + data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        text = data[:-_TAG]
        self._gcm.decrypt(nonce, data[-_TAG:], associated_data + nonce[4:] + text)
        return text


# SPI, sequence number, and the IV.
_HEADER = struct.Struct("!IIQ")
# What is authenticated besides the text with extended numbers: SPI and all of the number (RFC 4106 §5).
_ESN_HEADER = struct.Struct("!IQ")


@lru_cache(maxsize=256)
def _parts(octets: int) -> struct.Struct:
    """Of a packet that long: header, IV, and what is sealed."""
    return struct.Struct(f"!8s8s{octets - 16}s")


class CombinedSealer:
    """The sending half of a combined mode.

    Args:
        spi: in host order.
        salt: what the nonce begins with.
        mask: 64 unpredictable bits.
        aead: the algorithm, keyed.
    """

    __slots__ = ("_encrypt", "_mask", "_salt", "_spi")

    def __init__(self, spi: int, salt: bytes, mask: int, aead: Aead) -> None:
        self._spi = spi
        self._salt = salt
        self._mask = mask
        self._encrypt = aead.encrypt

    def seal(self, sequence: int, text: bytes) -> bytes:
        header = _HEADER.pack(self._spi, sequence & 0xFFFFFFFF, sequence ^ self._mask)
        return header + self._encrypt(self._salt + header[8:], text, header[:8])

    def seal_run(self, first: int, texts: Iterable[bytes]) -> list[bytes]:
        """As ``seal`` of each, with numbers from ``first`` on: a fifth less than by that many calls."""
        spi, salt, mask, pack, encrypt = self._spi, self._salt, self._mask, _HEADER.pack, self._encrypt
        sealed: list[bytes] = []
        for sequence, text in enumerate(texts, first):
            header = pack(spi, sequence & 0xFFFFFFFF, sequence ^ mask)
            sealed.append(header + encrypt(salt + header[8:], text, header[:8]))
        return sealed


class EsnCombinedSealer(CombinedSealer):
    """Likewise with extended numbers, of which the low half alone is sent."""

    __slots__ = ()

    def seal(self, sequence: int, text: bytes) -> bytes:
        header = _HEADER.pack(self._spi, sequence & 0xFFFFFFFF, sequence ^ self._mask)
        return header + self._encrypt(self._salt + header[8:], text, _ESN_HEADER.pack(self._spi, sequence))

    def seal_run(self, first: int, texts: Iterable[bytes]) -> list[bytes]:
        spi, salt, mask, pack, encrypt = self._spi, self._salt, self._mask, _HEADER.pack, self._encrypt
        additional = _ESN_HEADER.pack
        sealed: list[bytes] = []
        for sequence, text in enumerate(texts, first):
            header = pack(spi, sequence & 0xFFFFFFFF, sequence ^ mask)
            sealed.append(header + encrypt(salt + header[8:], text, additional(spi, sequence)))
        return sealed


class CombinedOpener:
    """The receiving half of a combined mode."""

    __slots__ = ("_decrypt", "_salt")

    def __init__(self, salt: bytes, aead: Aead) -> None:
        self._salt = salt
        self._decrypt = aead.decrypt

    def open(self, packet: bytes, sequence: int) -> bytes:
        try:
            return self._decrypt(self._salt + packet[8:16], packet[16:], packet[:8])
        except InvalidTag:
            raise AuthenticationFailed from None

    def open_run(self, packets: bytes, octets: int, first: int) -> list[bytes]:
        """As ``open`` of each, up to the first that is not authentic.

        Args:
            packets: one behind the other, of one SPI, with numbers from ``first`` on whose high half is the same.
            octets: of each.
        """
        decrypt, salt = self._decrypt, self._salt
        texts: list[bytes] = []
        with suppress(InvalidTag):
            for additional, iv, sealed in _parts(octets).iter_unpack(packets):
                texts.append(decrypt(salt + iv, sealed, additional))
        return texts


class EsnCombinedOpener(CombinedOpener):
    """Likewise with extended numbers."""

    __slots__ = ()

    def open(self, packet: bytes, sequence: int) -> bytes:
        additional = packet[:4] + (sequence >> 32).to_bytes(4) + packet[4:8]
        try:
            return self._decrypt(self._salt + packet[8:16], packet[16:], additional)
        except InvalidTag:
            raise AuthenticationFailed from None

    def open_run(self, packets: bytes, octets: int, first: int) -> list[bytes]:
        decrypt, salt, spi_and_high = self._decrypt, self._salt, packets[:4] + (first >> 32).to_bytes(4)
        texts: list[bytes] = []
        with suppress(InvalidTag):
            for header, iv, sealed in _parts(octets).iter_unpack(packets):
                texts.append(decrypt(salt + iv, sealed, spi_and_high + header[4:]))
        return texts
