"""Whose traffic is whose: selectors and the ordered policy list (RFC 4301 §4.4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

ANY_PROTOCOL = 0
ANY_PORT = 0


class Action(Enum):
    """What happens to traffic that matches (RFC 4301 §4.4.1)."""

    PROTECT = "protect"
    BYPASS = "bypass"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which inner packets: ``local`` and ``remote`` as this host sees them (RFC 4301 §4.4.1.1).

    Args:
        local, remote: subnets of one address family.
        protocol: IP protocol number, 0 for any.
        local_port, remote_port: 0 for any; other values only with a protocol that has ports.
    """

    local: Network
    remote: Network
    protocol: int = ANY_PROTOCOL
    local_port: int = ANY_PORT
    remote_port: int = ANY_PORT


@dataclass(frozen=True, slots=True)
class Policy:
    """One SPD entry. ``name`` is what SAs and events refer to it by."""

    name: str
    selector: Selector
    action: Action = Action.PROTECT
