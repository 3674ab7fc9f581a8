"""Limits are set one after the other, the last one that a peer told, and none of who has left."""

from __future__ import annotations

from contextlib import contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from esp.policy import Selector
from esp.sa import Endpoint
from kinkvpn.proto.settings import PeerSettings, PolicySettings
from kinkvpn.service.inner_mtus import MTU_SECONDS, InnerMtus, left_alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from esp.policy import Network


class Here:
    """A peer, as far as this is about it."""

    def __init__(self, name: str, remote: str) -> None:
        policy = PolicySettings(name, Selector(ip_network("10.0.0.0/24"), ip_network(remote)))
        self.settings = PeerSettings(name, f"kink/{name}@X", Endpoint("", 910), Endpoint("", 4500), (policy,))


async def test_the_last_one_told_stays_and_who_has_left_has_none(autojump_clock: trio.testing.MockClock) -> None:
    limited: list[tuple[list[str], int]] = []
    turns: list[str] = []

    async def limit(subnets: Sequence[Network], octets: int) -> None:
        limited.append(([str(each) for each in subnets], octets))

    @contextmanager
    def turn(where: str, peer: Any) -> Iterator[None]:
        turns.append(f"{where} {peer.settings.name}")
        yield

    mtus = InnerMtus(limit)
    peers: dict[str, Any] = {"a": Here("a", "10.1.0.0/24"), "b": Here("b", "10.2.0.0/24")}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mtus.run, peers, turn)
        for name, octets in (("a", 1300), ("b", 1400), ("a", 1280), ("gone", 1300), ("c", 1200)):
            mtus.want(name, octets)
        mtus.forget("gone")
        await trio.sleep(MTU_SECONDS / 2)
        assert limited == [(["10.1.0.0/24"], 1280), (["10.2.0.0/24"], 1400)]
        mtus.want("b", 1350)
        await trio.sleep(MTU_SECONDS)
        assert limited[2:] == [(["10.2.0.0/24"], 1350)]
        nursery.cancel_scope.cancel()
    assert turns == ["mtu a", "mtu b", "mtu b"]


async def test_a_host_whose_routes_are_not_ours() -> None:
    await left_alone([ip_network("10.1.0.0/24")], 1300)
