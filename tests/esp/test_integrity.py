"""ICVs against published ones, and against Python's own HMAC."""

from __future__ import annotations

import hmac
import tomllib
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from support.published import records

from esp.integrity import make_icv
from esp.suite import Integrity

XCBC = tomllib.loads((Path(__file__).parents[1] / "vectors" / "esp" / "xcbc.toml").read_text())["vector"]
HMACS = {
    Integrity.HMAC_MD5_96: ("HMAC/rfc-2202-md5.txt", "md5", 12),
    Integrity.HMAC_SHA1_96: ("HMAC/rfc-2202-sha1.txt", "sha1", 12),
    Integrity.HMAC_SHA2_256_128: ("HMAC/rfc-4231-sha256.txt", "sha256", 16),
    Integrity.HMAC_SHA2_384_192: ("HMAC/rfc-4231-sha384.txt", "sha384", 24),
    Integrity.HMAC_SHA2_512_256: ("HMAC/rfc-4231-sha512.txt", "sha512", 32),
}


@pytest.mark.parametrize("integrity", HMACS)
def test_hmacs_are_the_published_ones_cut_short(integrity: Integrity) -> None:
    path, _, octets = HMACS[integrity]
    found = list(records(path, "md"))
    assert len(found) >= 6
    for record in found:
        key, message = bytes.fromhex(record["key"]), bytes.fromhex(record["msg"])
        assert make_icv(integrity, key).of(message) == bytes.fromhex(record["md"])[:octets]
        assert make_icv(integrity, key).of(message + b"\0") != bytes.fromhex(record["md"])[:octets]


@pytest.mark.parametrize("vector", XCBC, ids=lambda vector: vector["source"])
def test_xcbc_is_the_published_one(vector: dict[str, str]) -> None:
    message = bytes.fromhex(vector.get("message", "")) or bytes(int(vector.get("zeros", 0)))
    icv = make_icv(Integrity.AES_XCBC_96, bytes.fromhex(vector["key"]))
    assert icv.of(message).hex() == vector["icv"]
    assert icv.of(message + b"\0").hex() != vector["icv"]
    assert icv.of(message).hex() == vector["icv"], "whatever came before"


def slow_xcbc(key: bytes, message: bytes) -> bytes:
    """RFC 3566 §4, step by step, with a cipher for each MAC."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    one, two, three = (ecb.update(bytes([number] * 16)) for number in (1, 2, 3))
    blocks = [message[at : at + 16] for at in range(0, len(message), 16)] or [b""]
    block, last = b"", bytes(16)
    for block in blocks[:-1]:
        last = _encrypt(one, _xor(block, last))
    block, key = (blocks[-1], two) if len(blocks[-1]) == 16 else (blocks[-1] + b"\x80", three)
    return _encrypt(one, _xor(_xor(block.ljust(16, b"\0"), last), key))[:12]


def _encrypt(key: bytes, block: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


@given(st.sampled_from(Integrity), st.integers(0, 2**32), st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_icvs_do_not_depend_on_those_before(integrity: Integrity, seed: int, messages: list[bytes]) -> None:
    key = Random(seed).randbytes(16)
    icv = make_icv(integrity, key)
    for message in messages:
        if integrity is Integrity.AES_XCBC_96:
            assert icv.of(message) == slow_xcbc(key, message)
        else:
            _, digest, octets = HMACS[integrity]
            assert icv.of(message) == hmac.digest(key, message, digest)[:octets]
