"""Security associations as the engine is told of them (RFC 4301 §4.4.2), and what each has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from esp.policy import Selector
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
