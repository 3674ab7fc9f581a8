"""scapy as an independent ESP (scapy.layers.ipsec): it seals and opens for one SA."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # scapy imports ciphers that cryptography is about to drop; 3DES alone is used here.
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, IPOption_NOP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import AH, ESP, IPSecIntegrityError, SecurityAssociation

__all__ = ["AH", "IP", "IPOption_NOP", "IPSecIntegrityError", "IPv6", "ScapySa", "scapy_has"]

# By parts of a suite's name: scapy's cipher, octets of salt behind its key (RFC 4106 §8.1, RFC 4309 §7.1, RFC 3686
# §5.1, RFC 4543 §5.4, RFC 7634 §2), octets of its ICV where it has one.
# Written from the RFCs, not from esp.suite: an oracle that reads our table would agree with its mistakes.
_CIPHERS = {
    "gcm16": ("AES-GCM", 4, 16),
    "ccm16": ("AES-CCM", 3, 16),
    "ccm12": ("AES-CCM", 3, 12),
    "ccm8": ("AES-CCM", 3, 8),
    "gmac": ("AES-NULL-GMAC", 4, 16),
    "poly1305": ("CHACHA20-POLY1305", 4, 16),
    "cbc": ("AES-CBC", 0, None),
    "ctr": ("AES-CTR", 4, None),
    "3des": ("3DES", 0, None),
    "null": ("NULL", 0, None),
}
_KEYS = {"aes256": 32, "aes192": 24, "aes128": 16, "chacha20": 32, "3des": 24, "null": 0}
_INTEGRITIES = {
    "sha256": "SHA2-256-128",
    "sha384": "SHA2-384-192",
    "sha512": "SHA2-512-256",
    "sha1": "HMAC-SHA1-96",
    "md5": "HMAC-MD5-96",
}


def _algorithms(suite: str) -> tuple[str, int | None, str | None, int] | None:
    """Cipher, its ICV, integrity, octets of cipher key and salt; None where scapy has not all of it.

    It has no Camellia and no XCBC, and cuts no ICV of GCM.
    """
    parts = suite.split("-")
    cipher = _CIPHERS.get(parts[1 if parts[0].startswith(("aes", "chacha")) else 0])
    if cipher is None or parts[0] not in _KEYS:
        return None
    name, salt, icv = cipher
    if icv is None and parts[-1] not in _INTEGRITIES:
        return None
    return name, icv, _INTEGRITIES.get(parts[-1]), _KEYS[parts[0]] + salt


def scapy_has(suite: str) -> bool:
    """Whether it can be asked."""
    return _algorithms(suite) is not None


class ScapySa:
    """One SA in scapy, in tunnel mode unless told otherwise; it is told the half of a number that is not sent."""

    def __init__(self, suite: str, spi: int, keymat: bytes, *, tunnel: bool = True, esn: bool = False) -> None:
        found = _algorithms(suite)
        assert found is not None
        cipher, icv, integrity, octets = found
        self._outer = IP(src="192.0.2.1", dst="192.0.2.2")
        self._sa = SecurityAssociation(
            ESP,
            spi=spi,
            crypt_algo=cipher,
            crypt_key=keymat[:octets] or None,
            crypt_icv_size=icv,
            auth_algo=integrity,
            auth_key=keymat[octets:] if integrity else None,
            tunnel_header=self._outer if tunnel else None,
            esn_en=esn,
        )

    def seal(self, packet: bytes, sequence: int) -> bytes:
        """The ESP packet, without an outer header, that scapy makes of an inner ``packet``."""
        inner = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
        high, low = divmod(sequence, 2**32)
        self._sa.seq_num = low  # scapy takes zero, the first of a later subspace, for no number
        return bytes(self._sa.encrypt(inner, seq_num=low, esn=high).payload)

    def open(self, datagram: bytes, outer: IP | IPv6 | None = None, *, high: int = 0) -> bytes:
        """The inner packet that scapy finds in an ESP packet; in transport mode ``outer`` is part of it."""
        header = self._outer if outer is None else outer.copy()
        header.remove_payload()
        if isinstance(header, IPv6):
            header.plen, header.nh = None, 50
            return bytes(self._sa.decrypt(IPv6(bytes(header / ESP(datagram))), esn=high))
        header.len, header.chksum, header.proto = None, None, 50
        return bytes(self._sa.decrypt(IP(bytes(header / ESP(datagram))), esn=high))


class ScapyAh:
    """One SA of AH in scapy, between two outer addresses."""

    def __init__(self, suite: str, spi: int, keymat: bytes, source: str, destination: str, *, tunnel: bool) -> None:
        self._layer = IPv6 if ":" in source else IP
        self._sa = SecurityAssociation(
            AH,
            spi=spi,
            auth_algo=_INTEGRITIES[suite.removeprefix("null-")],
            auth_key=keymat,
            tunnel_header=self._layer(src=source, dst=destination) if tunnel else None,
        )

    def sign(self, packet: bytes, sequence: int) -> bytes:
        """The whole packet with AH that scapy makes of ``packet``."""
        inner = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
        return bytes(self._sa.encrypt(inner, seq_num=sequence))

    def verify(self, packet: bytes) -> bytes:
        """What scapy finds in a whole packet with AH. Raises IPSecIntegrityError."""
        return bytes(self._sa.decrypt(self._layer(packet)))
