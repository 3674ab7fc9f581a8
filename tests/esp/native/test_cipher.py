"""Suites in C: by every library that offers one, against the reference, which knows nothing of them."""

from __future__ import annotations

import hashlib
import hmac
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.crypto import make_opener, make_sealer
from esp.native._core import IPSEC_MB, LIBRARIES, OPENSSL, Cipher, library_name, offered, preferred
from esp.suite import SUITES, Suite
from esp.suite import Cipher as Algorithm

VECTORS = Path(__file__).parents[2] / "vectors" / "esp"
SPI = bytes.fromhex("c0ffee00")
SEED = Random(5).randbytes(32)
LIBRARY_NAMES = {OPENSSL: "openssl", IPSEC_MB: "ipsec-mb"}
OFFERED = [(suite, library) for suite in SUITES.values() for library in LIBRARIES if offered(suite, library)]
COUNTERS = {
    Algorithm.AES_GCM,
    Algorithm.AES_CCM,
    Algorithm.AES_GMAC,
    Algorithm.CHACHA20_POLY1305,
    Algorithm.AES_CTR,
    Algorithm.NULL,
}


def named(value: object) -> str | None:
    return value.name if isinstance(value, Suite) else LIBRARY_NAMES[value] if type(value) is int else None


every_one = pytest.mark.parametrize(("suite", "library"), OFFERED, ids=named)
both_numbers = pytest.mark.parametrize("esn", [False, True], ids=["32 bits", "esn"])


class Native:
    """A suite's two halves under one KEYMAT, with packets as octets that nobody changes."""

    def __init__(self, suite: Suite, library: int, keymat: bytes, *, esn: bool, seed: bytes = SEED) -> None:
        self._suite = suite
        self._sealer, self._opener = (
            Cipher(suite, keymat, esn=esn, sealing=sealing, library=library, seed=seed) for sealing in (True, False)
        )

    def seal(self, sequence: int, text: bytes, spi: bytes = SPI) -> bytes:
        header = spi + (sequence & 0xFFFFFFFF).to_bytes(4)
        packet = bytearray(header + bytes(self._suite.iv_octets) + text + bytes(self._suite.icv_octets))
        self._sealer.seal(packet, len(text), sequence)
        return bytes(packet)

    def open(self, packet: bytes, sequence: int) -> bytes | None:
        """None for what is refused."""
        before, after = 8 + self._suite.iv_octets, self._suite.icv_octets
        text = len(packet) - before - after
        opened = bytearray(packet)
        return bytes(opened[before : before + text]) if self._opener.open(opened, text, sequence) else None


def flipped(packet: bytes, bit: int) -> bytes:
    return packet[: bit // 8] + bytes([packet[bit // 8] ^ 1 << bit % 8]) + packet[bit // 8 + 1 :]


def vectors(file: str, *names: str) -> list[Any]:
    """Those of ``file``, for the suites ``names`` or those that they name, each by every library that offers it."""
    return [
        pytest.param(vector, SUITES[name], library, id=f"{vector['source']}, {name}, {LIBRARY_NAMES[library]}")
        for vector in tomllib.loads((VECTORS / file).read_text())["vector"]
        for name in names or (vector["suite"],)
        for library in LIBRARIES
        if offered(SUITES[name], library)
    ]


def test_openssl_is_there() -> None:
    assert (library_name(OPENSSL) or "").startswith("OpenSSL 3")
    assert library_name(max(LIBRARIES) + 1) is None
    assert library_name(-1) is None


def test_openssl_offers_every_suite() -> None:
    assert [name for name, suite in SUITES.items() if not offered(suite, OPENSSL)] == []


def test_the_preferred_library_is_one_that_offers_the_suite() -> None:
    assert all(offered(suite, preferred(suite)) for suite, _ in OFFERED)


@every_one
@both_numbers
def test_it_is_the_reference(suite: Suite, library: int, esn: bool) -> None:
    """Each opens what the other has sealed; and where IVs are counters, under one mask, the octets are the same."""
    random = Random(7)
    keymat = random.randbytes(suite.keymat_octets)
    native = Native(suite, library, keymat, esn=esn)
    sealer = make_sealer(suite, int.from_bytes(SPI), keymat, lambda octets: SEED[:octets], esn=esn)
    opener = make_opener(suite, keymat, esn=esn)
    blocks = (*range(20), 1424 // suite.block_octets, 9008 // suite.block_octets)
    # Not in order: a packet leaves nothing behind for the next.
    for number, octets in enumerate(random.sample([suite.block_octets * count for count in blocks], len(blocks))):
        sequence = 2**32 - 10 + number if esn else 1 + number
        text = random.randbytes(octets)
        ours, theirs = native.seal(sequence, text), sealer.seal(sequence, text)
        assert opener.open(ours, sequence) == text
        assert native.open(theirs, sequence) == text
        assert ours == theirs or suite.cipher not in COUNTERS


@every_one
@both_numbers
def test_every_bit_counts(suite: Suite, library: int, esn: bool) -> None:
    """Of the packet, of the number that is inferred, and of the keys behind the ICV; a refusal changes nothing."""
    keymat = Random(8).randbytes(suite.keymat_octets)
    native = Native(suite, library, keymat, esn=esn)
    text = Random(9).randbytes(32)
    packet = native.seal(1 << 40 | 77, text)
    for bit in range(len(packet) * 8):
        assert native.open(flipped(packet, bit), 1 << 40 | 77) is None
    for bit in range(32, 64):
        assert native.open(packet, (1 << 40 | 77) ^ 1 << bit) == (None if esn else text)
    assert native.open(packet, 1 << 40 | 77) == text
    keys = range(0 if suite.integrity is None else suite.encryption_octets + suite.salt_octets, len(keymat))
    for octet in keys:
        assert Native(suite, library, flipped(keymat, octet * 8), esn=esn).open(packet, 1 << 40 | 77) is None


@every_one
def test_packets_lie_anywhere(suite: Suite, library: int) -> None:
    """At any offset, with nothing written before or behind."""
    keymat = Random(10).randbytes(suite.keymat_octets)
    text = Random(11).randbytes(48)
    opener = make_opener(suite, keymat)
    begin, octets = 8 + suite.iv_octets, 8 + suite.iv_octets + len(text) + suite.icv_octets
    for before in range(1, 17):
        native = [
            Cipher(suite, keymat, esn=False, sealing=sealing, library=library, seed=SEED) for sealing in (True, False)
        ]
        room = bytearray(b"\xa5" * (before + octets + 32))
        packet = memoryview(room)[before : before + octets]
        packet[:8], packet[begin : begin + len(text)] = SPI + (5).to_bytes(4), text
        native[0].seal(packet, len(text), 5)
        assert opener.open(bytes(packet), 5) == text
        assert native[1].open(packet, len(text), 5)
        assert packet[begin : begin + len(text)] == text
        assert set(room[:before]) | set(room[before + octets :]) == {0xA5}


@pytest.mark.parametrize(("vector", "suite", "library"), vectors("combined.toml"))
def test_combined_vectors_open_and_seal(vector: dict[str, str], suite: Suite, library: int) -> None:
    """With a bit changed anywhere, nothing opens."""
    packet, keymat, text = (bytes.fromhex(vector[field]) for field in ("packet", "keymat", "text"))
    esn = "sequence" in vector
    sequence = int(vector["sequence"], 16) if esn else int.from_bytes(packet[4:8])
    mask = (int.from_bytes(packet[8:16]) ^ sequence).to_bytes(8)
    native = Native(suite, library, keymat, esn=esn, seed=mask + bytes(24))

    assert native.open(packet, sequence) == text
    assert native.seal(sequence, text, packet[:4]) == packet
    for bit in range(len(packet) * 8):
        assert native.open(flipped(packet, bit), sequence) is None


@both_numbers
@pytest.mark.parametrize(("vector", "suite", "library"), vectors("cbc.toml", "aes128-cbc-sha256", "aes128-cbc-sha1"))
def test_cbc_vectors_open(vector: dict[str, str], suite: Suite, library: int, esn: bool) -> None:
    """The ICV by Python's own HMAC (RFC 2104); with a bit changed anywhere, nothing opens."""
    key, packet, text = (bytes.fromhex(vector[field]) for field in ("key", "packet", "text"))
    integrity_key = bytes(range(suite.integrity_octets))
    high = 0x0102_0304 if esn else 0
    digest = hashlib.sha256 if suite.authentication == 5 else hashlib.sha1
    # RFC 4303 §3.3.2.1: the high half is authenticated where it would stand behind the packet.
    icv = hmac.digest(integrity_key, packet + (high.to_bytes(4) if esn else b""), digest)
    packet += icv[: suite.icv_octets]
    sequence = high << 32 | int.from_bytes(packet[4:8])

    native = Native(suite, library, key + integrity_key, esn=esn)
    for bit in range(len(packet) * 8):
        assert native.open(flipped(packet, bit), sequence) is None
    assert native.open(packet, sequence) == text


def message_of(vector: dict[str, Any]) -> bytes:
    return bytes(vector["zeros"]) if "zeros" in vector else bytes.fromhex(vector["message"])


@pytest.mark.parametrize(
    ("vector", "suite", "library"),
    [param for param in vectors("xcbc.toml", "null-xcbc") if message_of(param.values[0])[8:]],
)
def test_xcbc_vectors_open_and_seal(vector: dict[str, Any], suite: Suite, library: int) -> None:
    """A message as long as a header is a packet under the null cipher; one that ends within four octets is none."""
    message, key, icv = message_of(vector), bytes.fromhex(vector["key"]), bytes.fromhex(vector["icv"])
    native = Native(suite, library, key, esn=False)
    if len(message) % 4:
        with pytest.raises(ValueError, match="a packet is"):
            native.open(message + icv, 0)
        return
    sequence = int.from_bytes(message[4:8])
    assert native.open(message + icv, sequence) == message[8:]
    assert native.seal(sequence, message[8:], message[:4]) == message + icv
    for bit in range(0, len(message + icv) * 8, 5):
        assert native.open(flipped(message + icv, bit), sequence) is None


@pytest.mark.parametrize("name", ["aes256-cbc-sha256", "camellia128-cbc-xcbc", "3des-cbc-sha1"])
@pytest.mark.parametrize("library", LIBRARIES, ids=named)
def test_the_cbc_iv_is_not_the_block_before(name: str, library: int) -> None:
    """A chain through all packets is fast, and its last block is known to everybody: the IV must be another."""
    suite = SUITES[name]
    if not offered(suite, library):
        return
    block = suite.block_octets
    native = Native(suite, library, Random(2).randbytes(suite.keymat_octets), esn=False)
    packets = [native.seal(number, bytes(2 * block)) for number in range(1, 200)]
    blocks = {packet[at : at + block] for packet in packets for at in range(8, 8 + 3 * block, block)}
    assert len(blocks) == 199 * 3


@given(
    st.sampled_from([(suite, library) for suite, library in OFFERED if suite.cipher in COUNTERS]),
    st.booleans(),
    st.binary(max_size=300),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_counter_modes_are_the_reference_octet_for_octet(
    offer: tuple[Suite, int], esn: bool, text: bytes, sequence: int, seed: bytes
) -> None:
    suite, library = offer
    text += bytes(-len(text) % suite.block_octets)
    keymat = (seed * 4)[: suite.keymat_octets]
    sealed = make_sealer(suite, int.from_bytes(SPI), keymat, lambda octets: seed[:octets], esn=esn).seal(sequence, text)
    native = Native(suite, library, keymat, esn=esn, seed=seed)
    assert native.seal(sequence, text) == sealed
    assert native.open(sealed, sequence) == text
    for other in (sequence ^ 1 << 63, sequence ^ 1):  # only what does not travel is for the receiver to infer
        opens = not esn or other >> 32 == sequence >> 32
        assert (native.open(sealed, other) == text) is opens


@pytest.mark.parametrize("library", LIBRARIES, ids=named)
def test_two_threads_do_not_meet(library: int) -> None:
    """Two ciphers of each suite at once, under keys of their own: each seals what it seals alone."""
    suites = [suite for suite, offers in OFFERED if offers == library]
    texts = [Random(number).randbytes(1424) for number in range(16)]

    def sealed(seed: int) -> list[bytes]:
        octets = []
        for suite in suites:
            native = Native(suite, library, Random(seed).randbytes(suite.keymat_octets), esn=True)
            for number, text in enumerate(texts, 1):
                octets.append(native.seal(number, text))
                assert native.open(octets[-1], number) == text
        return octets

    alone = [sealed(1), sealed(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(sealed, (1, 2))) == alone
    finally:
        sys.setswitchinterval(interval)


@every_one
def test_nothing_is_taken_that_does_not_fit(suite: Suite, library: int) -> None:
    keymat = bytes(suite.keymat_octets)
    sealer, opener = (
        Cipher(suite, keymat, esn=False, sealing=sealing, library=library, seed=SEED) for sealing in (True, False)
    )
    whole = 8 + suite.iv_octets + 32 + suite.icv_octets
    for half in (sealer.seal, opener.open):
        for octets, text in ((whole - 1, 32), (whole + 1, 32), (whole, 48), (0, 0), (whole + 1, 33), (whole, 2**63)):
            with pytest.raises(ValueError, match="a packet is"):
                half(bytearray(octets), text, 1)
    with pytest.raises(ValueError, match="seals or opens"):
        sealer.open(bytearray(whole), 32, 1)
    with pytest.raises(ValueError, match="seals or opens"):
        opener.seal(bytearray(whole), 32, 1)
    for keys, seed in ((keymat + b"\0", SEED), (keymat, SEED[1:]), (keymat[1:], SEED + b"\0")):
        with pytest.raises(ValueError, match=f"{suite.keymat_octets} octets of KEYMAT"):
            Cipher(suite, keys, esn=False, sealing=True, library=library, seed=seed)
    with pytest.raises(ValueError, match="does not offer"):
        Cipher(suite, keymat, esn=False, sealing=True, library=max(LIBRARIES) + 1, seed=SEED)


@every_one
def test_no_iv_comes_twice_even_when_the_key_does(suite: Suite, library: int) -> None:
    """Under another seed, as after a restart that brought the same KEYMAT; numbers that differ in their high half."""
    if not suite.iv_octets:
        return
    keymat = bytes(suite.keymat_octets)
    halves = [Native(suite, library, keymat, esn=True, seed=Random(seed).randbytes(32)) for seed in (1, 2)]
    numbers = [number | high << 32 for number in range(1, 100) for high in (0, 1, 2**31)]
    ivs = {native.seal(number, bytes(16))[8 : 8 + suite.iv_octets] for native in halves for number in numbers}
    assert len(ivs) == 2 * len(numbers)


@every_one
def test_keys_do_not_show(suite: Suite, library: int) -> None:
    keymat = (b"SECRETS!" * 20)[: suite.keymat_octets]
    cipher = Cipher(suite, keymat, esn=False, sealing=True, library=library, seed=SEED)
    assert "SECRET" not in repr(cipher)
    assert not [name for name in dir(cipher) if not name.startswith("__") and name not in ("seal", "open")]
    with pytest.raises(TypeError):
        cipher.__reduce__()
