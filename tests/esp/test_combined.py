"""Combined modes against NIST's vectors and those of OpenSSL and BoringSSL; half of what they say must not open."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.published import records, wycheproof

from esp.combined import Aead, CombinedOpener, CombinedSealer, make_aead
from esp.crypto import make_opener, make_sealer
from esp.suite import SUITES, Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

BITS = (128, 192, 256)
ICVS = (8, 12, 16)


def octets(record: dict[str, str], *names: str) -> Iterator[bytes]:
    return (bytes.fromhex(record[name]) for name in names)


def refuses(aead: Aead, nonce: bytes, sealed: bytes, additional: bytes) -> None:
    with pytest.raises(InvalidTag):
        aead.decrypt(nonce, sealed, additional)


def check(aead: Aead, nonce: bytes, text: bytes, sealed: bytes, additional: bytes) -> None:
    """What the vector says both ways; and nothing opens with a bit of something changed."""
    assert aead.encrypt(nonce, text, additional) == sealed
    assert aead.decrypt(nonce, sealed, additional) == text
    for at in range(len(sealed)):
        refuses(aead, nonce, flipped(sealed, at), additional)
    refuses(aead, flipped(nonce, 0), sealed, additional)
    refuses(aead, nonce, sealed, additional + b"\0")


def flipped(octets: bytes, at: int) -> bytes:
    return octets[:at] + bytes([octets[at] ^ 0x10]) + octets[at + 1 :]


@pytest.mark.parametrize("bits", BITS)
def test_gcm_of_nist(bits: int) -> None:
    """CAVP gcmDecrypt: tags of 64, 96 and 128 bits, nonces of 96; good ones and FAIL."""
    opened, refused = dict.fromkeys(ICVS, 0), dict.fromkeys(ICVS, 0)
    for record in records(f"ciphers/AES/GCM/gcmDecrypt{bits}.rsp", "count"):
        icv = int(record["taglen"]) // 8
        if record["ivlen"] != "96" or icv not in ICVS:
            continue
        key, nonce, ciphertext, additional, tag = octets(record, "key", "iv", "ct", "aad", "tag")
        aead = make_aead(SUITES[f"aes{bits}-gcm{icv}"], key)
        if "fail" in record:
            refused[icv] += 1
            refuses(aead, nonce, ciphertext + tag, additional)
        else:
            opened[icv] += 1
            text = bytes.fromhex(record["pt"])
            assert aead.decrypt(nonce, ciphertext + tag, additional) == text
            assert aead.encrypt(nonce, text, additional) == ciphertext + tag
    assert min(opened.values()) > 100
    assert min(refused.values()) > 100


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ["VTT", "VNT"])
def test_ccm_of_nist(bits: int, kind: str) -> None:
    """CAVP: VTT has tags of all lengths, VNT nonces of all lengths, those of RFC 4309 §4 (eleven octets) among them."""
    checked = 0
    for record in records(f"ciphers/AES/CCM/{kind}{bits}.rsp", "count"):
        icv = int(record["tlen"])
        if icv not in ICVS:
            continue
        key, nonce, text, sealed, additional = octets(record, "key", "nonce", "payload", "ct", "adata")
        check(make_aead(SUITES[f"aes{bits}-ccm{icv}"], key), nonce, text, sealed, additional)
        checked += 1
    assert checked >= 30


@pytest.mark.parametrize("bits", BITS)
def test_ccm_that_nist_refuses(bits: int) -> None:
    outcomes = {"Pass": 0, "Fail": 0}
    for record in records(f"ciphers/AES/CCM/DVPT{bits}.rsp", "count"):
        if record["tlen"] != "16":
            continue
        key, nonce, sealed, additional = octets(record, "key", "nonce", "ct", "adata")
        aead = make_aead(SUITES[f"aes{bits}-ccm16"], key)
        additional = additional[: int(record["alen"])]
        outcomes[record["result"]] += 1
        if record["result"] == "Fail":
            refuses(aead, nonce, sealed, additional)
        else:
            assert aead.decrypt(nonce, sealed, additional) == bytes.fromhex(record["payload"])[: int(record["plen"])]
    assert min(outcomes.values()) > 20


def test_chacha20_poly1305_of_openssl() -> None:
    failed = 0
    for record in records("ciphers/ChaCha20Poly1305/openssl.txt", "count"):
        key, nonce, text, ciphertext, tag, additional = octets(
            record, "key", "iv", "plaintext", "ciphertext", "tag", "aad"
        )
        aead = make_aead(SUITES["chacha20-poly1305"], key)
        if "result" in record:
            failed += 1
            refuses(aead, nonce, ciphertext + tag, additional)
        else:
            check(aead, nonce, text, ciphertext + tag, additional)
    assert failed


def test_chacha20_poly1305_of_boringssl() -> None:
    """The first records are in plain text between quotes."""
    found = [
        record
        for record in records("ciphers/ChaCha20Poly1305/boringssl.txt", "count")
        if not record["in"].startswith('"') and not record["ad"].startswith('"')
    ]
    assert len(found) > 10
    for record in found[::3]:
        key, nonce, text, ciphertext, tag, additional = octets(record, "key", "nonce", "in", "ct", "tag", "ad")
        check(make_aead(SUITES["chacha20-poly1305"], key), nonce, text, ciphertext + tag, additional)


@pytest.mark.parametrize("bits", BITS)
def test_gmac_is_gcm_of_nothing(bits: int) -> None:
    """RFC 4543 §3.5: the payload travels as it is; IV and payload stand behind SPI and sequence number."""
    key, nonce, additional, text = (Random(bits).randbytes(octets) for octets in (bits // 8, 12, 8, 40))
    tag = AESGCM(key).encrypt(nonce, b"", additional + nonce[4:] + text)
    check(make_aead(SUITES[f"aes{bits}-gmac"], key), nonce, text, text + tag, additional)


WYCHEPROOF = {
    "aes_gcm": ("aes{bits}-gcm{icv}", 12),
    "aes_ccm": ("aes{bits}-ccm{icv}", 11),
    "chacha20_poly1305": ("chacha20-poly1305", 12),
}


@pytest.mark.parametrize("algorithm", WYCHEPROOF)
def test_the_cases_of_wycheproof(algorithm: str) -> None:
    """Edge cases of implementations: nearly right tags, counters and sums that wrap, special keys and nonces."""
    name, nonce_octets = WYCHEPROOF[algorithm]
    seen = {"valid": 0, "invalid": 0}
    for group, case in wycheproof(f"Cipher/wycheproof/{algorithm}_test.json"):
        suite = SUITES.get(name.format(bits=group["keySize"], icv=group["tagSize"] // 8))
        if suite is None or group["ivSize"] != 8 * nonce_octets:
            continue
        key, nonce, text, additional, sealed = octets(
            case | {"sealed": case["ct"] + case["tag"]}, "key", "iv", "msg", "aad", "sealed"
        )
        aead = make_aead(suite, key)
        seen[case["result"]] += 1
        if case["result"] == "valid":
            assert aead.encrypt(nonce, text, additional) == sealed
            assert aead.decrypt(nonce, sealed, additional) == text
        else:
            refuses(aead, nonce, sealed, additional)
    assert seen["valid"] >= 18
    assert seen["invalid"] >= 50 or algorithm == "aes_ccm"  # its refused cases have nonces of twelve octets


@pytest.mark.parametrize(
    "suite", [suite for suite in SUITES.values() if suite.integrity is None], ids=lambda suite: suite.name
)
@pytest.mark.parametrize("esn", [False, True])
def test_a_run_is_sealed_and_opened_as_one_by_one(suite: Suite, esn: bool) -> None:
    """And no further than to the first that is not authentic."""
    random = Random(suite.name)
    keymat, first = random.randbytes(suite.keymat_octets), 2**33 + 7 if esn else 7
    sealer = make_sealer(suite, 0x1234, keymat, Random(1).randbytes, esn=esn)
    opener = make_opener(suite, keymat, esn=esn)
    assert isinstance(sealer, CombinedSealer)
    assert isinstance(opener, CombinedOpener)
    texts = [random.randbytes(16 * 5) for _ in range(9)]
    sealed = sealer.seal_run(first, texts)
    assert sealed == [sealer.seal(number, text) for number, text in enumerate(texts, first)]
    octets = len(sealed[0])
    assert opener.open_run(b"".join(sealed), octets, first) == texts
    for at in (4, 8, 20, octets - 1):
        spoilt = [*sealed[:4], flipped(sealed[4], at), *sealed[5:]]
        assert opener.open_run(b"".join(spoilt), octets, first) == texts[:4]
    assert opener.open_run(b"".join(sealed), octets, first + 2**32) == ([] if esn else texts)
