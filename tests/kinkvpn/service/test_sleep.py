"""Two simulated hosts, one of which sleeps: its clock of the machine goes on, the simulation's does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.host import Tunnel, simulate

from kinkvpn.service.sleep import (
    LOOK_SECONDS,
    SLEPT_SECONDS,
    boot_time,
    is_sought,
    made_here,
    make_anew_after_sleep,
)

if TYPE_CHECKING:
    from support.host import World

TUNNEL = Tunnel(0, boot=frozenset({"west"}))


def outbound(world: World, name: str) -> set[int]:
    return {spi for _, spi in world.hosts[name].sas(inbound=False)}


class Clock:
    """Of a machine that sleeps for ``seconds`` once, between the second look and the third."""

    def __init__(self, world: World, seconds: float) -> None:
        self.world, self.seconds, self.looks = world, seconds, 0

    def __call__(self) -> float:
        self.looks += 1
        return LOOK_SECONDS * ((self.looks + 1) // 2) + (self.seconds if self.looks > 3 else 0.0)


@pytest.mark.parametrize(
    ("sleeper", "seconds", "anew"), [("west", 3600.0, True), ("east", 3600.0, False), ("west", 1.0, False)]
)
def test_who_has_made_sas_makes_them_anew_after_a_sleep(sleeper: str, seconds: float, anew: bool) -> None:
    async def scenario(world: World) -> None:
        await world.pair([TUNNEL])
        await world.wait_at_rest(within=5)
        west, east = world.hosts["west"], world.hosts["east"]
        assert made_here(west.keying.peers["east"])
        assert not made_here(east.keying.peers["west"])
        before = outbound(world, "west"), outbound(world, "east")
        keying = world.hosts[sleeper].keying
        world.nursery.start_soon(make_anew_after_sleep, keying, Clock(world, seconds))
        await world.wait_until(lambda: (outbound(world, "west") != before[0]) is anew, within=30)
        await world.wait_at_rest(within=60)
        after = outbound(world, "west"), outbound(world, "east")
        assert [one.isdisjoint(other) for one, other in zip(before, after, strict=True)] == [anew, anew]

    simulate(scenario, f"{sleeper} {seconds}")


def test_who_has_not_made_them_is_heard_all_the_same() -> None:
    async def scenario(world: World) -> None:
        west, _ = await world.pair([TUNNEL])
        await world.wait_at_rest(within=5)
        heard = west.counters().get("commands_received", 0)
        east = world.hosts["east"].keying
        assert is_sought(east.peers["west"])
        world.nursery.start_soon(make_anew_after_sleep, east, Clock(world, 3600.0))
        await world.wait_until(lambda: west.counters().get("commands_received", 0) == heard + 1, within=30)

    simulate(scenario, 1)


def test_a_peer_that_is_away_is_no_reason_to_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        west, east = await world.pair([TUNNEL])
        await world.wait_at_rest(within=5)
        await east.crash()
        world.nursery.start_soon(make_anew_after_sleep, west.keying, Clock(world, 60.0))
        await world.wait_until(lambda: "not_made_anew" in [record.message for record in caplog.records], within=60)

    simulate(scenario, 1)


def test_the_machine_s_clock_goes_on() -> None:
    assert 0 < boot_time() <= boot_time()
    assert SLEPT_SECONDS > LOOK_SECONDS
