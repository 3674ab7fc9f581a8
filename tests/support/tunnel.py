"""Two engines with a pair of SAs for each address family between them, and packets to send through."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random
from typing import TYPE_CHECKING

from esp.datagram import Incoming, Outgoing
from esp.engine import Engine
from esp.policy import Policy, Selector
from esp.sa import Endpoint, Lifetime, SaParameters
from esp.suite import SUITES

if TYPE_CHECKING:
    from esp.fit import Inside

LEFT, RIGHT = Endpoint("192.0.2.1", 4500), Endpoint("192.0.2.2", 4500)
ELSEWHERE = Endpoint("198.51.100.7", 31000)

SELECTOR4 = Selector(ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"))
SELECTOR6 = Selector(ip_network("2001:db8:1::/48"), ip_network("2001:db8:2::/48"))

ENDLESS = Lifetime()
SPI4, SPI6 = 0x1000, 0x2000


def flip(selector: Selector) -> Selector:
    """The selector as the other host sees it."""
    return replace(
        selector,
        local=selector.remote,
        remote=selector.local,
        local_port=selector.remote_port,
        remote_port=selector.local_port,
    )


def ipv4(
    payload: bytes = b"", *, source: str = "10.1.0.1", destination: str = "10.2.0.1", protocol: int = 253
) -> bytes:
    """An IPv4 packet without options. Protocol 253 is for experiments (RFC 3692): nothing looks into it."""
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + addresses + payload


def ipv6(
    payload: bytes = b"", *, source: str = "2001:db8:1::1", destination: str = "2001:db8:2::1", protocol: int = 253
) -> bytes:
    """An IPv6 packet."""
    addresses = IPv6Address(source).packed + IPv6Address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def ports(source: int, destination: int, octets: int = 8) -> bytes:
    """The start of a transport header."""
    return struct.pack("!HH", source, destination) + bytes(octets - 4)


# Every cipher, every integrity algorithm and every size of key, IV, ICV and block, but not each with each other.
KINDS = (
    *("aes256-gcm16", "aes128-gcm8", "aes192-ccm12", "chacha20-poly1305", "aes256-gmac", "aes128-cbc-sha256"),
    *("aes256-ctr-sha512", "camellia192-cbc-sha384", "null-sha1", "aes256-cbc-xcbc", "3des-cbc-md5"),
)


def parameters(suite: str = "aes256-gcm16", *, spi: int = SPI4, seed: int = 0, **changes: object) -> SaParameters:
    """An SA from left to right for ``SELECTOR4``, as left sees it, with changes."""
    keymat = Random(f"{suite} {spi} {seed}").randbytes(SUITES[suite].keymat_octets)
    sa = SaParameters(spi, SUITES[suite], keymat, "four", SELECTOR4, RIGHT, legacy=SUITES[suite].legacy)
    return replace(sa, **changes)


@dataclass
class Twin:
    """Which of the engines :func:`engine` makes; tests of both change it, for their time."""

    make: type[Engine] = Engine


TWIN = Twin()
TWINS = ("portable", "native")


def twin(name: str) -> type[Engine]:
    """The engine of that name."""
    if name == "portable":
        return Engine
    from esp.native.engine import NativeEngine

    return NativeEngine


def engine(seed: int = 0, inside: Inside | None = None) -> Engine:
    """An engine without policies, its randomness seeded."""
    return TWIN.make(random=Random(seed).randbytes, inside=inside)


@dataclass
class Tunnel:
    """Left seals, right opens."""

    left: Engine
    right: Engine

    def seal(self, *packets: bytes, now: float = 0.0) -> list[bytes]:
        return [out.datagram for out in self.left.protect(packets, now)]

    def open(self, *datagrams: bytes, source: Endpoint = LEFT, now: float = 0.0) -> list[bytes]:
        return self.right.unprotect([Incoming(datagram, source) for datagram in datagrams], now)


def bare_tunnel(selector: Selector = SELECTOR4) -> Tunnel:
    """Policies in place, no SA."""
    left, right = engine(1), engine(2)
    for name, one in (("four", selector), ("six", SELECTOR6)):
        left.add_policy(Policy(name, one))
        right.add_policy(Policy(name, flip(one)))
    return Tunnel(left, right)


def open_tunnel(
    suite: str = "aes256-gcm16",
    *,
    selector: Selector = SELECTOR4,
    window: int = 8192,
    left_lifetime: Lifetime = ENDLESS,
    right_lifetime: Lifetime = ENDLESS,
) -> Tunnel:
    """Policies and SAs in place, from left to right and for IPv4 and IPv6."""
    tunnel = bare_tunnel(selector)
    for name, spi, one in (("four", SPI4, selector), ("six", SPI6, SELECTOR6)):
        sa = parameters(suite, spi=spi, policy=name, selector=one, lifetime=left_lifetime)
        tunnel.left.install_outbound(sa, 0.0)
        there = replace(sa, selector=flip(one), remote=LEFT, replay_window=window, lifetime=right_lifetime)
        tunnel.right.install_inbound(there, 0.0)
    return tunnel


def incoming(sealed: list[Outgoing], source: Endpoint = LEFT) -> list[Incoming]:
    """What arrives of what was sent."""
    return [Incoming(out.datagram, source) for out in sealed]
