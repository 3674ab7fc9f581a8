"""Which SAs lanes run and which they leave, and what of an SA lanes and Python both see."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import DropReason
from esp.headers import DontFragment, HeaderRules
from esp.native.engine import NativeEngine
from esp.native.sa import NativeOutboundSa, NativeWindow, why_not
from esp.policy import Policy, Selector
from esp.sa import Aggregation, Confidentiality, Endpoint, Mode, SaParameters, SecurityProtocol
from esp.seqnum import ReplayWindow
from esp.suite import SUITES

SUITE = SUITES["aes128-gcm16"]
SUBNETS = Selector(ip_network("10.0.1.0/24"), ip_network("10.0.2.0/24"))
SA = SaParameters(
    0x1234, SUITE, bytes(range(SUITE.keymat_octets)), "policy", SUBNETS, Endpoint("192.0.2.1", 4500), replay_window=64
)
PORTS = replace(SUBNETS, protocol=17, remote_port=53)


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_lanes_run_tunnel_mode_in_every_suite(suite: Any, inbound: bool) -> None:
    sa = replace(SA, suite=suite, keymat=bytes(suite.keymat_octets), legacy=suite.legacy)
    assert why_not(sa, inbound=inbound) == ""


@pytest.mark.parametrize(
    ("changes", "outbound", "inbound"),
    [
        ({"mode": Mode.TRANSPORT}, "transport mode", "transport mode"),
        ({"headers": HeaderRules(flow_labels=True)}, "flow labels", ""),
        ({"headers": HeaderRules(df=DontFragment.SET)}, "DF", ""),
        ({"confidentiality": Confidentiality(octets=1_000)}, "padding", ""),
        ({"aggregation": Aggregation(octets=1_000, per_second=10)}, "IP-TFS", "IP-TFS"),
        ({"selector": PORTS, "fragments": True}, "", "ports of fragments"),
        ({"selector": PORTS}, "", ""),
        (
            {"mode": Mode.TRANSPORT, "headers": HeaderRules(flow_labels=True)},
            "transport mode, flow labels",
            "transport mode",
        ),
    ],
    ids=str,
)
def test_each_reason_to_leave_one_is_named(changes: dict[str, Any], outbound: str, inbound: str) -> None:
    sa = replace(SA, **changes)
    assert (why_not(sa, inbound=False), why_not(sa, inbound=True)) == (outbound, inbound)


def test_authentication_headers_are_left() -> None:
    suite = SUITES["null-sha256"]
    sa = replace(SA, suite=suite, keymat=bytes(suite.keymat_octets), protocol=SecurityProtocol.AH, local="192.0.2.2")
    assert why_not(sa, inbound=True) == why_not(sa, inbound=False) == "AH"


@given(st.sampled_from([0, 1, 31, 32, 33, 64, 1024]), st.lists(st.integers(1, 3_000), max_size=200))
def test_a_window_that_takes_over_takes_the_same_numbers(size: int, numbers: list[int]) -> None:
    before = ReplayWindow(size)
    for number in numbers:
        if before.check(number) is None:
            before.mark(number)
    after = NativeWindow.copy_of(before)
    assert after.top == before.top
    assert [after.check(number) for number in range(3_100)] == [before.check(number) for number in range(3_100)]


def engine_with_policy() -> NativeEngine:
    engine = NativeEngine(random=Random(1).randbytes)
    engine.add_policy(Policy(SA.policy, SUBNETS))
    return engine


def test_no_two_have_the_same_number_and_none_shows_its_keys() -> None:
    engine = engine_with_policy()
    for number in range(3):
        engine.install_outbound(replace(SA, spi=SA.spi + number), 0.0)
    made = [sa for sa in engine._sad._outbound[SA.policy] if isinstance(sa, NativeOutboundSa)]
    assert len({sa.number for sa in made}) == 3
    for sa in made:
        for shown in (repr(sa), str(sa), repr(sa.core)):
            assert not re.search(SA.keymat[:4].hex(), shown)
            assert repr(SA.keymat[:4])[2:-1] not in shown


def test_what_is_given_to_python_after_its_time_is_counted() -> None:
    """On its way to Python when lanes got the SA: dropped under a reason, and the window is as it was."""
    engine = engine_with_policy()
    engine.install_inbound(SA, 0.0)
    sa = engine._sad.inbound[SA.spi]
    assert sa.authenticate(bytes(60), 1) is DropReason.ENGINE_BUSY
    assert sa.window.top == 0
