"""What an inbound SA lets pass."""

from __future__ import annotations

from random import Random

from support.memory import kept
from support.tunnel import LEFT, SELECTOR4, flip, ipv4, parameters, ports

from esp.errors import DropReason
from esp.inbound import AggregatedInboundSa, InboundSa, make_inbound
from esp.outbound import OutboundSa
from esp.sa import Aggregation


def test_many_flows_of_one_peer_are_matched_again_and_no_worse() -> None:
    sa = make_inbound(parameters(selector=flip(SELECTOR4), remote=LEFT), 0.0, {})

    def arrive(source: int) -> None:
        for host, passes in (("10.2.0.1", True), ("10.3.0.1", False)):
            packet = ipv4(ports(source, 53), destination=host, protocol=17)
            text = packet + bytes([0, 4])
            assert sa.unwrap(text, 1, 0, 0.0) == ((packet if passes else DropReason.SELECTOR_MISMATCH),)

    full, later = kept(arrive, 4096, 2 * 4096)
    assert later < 1.2 * full


def test_what_is_not_aggregated_passes_either_kind_alike() -> None:
    sealer = OutboundSa(parameters(), 0.0, Random(5).randbytes)
    there = parameters(selector=flip(SELECTOR4), remote=LEFT)
    plain, aggregated = (kind(there, 0.0, {}) for kind in (InboundSa, AggregatedInboundSa))
    for number, packet in enumerate([ipv4(), ipv4(destination="10.3.0.1"), ipv4(bytes(100))], 1):
        datagram = sealer.seal(packet, 0.0).datagram
        one, other = (sa.authenticate(datagram, number) for sa in (plain, aggregated))
        assert isinstance(one, bytes)
        assert isinstance(other, bytes)
        expected = DropReason.SELECTOR_MISMATCH if number == 2 else packet
        assert [*plain.unwrap(one, number, 0, 0.0)] == [*aggregated.unwrap(other, number, 0, 0.0)] == [expected]
    made = make_inbound(parameters(aggregation=Aggregation(500, 10)), 0.0, {})
    assert type(made) is AggregatedInboundSa
