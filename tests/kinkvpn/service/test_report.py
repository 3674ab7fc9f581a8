"""Status: keying's policies with what their SAs carried, and nothing that JSON lacks."""

from __future__ import annotations

import json
from dataclasses import replace

from esp.dataplane import LinkStatistics
from esp.errors import DropReason
from esp.offload import ALL_OFFLOADS, OF_TUN, OF_UDP, Grant, Offload
from esp.sa import Endpoint
from esp.statistics import Carried, SaStatistics, Statistics
from kinkvpn.service.report import (
    offload_status,
    policy_counts,
    policy_engines,
    policy_sizes,
    policy_traffic,
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


def test_the_rest_of_keying_s_status_stays() -> None:
    keying = {
        "peers": [{"name": "b", "epoch": 1, "policies": [{"name": "b/1", "state": "established"}]}],
        "counters": {"malformed": 2},
        "labelled": {"messages_received": {"create": 2}},
        "seconds": {"create": {"le": {"1.0": 1}, "count": 1, "sum": 0.004}},
    }
    found = with_traffic(keying, TRAFFIC, LinkStatistics(junk_received=4))
    assert json.loads(json.dumps(found)) == found
    (peer,) = found["peers"]
    assert peer["epoch"] == 1
    counts = policy_counts("b/1", TRAFFIC, TRAFFIC.sas[:3])
    assert peer["policies"] == [{"name": "b/1", "state": "established"} | counts]
    counters = found["counters"]
    assert isinstance(counters, dict)
    assert counters["kink"] == {"malformed": 2}
    assert counters["kink_labelled"] == {"messages_received": {"create": 2}}
    assert counters["kink_seconds"] == keying["seconds"]
    assert counters["drops"] == {"no_policy": 3}
    assert counters["unused_ecn"] == {"not_ect_in_ce": 1}
    assert counters["link"]["junk_received"] == 4
    assert (counters["packets_in"], counters["octets_out"]) == (5, 700)


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
