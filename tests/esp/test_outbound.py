"""What leaves an outbound SA, by what it was asked for."""

from __future__ import annotations

from random import Random

import pytest
from support.tunnel import ipv4, ipv6, parameters, ports

from esp.headers import DontFragment, HeaderRules
from esp.lifetime import Limit
from esp.outbound import OutboundSa, ShapedOutboundSa, make_outbound
from esp.sa import Aggregation, Confidentiality

SEEDED = Random(5).randbytes


@pytest.mark.parametrize("esn", [False, True])
def test_the_counter_asks_for_a_successor_before_its_end(esn: bool) -> None:
    """Whatever lifetimes keying chose: a sixteenth of all numbers is left (RFC 4303 §3.3.3)."""
    start = 2**64 - 2**60 - 2 if esn else 2**32 - 2**28 - 2
    sa = OutboundSa(parameters(sequence=start, esn=esn), 0.0, SEEDED)
    told = []
    for _ in range(4):
        sa.seal(ipv4(), 0.0)
        told.append(sa.reached(0.0))
    assert told.count(Limit.SOFT) == 1
    assert sa.sequence == start + 4


@pytest.mark.parametrize(
    ("df", "expected"),
    [
        (DontFragment.AUTO, [None, None, None]),
        (DontFragment.COPY, [True, False, True]),
        (DontFragment.SET, [True, True, True]),
        (DontFragment.CLEAR, [False, False, False]),
    ],
)
def test_df_is_copied_set_or_cleared(df: DontFragment, expected: list[bool | None]) -> None:
    """RFC 4301 §5.1.2.1, note 4."""
    sa = make_outbound(parameters(headers=HeaderRules(df=df)), 0.0, SEEDED)
    whole = bytearray(ipv4(b"x"))
    whole[6] = 0x40
    assert [sa.seal(packet, 0.0).dont_fragment for packet in (bytes(whole), ipv4(b"x"), ipv6(b"x"))] == expected


def test_flows_have_labels_only_where_that_was_asked_for() -> None:
    """RFC 6438 §3; what goes out by the clock belongs to no flow."""
    plain = OutboundSa(parameters(), 0.0, SEEDED)
    labelled = make_outbound(parameters(headers=HeaderRules(flow_labels=True)), 0.0, SEEDED)
    packets = [ipv4(ports(source, 53), protocol=17) for source in (1, 2, 1)]
    assert [plain.seal(packet, 0.0).flow_label for packet in packets] == [0, 0, 0]
    one, other, again = [labelled.seal(packet, 0.0).flow_label for packet in packets]
    assert one == again != other
    paced = parameters(headers=HeaderRules(flow_labels=True), aggregation=Aggregation(500, 10))
    assert [each.flow_label for each in OutboundSa(paced, 0.0, SEEDED).seal_due(1.0)] == [0] * 10


@pytest.mark.parametrize("suite", ["aes256-gcm16", "aes128-cbc-sha1"])
def test_who_asks_for_nothing_gets_the_same_of_either_kind(suite: str) -> None:
    packets = [ipv4(bytes(octets)) for octets in range(20)] + [ipv6(b"x")]
    plain, shaped = (kind(parameters(suite), 0.0, Random(5).randbytes) for kind in (OutboundSa, ShapedOutboundSa))
    assert [plain.seal(packet, 0.0) for packet in packets] == [shaped.seal(packet, 0.0) for packet in packets]
    assert type(make_outbound(parameters(suite), 0.0, SEEDED)) is OutboundSa


def test_who_asks_for_more_gets_it() -> None:
    (outgoing, padded, labelled, copied) = (
        make_outbound(parameters(**changes), 0.0, SEEDED).seal(ipv4(b"x"), 0.0)
        for changes in (
            {},
            {"confidentiality": Confidentiality(500)},
            {"headers": HeaderRules(flow_labels=True)},
            {"headers": HeaderRules(df=DontFragment.COPY)},
        )
    )
    assert len(padded.datagram) > 500 > len(outgoing.datagram)
    assert labelled.flow_label
    assert not outgoing.flow_label
    assert (copied.dont_fragment, outgoing.dont_fragment) == (False, None)
