"""What a suite is: the one table of names, numbers and sizes (RFC 4303 §5 and the documents it sends you to)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import NamedTuple

from esp.errors import UnknownSuite


class Cipher(Enum):
    """How the payload is encrypted; the first four are combined modes, whose ICV is their own (RFC 4303 §3.2.3)."""

    AES_GCM = "aes-gcm"  # RFC 4106
    AES_CCM = "aes-ccm"  # RFC 4309
    AES_GMAC = "aes-gmac"  # RFC 4543: authenticates, encrypts nothing
    CHACHA20_POLY1305 = "chacha20-poly1305"  # RFC 7634
    AES_CBC = "aes-cbc"  # RFC 3602
    AES_CTR = "aes-ctr"  # RFC 3686
    CAMELLIA_CBC = "camellia-cbc"  # RFC 4312
    TRIPLE_DES_CBC = "3des-cbc"  # RFC 2451
    NULL = "null"  # RFC 2410: encrypts nothing


class Integrity(Enum):
    """Which ICV stands beside a cipher that has none of its own."""

    HMAC_MD5_96 = "hmac-md5-96"  # RFC 2403
    HMAC_SHA1_96 = "hmac-sha1-96"  # RFC 2404
    HMAC_SHA2_256_128 = "hmac-sha2-256-128"  # RFC 4868
    HMAC_SHA2_384_192 = "hmac-sha2-384-192"  # RFC 4868
    HMAC_SHA2_512_256 = "hmac-sha2-512-256"  # RFC 4868
    AES_XCBC_96 = "aes-xcbc-96"  # RFC 3566


class Names(NamedTuple):
    """What others call an algorithm, for SAs that they are to have too; None where one does not know it.

    Args:
        xfrm: Linux, in ``ip xfrm state``.
        wireshark: its table ``esp_sa``.
        scapy: ``scapy.layers.ipsec``.
    """

    xfrm: str
    wireshark: str | None
    scapy: str | None


@dataclass(frozen=True, slots=True, eq=False)  # each is one of a table: compared, and hashed, by identity
class Suite:
    """A cipher and, where it needs one, an integrity algorithm, with the sizes both planes work with.

    Octet counts throughout, except ``key_length``, which is the attribute as the IPsec DOI has it.
    KEYMAT is consumed encryption key first, then salt (RFC 4106 §8.1), then integrity key (RFC 4430 §7, RFC 2409 §5.5).
    """

    name: str
    cipher: Cipher
    integrity: Integrity | None
    transform: int  # ESP transform identifier (RFC 2407 §4.4.4)
    key_length: int | None  # SA attribute 6, in bits; absent where a cipher has one length only (RFC 2407 §4.5)
    authentication: int | None  # SA attribute 5, Authentication Algorithm
    encryption_octets: int
    salt_octets: int
    integrity_octets: int
    iv_octets: int
    icv_octets: int
    block_octets: int  # payload + padding + trailer is a multiple of this (RFC 4303 §2.4: at least 4)
    cipher_names: Names
    integrity_names: Names | None
    cost: str  # what whoever takes a legacy suite pays; empty for all others

    @property
    def keymat_octets(self) -> int:
        """KEYMAT that one SA consumes, in octets."""
        return self.encryption_octets + self.salt_octets + self.integrity_octets

    @property
    def legacy(self) -> bool:
        """Whether it is for peers that have nothing better, and for those who say that they know."""
        return bool(self.cost)

    @property
    def encrypts(self) -> bool:
        """Whether nobody on the path reads what it carries."""
        return self.cipher not in (Cipher.NULL, Cipher.AES_GMAC)

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


class _Cipher(NamedTuple):
    """A row: ``keys`` in bits, where the length is the peers' choice; ``only`` where there is one; sizes in octets."""

    cipher: Cipher
    name: str  # with the key length for {}
    transform: int
    names: Names
    keys: tuple[int, ...] = (256, 192, 128)
    only: int = 0
    salt: int = 0
    iv: int = 0
    icv: int = 0
    block: int = 4  # RFC 4303 §2.4: what the trailer is aligned to where the cipher asks for less
    cost: str = ""


class _Integrity(NamedTuple):
    """A row: sizes in octets."""

    integrity: Integrity
    name: str
    attribute: int
    key: int
    icv: int
    names: Names
    cost: str = ""


def _gcm(transform: int, icv: int, scapy: str | None) -> _Cipher:
    names = Names("rfc4106(gcm(aes))", f"AES-GCM with {icv} octet ICV [RFC4106]", scapy)
    return _Cipher(Cipher.AES_GCM, f"aes{{}}-gcm{icv}", transform, names, salt=4, iv=8, icv=icv)  # RFC 4106 §3-8


def _ccm(transform: int, icv: int) -> _Cipher:
    names = Names("rfc4309(ccm(aes))", None, "AES-CCM")
    return _Cipher(Cipher.AES_CCM, f"aes{{}}-ccm{icv}", transform, names, salt=3, iv=8, icv=icv)  # RFC 4309 §3-7


# RFC 7634 has an IKEv2 number only; 249 is for private use (RFC 2407 §6.5), and ours: docs/decisions.md.
_CHACHA_NAMES = Names("rfc7539esp(chacha20,poly1305)", None, "CHACHA20-POLY1305")
_COMBINED = (
    _gcm(20, 16, "AES-GCM"),
    _gcm(19, 12, None),
    _gcm(18, 8, None),
    _Cipher(Cipher.CHACHA20_POLY1305, "chacha20-poly1305", 249, _CHACHA_NAMES, (), only=256, salt=4, iv=8, icv=16),
    _ccm(16, 16),
    _ccm(15, 12),
    _ccm(14, 8),
    # RFC 4543 §3, §5.
    _Cipher(Cipher.AES_GMAC, "aes{}-gmac", 23, Names("rfc4543(gcm(aes))", None, "AES-NULL-GMAC"), salt=4, iv=8, icv=16),
)
_SEPARATE = (
    # RFC 3602 §2, §3, §5.
    _Cipher(Cipher.AES_CBC, "aes{}-cbc", 12, Names("cbc(aes)", "AES-CBC [RFC3602]", "AES-CBC"), iv=16, block=16),
    # RFC 3686 §3, §5: its nonce is what others call salt.
    _Cipher(Cipher.AES_CTR, "aes{}-ctr", 13, Names("rfc3686(ctr(aes))", "AES-CTR [RFC3686]", "AES-CTR"), salt=4, iv=8),
    # RFC 4312 §2, §3.
    _Cipher(Cipher.CAMELLIA_CBC, "camellia{}-cbc", 22, Names("cbc(camellia)", None, None), iv=16, block=16),
    # RFC 2410 §2: no key, no IV, blocks of one octet.
    _Cipher(Cipher.NULL, "null", 11, Names("ecb(cipher_null)", "NULL", "NULL"), ()),
    # RFC 2451 §2.
    _Cipher(
        Cipher.TRIPLE_DES_CBC,
        "3des-cbc",
        3,
        Names("cbc(des3_ede)", "TripleDES-CBC [RFC2451]", "3DES"),
        (),
        only=192,
        iv=8,
        block=8,
        # RFC 8221 §5: SHOULD NOT. 2^32 blocks of 2^64 are where two of them can be expected to be equal.
        cost="3DES has blocks of 64 bits: by 32 GB under one key two are equal, and tell what their plaintexts differ "
        "in; and a packet takes some ten times the CPU",
    ),
)
_INTEGRITIES = (
    # RFC 4868 §2.6, RFC 2404 §2-3, RFC 3566 §4, RFC 2403 §2-3.
    _Integrity(
        Integrity.HMAC_SHA2_256_128,
        "sha256",
        5,
        32,
        16,
        Names("hmac(sha256)", "HMAC-SHA-256-128 [RFC4868]", "SHA2-256-128"),
    ),
    _Integrity(
        Integrity.HMAC_SHA2_384_192,
        "sha384",
        6,
        48,
        24,
        Names("hmac(sha384)", "HMAC-SHA-384-192 [RFC4868]", "SHA2-384-192"),
    ),
    _Integrity(
        Integrity.HMAC_SHA2_512_256,
        "sha512",
        7,
        64,
        32,
        Names("hmac(sha512)", "HMAC-SHA-512-256 [RFC4868]", "SHA2-512-256"),
    ),
    _Integrity(Integrity.AES_XCBC_96, "xcbc", 9, 16, 12, Names("xcbc(aes)", None, None)),
    _Integrity(
        Integrity.HMAC_SHA1_96, "sha1", 2, 20, 12, Names("hmac(sha1)", "HMAC-SHA-1-96 [RFC2404]", "HMAC-SHA1-96")
    ),
    _Integrity(
        Integrity.HMAC_MD5_96,
        "md5",
        1,
        16,
        12,
        Names("hmac(md5)", "HMAC-MD5-96 [RFC2403]", "HMAC-MD5-96"),
        # RFC 8221 §6: MUST NOT. HMAC leans on less than what MD5 has lost (RFC 6151 §2.3), and nobody is to lean on it.
        cost="MD5 is broken; HMAC still stands on what is left of it, and RFC 8221 forbids it",
    ),
)


def _suite(row: _Cipher, bits: int, integrity: _Integrity | None) -> Suite:
    name = row.name.format(bits)
    return Suite(
        name=name if integrity is None else f"{name}-{integrity.name}",
        cipher=row.cipher,
        integrity=integrity and integrity.integrity,
        transform=row.transform,
        key_length=bits if row.keys else None,
        authentication=integrity and integrity.attribute,
        encryption_octets=bits // 8,
        salt_octets=row.salt,
        integrity_octets=integrity.key if integrity else 0,
        iv_octets=row.iv,
        icv_octets=integrity.icv if integrity else row.icv,
        block_octets=row.block,
        cipher_names=row.names,
        integrity_names=integrity and integrity.names,
        cost="; ".join(filter(None, (row.cost, integrity.cost if integrity else ""))),
    )


# Of each kind the strongest first.
SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        *(_suite(row, bits, None) for row in _COMBINED for bits in row.keys or (row.only,)),
        *(
            _suite(row, bits, integrity)
            for row in _SEPARATE
            for integrity in _INTEGRITIES
            for bits in row.keys or (row.only,)
        ),
    )
}

# Strongest first; HMAC-SHA1 only where somebody asks for it by name.
DEFAULT_SUITES = (SUITES["aes256-gcm16"], SUITES["aes128-gcm16"], SUITES["aes256-cbc-sha256"])

# How names are made, for whoever has to guess: there are too many to list.
GRAMMAR = (
    "aes{256,192,128}-{gcm16,gcm12,gcm8,ccm16,ccm12,ccm8,gmac}, chacha20-poly1305, or "
    "{aes{256,192,128}-{cbc,ctr},camellia{256,192,128}-cbc,null}-{sha256,sha384,sha512,xcbc,sha1}"
)


def suite_named(name: str) -> Suite:
    """The suite called ``name``.

    Raises:
        UnknownSuite: with the names that are near it, or else with how names are made.
    """
    try:
        return SUITES[name]
    except KeyError:
        near = get_close_matches(name.lower(), [suite.name for suite in SUITES.values() if not suite.legacy])
        raise UnknownSuite(f"a suite (did you mean {' or '.join(near)}?)" if near else f"a suite: {GRAMMAR}") from None
