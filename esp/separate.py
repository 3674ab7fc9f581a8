"""Separate algorithms: a cipher, and an ICV over what it has made (RFC 4303 §3.3.2.1, §3.4.4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.decrepit.ciphers.algorithms import Camellia, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.constant_time import bytes_eq

from esp.errors import AuthenticationFailed
from esp.suite import Cipher
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from esp.integrity import Icv
    from esp.suite import Suite


class Encryption(Protocol):
    """A cipher keyed for one SA, at the sending end."""

    def encrypt(self, sequence: int, text: bytes) -> bytes:
        """IV and ciphertext."""


class Decryption(Protocol):
    """The same at the receiving end."""

    def decrypt(self, body: bytes) -> bytes:
        """The text in ``body``, IV and ciphertext."""


def make_encryption(suite: Suite, key: bytes, salt: bytes, random: Callable[[int], bytes], mask: int) -> Encryption:
    """The cipher of ``suite`` under ``key``.

    Args:
        salt: the nonce of RFC 3686; empty with other ciphers.
        random: gives unpredictable octets, for ciphers whose IV has to be.
        mask: 64 unpredictable bits, for ciphers whose IV must only not repeat.
    """
    if suite.cipher is Cipher.NULL:
        return _Null()
    if suite.cipher is Cipher.AES_CTR:
        return _Counter(key, salt, mask)
    return _ChainedEncryption(_CHAINED[suite.cipher](key), suite.iv_octets, random)


def make_decryption(suite: Suite, key: bytes, salt: bytes) -> Decryption:
    """The cipher of ``suite`` under ``key``; arguments as those of :func:`make_encryption`."""
    if suite.cipher is Cipher.NULL:
        return _Null()
    if suite.cipher is Cipher.AES_CTR:
        return _Counter(key, salt, 0)
    return _ChainedDecryption(_CHAINED[suite.cipher](key), suite.iv_octets)


class _Null:
    """RFC 2410: the text as it is."""

    __slots__ = ()

    def encrypt(self, sequence: int, text: bytes) -> bytes:
        return text

    def decrypt(self, body: bytes) -> bytes:
        return body


class _Counter:
    """AES-CTR: the counter block is nonce, IV, and a count of blocks that begins with one (RFC 3686 §4)."""

    __slots__ = ("_cipher", "_mask", "_salt")

    def __init__(self, key: bytes, salt: bytes, mask: int) -> None:
        self._cipher = BlockCipher(AES(key), modes.CTR(bytes(16))).encryptor()
        self._salt = salt
        self._mask = mask

    def encrypt(self, sequence: int, text: bytes) -> bytes:
        iv = (sequence ^ self._mask).to_bytes(8)
        return iv + self._apply(iv, text)

    def decrypt(self, body: bytes) -> bytes:
        return self._apply(body[:8], body[8:])

    def _apply(self, iv: bytes, octets: bytes) -> bytes:
        self._cipher.reset_nonce(self._salt + iv + b"\0\0\0\1")
        return self._cipher.update(octets)


_Chained = AES | Camellia | TripleDES
_CHAINED: dict[Cipher, Callable[[bytes], _Chained]] = {
    Cipher.AES_CBC: AES,
    Cipher.CAMELLIA_CBC: Camellia,
    Cipher.TRIPLE_DES_CBC: TripleDES,
}


class _ChainedEncryption:
    """CBC of AES (RFC 3602), Camellia (RFC 4312) or 3DES (RFC 2451).

    One encryptor runs through all packets of the SA. It would chain each packet to the one before, whose last block
    everybody has seen; so each packet begins with a block of fresh randomness, and the *ciphertext* of that block is
    the packet's IV. It is a permutation of random bits: uniform, and unpredictable as RFC 3602 §3 demands.
    """

    __slots__ = ("_block", "_random", "_update")

    def __init__(self, algorithm: _Chained, block: int, random: Callable[[int], bytes]) -> None:
        self._update = BlockCipher(algorithm, modes.CBC(bytes(block))).encryptor().update
        self._block = block
        self._random = random

    def encrypt(self, sequence: int, text: bytes) -> bytes:
        return self._update(self._random(self._block) + text)


class _ChainedDecryption:
    """One decryptor runs through all packets: a block of CBC needs only the block before it, and the IV goes in as that
    one. What comes out for the IV itself means nothing and is cut off.
    """

    __slots__ = ("_block", "_update")

    def __init__(self, algorithm: _Chained, block: int) -> None:
        self._update = BlockCipher(algorithm, modes.CBC(bytes(block))).decryptor().update
        self._block = block

    def decrypt(self, body: bytes) -> bytes:
        return self._update(body)[self._block :]


class SeparateSealer:
    """The sending half: encrypts, then authenticates all that stands before the ICV.

    Args:
        spi: in host order.
        encryption, icv: keyed.
        esn: the high half of the sequence number is authenticated behind the packet, and not sent (RFC 4303 §3.3.2.1).
    """

    __slots__ = ("_encrypt", "_esn", "_icv_of", "_spi")

    def __init__(self, spi: int, encryption: Encryption, icv: Icv, *, esn: bool) -> None:
        self._spi = spi
        self._encrypt = encryption.encrypt
        self._icv_of = icv.of
        self._esn = esn

    def seal(self, sequence: int, text: bytes) -> bytes:
        packet = ESP_HEADER.pack(self._spi, sequence & 0xFFFFFFFF) + self._encrypt(sequence, text)
        return packet + self._icv_of(packet + (sequence >> 32).to_bytes(4) if self._esn else packet)


class SeparateOpener:
    """The receiving half: the ICV first, and only then the cipher (RFC 4303 §3.4.4.1).

    Args:
        decryption, icv: keyed.
        icv_octets: of the ICV.
        esn: as in :class:`SeparateSealer`.
    """

    __slots__ = ("_decrypt", "_esn", "_icv_octets", "_icv_of")

    def __init__(self, decryption: Decryption, icv: Icv, icv_octets: int, *, esn: bool) -> None:
        self._decrypt = decryption.decrypt
        self._icv_of = icv.of
        self._icv_octets = icv_octets
        self._esn = esn

    def open(self, packet: bytes, sequence: int) -> bytes:
        end = len(packet) - self._icv_octets
        sealed = packet[:end]
        if not bytes_eq(self._icv_of(sealed + (sequence >> 32).to_bytes(4) if self._esn else sealed), packet[end:]):
            raise AuthenticationFailed
        return self._decrypt(packet[ESP_HEADER.size : end])
