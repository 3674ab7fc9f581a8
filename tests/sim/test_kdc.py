"""A KDC that is silent for a while: what needs it is reported and tried again, everything else goes on."""

from __future__ import annotations

from math import inf

import trio
from support.host import Tunnel, World, address_of, simulate, unmatched

from kinkvpn.proto.policies import FIRST_RETRY
from kinkvpn.service.keying import TICKET_DEADLINE

WEST, EAST = frozenset({"west"}), frozenset({"east"})


def _silent() -> float:
    return inf


def _quick() -> float:
    return 0.1


def test_what_needs_it_is_retried_with_back_off_and_the_rest_goes_on() -> None:
    silence = 60.0
    eastward, southward = Tunnel(0, lifetime=60, boot=EAST), Tunnel(1, ("west", "south"), boot=WEST)

    async def scenario(world: World) -> None:
        south = await world.start("south", [southward])
        west = await world.start("west", [eastward, southward], kdc_latency=_silent)
        east = await world.start("east", [eastward])
        began = trio.current_time()
        delivered = 0
        while trio.current_time() < began + silence:
            await trio.sleep(0.5)
            west.emit(eastward, b"goes on")
            delivered += len(east.tun.delivered_nowait())
        assert delivered >= silence / 0.5 - 1
        assert len(world.tells("sa_established", "east")) >= 2  # rekeyed too: its KDC answers
        failures = [time - began for time, _, event, _ in world.told if event == "create_failed"]
        # The deadline of a ticket, then 1, 2, 4, 8... seconds of patience before the next try.
        expected, at = [], 0.0
        for attempt in range(len(failures)):
            at += TICKET_DEADLINE
            expected.append(at)
            at += FIRST_RETRY * 2**attempt
        assert len(failures) >= 4
        assert all(abs(a - b) < 0.01 for a, b in zip(failures, expected, strict=True))
        assert all("KDC" in str(fields["reason"]) for fields in world.tells("create_failed"))
        west.kdc_latency = _quick
        await world.wait_until(lambda: bool(west.keying.peers["south"].pairs(southward.name)), within=60)
        await world.wait_at_rest(within=60)
        assert unmatched(west, south) + unmatched(west, east) == []

    simulate(scenario, 1)


def test_a_rekey_that_fails_is_tried_again_before_the_sa_ends() -> None:
    """The ticket has run out when the SAs have to be rekeyed, and the KDC says nothing for some seconds."""
    tunnel = Tunnel(0, lifetime=600)

    async def scenario(world: World) -> None:
        world.realm.ticket_life = 300
        west, east = await world.pair([tunnel])
        west.emit(tunnel, b"demand")
        await trio.sleep(400)
        west.kdc_latency = _silent
        await world.wait_told("create_failed", "west", within=200)
        west.kdc_latency = _quick
        await world.wait_told("sa_established", "west", times=2, within=10)
        await world.wait_at_rest(within=60)
        assert world.tells("sa_expired") == []
        assert unmatched(west, east) == []

    simulate(scenario, 1)


def test_nobody_rekeys_for_a_peer_whose_traffic_has_ended_with_its_sa() -> None:
    """On demand, and the KDC stays silent: at the end of the SA the trying ends too, until a packet asks."""
    tunnel = Tunnel(0, lifetime=600)

    async def scenario(world: World) -> None:
        world.realm.ticket_life = 300
        west, _ = await world.pair([tunnel])
        west.emit(tunnel, b"demand")
        await world.wait_told("sa_established", "west", within=10)
        west.kdc_latency = _silent
        await world.wait_told("sa_expired", "west", within=700)
        await trio.sleep(TICKET_DEADLINE)
        failed = len(world.tells("create_failed"))
        assert failed >= 2
        await trio.sleep(300)
        assert len(world.tells("create_failed")) == failed
        west.kdc_latency = _quick
        west.emit(tunnel, b"demand")
        await world.wait_told("sa_established", "west", times=2, within=10)

    simulate(scenario, 1)


def test_the_ticket_runs_out_between_a_create_and_its_reply() -> None:
    """The responder has made the pair; its REPLY comes through only when no retransmission may be believed."""
    tunnel = Tunnel(0, lifetime=600)

    async def scenario(world: World) -> None:
        world.realm.ticket_life = 4
        west, east = await world.pair([tunnel])
        back = (address_of("east"), address_of("west"))
        world.network.cut.add(back)
        west.emit(tunnel, b"demand")
        await trio.sleep(6)
        west.kdc_latency = _silent
        assert len(east.sas(inbound=False)) == 1
        world.network.cut.remove(back)
        await world.wait_at_rest(within=120)
        assert unmatched(west, east) == []
        west.kdc_latency = _quick
        for host in (west, east):
            host.emit(tunnel, b"again")
        await world.wait_until(lambda: bool(west.sas(inbound=False)), within=60)
        await world.wait_at_rest(within=120)
        assert unmatched(west, east) == []
        assert len(east.sas(inbound=False)) == 1

    simulate(scenario, 1)
