"""Security associations as the engine is told of them (RFC 4301 §4.4.2), and what each has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from esp.errors import InvalidSa

if TYPE_CHECKING:
    from esp.policy import Network, Selector
    from esp.suite import Suite


class Endpoint(NamedTuple):
    """An outer address (text form, IPv4 or IPv6) and a UDP port; port 0 with raw ESP."""

    address: str
    port: int


class Mode(Enum):
    """RFC 4301 §3.2."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"


class Encapsulation(Enum):
    """What carries ESP: UDP (RFC 3948) or IP protocol 50."""

    UDP = "udp"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Soft and hard limits (RFC 4301 §4.4.2.1); None is no limit. Seconds count from installation."""

    soft_seconds: float | None = None
    hard_seconds: float | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None
    soft_octets: int | None = None
    hard_octets: int | None = None


@dataclass(frozen=True, slots=True)
class SaParameters:
    """One direction of a pair, as keying installs it.

    Args:
        spi: in host order, 256 to 2^32-1, chosen by the receiver (RFC 4303 §2.1).
        suite: cipher and integrity.
        keymat: exactly ``suite.keymat_octets``; never shown.
        policy: name of the policy this SA serves.
        selector: traffic it may carry, as the local host sees it, in both directions.
        remote: outbound: where datagrams go. Inbound: where they are expected from at first.
        lifetime: soft and hard limits.
        replay_window: packets, 0 turns the check off; ignored outbound.
        sequence: outbound: the last number that was used under these keys, 0 for fresh ones. Whoever takes an SA over
            from another engine must give it: a number used twice is an IV used twice (RFC 4106 §3.1).
    """

    spi: int
    suite: Suite
    keymat: bytes = field(repr=False)
    policy: str
    selector: Selector
    remote: Endpoint
    lifetime: Lifetime = Lifetime()
    mode: Mode = Mode.TUNNEL
    encapsulation: Encapsulation = Encapsulation.UDP
    replay_window: int = 8192
    sequence: int = 0


# RFC 4303 §2.1: 1 to 255 are reserved by IANA, 0 is for local use.
SPI_MIN, SPI_MAX = 256, 0xFFFF_FFFF
# Four octets of sequence number on the wire (RFC 4303 §2.2).
SEQUENCE_MAX = 0xFFFF_FFFF
# Ours. Eight times the default: more than any path reorders, and one octet of memory per number.
REPLAY_WINDOW_MAX = 65_536


def check_parameters(sa: SaParameters) -> None:
    """See that one engine can run ``sa`` (RFC 4301 §4.4.2.1).

    Raises:
        InvalidSa: with the field and the value; never with a key.
    """
    octets = sa.suite.keymat_octets
    if not SPI_MIN <= sa.spi <= SPI_MAX:
        raise InvalidSa(f"SPI {sa.spi} is not within {SPI_MIN} to {SPI_MAX}")
    if len(sa.keymat) != octets:
        raise InvalidSa(f"{sa.suite.name} takes {octets} octets of KEYMAT, got {len(sa.keymat)}")
    if sa.mode is Mode.TRANSPORT and not (_is_host(sa.selector.local) and _is_host(sa.selector.remote)):
        raise InvalidSa(f"transport mode is between two hosts, not {sa.selector.local} and {sa.selector.remote}")
    if not 0 <= sa.replay_window <= REPLAY_WINDOW_MAX:
        raise InvalidSa(f"replay window {sa.replay_window} is not within 0 to 65536")
    if not 0 <= sa.sequence <= SEQUENCE_MAX:
        raise InvalidSa(f"sequence {sa.sequence} is not within 0 to {SEQUENCE_MAX}")
    life = sa.lifetime
    _check_limits("seconds", life.soft_seconds, life.hard_seconds)
    _check_limits("packets", life.soft_packets, life.hard_packets)
    _check_limits("octets", life.soft_octets, life.hard_octets)


def _is_host(network: Network) -> bool:
    return network.prefixlen == network.max_prefixlen


def _check_limits(unit: str, soft: float | None, hard: float | None) -> None:
    for limit in (soft, hard):
        if limit is not None and limit <= 0:
            raise InvalidSa(f"a lifetime of {limit} {unit} is none at all")
    if soft is not None and hard is not None and soft > hard:
        raise InvalidSa(f"soft lifetime {soft} {unit} is beyond the hard {hard}")
