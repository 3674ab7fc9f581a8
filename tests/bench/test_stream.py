"""Both ends know each octet, and what is not as it was sent is seen."""

from __future__ import annotations

import socket
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stream import BLOCK_OCTETS, DATAGRAM_OCTETS, NUMBER, RUN, Datagrams, Half, Stream, Tally, receive

OCTETS = BLOCK_OCTETS + 1000


def content(name: str = "a", seed: int = 1) -> bytes:
    stream = Stream(seed, name)
    return stream.take(BLOCK_OCTETS) + stream.take(OCTETS - BLOCK_OCTETS)


def received(octets: bytes) -> Half:
    """What a receiver of ``OCTETS`` makes of these."""
    near, far = socket.socketpair()
    half = Half()
    with near, far:
        sender = threading.Thread(target=lambda: (near.sendall(octets), near.shutdown(socket.SHUT_WR)))
        sender.start()
        try:
            receive(far, Stream(1, "a"), OCTETS, half)
        finally:
            far.shutdown(socket.SHUT_RDWR)  # a sender of too much is waiting
            sender.join()
    return half


def test_content_follows_from_seed_and_name_and_no_two_blocks_are_alike() -> None:
    assert content() == content()
    assert content() != content(seed=2)
    assert content() != content("b")
    stream = Stream(1, "a")
    assert stream.take(BLOCK_OCTETS) != stream.take(BLOCK_OCTETS)


def test_what_was_sent_is_received() -> None:
    half = received(content())
    assert (half.octets, half.crc, half.altered) == (OCTETS, zlib.crc32(content()), None)


@pytest.mark.parametrize("place", [0, BLOCK_OCTETS - 1, BLOCK_OCTETS + 7])
def test_an_octet_that_is_another_is_found(place: int) -> None:
    octets = bytearray(content())
    octets[place] ^= 1
    octets[-1] ^= 1
    half = received(bytes(octets))
    assert half.altered == place
    assert half.crc == zlib.crc32(octets)


@pytest.mark.parametrize(
    ("octets", "said"), [(content()[:-1], f"{OCTETS - 1} octets came"), (content() + b"x", "more")]
)
def test_too_few_and_too_many_are_failures(octets: bytes, said: str) -> None:
    with pytest.raises(ConnectionError, match=said):
        received(octets)


def test_datagrams_of_a_run_have_one_size_and_the_sizes_differ() -> None:
    datagrams = Datagrams(1, "a")
    sizes = [{len(datagrams.make(first + each)) for each in range(RUN)} for first in range(0, 40 * RUN, RUN)]
    assert all(len(each) == 1 for each in sizes)
    assert len(set.union(*sizes)) == 40
    assert max(set.union(*sizes)) <= DATAGRAM_OCTETS


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 8 * (DATAGRAM_OCTETS + 8)))
def test_each_datagram_counts_once(numbers: list[int], bit: int) -> None:
    datagrams, tally = Datagrams(1, "a"), Tally()
    for number in numbers:
        tally.take(datagrams, datagrams.make(number))
    assert tally.received == len(set(numbers))
    assert tally.repeated == len(numbers) - len(set(numbers))
    firsts = [number for place, number in enumerate(numbers) if number not in numbers[:place]]
    assert tally.reordered == sum(number < max(firsts[:place], default=-1) for place, number in enumerate(firsts))
    for number in numbers:
        altered = bytearray(datagrams.make(number))
        altered[bit // 8 % len(altered)] ^= 1 << bit % 8
        tally.take(datagrams, bytes(altered))
    assert tally.altered == len(numbers)


@pytest.mark.parametrize("datagram", [b"", b"\0" * 7, NUMBER.pack(2**64 - 1)])
def test_a_datagram_that_nobody_sent_is_altered(datagram: bytes) -> None:
    tally = Tally()
    tally.take(Datagrams(1, "a"), datagram)
    assert (tally.altered, tally.received) == (1, 0)
