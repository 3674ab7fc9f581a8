"""What is known of paths: narrower by hearsay for ten minutes, anything by trial for good."""

from __future__ import annotations

from math import inf

from esp.mtu import LARGEST_PATH
from esp.path import FORGET_SECONDS, MAX_ADDRESSES, Paths


def test_hearsay_narrows_a_path_and_is_forgotten() -> None:
    paths = Paths()
    assert paths.octets("192.0.2.1") == LARGEST_PATH
    assert paths.deadline() == inf
    assert paths.narrow("192.0.2.1", 1400, 0.0)
    assert not paths.narrow("192.0.2.1", 1400, 1.0)
    assert not paths.narrow("192.0.2.1", 1500, 1.0)
    assert paths.narrow("192.0.2.1", 1300, 5.0)
    assert (paths.octets("192.0.2.1"), paths.octets("192.0.2.2")) == (1300, LARGEST_PATH)
    assert paths.forget(FORGET_SECONDS) == []
    assert paths.deadline() == 5.0 + FORGET_SECONDS
    assert paths.forget(5.0 + FORGET_SECONDS) == ["192.0.2.1"]
    assert paths.octets("192.0.2.1") == LARGEST_PATH


def test_nobody_makes_a_path_narrower_than_every_path_is() -> None:
    paths = Paths()
    assert paths.narrow("192.0.2.1", 68, 0.0)
    assert paths.narrow("2001:db8::1", 68, 0.0)
    assert (paths.octets("192.0.2.1"), paths.octets("2001:db8::1")) == (576, 1280)
    assert not paths.confirm("192.0.2.1", 28)
    assert paths.octets("192.0.2.1") == 576


def test_what_has_been_tried_holds_until_it_is_tried_again() -> None:
    paths = Paths()
    paths.narrow("192.0.2.1", 1300, 0.0)
    assert paths.confirm("192.0.2.1", 1420)
    assert not paths.confirm("192.0.2.1", 1420)
    assert paths.forget(1e9) == []
    assert paths.octets("192.0.2.1") == 1420


def test_memory_is_bounded() -> None:
    paths = Paths()
    for number in range(MAX_ADDRESSES + 5):
        paths.narrow(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1400, float(number))
    assert len(paths.forget(inf)) == MAX_ADDRESSES
