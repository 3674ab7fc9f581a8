"""Status: keying's policies with what their SAs carried, and nothing that JSON lacks."""

from __future__ import annotations

import json
from dataclasses import replace

from esp.dataplane import LinkStatistics
from esp.errors import DropReason
from esp.offload import ALL_OFFLOADS, OF_TUN, OF_UDP, Grant, Offload
from esp.sa import Endpoint
from esp.statistics import SaStatistics, Statistics
from kinkvpn.service.report import offload_status, policy_counts, policy_engines, policy_traffic, spell, with_traffic


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
    unused_ecn={"not_ect_in_ce": 1},
)


def test_a_policy_has_what_all_its_sas_carried() -> None:
    assert policy_traffic("b/1", TRAFFIC) == {
        "packets_in": 3,
        "octets_in": 300,
        "packets_out": 4,
        "octets_out": 400,
        "iptfs_lost": 0,
        "iptfs_octets": 0,
        "largest": 0,
        "tfc_octets": 0,
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
        replace(sa("b/2", 1, 100, inbound=True), **native),
    ]
    traffic = replace(TRAFFIC, sas=tuple(sas))
    names = ("engine_in", "engine_out", "engine_reason")
    assert [tuple(policy_engines(name, traffic)[key] for key in names) for name in ("b/1", "b/2", "b/3")] == [
        ("portable", "native", "transport mode"),
        ("native", None, None),
        (None, None, None),
    ]


def test_sizes_are_those_of_the_newest_sa_that_sends() -> None:
    sizes = ((1438, 0), (1234, 900))
    sas = [replace(sa("b/1", 1, 100, inbound=False), largest=one, padded=other) for one, other in sizes]
    found = policy_traffic("b/1", replace(TRAFFIC, sas=(*sas, sa("b/1", 1, 100, inbound=True))))
    assert (found["largest"], found["tfc_octets"]) == (1234, 900)


def test_a_constant_rate_has_what_was_lost_and_the_size_of_the_newest_sa() -> None:
    sas = (
        *(replace(sa("b/1", 1, 100, inbound=True), lost=lost) for lost in (3, 4)),
        *(replace(sa("b/1", 1, 100, inbound=False), payload_octets=octets) for octets in (1400, 1200)),
    )
    found = policy_traffic("b/1", replace(TRAFFIC, sas=sas))
    assert (found["iptfs_lost"], found["iptfs_octets"]) == (7, 1200)


def test_the_rest_of_keying_s_status_stays() -> None:
    keying = {
        "peers": [{"name": "b", "epoch": 1, "policies": [{"name": "b/1", "state": "established"}]}],
        "counters": {"malformed": 2},
        "labelled": {"messages_received": {"create": 2}},
    }
    found = with_traffic(keying, TRAFFIC, LinkStatistics(junk_received=4))
    assert json.loads(json.dumps(found)) == found
    (peer,) = found["peers"]
    assert peer["epoch"] == 1
    assert peer["policies"] == [{"name": "b/1", "state": "established"} | policy_counts("b/1", TRAFFIC)]
    counters = found["counters"]
    assert isinstance(counters, dict)
    assert counters["kink"] == {"malformed": 2}
    assert counters["kink_labelled"] == {"messages_received": {"create": 2}}
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
