"""Status: keying's policies with what their SAs carried, and nothing that JSON lacks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from esp.dataplane import LinkStatistics
from esp.errors import DropReason
from esp.offload import ALL_OFFLOADS, OF_TUN, OF_UDP, Grant, Offload
from esp.sa import Endpoint
from esp.statistics import Carried, SaStatistics, Statistics
from kinkvpn.proto.quick_mode import SaPair
from kinkvpn.service.report import (
    counters,
    offload_status,
    policy_engines,
    policy_sizes,
    policy_traffic,
    sa_status,
    spell,
    with_traffic,
)


def sa(policy: str, packets: int, octets: int, *, inbound: bool) -> SaStatistics:
    return SaStatistics(policy, 256, inbound, "aes256-gcm16", Endpoint("192.0.2.2", 4500), packets, octets, packets, {})


TRAFFIC = Statistics(
    packets_out=7,
    octets_out=700,
    packets_in=5,
    octets_in=500,
    drops={DropReason.NO_POLICY: 3, DropReason.REPLAYED: 0},
    sas=(
        sa("b/1", 1, 100, inbound=True),
        sa("b/1", 2, 200, inbound=True),
        sa("b/1", 4, 400, inbound=False),
        sa("b/2", 3, 300, inbound=False),
    ),
    held={"b/2": 9},
    events_lost=0,
    carried={"b/1": Carried(30, 3000, 40, 4000, lost=7)},
    unused_ecn={"not_ect_in_ce": 1},
)


def test_a_policy_has_what_all_its_sas_carried_those_that_have_gone_too() -> None:
    assert policy_traffic("b/1", TRAFFIC) == {
        "packets_in": 30,
        "octets_in": 3000,
        "packets_out": 40,
        "octets_out": 4000,
        "iptfs_lost": 7,
        "held": 0,
    }
    assert policy_traffic("b/2", TRAFFIC)["held"] == 9
    assert set(policy_traffic("none", TRAFFIC).values()) == {0}


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


def test_what_keying_knows_stays_and_what_was_carried_is_added() -> None:
    keying: Any = [{"name": "b", "epoch": 1, "policies": [{"name": "b/1", "state": "established"}, {"name": "b/2"}]}]
    found: Any = with_traffic(keying, TRAFFIC)
    assert json.loads(json.dumps(found)) == found
    (peer,) = found
    assert peer["epoch"] == 1
    first, second = peer["policies"]
    sas = TRAFFIC.sas[:3]
    counts = {**policy_traffic("b/1", TRAFFIC), **policy_sizes(sas), **policy_engines(sas)}
    assert first == {"name": "b/1", "state": "established"} | counts
    assert second["held"] == 9


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
