"""scapy as an independent ESP (scapy.layers.ipsec): it seals and opens for one SA."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # scapy imports ciphers that cryptography is about to drop; none of them is used here.
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, IPOption_NOP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation

__all__ = ["IP", "IPOption_NOP", "IPSecIntegrityError", "IPv6", "ScapySa"]

# Suite by name: scapy's cipher, its integrity, octets of cipher key (with the salt of RFC 4106 §8.1 behind it).
# Written from the RFCs, not from esp.suite: an oracle that reads our table would agree with its mistakes.
_ALGORITHMS = {
    "aes256-gcm16": ("AES-GCM", None, 36),
    "aes192-gcm16": ("AES-GCM", None, 28),
    "aes128-gcm16": ("AES-GCM", None, 20),
    "aes256-cbc-sha256": ("AES-CBC", "SHA2-256-128", 32),
    "aes192-cbc-sha256": ("AES-CBC", "SHA2-256-128", 24),
    "aes128-cbc-sha256": ("AES-CBC", "SHA2-256-128", 16),
    "aes256-cbc-sha1": ("AES-CBC", "HMAC-SHA1-96", 32),
    "aes192-cbc-sha1": ("AES-CBC", "HMAC-SHA1-96", 24),
    "aes128-cbc-sha1": ("AES-CBC", "HMAC-SHA1-96", 16),
}


class ScapySa:
    """One SA in scapy, in tunnel mode unless told otherwise; it is told the half of a number that is not sent."""

    def __init__(self, suite: str, spi: int, keymat: bytes, *, tunnel: bool = True, esn: bool = False) -> None:
        cipher, integrity, octets = _ALGORITHMS[suite]
        self._outer = IP(src="192.0.2.1", dst="192.0.2.2")
        self._sa = SecurityAssociation(
            ESP,
            spi=spi,
            crypt_algo=cipher,
            crypt_key=keymat[:octets],
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
