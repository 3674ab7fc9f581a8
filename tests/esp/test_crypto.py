"""Seal and open: published packets, the two halves of each suite, and what must not open."""

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
every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)


def vectors(name: str) -> list[Any]:
    found = tomllib.loads((VECTORS / name).read_text())["vector"]
    return [pytest.param(vector, id=vector["source"]) for vector in found]


def icv_of(suite: Suite, key: bytes, packet: bytes) -> bytes:
    """The ICV by Python's own HMAC (RFC 2104), cut to the suite's length."""
    digest = hashlib.sha256 if suite.authentication == 5 else hashlib.sha1
    return hmac.digest(key, packet, digest)[: suite.icv_octets]


def sequence_of(packet: bytes) -> int:
    return int.from_bytes(packet[4:8])


@pytest.mark.parametrize("vector", vectors("combined.toml"))
def test_combined_vectors_open_and_seal(vector: dict[str, str]) -> None:
    """With an octet changed anywhere, or another number inferred, nothing opens."""
    suite = SUITES[vector["suite"]]
    packet, keymat, text = (bytes.fromhex(vector[field]) for field in ("packet", "keymat", "text"))
    esn = "sequence" in vector
    sequence = int(vector["sequence"], 16) if esn else sequence_of(packet)

    opener = make_opener(suite, keymat, esn=esn)
    assert opener.open(packet, sequence) == text
    for octet in range(len(packet)):
        with pytest.raises(AuthenticationFailed):
            opener.open(packet[:octet] + bytes([packet[octet] ^ 1]) + packet[octet + 1 :], sequence)
    for bit in range(32, 64) if esn else ():
        with pytest.raises(AuthenticationFailed):
            opener.open(packet, sequence ^ 1 << bit)

    # The mask that makes the vector's IV.
    mask = (int.from_bytes(packet[8:16]) ^ sequence).to_bytes(8)
    sealer = make_sealer(suite, int.from_bytes(packet[:4]), keymat, lambda octets: mask[:octets], esn=esn)
    assert sealer.seal(sequence, text) == packet


INTEGRITY_KEYS = {"aes128-cbc-sha256": bytes(range(32)), "aes128-cbc-sha1": bytes(range(20))}


@pytest.mark.parametrize("esn", [False, True], ids=["32 bits", "esn"])
@pytest.mark.parametrize("suite", [SUITES[name] for name in INTEGRITY_KEYS], ids=lambda suite: suite.name)
@pytest.mark.parametrize("vector", vectors("cbc.toml"))
def test_cbc_vectors_open_and_seal(vector: dict[str, str], suite: Suite, esn: bool) -> None:
    key, packet, text = (bytes.fromhex(vector[field]) for field in ("key", "packet", "text"))
    integrity_key = INTEGRITY_KEYS[suite.name]
    high = 0x0102_0304 if esn else 0
    # RFC 4303 §3.3.2.1: the high half is authenticated where it would stand behind the packet.
    whole = packet + icv_of(suite, integrity_key, packet + (high.to_bytes(4) if esn else b""))
    sequence = high << 32 | sequence_of(packet)

    assert make_opener(suite, key + integrity_key, esn=esn).open(whole, sequence) == text

    # The randomness that makes the vector's IV: its decryption, as the first block of a chain that starts with zeros.
    random = Cipher(algorithms.AES(key), modes.ECB()).decryptor().update(packet[8:24])
    spi = int.from_bytes(packet[:4])
    sealer = make_sealer(suite, spi, key + integrity_key, lambda octets: random[:octets], esn=esn)
    assert sealer.seal(sequence, text) == whole


@given(
    EACH, st.booleans(), st.integers(0, 2**32), st.lists(st.binary(max_size=200), min_size=1, max_size=6), st.randoms()
)
def test_what_is_sealed_opens_in_any_order(
    suite: Suite, esn: bool, seed: int, texts: list[bytes], order: Random
) -> None:
    keymat = Random(seed).randbytes(suite.keymat_octets)
    sealer, opener = (
        make_sealer(suite, SPI, keymat, Random(seed).randbytes, esn=esn),
        make_opener(suite, keymat, esn=esn),
    )
    padded = [text + bytes(-len(text) % suite.block_octets) for text in texts]
    sealed = [(number, sealer.seal(number, text), text) for number, text in enumerate(padded, 2**32 - 2 if esn else 1)]
    order.shuffle(sealed)
    for number, packet, text in sealed:
        assert len(packet) == 8 + suite.iv_octets + len(text) + suite.icv_octets
        assert packet[:8] == SPI.to_bytes(4) + (number & 0xFFFFFFFF).to_bytes(4)
        assert opener.open(packet, number) == text


@given(EACH, st.integers(1, 2**64 - 1), st.integers(0, 31))
def test_extended_numbers_are_authenticated_to_the_last_bit(suite: Suite, sequence: int, bit: int) -> None:
    """The high half is not sent (RFC 4303 §2.2.1); who infers another one than was meant opens nothing."""
    keymat = Random(bit).randbytes(suite.keymat_octets)
    packet = make_sealer(suite, SPI, keymat, Random(2).randbytes, esn=True).seal(sequence, bytes(48))
    opener = make_opener(suite, keymat, esn=True)
    assert opener.open(packet, sequence) == bytes(48)
    with pytest.raises(AuthenticationFailed):
        opener.open(packet, sequence ^ 1 << 32 + bit)
    with pytest.raises(AuthenticationFailed):
        make_opener(suite, keymat).open(packet, sequence)


@given(EACH, st.booleans(), st.binary(min_size=16, max_size=64), st.data())
@settings(max_examples=300)
def test_no_mutation_opens_and_none_spoils_what_follows(
    suite: Suite, esn: bool, text: bytes, data: st.DataObject
) -> None:
    keymat = Random(1).randbytes(suite.keymat_octets)
    sealer, opener = make_sealer(suite, SPI, keymat, Random(2).randbytes, esn=esn), make_opener(suite, keymat, esn=esn)
    text = text[: len(text) // 16 * 16]
    packet = sealer.seal(1, text)
    bit = data.draw(st.integers(0, 8 * len(packet) - 1))
    mutated = (int.from_bytes(packet) ^ 1 << bit).to_bytes(len(packet))
    with pytest.raises(AuthenticationFailed):
        opener.open(mutated, 1)
    assert opener.open(packet, 1) == text


@every_suite
def test_a_bit_of_every_field_counts(suite: Suite) -> None:
    """SPI, sequence number, IV, ciphertext and ICV; and of the keys, cipher's, salt and integrity's."""
    keymat = bytes(suite.keymat_octets)
    packet = make_sealer(suite, SPI, keymat, Random(1).randbytes).seal(1, bytes(48))
    opener = make_opener(suite, keymat)
    for octet in range(len(packet)):
        with pytest.raises(AuthenticationFailed):
            opener.open(packet[:octet] + bytes([packet[octet] ^ 0x80]) + packet[octet + 1 :], 1)
    assert opener.open(packet, 1) == bytes(48)
    # A cipher's key alone makes another text, which is for the ICV to know: it is over the ciphertext.
    for octet in range(0 if suite.integrity is None else suite.encryption_octets + suite.salt_octets, len(keymat)):
        other = keymat[:octet] + b"\1" + keymat[octet + 1 :]
        with pytest.raises(AuthenticationFailed):
            make_opener(suite, other).open(packet, 1)


@every_suite
def test_no_iv_comes_twice_even_when_the_key_does(suite: Suite) -> None:
    """A CREATE that was kept back over the responder's restart brings the same KEYMAT, and the counter starts again."""
    if not suite.iv_octets:
        return
    ivs = [
        sealer.seal(number, bytes(16))[8 : 8 + suite.iv_octets]
        for sealer in (make_sealer(suite, SPI, bytes(suite.keymat_octets), Random(seed).randbytes) for seed in (1, 2))
        for number in range(1, 200)
    ]
    assert len(set(ivs)) == len(ivs)


@pytest.mark.parametrize(
    "name", ["aes256-gcm16", "aes128-ccm8", "aes256-ctr-sha256", "aes128-gmac", "chacha20-poly1305"]
)
@given(st.integers(0, 2**64 - 1), st.sets(st.integers(1, 2**64 - 1), min_size=2, max_size=20))
def test_counters_of_64_bits_make_as_many_ivs(name: str, mask: int, numbers: set[int]) -> None:
    """Whatever the mask: numbers that differ in their high half alone, whose low half is the same on the wire, too."""
    suite = SUITES[name]
    sealer = make_sealer(suite, SPI, bytes(suite.keymat_octets), lambda _: mask.to_bytes(8), esn=True)
    numbers |= {number ^ 1 << 32 for number in numbers}
    assert len({sealer.seal(number, bytes(16))[8:16] for number in numbers}) == len(numbers)


@pytest.mark.parametrize("name", ["aes256-cbc-sha256", "camellia128-cbc-xcbc", "3des-cbc-sha1"])
def test_the_cbc_iv_is_not_the_block_before(name: str) -> None:
    """A chain through all packets is fast, and its last block is known to everybody: the IV must be another."""
    suite = SUITES[name]
    block = suite.block_octets
    sealer = make_sealer(suite, SPI, Random(2).randbytes(suite.keymat_octets), Random(1).randbytes)
    packets = [sealer.seal(number, bytes(2 * block)) for number in range(1, 200)]
    blocks = {packet[at : at + block] for packet in packets for at in range(8, 8 + 3 * block, block)}
    assert len(blocks) == 199 * 3


@every_suite
def test_keys_do_not_show(suite: Suite) -> None:
    keymat = (b"SECRETS!" * 20)[: suite.keymat_octets]
    for half in (make_sealer(suite, SPI, keymat, Random(1).randbytes), make_opener(suite, keymat)):
        assert "SECRET" not in repr(half)
    with pytest.raises(AuthenticationFailed) as raised:
        make_opener(suite, keymat).open(bytes(8 + suite.iv_octets + 16 + suite.icv_octets), 0)
    assert raised.value.args == ()
    assert raised.value.__cause__ is None
