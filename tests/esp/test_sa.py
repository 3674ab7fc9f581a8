"""SA parameters: what an engine takes and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.tunnel import parameters

from esp.errors import InvalidSa
from esp.headers import HeaderRules
from esp.sa import Lifetime, Mode, check_parameters


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
