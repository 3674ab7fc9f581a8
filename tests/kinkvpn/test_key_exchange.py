from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kinkvpn.key_exchange import KeyExchanges, restore
from kinkvpn.proto.ports import InvalidPublicValue
from kinkvpn.wire.ipsec_doi import Group

VECTORS = Path(__file__).parent.parent / "vectors" / "key_exchange"
ECP = tomllib.loads((VECTORS / "ecp.toml").read_text())["vector"]
CURVES = tomllib.loads((VECTORS / "curves.toml").read_text())
PRODUCTS = CURVES["product"]

# Octets of a public value and of a shared secret (RFC 3526, RFC 5903 §7, RFC 8031 §2).
LENGTHS = {
    Group.MODP_2048: (256, 256),
    Group.MODP_3072: (384, 384),
    Group.MODP_4096: (512, 512),
    Group.MODP_6144: (768, 768),
    Group.MODP_8192: (1024, 1024),
    Group.ECP_256: (64, 32),
    Group.ECP_384: (96, 48),
    Group.ECP_521: (132, 66),
    Group.CURVE25519: (32, 32),
    Group.CURVE448: (56, 56),
}
MODP = [group for group in Group if group.label.startswith("modp")]
EC = [Group.ECP_256, Group.ECP_384, Group.ECP_521]
X = [Group.CURVE25519, Group.CURVE448]


def by_label(group: Group) -> str:
    return group.label


def octets(text: str) -> bytes:
    return bytes.fromhex("".join(text.split()))


@pytest.mark.parametrize("group", Group, ids=by_label)
def test_both_ends_have_the_same_secret_of_the_right_length(group: Group) -> None:
    here, there = KeyExchanges().generate(group), KeyExchanges().generate(group)
    assert here.group is there.group is group
    assert here.public != there.public
    secret = here.shared_secret(there.public)
    assert secret == there.shared_secret(here.public)
    assert (len(here.public), len(secret)) == LENGTHS[group]


@pytest.mark.parametrize("vector", ECP, ids=lambda vector: vector["source"])
def test_rfc_5903(vector: dict[str, Any]) -> None:
    """The payloads to the octet, and x alone as the secret; the third private key begins with a zero octet."""
    group = Group(vector["group"])
    i, r = (restore(group, int.from_bytes(octets(vector[name]), "big")) for name in ("i", "r"))
    assert i.public == octets(vector["ke_i"])
    assert r.public == octets(vector["ke_r"])
    assert i.shared_secret(r.public) == r.shared_secret(i.public) == octets(vector["secret"])
    spoilt = bytearray(r.public)
    spoilt[-1] ^= 1
    with pytest.raises(InvalidPublicValue, match="no point"):
        i.shared_secret(bytes(spoilt))


@pytest.mark.parametrize("vector", PRODUCTS, ids=lambda vector: vector["scalar"].strip()[:8])
def test_rfc_7748(vector: dict[str, Any]) -> None:
    key = restore(Group(vector["group"]), octets(vector["scalar"]))
    assert key.shared_secret(octets(vector["u"])) == octets(vector["output"])
    other = bytearray(octets(vector["u"]))
    other[7] ^= 1
    assert key.shared_secret(bytes(other)) != octets(vector["output"])


def prime_of(group: Group) -> int:
    """2^n mod p is 2^n - p for a prime of n bits, and 2^n mod p is the public value of the private key n."""
    bits = 8 * LENGTHS[group][0]
    return 2**bits - int.from_bytes(restore(group, bits).public, "big")


@pytest.mark.parametrize("group", MODP, ids=by_label)
def test_primes_are_those_of_rfc_3526(group: Group) -> None:
    digest = hashlib.sha256(prime_of(group).to_bytes(LENGTHS[group][0], "big")).hexdigest()
    assert digest == CURVES["primes"][str(int(group))]


@pytest.mark.parametrize("group", [Group.MODP_2048, Group.MODP_8192], ids=by_label)
def test_modp_against_plain_arithmetic_with_leading_zeros_kept(group: Group) -> None:
    size = LENGTHS[group][0]
    # Small exponents of 2 make small numbers: all but the last octets of value and secret are zero.
    here, there = restore(group, 5), restore(group, 9)
    assert here.public == (2**5).to_bytes(size, "big")
    assert here.shared_secret(there.public) == there.shared_secret(here.public) == (2**45).to_bytes(size, "big")


@pytest.mark.parametrize("group", MODP, ids=by_label)
def test_the_ends_of_the_range_are_refused(group: Group) -> None:
    """RFC 6989 §2.1: 1 and p - 1 would make a secret that anybody knows."""
    size, prime = LENGTHS[group][0], prime_of(group)
    key = KeyExchanges().generate(group)
    for number in (0, 1, prime - 1, prime, prime + 1, 2 ** (8 * size) - 1):
        with pytest.raises(InvalidPublicValue, match="between"):
            key.shared_secret(number.to_bytes(size, "big"))
    for number in (2, prime - 2):
        assert len(key.shared_secret(number.to_bytes(size, "big"))) == size


@pytest.mark.parametrize("group", Group, ids=by_label)
def test_values_of_another_length_are_refused(group: Group) -> None:
    key, other = KeyExchanges().generate(group), KeyExchanges().generate(group)
    for public in (b"", other.public[1:], other.public + b"\0", b"\0" + other.public, b"\4" + other.public):
        with pytest.raises(InvalidPublicValue, match="octets, "):
            key.shared_secret(public)


@pytest.mark.parametrize("group", EC, ids=by_label)
def test_points_off_the_curve_are_refused(group: Group) -> None:
    key, other = KeyExchanges().generate(group), KeyExchanges().generate(group)
    half = len(other.public) // 2
    x, y = other.public[:half], other.public[half:]
    for public in (bytes(2 * half), y + x, x + bytes(half), b"\xff" * 2 * half):
        with pytest.raises(InvalidPublicValue, match="no point"):
            key.shared_secret(public)


# RFC 7748 §6: u-coordinates of small order; 0 and 1 and p - 1 on both curves.
@pytest.mark.parametrize("group", X, ids=by_label)
@pytest.mark.parametrize("u", [0, 1, -1])
def test_points_of_small_order_are_refused(group: Group, u: int) -> None:
    prime = {Group.CURVE25519: 2**255 - 19, Group.CURVE448: 2**448 - 2**224 - 1}[group]
    public = (u % prime).to_bytes(LENGTHS[group][0], "little")
    with pytest.raises(InvalidPublicValue, match="small order"):
        KeyExchanges().generate(group).shared_secret(public)


@pytest.mark.parametrize("group", Group, ids=by_label)
def test_nothing_secret_is_shown(group: Group) -> None:
    key, other = KeyExchanges().generate(group), KeyExchanges().generate(group)
    secret = key.shared_secret(other.public)
    shown = f"{key!r} {key!s} {vars(key)}"
    assert secret.hex() not in shown
    assert key.public.hex() not in shown
    with pytest.raises(InvalidPublicValue) as refused:
        key.shared_secret(b"secret of the peer")
    assert "secret of" not in str(refused.value)
