"""A host that moves tells its peers where it is now, whether it has anything to send or not.

A peer follows the newest authentic message (``proto.whereabouts``), so it takes one. Without, those behind the peer
would send to where this host was until something happens to leave here.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from kinkvpn.service.preflight import leaving_address
from kinkvpn.service.sleep import is_sought, made_here, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kinkvpn.proto.peer import Peer
    from kinkvpn.service.keying import Keying

log = logging.getLogger(__name__)

# linux/rtnetlink.h: addresses and routes of both families.
RTMGRP = 0x10 | 0x40 | 0x100 | 0x400
# Ours. A network that changes does so in several steps: look once they are over.
SETTLE_SECONDS = 0.5
LARGEST_MESSAGE = 65_536


def open_news() -> socket.socket:
    """What the kernel tells of addresses and routes, as it happens (rtnetlink(7)). Raises OSError."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    news.bind((0, RTMGRP))
    return news


async def tell_of_moves(keying: Keying, open_them: Callable[[], socket.socket] = open_news) -> None:
    """A STATUS to each peer that packets leave for from another address than before, until cancelled."""
    try:
        opened = open_them()
    except OSError as error:
        log.warning("moves_not_seen", extra={"fields": {"reason": error.strerror}})
        return
    before = leaving_addresses(keying.peers)
    async with trio.open_nursery() as nursery:
        with trio.socket.from_stdlib_socket(opened) as news:
            while True:
                with suppress(OSError):  # too much of it, and some was lost (ENOBUFS): that is news too
                    await news.recv(LARGEST_MESSAGE)
                await trio.sleep(SETTLE_SECONDS)
                now = leaving_addresses(keying.peers)
                for name in moved(before, now):
                    peer = keying.peers[name]
                    if made_here(peer) or is_sought(peer):
                        log.info("moved", extra={"fields": {"peer": name, "from": before[name], "to": now[name]}})
                        nursery.start_soon(tell, keying, name)
                before |= now


def moved(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of those that packets leave for from another address; not of those that cannot be reached at all."""
    return [name for name, address in now.items() if before.get(name, address) != address]


def leaving_addresses(peers: Mapping[str, Peer]) -> dict[str, str]:
    """Of this host, by peer: of those that can be reached at the moment."""
    found: dict[str, str] = {}
    for name, peer in peers.items():
        if peer.contact.whereabouts.known:
            with suppress(OSError):
                found[name] = leaving_address(peer.contact.whereabouts.esp.address)
    return found
