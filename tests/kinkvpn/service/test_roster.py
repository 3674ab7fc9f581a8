"""Who may come, beside those who are here; what becomes of them in time is in test_keying.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from support.host import Tunnel, World, simulate

from kinkvpn.proto.pairs import TOMBSTONE_KEPT
from kinkvpn.service.roster import PeerRefused


def test_nobody_comes_by_a_name_a_principal_or_a_policy_of_another() -> None:
    async def scenario(world: World) -> None:
        west = await world.start("west", [Tunnel(0)])
        east = west.keying.peers["east"].settings
        other = replace(east, name="other", policies=())
        for settings, reason in (
            (east, "there is a peer east already"),
            (other, "peer east has principal kink/a.example.com@EXAMPLE.COM already"),
            (
                replace(other, principal="kink/b@R", policies=east.policies),
                "peer east has a policy tunnel0 already",
            ),
        ):
            with pytest.raises(PeerRefused) as refused:
                west.keying.add_peer(settings)
            assert str(refused.value) == reason
        with pytest.raises(PeerRefused, match="no peer 'other'; there are east"):
            west.keying.remove_peer("other")
        assert list(west.keying.peers) == ["east"]

    simulate(scenario, 1)


def test_who_has_left_is_forgotten_when_nothing_of_then_is_believed_any_more() -> None:
    async def scenario(world: World) -> None:
        west = await world.start("west", [Tunnel(0)])
        roster = west.keying._roster
        left = west.keying.peers["east"]
        west.remove("east")
        assert list(roster.leaving()) == [left]
        assert roster.former(left.settings, trio.current_time() + TOMBSTONE_KEPT - 1) is left
        assert roster.former(left.settings, trio.current_time() + TOMBSTONE_KEPT) is None
        assert not list(roster.leaving())

    simulate(scenario, 1)


def test_a_policy_is_whose_it_was_given_to_last() -> None:
    async def scenario(world: World) -> None:
        west = await world.start("west", [Tunnel(0), Tunnel(1)])
        roster, east = west.keying._roster, west.keying.peers["east"]
        kept = replace(east.settings, policies=east.settings.policies[1:])
        west.keying.change_peer(kept, {"tunnel0"})
        assert roster.of_policy("tunnel0") is None
        assert roster.of_policy("tunnel1") is east
        other = replace(kept, name="other", principal="kink/c@R", policies=(Tunnel(0).settings("west"),))
        west.keying.add_peer(other)
        roster.change(east, {"tunnel0"})
        assert roster.of_policy("tunnel0") is west.keying.peers["other"]

    simulate(scenario, 1)
