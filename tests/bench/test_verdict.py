"""What of a soak is a fault, and what is not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.relay import Odds, Passed
from bench.verdict import Flow, Gateway, Outcome

FLOW = Flow(
    source="a",
    target="b",
    version=4,
    octets_sent=1000,
    octets_received=1000,
    sent_crc=("0badcafe",),
    received_crc=("0badcafe",),
    altered=(),
    retransmissions=3,
    failures=(),
    datagrams=100,
    datagrams_received=98,
    datagrams_altered=0,
    datagrams_repeated=0,
    datagrams_reordered=5,
)
A = Gateway("a", ("native",), 2, 1000, 900, {"link_refused": 10}, 0, 2)
B = Gateway("b", ("native",), 1, 900, 990, {}, 0, 0)
FAULTY = Odds(lost=0.01, repeated=0.01)
LOSSY = (Passed(990, 20, 3, 7, 1, 0, 0), Passed(900, 0, 0, 0, 0, 0, 0))


def outcome(flow: Flow = FLOW, a: Gateway = A, b: Gateway = B, **changes: object) -> Outcome:
    made = Outcome(flows=(flow,), gateways=(a, b), passed=None, rekeys=3, rekeys_failed=0, seconds=2.0)
    return replace(made, **changes)


def test_loss_retransmission_and_a_full_link_are_none() -> None:
    assert outcome().faults(odds=Odds(), rekeyed=True) == []
    assert outcome().unaccounted() == (0, 0)
    assert outcome().gbit_per_s == pytest.approx(4e-6)
    assert json.loads(json.dumps(outcome(seconds=4e-6).to_dict()))["gbit_per_s"] == 2.0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"failures": ("TimeoutError: x",), "octets_received": 9}, "a to b, IPv4: TimeoutError: x"),
        ({"altered": (77,)}, "a to b, IPv4: octet 77 of a connection is another one"),
        ({"octets_received": 999}, "a to b, IPv4: 1000 octets sent, 999 received"),
        ({"received_crc": ("00000000",)}, "a to b, IPv4: CRC-32 ('0badcafe',) sent, ('00000000',) received"),
        ({"datagrams_altered": 1}, "a to b, IPv4: 1 datagrams are not as they were sent"),
        ({"datagrams_repeated": 2}, "a to b, IPv4: 2 datagrams came again"),
    ],
)
def test_what_a_flow_must_not_be(changed: dict[str, object], said: str) -> None:
    flow = replace(FLOW, **changed)
    assert outcome(flow).faults(odds=FAULTY, rekeyed=True) == [said]


@pytest.mark.parametrize(
    ("reason", "opened"),
    [("replayed", 0), ("too_old", 0), ("authentication_failed", 0), ("unknown_spi", 0), ("tun_refused", 8)],
)
def test_a_gateway_drops_nothing_but_what_the_link_refuses(reason: str, opened: int) -> None:
    found = outcome(b=replace(B, packets_in=982 + opened, drops={reason: 8}))
    assert found.faults(odds=Odds(), rekeyed=True) == [f"b dropped 8 packets: {reason}"]


def test_what_the_path_repeats_is_replayed_to_the_far_end_and_no_more_than_that() -> None:
    for drops, said in ({"replayed": 7}, []), ({"replayed": 8}, ["b dropped 8 packets: replayed, 7 at most"]):
        found = outcome(b=replace(B, packets_in=977 - drops["replayed"], drops=drops), passed=LOSSY)
        assert found.faults(odds=FAULTY, rekeyed=True) == said
    near = outcome(a=replace(A, packets_in=899, drops={"link_refused": 10, "replayed": 1}))
    assert near.faults(odds=FAULTY, rekeyed=True) == ["a dropped 1 packets: replayed"]


@pytest.mark.parametrize("packets_in", [989, 991])
def test_what_became_of_each_packet_has_to_be_known(packets_in: int) -> None:
    found = outcome(b=replace(B, packets_in=packets_in))
    assert found.unaccounted() == (990 - packets_in, 0)
    said = [f"of {990 - packets_in} packets to b it is not known what became"]
    assert found.faults(odds=Odds(), rekeyed=True) == said


@pytest.mark.parametrize("packets_in", [900, 988])
def test_where_a_socket_is_full_the_sum_is_not_even(packets_in: int) -> None:
    """A run that finds no room counts as one, and KINK's datagrams on the same port count as well."""
    found = outcome(b=replace(B, packets_in=packets_in, overruns=4))
    assert found.unaccounted() == (986 - packets_in, 0)
    assert found.faults(odds=Odds(), rekeyed=True) == []


def test_keys_have_to_be_new_where_they_were_to_be() -> None:
    assert outcome(rekeys=0).faults(odds=Odds(), rekeyed=False) == []
    assert outcome(rekeys=0).faults(odds=Odds(), rekeyed=True) == ["no rekey came about"]
    assert outcome(rekeys_failed=1).faults(odds=Odds(), rekeyed=True) == ["1 rekeys failed"]
    assert outcome(rekeys_failed=1).faults(odds=FAULTY, rekeyed=True) == []
