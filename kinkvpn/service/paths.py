"""What this host's own routes say of the paths to its peers, and how large an inner packet they leave room for."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from esp.mtu import largest_inner
from kinkvpn.config import IPV4_MINIMUM_MTU, IPV6_MINIMUM_MTU, MAXIMUM_MTU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from esp.sa import Encapsulation, Mode, SecurityProtocol
    from esp.suite import Suite
    from kinkvpn.config import TunSettings
    from kinkvpn.proto.settings import PeerSettings

# linux/in.h, linux/in6.h; Python's socket module does not name them.
IP_MTU = 14
IPV6_MTU = 24
# Where no route leads to the peer now, or nobody knows where it is: what nearly every link carries.
ETHERNET_MTU = 1500
_DISCARD_PORT = 9  # RFC 863; nothing is sent to it


def path_mtu(address: str) -> int:
    """Octets of the largest IP packet that leaves for ``address`` whole: of the route, the interface, and what the
    kernel has learnt of the path. :data:`ETHERNET_MTU` while there is no way.

    Args:
        address: in text form, IPv4 or IPv6, with an interface or without.
    """
    six = ":" in address
    with suppress(OSError), socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # A look at the routes, no packet.
        found = socket.getaddrinfo(address, _DISCARD_PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
        sock.connect(found[0][4])
        return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) if six else sock.getsockopt(socket.IPPROTO_IP, IP_MTU)
    return ETHERNET_MTU


class PathMtus:
    """:func:`path_mtu`, and no less than it was at the start.

    Once the tunnel has everything of this host, ports that are not KINK's and ESP's are routed into it, and a look at
    the routes meets the device's MTU instead of the path's. What was more at the start and is less by now the kernel
    says when something is sent.

    Args:
        addresses: the peers' outer ones, as far as they are known.
        look: what is asked.
    """

    def __init__(self, addresses: Iterable[str], look: Callable[[str], int] = path_mtu) -> None:
        self._look = look
        self._at_start: dict[str, int] = {}
        self.learn(addresses)

    def learn(self, addresses: Iterable[str]) -> None:
        """Look at the paths to ``addresses`` as well, before anything is routed there."""
        for address in addresses:
            if address and address not in self._at_start:
                self._at_start[address] = self._look(address)

    def __call__(self, address: str) -> int:
        """Octets, for ``address`` in text form."""
        return max(self._look(address), self._at_start.get(address, 0))


# What an SA puts around a packet, and the address that it goes to, empty where that is not known.
Carrier = tuple["Suite", "Mode", "Encapsulation", "SecurityProtocol", str]


def carriers_of(peers: Sequence[PeerSettings]) -> list[Carrier]:
    """Every SA that there may be, as far as sizes go."""
    return [
        (suite, policy.mode, policy.encapsulation, policy.protocol, peer.esp.address)
        for peer in peers
        for policy in peer.policies
        for suite in policy.suites
    ]


def with_mtu(
    tun: TunSettings, carriers: Sequence[Carrier], look: Callable[[str], int] = path_mtu, *, six: bool
) -> TunSettings:
    """``tun`` with an MTU: its own, or the least that one of the ``carriers`` brings through in one piece.

    Args:
        tun: as configured.
        carriers: of which a peer that is not known yet is taken to come over IPv6, which leaves less room.
        look: octets that the path to an address carries.
        six: whether there is IPv6 inside, which knows no smaller MTU than 1280 (RFC 8200 §5).
    """
    if tun.mtu is not None:
        return tun
    paths = {address: look(address) if address else ETHERNET_MTU for *_, address in carriers}
    inner = (
        largest_inner(suite, mode, encapsulation, 4 if "." in address else 6, paths[address], protocol)
        for suite, mode, encapsulation, protocol, address in carriers
    )
    least = min(inner, default=ETHERNET_MTU)
    floor = IPV6_MINIMUM_MTU if six else IPV4_MINIMUM_MTU
    return replace(tun, mtu=max(min(least, MAXIMUM_MTU), floor))
