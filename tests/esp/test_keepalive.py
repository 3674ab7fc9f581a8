"""Who is reminded of us, and when; that nobody else is, the engine's tests show."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from random import Random

from support.tunnel import LEFT, RIGHT, parameters

from esp.keepalive import KEEPALIVE_EARLY, KEEPALIVE_SECONDS, Keepalives
from esp.sa import Encapsulation, Endpoint
from esp.sad import Sad
from esp.wire import KEEPALIVE


def test_remotes_behind_udp_hear_from_us_every_twenty_seconds() -> None:
    sad = Sad(Random(1).randbytes)
    keepalives = Keepalives(sad)
    assert (keepalives.due_at, keepalives.take(1e9)) == (inf, [])
    early = sad.add_outbound(parameters(spi=1000), 0.0)
    sad.add_outbound(replace(parameters(spi=1001, policy="six"), remote=LEFT), KEEPALIVE_EARLY + 1)
    raw = replace(parameters(spi=1002, policy="raw"), remote=Endpoint("192.0.2.3", 0), encapsulation=Encapsulation.RAW)
    sad.add_outbound(raw, 0.0)
    keepalives.expect(0.0)
    assert keepalives.due_at == KEEPALIVE_SECONDS
    assert keepalives.take(KEEPALIVE_SECONDS - 0.1) == []
    early.sent_at = 3.0  # a packet is as good
    assert keepalives.take(KEEPALIVE_SECONDS) == []
    due = KEEPALIVE_SECONDS + KEEPALIVE_EARLY + 1
    assert [(each.datagram, each.remote) for each in keepalives.take(due)] == [(KEEPALIVE, LEFT), (KEEPALIVE, RIGHT)]
    assert keepalives.take(due) == []
    keepalives.look()
    assert keepalives.take(due + 1) == []
    assert keepalives.due_at == due + KEEPALIVE_SECONDS
