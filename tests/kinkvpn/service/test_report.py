"""Status: keying's policies with what their SAs carried, and nothing that JSON lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import trio
from support.host import Tunnel, World, simulate

from esp.dataplane import LinkStatistics
from esp.errors import DropReason
from esp.offload import ALL_OFFLOADS, OF_TUN, OF_UDP, Grant, Offload
from esp.sa import Endpoint
from esp.statistics import Carried, PolicyStatistics, SaStatistics, Totals
from kinkvpn.api.rows import ROWS_AT_ONCE
from kinkvpn.proto.quick_mode import SaPair
from kinkvpn.proto.settings import PeerSettings
from kinkvpn.service.report import (
    counters,
    offload_status,
    peers_status,
    policy_engines,
    policy_sizes,
    policy_traffic,
    sa_status,
    spell,
)

HERE = Endpoint("192.0.2.9", 910)


def sa(policy: str, packets: int, octets: int, *, inbound: bool) -> SaStatistics:
    return SaStatistics(policy, 256, inbound, "aes256-gcm16", Endpoint("192.0.2.2", 4500), packets, octets, packets, {})


TRAFFIC = Totals(
    packets_out=7,
    octets_out=700,
    packets_in=5,
    octets_in=500,
    drops={DropReason.NO_POLICY: 3, DropReason.REPLAYED: 0},
    events_lost=0,
    unused_ecn={"not_ect_in_ce": 1},
)


def test_a_policy_has_what_all_its_sas_carried_those_that_have_gone_too() -> None:
    sas = sa("b/1", 1, 100, inbound=True), sa("b/1", 4, 400, inbound=False)
    found = policy_traffic(PolicyStatistics(sas, Carried(30, 3000, 40, 4000, lost=7), 9))
    carried = {"packets_in": 30, "octets_in": 3000, "packets_out": 40, "octets_out": 4000, "iptfs_lost": 7, "held": 9}
    assert found == {**carried, **policy_sizes(sas), **policy_engines(sas)}
    assert set(policy_traffic(PolicyStatistics((), Carried(), 0)).values()) == {0, None}


def test_whose_the_newest_sas_are_and_why() -> None:
    native = {"engine": "native"}
    sas = [
        replace(sa("b/1", 1, 100, inbound=False), engine_reason="of one that is replaced"),
        replace(sa("b/1", 1, 100, inbound=False), **native),
        replace(sa("b/1", 1, 100, inbound=True), engine_reason="transport mode"),
    ]
    names = ("engine_in", "engine_out", "engine_reason")
    inbound = replace(sa("b/2", 1, 100, inbound=True), **native)
    assert [tuple(policy_engines(each)[key] for key in names) for each in (sas, [inbound], [])] == [
        ("portable", "native", "transport mode"),
        ("native", None, None),
        (None, None, None),
    ]


def test_sizes_are_those_of_the_newest_sa_that_sends() -> None:
    sizes = ((1438, 0, 1400), (1234, 900, 1200))
    sas = [
        replace(sa("b/1", 1, 100, inbound=False), largest=largest, padded=padded, payload_octets=payload)
        for largest, padded, payload in sizes
    ]
    found = policy_sizes([*sas, sa("b/1", 1, 100, inbound=True)])
    assert found == {"largest": 1234, "tfc_octets": 900, "iptfs_octets": 1200}
    assert set(policy_sizes([]).values()) == {0}


@pytest.mark.parametrize("alone", [False, True], ids=["one peer", "a peer each"])
def test_of_many_policies_an_answer_is_made_in_turns(alone: bool) -> None:
    """However they are distributed; a policy that goes meanwhile is left out."""
    tunnels = [Tunnel(number) for number in range(4 * ROWS_AT_ONCE)]

    async def scenario(world: World) -> None:
        west = await world.start("west", [] if alone else tunnels)
        for tunnel in tunnels if alone else []:
            settings = PeerSettings(
                f"peer{tunnel.number}", f"kink/{tunnel.number}@R", HERE, HERE, policies=(tunnel.settings("west"),)
            )
            west.keying.add_peer(settings)
        peers = tuple(west.keying.peers.values())
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                if turns == 2:
                    peers[-1].policies.pop(tunnels[-1].name)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            found = await peers_status(peers, west.dataplane)
            nursery.cancel_scope.cancel()
        names = [policy["name"] for peer in found for policy in peer["policies"]]
        assert names == [tunnel.name for tunnel in tunnels[:-1]]
        assert turns >= 3
        assert json.loads(json.dumps(found)) == found

    simulate(scenario, 1)


def test_counters_of_both_planes() -> None:
    kink: Any = {
        "counters": {"malformed": 2},
        "labelled": {"messages_received": {"create": 2}},
        "seconds": {"create": {"le": {"1.0": 1}, "count": 1, "sum": 0.004}},
    }
    found = counters(kink, TRAFFIC, LinkStatistics(junk_received=4))
    assert found["kink"] == {"malformed": 2}
    assert found["kink_labelled"] == {"messages_received": {"create": 2}}
    assert found["kink_seconds"] == kink["seconds"]
    assert found["drops"] == {"no_policy": 3}
    assert found["unused_ecn"] == {"not_ect_in_ce": 1}
    assert found["link"]["junk_received"] == 4
    assert (found["packets_in"], found["octets_out"]) == (5, 700)


def test_an_sa_has_the_age_of_its_pair_if_that_stands() -> None:
    one = replace(sa("b/1", 1, 100, inbound=False), drops={DropReason.REPLAYED: 2, DropReason.NO_POLICY: 0})
    pair = SaPair("b/1", 512, 256, "aes256-gcm16", initiated=True, lifetime=3600, established=10.0)
    found = sa_status(one, "b", pair, 12.5)
    assert (found["direction"], found["spi"], found["since"], found["lifetime"]) == ("out", "0x00000100", 2.5, 3600)
    assert (found["drops"], found["remote"]) == ({"replayed": 2}, "192.0.2.2:4500")
    assert sa_status(one, "b", None, 12.5)["since"] is None


def test_endpoints() -> None:
    assert spell(Endpoint("192.0.2.1", 910)) == "192.0.2.1:910"
    assert spell(Endpoint("fd00::1", 910)) == "[fd00::1]:910"
    assert spell(Endpoint("fd00::1", 0)) == "fd00::1", "without UDP"


def test_of_each_offload_it_is_said_whether_it_is_in_use_and_if_not_why() -> None:
    tun, link = Grant(ALL_OFFLOADS.without(Offload.TSO, Offload.COALESCE), OF_TUN), Grant(ALL_OFFLOADS, OF_UDP)
    link.refuse("no such option", Offload.UDP_GRO)
    wanted = ALL_OFFLOADS.without(Offload.COALESCE)
    assert offload_status(wanted, {Offload.TSO: "slower", Offload.COALESCE: "slower"}, tun, link) == {
        "tso": "slower",
        "uso": None,
        "coalesce": "off in the configuration",
        "udp_segment": None,
        "udp_gro": "no such option",
    }
