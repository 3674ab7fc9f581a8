"""The SA database that lanes look into: what takes whose place."""

from __future__ import annotations

import pytest
from support.tunnel import LEFT, SELECTOR4, flip, ipv4, parameters

from esp.datagram import Incoming
from esp.native import why_missing
from esp.outbound import OutboundSa

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f"no compiled engine: {why_missing()}")


def test_an_sa_takes_the_place_of_that_with_its_spi() -> None:
    """At no moment is there none: packets come while it is replaced (RFC 4430 §3.2), in threads of their own."""
    from esp.native import _core
    from esp.native.sa import NativeInboundSa

    core = _core.Core(1)
    place = _core.Policy(core, 0)
    made = [parameters(seed=seed, selector=flip(SELECTOR4)) for seed in (0, 1)]
    old, new = (NativeInboundSa(each, 0.0, {}, core, _core.OPENSSL) for each in made)
    sealer = OutboundSa(parameters(seed=1), 0.0, lambda octets: bytes(octets))
    sealed = [Incoming(sealer.seal(ipv4(), 0.0).datagram, LEFT) for _ in range(2)]
    opened: list[bytes] = []
    for sa in (old, new):
        sa.core.serve(place)
        core.add_inbound(sa.core)
    core.unprotect(sealed[:1], 0, 0.0, opened)
    assert opened == [ipv4()]
    core.remove_inbound(old.core)  # which is not there
    core.unprotect(sealed[1:], 0, 0.0, opened)
    assert opened == [ipv4()] * 2
