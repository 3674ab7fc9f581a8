"""A pair of SAs as somebody may have written it down."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from esp.policy import Selector
from esp.sa import Encapsulation, Endpoint, SaParameters
from esp.suite import SUITES
from kinkvpn.manual.pair import Pair


def pair(
    suite: str = "aes256-gcm16", *, local: str = "192.0.2.1", remote: str = "192.0.2.2", **changes: object
) -> Pair:
    """Two SAs with keys of ones and of twos, and ``changes`` to both."""
    port = 0 if changes.get("encapsulation") is Encapsulation.RAW else 4500
    octets = SUITES[suite].keymat_octets
    sa = SaParameters(
        spi=0x1001,
        suite=SUITES[suite],
        keymat=b"\x11" * octets,
        policy="east",
        selector=Selector(ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24")),
        remote=Endpoint(remote, port),
    )
    sa = replace(sa, **changes)
    return Pair(Endpoint(local, port), sa, replace(sa, spi=0x2002, keymat=b"\x22" * octets))
