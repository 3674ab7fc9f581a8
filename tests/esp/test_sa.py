"""SA parameters: what an engine takes and what it does not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from support.tunnel import parameters

from esp.errors import InvalidSa
from esp.headers import HeaderRules
from esp.policy import Selector
from esp.sa import Aggregation, Confidentiality, Lifetime, Mode, check_parameters


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spi": 256},
        {"spi": 0xFFFF_FFFF},
        {"replay_window": 0},
        {"replay_window": 65_536},
        {"sequence": 0xFFFF_FFFF},
        {"sequence": 2**64 - 1, "esn": True},
        {"replay_window": 1, "esn": True},
        {"headers": HeaderRules(dscp=bytes([63]) * 64)},
        {"lifetime": Lifetime(soft_seconds=10, hard_seconds=10)},
        {"lifetime": Lifetime(soft_packets=1, hard_octets=1)},
    ],
)
def test_good_parameters(changes: dict[str, object]) -> None:
    check_parameters(parameters(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spi": 0}, "SPI 0 is not"),
        ({"spi": 255}, "SPI 255 is not"),
        ({"spi": 2**32}, "SPI 4294967296 is not"),
        ({"keymat": b"secret"}, "takes 36 octets of KEYMAT, got 6"),
        ({"mode": Mode.TRANSPORT}, "transport mode is between two hosts, not 10.1.0.0/16 and 10.2.0.0/16"),
        ({"replay_window": -1}, "replay window -1"),
        ({"replay_window": 65_537}, "replay window 65537"),
        ({"headers": HeaderRules(dscp=bytes(63))}, "64 entries below 64"),
        ({"headers": HeaderRules(dscp=bytes([64]) * 64)}, "64 entries below 64"),
        ({"sequence": -1}, "sequence -1"),
        ({"sequence": 2**32}, "sequence 4294967296"),
        ({"sequence": 2**64, "esn": True}, "sequence 18446744073709551616"),
        ({"replay_window": 0, "esn": True}, "extended sequence numbers need a replay window"),
        ({"lifetime": Lifetime(hard_seconds=0)}, "a lifetime of 0 seconds"),
        ({"lifetime": Lifetime(soft_packets=-1)}, "a lifetime of -1 packets"),
        ({"lifetime": Lifetime(soft_octets=5, hard_octets=4)}, "soft lifetime 5 octets is beyond the hard 4"),
        ({"lifetime": Lifetime(soft_seconds=5, hard_seconds=4)}, "soft lifetime 5 seconds"),
    ],
)
def test_bad_parameters(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSa, match=message) as raised:
        check_parameters(parameters(**changes))
    assert "secret" not in str(raised.value)


HOSTS = Selector(ip_network("10.1.0.1/32"), ip_network("10.2.0.1/32"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aggregation": Aggregation(63, 10)}, "aggregation to 63 octets"),
        ({"aggregation": Aggregation(65_401, 10)}, "aggregation to 65401 octets"),
        ({"aggregation": Aggregation(1400, 0)}, "^0 payloads a second"),
        ({"aggregation": Aggregation(1400, 100_001)}, "100001 payloads a second"),
        ({"aggregation": Aggregation(1400, 10, -1)}, "a reorder window of -1"),
        ({"aggregation": Aggregation(1400, 10, 65)}, "a reorder window of 65"),
        ({"confidentiality": Confidentiality(63)}, "padding to 63 octets"),
        ({"confidentiality": Confidentiality(1400, 1e-6)}, "a dummy after 1e-06 seconds"),
        ({"confidentiality": Confidentiality(1400), "aggregation": Aggregation(1400, 10)}, "goes without padding"),
    ],
)
def test_shapes_that_no_traffic_can_have(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSa, match=message):
        check_parameters(parameters(**changes))


@pytest.mark.parametrize("shape", [{"aggregation": Aggregation(1400, 10)}, {"confidentiality": Confidentiality(1400)}])
def test_shapes_are_for_tunnel_mode(shape: dict[str, object]) -> None:
    """RFC 4303 §2.7, RFC 9347 §5.1."""
    check_parameters(parameters(**shape))
    with pytest.raises(InvalidSa, match="is for tunnel mode, not for transport mode"):
        check_parameters(parameters(mode=Mode.TRANSPORT, selector=HOSTS, **shape))


@pytest.mark.parametrize("suite", ["3des-cbc-sha256", "aes128-cbc-md5"])
def test_a_legacy_suite_is_for_those_who_ask(suite: str) -> None:
    """By name alone nobody gets one, and hears what it costs."""
    sa = parameters(suite, legacy=True)
    check_parameters(sa)
    with pytest.raises(InvalidSa, match=f"{suite} takes legacy = true from who knows its cost: (3DES|MD5) "):
        check_parameters(replace(sa, legacy=False))


def test_keys_are_not_shown() -> None:
    sa = parameters()
    assert repr(replace(sa, keymat=bytes(36))) == repr(sa)
