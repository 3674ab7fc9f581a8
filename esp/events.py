"""What the engine tells keying: past tense, frozen, no keys inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esp.sa import Endpoint


@dataclass(frozen=True, slots=True)
class Acquired:
    """A packet matched ``policy`` and no outbound SA serves it; the packet is held (RFC 4301 §5.1)."""

    policy: str


@dataclass(frozen=True, slots=True)
class SoftExpired:
    """Time to rekey the pair with this SA (RFC 4301 §4.4.2.1)."""

    policy: str
    spi: int
    inbound: bool


@dataclass(frozen=True, slots=True)
class HardExpired:
    """The SA carries nothing any more; the engine has removed it."""

    policy: str
    spi: int
    inbound: bool


@dataclass(frozen=True, slots=True)
class EndpointMoved:
    """The newest authenticated packet of this inbound SA came from another place than those before it."""

    policy: str
    spi: int
    remote: Endpoint


EspEvent = Acquired | SoftExpired | HardExpired | EndpointMoved
