"""Seal and open: published vectors, the two halves of each suite, and what must not open."""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from esp.crypto import make_opener, make_sealer
from esp.errors import AuthenticationFailed
from esp.suite import SUITES, Suite

VECTORS = Path(__file__).parents[1] / "vectors" / "esp"
SPI = 0xC0FFEE00
EACH = st.sampled_from(sorted(SUITES.values(), key=lambda suite: suite.name))


def vectors(name: str) -> list[Any]:
    found = tomllib.loads((VECTORS / name).read_text())["vector"]
    return [pytest.param(vector, id=vector["source"]) for vector in found]


def icv_of(suite: Suite, key: bytes, packet: bytes) -> bytes:
    """The ICV by Python's own HMAC (RFC 2104), cut to the suite's length."""
    digest = hashlib.sha256 if suite.authentication == 5 else hashlib.sha1
    return hmac.digest(key, packet, digest)[: suite.icv_octets]


def sequence_of(packet: bytes, high: int = 0) -> int:
    return high << 32 | int.from_bytes(packet[4:8])


@pytest.mark.parametrize("vector", vectors("gcm.toml"))
def test_gcm_vectors_open(vector: dict[str, str]) -> None:
    packet, keymat = bytes.fromhex(vector["packet"]), bytes.fromhex(vector["keymat"])
    opener = make_opener(SUITES[vector["suite"]], keymat)
    assert opener.open(packet, sequence_of(packet)) == bytes.fromhex(vector["text"])
    for octet in range(len(packet)):
        with pytest.raises(AuthenticationFailed):
            opener.open(packet[:octet] + bytes([packet[octet] ^ 1]) + packet[octet + 1 :], sequence_of(packet))


INTEGRITY_KEYS = {"aes128-cbc-sha256": bytes(range(32)), "aes128-cbc-sha1": bytes(range(20))}


@pytest.mark.parametrize("suite", [SUITES[name] for name in INTEGRITY_KEYS], ids=lambda suite: suite.name)
@pytest.mark.parametrize("vector", vectors("cbc.toml"))
def test_cbc_vectors_open_and_seal(vector: dict[str, str], suite: Suite) -> None:
    key, packet, text = (bytes.fromhex(vector[field]) for field in ("key", "packet", "text"))
    integrity_key = INTEGRITY_KEYS[suite.name]
    whole = packet + icv_of(suite, integrity_key, packet)

    assert make_opener(suite, key + integrity_key).open(whole, sequence_of(whole)) == text

    # The randomness that makes the vector's IV: its decryption, as the first block of a chain that starts with zeros.
    random = Cipher(algorithms.AES(key), modes.ECB()).decryptor().update(packet[8:24])
    spi, sequence = int.from_bytes(packet[:4]), int.from_bytes(packet[4:8])
    sealer = make_sealer(suite, spi, key + integrity_key, lambda octets: random[:octets])
    assert sealer.seal(sequence, text) == whole


@given(EACH, st.integers(0, 2**32), st.lists(st.binary(max_size=200), min_size=1, max_size=6), st.randoms())
def test_what_is_sealed_opens_in_any_order(suite: Suite, seed: int, texts: list[bytes], order: Random) -> None:
    keymat = Random(seed).randbytes(suite.keymat_octets)
    sealer, opener = make_sealer(suite, SPI, keymat, Random(seed).randbytes), make_opener(suite, keymat)
    padded = [text + bytes(-len(text) % suite.block_octets) for text in texts]
    sealed = [(sealer.seal(number, text), text) for number, text in enumerate(padded, 1)]
    order.shuffle(sealed)
    for packet, text in sealed:
        assert len(packet) == 8 + suite.iv_octets + len(text) + suite.icv_octets
        assert opener.open(packet, sequence_of(packet)) == text


@given(EACH, st.integers(1, 2**64 - 1), st.integers(0, 63))
def test_extended_numbers_are_authenticated_to_the_last_bit(suite: Suite, sequence: int, bit: int) -> None:
    """The high half is not sent (RFC 4303 §2.2.1); who infers another one than was meant opens nothing."""
    keymat = Random(bit).randbytes(suite.keymat_octets)
    packet = make_sealer(suite, SPI, keymat, Random(2).randbytes, esn=True).seal(sequence, bytes(32))
    assert packet[:8] == SPI.to_bytes(4) + (sequence & 0xFFFFFFFF).to_bytes(4)
    opener = make_opener(suite, keymat, esn=True)
    assert opener.open(packet, sequence) == bytes(32)
    with pytest.raises(AuthenticationFailed):
        opener.open(packet, sequence ^ 1 << 32 + bit % 32)
    with pytest.raises(AuthenticationFailed):
        make_opener(suite, keymat).open(packet, sequence)


@given(EACH, st.binary(min_size=16, max_size=64), st.data())
@settings(max_examples=50)
def test_no_mutation_opens_and_none_spoils_what_follows(suite: Suite, text: bytes, data: st.DataObject) -> None:
    keymat = Random(1).randbytes(suite.keymat_octets)
    sealer, opener = make_sealer(suite, SPI, keymat, Random(2).randbytes), make_opener(suite, keymat)
    text = text[: len(text) // 16 * 16]
    packet = sealer.seal(1, text)
    bit = data.draw(st.integers(0, 8 * len(packet) - 1))
    mutated = (int.from_bytes(packet) ^ 1 << bit).to_bytes(len(packet))
    with pytest.raises(AuthenticationFailed):
        opener.open(mutated, 1)
    assert opener.open(packet, 1) == text


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_another_key_does_not_open(suite: Suite) -> None:
    keymat = bytes(suite.keymat_octets)
    packet = make_sealer(suite, SPI, keymat, Random(1).randbytes).seal(1, bytes(32))
    # The last octet is of the salt in one kind of suite, and of the integrity key in the other.
    for octet in (0, len(keymat) - 1) if suite.integrity is None else (len(keymat) - 1,):
        other = bytearray(keymat)
        other[octet] ^= 1
        with pytest.raises(AuthenticationFailed):
            make_opener(suite, bytes(other)).open(packet, 1)


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_no_iv_comes_twice(suite: Suite) -> None:
    sealer = make_sealer(suite, SPI, bytes(suite.keymat_octets), Random(1).randbytes)
    ivs = {sealer.seal(number, bytes(32))[8 : 8 + suite.iv_octets] for number in range(1, 2000)}
    assert len(ivs) == 1999


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_no_iv_comes_twice_when_the_key_does(suite: Suite) -> None:
    """A CREATE that was kept back over the responder's restart brings the same KEYMAT, and the counter starts again."""
    ivs = [
        sealer.seal(number, bytes(32))[8 : 8 + suite.iv_octets]
        for sealer in (make_sealer(suite, SPI, bytes(suite.keymat_octets), Random(seed).randbytes) for seed in (1, 2))
        for number in range(1, 1000)
    ]
    assert len(set(ivs)) == len(ivs)


def test_the_cbc_iv_is_not_the_block_before() -> None:
    """A chain through all packets is fast, and its last block is known to everybody: the IV must be another."""
    suite = SUITES["aes256-cbc-sha256"]
    sealer = make_sealer(suite, SPI, bytes(suite.keymat_octets), Random(1).randbytes)
    packets = [sealer.seal(number, bytes(32)) for number in range(1, 200)]
    blocks = {packet[at : at + 16] for packet in packets for at in range(8, len(packet) - 16, 16)}
    assert len(blocks) == 199 * 3


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_keys_do_not_show(suite: Suite) -> None:
    keymat = b"SECRETS!" * 10
    for half in (
        make_sealer(suite, SPI, keymat[: suite.keymat_octets], Random(1).randbytes),
        make_opener(suite, keymat[: suite.keymat_octets]),
    ):
        assert "SECRET" not in repr(half)
    with pytest.raises(AuthenticationFailed) as raised:
        make_opener(suite, keymat[: suite.keymat_octets]).open(bytes(8 + suite.iv_octets + 16 + suite.icv_octets), 0)
    assert raised.value.args == ()
    assert raised.value.__cause__ is None
