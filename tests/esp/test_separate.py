"""Ciphers without an ICV of their own, against published vectors."""

from __future__ import annotations

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import Camellia, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from support.published import records

from esp.separate import make_decryption, make_encryption
from esp.suite import SUITES

FILES = {
    **{f"aes{bits}-cbc-sha256": (AES, f"ciphers/AES/CBC/CBCMMT{bits}.rsp") for bits in (128, 192, 256)},
    **{f"camellia{bits}-cbc-sha256": (Camellia, "ciphers/Camellia/camellia-cbc.txt") for bits in (128, 192, 256)},
    "3des-cbc-sha256": (TripleDES, "ciphers/3DES/CBC/TCBCMMT3.rsp"),
}


def key_of(record: dict[str, str]) -> bytes:
    return bytes.fromhex(record.get("key") or record["key1"] + record["key2"] + record["key3"])


@pytest.mark.parametrize("name", FILES)
def test_cbc(name: str) -> None:
    """The IV of a vector is what the right randomness would have made it: its decryption."""
    algorithm, path = FILES[name]
    suite = SUITES[name]
    found = [record for record in records(path, "count") if len(key_of(record)) == suite.encryption_octets]
    assert len(found) >= 4
    for record in found:
        key, iv, text, ciphertext = (
            key_of(record),
            *map(bytes.fromhex, map(record.get, ("iv", "plaintext", "ciphertext"))),
        )
        random = Cipher(algorithm(key), modes.ECB()).decryptor().update(iv)
        encryption = make_encryption(suite, key, b"", lambda octets: random[:octets], 0)  # noqa: B023
        assert encryption.encrypt(1, text) == iv + ciphertext
        decryption = make_decryption(suite, key, b"")
        assert decryption.decrypt(iv + ciphertext) == text
        assert decryption.decrypt(iv + ciphertext) == text, "whatever came before"


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_ctr(bits: int) -> None:
    """RFC 3686 §6."""
    suite = SUITES[f"aes{bits}-ctr-sha256"]
    found = list(records(f"ciphers/AES/CTR/aes-{bits}-ctr.txt", "count"))
    assert len(found) == 3
    for record in found:
        key, block, text, ciphertext = (
            bytes.fromhex(record[name]) for name in ("key", "iv", "plaintext", "ciphertext")
        )
        salt, iv = block[:4], block[4:12]
        mask = 0x1234_5678_9ABC_DEF0
        encryption = make_encryption(suite, key, salt, bytes, mask)
        assert encryption.encrypt(int.from_bytes(iv) ^ mask, text) == iv + ciphertext
        assert make_decryption(suite, key, salt).decrypt(iv + ciphertext) == text


def test_null() -> None:
    """RFC 2410 §2: NULL(b) = I(b) = b."""
    suite = SUITES["null-sha256"]
    assert make_encryption(suite, b"", b"", bytes, 0).encrypt(1, b"text") == b"text"
    assert make_decryption(suite, b"", b"").decrypt(b"text") == b"text"
