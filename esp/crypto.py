"""Seal and open: bytes and a sequence number in, bytes out; every suite by one of two ways (RFC 4303 §3.3.2, §3.4.4).

One cipher context for each SA, set up once: a key schedule for each packet would cost more than sealing it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from esp.combined import CombinedOpener, CombinedSealer, EsnCombinedOpener, EsnCombinedSealer, make_aead
from esp.integrity import make_icv
from esp.separate import SeparateOpener, SeparateSealer, make_decryption, make_encryption

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
    # The IV of every counter mode (GCM, CCM, CTR, GMAC, ChaCha20) is the sequence number, the one counter that cannot
    # repeat within an SA, under this mask. The mask is for a key that comes twice: whoever keeps back a retransmission
    # of a CREATE until the responder has restarted gets the same session key, SPI and Ni, so the same KEYMAT (RFC 4430
    # §7), with the counter at the start again. All of them ask that an IV be unique under a key, however it is made
    # (RFC 4106 §3.1, RFC 4309 §3.1, RFC 3686 §3.1, RFC 4543 §3.1, RFC 7634 §2). 64 bits, so that it holds with extended
    # numbers too.
    mask = int.from_bytes(random(8))
    if suite.integrity is None:
        return (EsnCombinedSealer if esn else CombinedSealer)(spi, salt, mask, make_aead(suite, key))
    encryption = make_encryption(suite, key, salt, random, mask)
    return SeparateSealer(spi, encryption, make_icv(suite.integrity, integrity_key), esn=esn)


def make_opener(suite: Suite, keymat: bytes, *, esn: bool = False) -> Opener:
    """The opener of ``suite`` under ``keymat``; arguments as those of :func:`make_sealer`."""
    key, salt, integrity_key = suite.split(keymat)
    if suite.integrity is None:
        return (EsnCombinedOpener if esn else CombinedOpener)(salt, make_aead(suite, key))
    icv = make_icv(suite.integrity, integrity_key)
    return SeparateOpener(make_decryption(suite, key, salt), icv, suite.icv_octets, esn=esn)
