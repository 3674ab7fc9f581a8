"""What a suite is: the one table of names, numbers and sizes (RFC 4303 §5 and the documents it sends you to)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from esp.errors import UnknownSuite


class Cipher(Enum):
    """How the payload is encrypted."""

    AES_GCM = "aes-gcm"  # RFC 4106: AEAD, implicit salt, eight-octet explicit IV
    AES_CBC = "aes-cbc"  # RFC 3602: needs an integrity algorithm beside it


class Integrity(Enum):
    """Which ICV stands beside a cipher that has none of its own."""

    HMAC_SHA1_96 = "hmac-sha1-96"  # RFC 2404
    HMAC_SHA2_256_128 = "hmac-sha2-256-128"  # RFC 4868


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher and, where it needs one, an integrity algorithm, with the sizes both planes work with.

    Octet counts throughout, except ``key_bits``, which is the Key Length attribute as the IPsec DOI has it.
    KEYMAT is consumed encryption key first, then salt (RFC 4106 §8.1), then integrity key (RFC 4430 §7, RFC 2409 §5.5).
    """

    name: str
    cipher: Cipher
    integrity: Integrity | None
    transform: int  # ESP transform identifier (IPsec DOI, RFC 2407 §4.4.4)
    key_bits: int  # SA attribute 6, Key Length
    authentication: int | None  # SA attribute 5, Authentication Algorithm
    salt_octets: int
    integrity_octets: int
    iv_octets: int
    icv_octets: int
    block_octets: int  # payload + padding + trailer is a multiple of this (RFC 4303 §2.4: at least 4)

    @property
    def encryption_octets(self) -> int:
        """Length of the cipher key, in octets."""
        return self.key_bits // 8

    @property
    def keymat_octets(self) -> int:
        """KEYMAT that one SA consumes, in octets."""
        return self.encryption_octets + self.salt_octets + self.integrity_octets

    def split(self, keymat: bytes) -> tuple[bytes, bytes, bytes]:
        """Cut ``keymat`` (exactly ``keymat_octets``) into cipher key, salt and integrity key.

        Raises:
            ValueError: the length is not the suite's. The message holds lengths only.
        """
        if len(keymat) != self.keymat_octets:
            raise ValueError(f"{self.name} takes {self.keymat_octets} octets of KEYMAT, got {len(keymat)}")
        salt = self.encryption_octets
        integrity = salt + self.salt_octets
        return keymat[:salt], keymat[salt:integrity], keymat[integrity:]


def _gcm(bits: int) -> Suite:
    return Suite(
        name=f"aes{bits}-gcm16",
        cipher=Cipher.AES_GCM,
        integrity=None,
        transform=20,  # ESP_AES-GCM, 16-octet ICV (RFC 4106 §8.3)
        key_bits=bits,
        authentication=None,
        salt_octets=4,
        integrity_octets=0,
        iv_octets=8,
        icv_octets=16,
        block_octets=4,
    )


def _cbc(bits: int, integrity: Integrity) -> Suite:
    name, attribute, key, icv = {
        Integrity.HMAC_SHA2_256_128: ("sha256", 5, 32, 16),  # RFC 4868 §2.6
        Integrity.HMAC_SHA1_96: ("sha1", 2, 20, 12),  # RFC 2404 §2, §3
    }[integrity]
    return Suite(
        name=f"aes{bits}-cbc-{name}",
        cipher=Cipher.AES_CBC,
        integrity=integrity,
        transform=12,  # ESP_AES-CBC (RFC 3602 §5.2)
        key_bits=bits,
        authentication=attribute,
        salt_octets=0,
        integrity_octets=key,
        iv_octets=16,
        icv_octets=icv,
        block_octets=16,
    )


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        *(_gcm(bits) for bits in (256, 192, 128)),
        *(_cbc(bits, Integrity.HMAC_SHA2_256_128) for bits in (256, 192, 128)),
        *(_cbc(bits, Integrity.HMAC_SHA1_96) for bits in (256, 192, 128)),
    )
}

# Strongest first; HMAC-SHA1 only where somebody asks for it by name.
DEFAULT_SUITES = (SUITES["aes256-gcm16"], SUITES["aes128-gcm16"], SUITES["aes256-cbc-sha256"])


def suite_named(name: str) -> Suite:
    """The suite called ``name``.

    Raises:
        UnknownSuite: with the names there are.
    """
    try:
        return SUITES[name]
    except KeyError:
        raise UnknownSuite(f"no suite {name!r}; there are {', '.join(SUITES)}") from None
