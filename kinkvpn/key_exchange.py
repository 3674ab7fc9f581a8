"""Diffie-Hellman for PFS over pyca/cryptography: fills ``proto.ports.KeyExchange`` (RFC 4430 §5.7).

Private keys are OpenSSL's to draw and to keep: they never become Python octets, and go with their object. Public values
and shared secrets have a fixed length in every group, leading zeros kept (RFC 2409 §5, RFC 5903 §7, RFC 8031 §2), or
one exchange in 256 would make different keys at the two ends.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519
from cryptography.utils import CryptographyDeprecationWarning

from kinkvpn.proto.ports import InvalidPublicValue
from kinkvpn.wire.ipsec_doi import Group

with warnings.catch_warnings():
    # The library discourages these groups, and so does this package's default; peers may have nothing else.
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
    from cryptography.hazmat.primitives.asymmetric.dh import DHParameterNumbers, DHPrivateNumbers, DHPublicNumbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.dh import DHParameters, DHPrivateKey

    from kinkvpn.proto.ports import Ephemeral

# RFC 3526 §3 to §7: p = 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c), generator 2. Bits n and c of each.
_MODP: Final = {
    Group.MODP_2048: (2048, 124476),
    Group.MODP_3072: (3072, 1690314),
    Group.MODP_4096: (4096, 240904),
    Group.MODP_6144: (6144, 929484),
    Group.MODP_8192: (8192, 4743158),
}
# RFC 5903 §3, and the octets of a coordinate (§7).
_CURVES: Final[dict[Group, tuple[ec.EllipticCurve, int]]] = {
    Group.ECP_256: (ec.SECP256R1(), 32),
    Group.ECP_384: (ec.SECP384R1(), 48),
    Group.ECP_521: (ec.SECP521R1(), 66),
}


class KeyExchanges:
    """Fresh keys of every group."""

    def generate(self, group: Group) -> Ephemeral:
        """A private key for one exchange."""
        if group in _MODP:
            return _Modp(group, _parameters(group).generate_private_key())
        if group in _CURVES:
            return _Ecp(group, ec.generate_private_key(_CURVES[group][0]))
        if group is Group.CURVE25519:
            return _x25519(x25519.X25519PrivateKey.generate())
        return _x448(x448.X448PrivateKey.generate())


def restore(group: Group, private: int | bytes) -> Ephemeral:
    """A given private key, for known answers: a number, or octets for the two curves of RFC 7748."""
    if isinstance(private, bytes):
        if group is Group.CURVE25519:
            return _x25519(x25519.X25519PrivateKey.from_private_bytes(private))
        return _x448(x448.X448PrivateKey.from_private_bytes(private))
    if group in _CURVES:
        return _Ecp(group, ec.derive_private_key(private, _CURVES[group][0]))
    numbers = _parameters(group).parameter_numbers()
    public = DHPublicNumbers(pow(numbers.g, private, numbers.p), numbers)
    return _Modp(group, DHPrivateNumbers(private, public).private_key())


class _Modp:
    """RFC 2409 §5, RFC 3526."""

    def __init__(self, group: Group, private: DHPrivateKey) -> None:
        self.group = group
        self._private = private
        self._octets = _MODP[group][0] // 8

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_numbers().y.to_bytes(self._octets, "big")

    def shared_secret(self, peer_public: bytes) -> bytes:
        numbers = _parameters(self.group).parameter_numbers()
        _check_length(self.group, peer_public, self._octets)
        value = int.from_bytes(peer_public, "big")
        # These are safe primes, and a key is used once: the ends of the range are all that must be refused (RFC 6989
        # §2.1; RFC 2631 §2.1.5 adds y^q, which would cost another exponentiation and gain one bit of a dead key).
        if not 1 < value < numbers.p - 1:
            raise InvalidPublicValue(f"{self.group.label}: not between 1 and p - 1")
        secret = self._private.exchange(DHPublicNumbers(value, numbers).public_key())
        return secret.rjust(self._octets, b"\0")


class _Ecp:
    """RFC 5903 §7: x and y in the payload, x alone as the secret."""

    def __init__(self, group: Group, private: ec.EllipticCurvePrivateKey) -> None:
        self.group = group
        self._private = private
        self._curve, self._octets = _CURVES[group]

    @property
    def public(self) -> bytes:
        numbers = self._private.public_key().public_numbers()
        return numbers.x.to_bytes(self._octets, "big") + numbers.y.to_bytes(self._octets, "big")

    def shared_secret(self, peer_public: bytes) -> bytes:
        _check_length(self.group, peer_public, 2 * self._octets)
        x, y = (int.from_bytes(half, "big") for half in (peer_public[: self._octets], peer_public[self._octets :]))
        try:
            # Whether the point is on the curve is looked at here (RFC 6989 §2.3); the cofactor is 1.
            theirs = ec.EllipticCurvePublicNumbers(x, y, self._curve).public_key()
        except ValueError:
            raise InvalidPublicValue(f"{self.group.label}: no point of the curve") from None
        return self._private.exchange(ec.ECDH(), theirs)


class _Montgomery:
    """X25519 and X448 (RFC 8031 §2, RFC 7748 §6), of which ``exchange`` takes a peer's public value."""

    def __init__(self, group: Group, public: bytes, exchange: Callable[[bytes], bytes]) -> None:
        self.group = group
        self.public = public
        self._exchange = exchange

    def shared_secret(self, peer_public: bytes) -> bytes:
        _check_length(self.group, peer_public, len(self.public))
        try:
            return self._exchange(peer_public)
        except ValueError:  # the secret is all zero: a point of small order (RFC 8031 §3, RFC 7748 §6.1)
            raise InvalidPublicValue(f"{self.group.label}: a point of small order") from None


def _x25519(private: x25519.X25519PrivateKey) -> _Montgomery:
    read = x25519.X25519PublicKey.from_public_bytes
    public = private.public_key().public_bytes_raw()
    return _Montgomery(Group.CURVE25519, public, lambda theirs: private.exchange(read(theirs)))


def _x448(private: x448.X448PrivateKey) -> _Montgomery:
    read = x448.X448PublicKey.from_public_bytes
    public = private.public_key().public_bytes_raw()
    return _Montgomery(Group.CURVE448, public, lambda theirs: private.exchange(read(theirs)))


def _check_length(group: Group, public: bytes, octets: int) -> None:
    if len(public) != octets:
        raise InvalidPublicValue(f"{group.label}: {len(public)} octets, {octets} expected")


@cache
def _parameters(group: Group) -> DHParameters:
    bits, constant = _MODP[group]
    prime = 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (_pi(bits - 130) + constant)
    return DHParameterNumbers(prime, 2).parameters()


def _pi(bits: int) -> int:
    """[2^bits pi], by Machin's formula: 16 arctan(1/5) - 4 arctan(1/239)."""
    one = 1 << (bits + 64)  # more than the 2,000 terms of the series can be wrong by
    return 4 * (4 * _arctan(5, one) - _arctan(239, one)) >> 64


def _arctan(inverse: int, one: int) -> int:
    power = total = one // inverse
    odd, sign = 3, -1
    while power:
        power //= inverse * inverse
        total += sign * (power // odd)
        odd, sign = odd + 2, -sign
    return total
