"""A host that has slept makes its SAs anew: the peers may have given it up meanwhile, and it cannot know. A peer that
has made them is asked whether it is there, and so hears that this host is.

Its own clock stood still, so nothing here has run out; CLOCK_BOOTTIME has gone on (clock_gettime(2)). A process that
was stopped, and a virtual machine that was paused, are the same to those outside.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from kinkvpn.service.keying import ProbeFailed, RekeyFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.peer import Peer
    from kinkvpn.service.keying import Keying

log = logging.getLogger(__name__)

# Ours. A laptop that wakes up is looked at while its lid is still on the way up.
LOOK_SECONDS = 1.0
# Ours. A machine that is merely busy is not so late; and if it is, that costs an exchange.
SLEPT_SECONDS = 5.0


def boot_time() -> float:
    """Seconds, those of suspension too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def make_anew_after_sleep(keying: Keying, clock: Callable[[], float] = boot_time) -> None:
    """New pairs of SAs in place of those that this host has made, after each sleep, until cancelled."""
    async with trio.open_nursery() as nursery:
        while True:
            before = clock()
            await trio.sleep(LOOK_SECONDS)
            slept = clock() - before - LOOK_SECONDS
            if slept < SLEPT_SECONDS:
                continue
            log.info("slept", extra={"fields": {"seconds": round(slept, 1)}})
            for name, peer in keying.peers.items():
                if made_here(peer):
                    nursery.start_soon(_make_anew, keying, name)
                elif is_sought(peer):
                    nursery.start_soon(tell, keying, name)


def is_sought(peer: Peer) -> bool:
    """Whether this host is there for it: it has SAs with it, and looks for it where the configuration says. A gateway's
    guests look for the gateway.
    """
    return bool(peer.settings.esp.address) and any(peer.pairs(policy) for policy in peer.policies)


async def tell(keying: Keying, name: str) -> None:
    """Where this host is, and that it is there, in a STATUS."""
    with suppress(ProbeFailed):  # the next packet tells as well
        await keying.probe(name)


def made_here(peer: Peer) -> bool:
    """Whether this host has made SAs with it: who made them renews them (RFC 4430 §3.6)."""
    return any(pair.initiated for policy in peer.policies for pair in peer.pairs(policy)[-1:])


async def _make_anew(keying: Keying, name: str) -> None:
    try:
        await keying.rekey(name)
    except RekeyFailed as error:
        # The policies go on trying, as after every failure.
        log.warning("not_made_anew", extra={"fields": {"peer": name, "reason": str(error).splitlines()[0]}})
