"""Words for states, and the arithmetic of durations and sizes."""

from __future__ import annotations

from typing import Any

import pytest

from kinkvpn import view


def _policy(state: str = "down", failures: int = 0, last_error: str = "") -> dict[str, Any]:
    return {"state": state, "failures": failures, "last_error": last_error}


UP, DOWN = _policy("established"), _policy(failures=3)


@pytest.mark.parametrize(
    ("policies", "state"),
    [
        ([], "idle"),
        ([_policy(last_error="the peer is dead: no answer in 31.5 s")], "down"),
        ([_policy()], "idle"),
        ([_policy(), _policy("negotiating")], "negotiating"),
        ([_policy(), UP], "established"),
        ([_policy("negotiating", failures=2), UP], "established"),
        ([DOWN, UP], "partly down"),
        ([DOWN, _policy()], "partly down"),
        ([DOWN, DOWN], "down"),
    ],
)
def test_the_state_of_a_peer_is_the_worst_to_know_of(policies: list[dict[str, Any]], state: str) -> None:
    assert view.peer_state({"policies": policies}) == state


@pytest.mark.parametrize(("number", "text"), [(0, "0 bit/s"), (12_345, "12.3 kbit/s"), (2e9, "2 Gbit/s")])
def test_bits(number: float, text: str) -> None:
    assert view.bits(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (3600, "1h 0m"), (90_000, "1d 1h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (10**15, "1000.0 TB")],
)
def test_octets(number: int, text: str) -> None:
    assert view.octets(number) == text
