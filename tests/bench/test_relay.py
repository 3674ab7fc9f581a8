"""The path with faults makes those that it was told to make, and says so."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.lab import within

from bench.relay import Odds, Passed, Relay
from kinkvpn.demo.namespace import LabFailed, Namespace, join

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

PACKETS = 5000
FAR = "192.0.2.2"
ESP_PORT = 4500
SPI = b"spi!"
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
SILENCE_SECONDS = 1.0  # the relay holds no packet for longer than a millisecond of quiet


def crossed(directory: Path, odds: Odds, seed: int) -> tuple[list[int], tuple[Passed, Passed]]:
    """Numbers of the packets that arrive, as they do, and what the relay says that it did."""
    with Namespace("near") as near, Namespace("path") as path, Namespace("far") as far:
        for host, device, number in ((near, "left", 1), (far, "right", 2)):
            join(host, "wire", path, device)
            other = 3 - number
            host.ip(
                f"link set wire address 02:00:00:00:00:0{number}",
                f"address add 192.0.2.{number}/24 dev wire",
                f"neighbour add 192.0.2.{other} lladdr 02:00:00:00:00:0{other} dev wire",
            )
        relay = Relay(path, ("left", "right"), odds, seed=seed, directory=directory)
        try:
            numbers = sent_through(near, far)
            passed = relay.end()
        finally:
            relay.kill()
        return numbers, passed


def sent_through(near: Namespace, far: Namespace) -> list[int]:
    def made() -> socket.socket:
        return socket.socket(type=socket.SOCK_DGRAM)

    numbers = []
    with within(near, made) as source, within(far, made) as target:
        target.bind((FAR, ESP_PORT))
        target.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        source.connect((FAR, ESP_PORT))
        for number in range(PACKETS):
            source.send(SPI + number.to_bytes(4))
        target.settimeout(SILENCE_SECONDS)
        with suppress(TimeoutError):
            while True:
                numbers.append(int.from_bytes(target.recv(16)[len(SPI) :]))
    return numbers


def test_without_odds_all_pass_in_order(tmp_path: Path) -> None:
    numbers, (there, back) = crossed(tmp_path, Odds(), 1)
    assert numbers == list(range(PACKETS))
    assert there == Passed(PACKETS, 0, 0, 0, 0, 0, 0)
    assert back.packets == 0


def test_what_arrives_is_what_it_says(tmp_path: Path) -> None:
    odds = Odds(lost=0.05, held=0.05, repeated=0.05)
    numbers, (there, _) = crossed(tmp_path, odds, 2)
    again, (same, _) = crossed(tmp_path, odds, 2)
    assert (there.packets, there.refused, there.overrun) == (PACKETS, 0, 0)
    assert there.lost == same.lost
    for fault in (there.lost, there.held, there.repeated):
        assert PACKETS * 0.03 < fault < PACKETS * 0.07
    assert len(set(numbers)) == PACKETS - there.lost
    assert len(numbers) - len(set(numbers)) == there.repeated
    assert set(numbers) == set(again)
    late = sum(number < max(numbers[:place], default=0) for place, number in enumerate(numbers))
    assert late > there.held / 2


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    with Namespace("path") as path, pytest.raises(LabFailed, match="the relay does not start: left: No such device"):
        Relay(path, ("left", "right"), Odds(), seed=1, directory=tmp_path)
