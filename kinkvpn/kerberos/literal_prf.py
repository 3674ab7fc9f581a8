"""The PRF of AES as RFC 3962 has it to the letter, which no library does: for peers that read it so (RFC 4430 §5.2)."""

from __future__ import annotations

import math

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA1, Hash


def literal_prf(key: bytes, octets: bytes) -> bytes:
    """E(DK(key, "prf"), SHA-1(octets)), zero IV, ciphertext stealing (RFC 3961 §5.3, RFC 3962 §5): 20 octets."""
    hashed = sha1(octets)
    encrypt = Cipher(algorithms.AES(derive(key, b"prf")), modes.ECB()).encryptor().update  # noqa: S305 - CTS by hand
    first = encrypt(hashed[:16])
    padded = hashed[16:] + bytes(12)
    last = encrypt(bytes(a ^ b for a, b in zip(first, padded, strict=True)))
    return last + first[:4]


def sha1(octets: bytes) -> bytes:
    """RFC 3962 §6 has no other hash."""
    state = Hash(SHA1())  # noqa: S303 - as a PRF's compression, not for collisions
    state.update(octets)
    return state.finalize()


def derive(key: bytes, constant: bytes) -> bytes:
    """DK of RFC 3961 §5.1 for AES, whose random-to-key is the identity."""
    encrypt = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update  # noqa: S305 - one block at a time
    block, stream = n_fold(constant, 16), b""
    while len(stream) < len(key):
        block = encrypt(block)
        stream += block
    return stream[: len(key)]


def n_fold(octets: bytes, size: int) -> bytes:
    """RFC 3961 §5.1: copies, each rotated 13 bits further to the right, added in ones' complement, ``size`` octets."""
    stream = b"".join(rotated(octets, 13 * copy) for copy in range(math.lcm(len(octets), size) // len(octets)))
    modulus = (1 << 8 * size) - 1
    total = sum(int.from_bytes(stream[at : at + size], "big") for at in range(0, len(stream), size))
    return (total % modulus or modulus).to_bytes(size, "big")


def rotated(octets: bytes, turn: int) -> bytes:
    """``octets`` as one number, turned ``turn`` bits to the right."""
    bits, value = 8 * len(octets), int.from_bytes(octets, "big")
    twice = value << bits | value
    return (twice >> turn % bits & (1 << bits) - 1).to_bytes(len(octets), "big")
