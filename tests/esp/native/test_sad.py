"""SAs that lanes find: thousands of them come and go, and nothing that a lane could still reach goes with them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from random import Random
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from support.tunnel import LEFT, RIGHT, SELECTOR4, flip, ipv4, parameters

from esp.datagram import Incoming
from esp.errors import DropReason
from esp.native._core import seal_many
from esp.native.engine import NativeEngine
from esp.policy import Policy
from esp.sa import Aggregation, SaParameters

if TYPE_CHECKING:
    from collections.abc import Iterable


def engine(lanes: int = 1) -> NativeEngine:
    made = NativeEngine(random=Random(7).randbytes, lanes=lanes)
    made.add_policy(Policy("four", flip(SELECTOR4)))
    return made


def inbound(spi: int, **changes: object) -> SaParameters:
    return parameters(spi=spi, selector=flip(SELECTOR4), remote=LEFT, **changes)


def sealed(spis: Iterable[int]) -> dict[int, bytes]:
    """A packet of each of these SAs."""
    sender, found = NativeEngine(random=Random(8).randbytes), {}
    sender.add_policy(Policy("four", SELECTOR4))
    for spi in spis:
        sender.install_outbound(parameters(spi=spi), 0.0)
        ((found[spi], *_),) = sender.protect([ipv4(spi.to_bytes(4))], 0.0)
        sender.remove_outbound("four", spi)
    return found


def test_thousands_come_and_go_and_each_is_found_while_it_is_there() -> None:
    """The table grows, and is full of those that have gone: neither loses one, nor ends a search too soon or never."""
    random, right = Random(4303), engine()
    pool = [256 + 128 * number for number in range(500)] + [random.randrange(256, 2**32) for _ in range(500)]
    packets, there, expected = sealed(pool), set[int](), 0
    for turn in range(6_000):
        spi = random.choice(pool)
        if spi in there:
            right.remove_inbound(spi)
            there.discard(spi)
        else:
            right.install_inbound(inbound(spi), 0.0)
            there.add(spi)
        if turn % 7 == 0:
            asked = random.choice(pool)
            opened = right.unprotect([Incoming(packets[asked], LEFT)], 0.0)
            if asked not in there:
                assert opened == []
            elif opened:
                assert opened == [ipv4(asked.to_bytes(4))]
                expected += 1
    assert expected > 100
    for spi in sorted(there):
        right.remove_inbound(spi)
    assert right.unprotect([Incoming(packet, LEFT) for packet in packets.values()], 0.0) == []
    assert right.statistics().sas == ()


@pytest.mark.parametrize("foreign", [False, True], ids=["native", "IP-TFS"])
@pytest.mark.parametrize("then", [False, True], ids=["native", "IP-TFS"])
def test_an_sa_with_the_spi_of_another_takes_its_place_and_its_window(foreign: bool, then: bool) -> None:
    right = engine()
    (packet,) = sealed([300]).values()
    aggregation = Aggregation(500, 10)
    right.install_inbound(inbound(300, aggregation=aggregation if foreign else None), 0.0)
    assert right.unprotect([Incoming(packet, LEFT)], 0.0) == [ipv4((300).to_bytes(4))]
    for _ in range(3):
        right.install_inbound(inbound(300, aggregation=aggregation if then else None), 0.0)
        assert right.unprotect([Incoming(packet, LEFT)], 0.0) == []
    assert right.statistics().drops == {DropReason.REPLAYED: 3}
    assert len(right.statistics().sas) == 1
    right.remove_inbound(300)
    assert right.unprotect([Incoming(packet, LEFT)], 0.0) == []
    assert right.statistics().drops == {DropReason.REPLAYED: 3, DropReason.UNKNOWN_SPI: 1}


def test_with_other_keys_it_has_a_window_of_its_own() -> None:
    right = engine()
    (packet,) = sealed([300]).values()
    right.install_inbound(inbound(300), 0.0)
    assert right.unprotect([Incoming(packet, LEFT)], 0.0)
    right.install_inbound(replace(inbound(300), keymat=bytes(len(inbound(300).keymat))), 0.0)
    assert right.unprotect([Incoming(packet, LEFT)], 0.0) == []
    assert right.statistics().drops == {DropReason.AUTHENTICATION_FAILED: 1}


def test_an_engine_that_is_part_of_a_cycle_can_be_collected() -> None:
    """In whatever order the collector takes it apart: SAs want what they share with it when they go."""
    for _ in range(3):
        made = engine()
        made.install_outbound(parameters(selector=flip(SELECTOR4)), 0.0)
        made.install_inbound(inbound(300), 0.0)
        made.cycle = made
        watched = weakref.ref(made)
        del made
        gc.collect()
        assert watched() is None


def test_policies_and_sas_go_while_lanes_are_at_them() -> None:
    """What a lane has found it may use until it looks again; AddressSanitizer would see it touch what has gone."""
    made = NativeEngine(random=Random(9).randbytes, lanes=2)
    made.running = True
    heads = [bytearray(16 * 4_000) for _ in range(2)]
    ended = False

    def drive(lane: int) -> None:
        while not ended:
            seal_many(made.lanes, lane, ipv4(bytes(20)), 0.0, heads[lane])

    threads = [Thread(target=drive, args=(lane,)) for lane in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(150):
            made.add_policy(Policy("four", SELECTOR4))
            for queue in (None, 0, 1, 0):
                spi = 256 + 4 * turn + (0 if queue is None else 1 + queue)
                if all(sa.spi != spi for sa in made.statistics().sas):
                    made.install_outbound(parameters(spi=spi, queue=queue), 0.0)
            if turn % 3 == 0:
                made.remove_outbound("four", 256 + 4 * turn)
            made.follow("four", RIGHT._replace(port=1 + turn))
            made.remove_policy("four")
            made.expire(0.0)
    finally:
        ended = True
        for thread in threads:
            thread.join()
    assert made.lanes.reclaim() == 0
    assert made.statistics().sas == ()
    assert made.statistics().packets_out > 0
