"""What leaves, in how many datagrams and in what runs: real sockets on loopback, which passes runs on whole."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from esp.link import SOL_UDP, UDP_GRO
from esp.native._core import Outbox, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

IP_RECVERR = 11  # linux/in.h
SO_NO_CHECK = 11  # asm-generic/socket.h
RUN = 64  # datagrams in one call, as outbox.c has it


class Ends:
    """An outbox with a socket of each family, and where its datagrams go."""

    def __init__(self, out: dict[int, socket.socket], into: dict[int, socket.socket], *, runs: bool) -> None:
        self.out, self.into = out, into
        self.outbox = Outbox([(each.fileno(), family, False) for family, each in out.items()], runs)
        self.there = {family: Place(*each.getsockname()[:2]) for family, each in into.items()}

    def arrived(self, family: int = socket.AF_INET) -> list[list[bytes]]:
        """Runs of datagrams, in order."""
        runs = []
        while True:
            try:
                octets, ancillary, _, _ = self.into[family].recvmsg(65_536, 256)
            except BlockingIOError:
                return runs
            each = len(octets) or 1
            for level, kind, value in ancillary:
                if (level, kind) == (SOL_UDP, UDP_GRO):
                    each = int.from_bytes(value[:4], "little")
            runs.append([octets[at : at + each] for at in range(0, max(len(octets), 1), each)])

    def classes(self) -> list[int]:
        """Of the datagrams that have arrived."""
        found = []
        while True:
            try:
                _, ancillary, _, _ = self.into[socket.AF_INET].recvmsg(65_536, 256)
            except BlockingIOError:
                return found
            found += [
                value[0] for level, kind, value in ancillary if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)
            ]


@contextmanager
def ends(*, runs: bool = True) -> Iterator[Ends]:
    out, into = {}, {}
    opened: list[socket.socket] = []
    try:
        for family, loopback in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for side in (out, into):
                side[family] = socket.socket(family, socket.SOCK_DGRAM)
                opened.append(side[family])
                side[family].setblocking(False)
                side[family].bind((loopback, 0))
            into[family].setsockopt(SOL_UDP, UDP_GRO, 1)
            into[family].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        into[socket.AF_INET].setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        yield Ends(out, into, runs=runs)
    finally:
        for each in opened:
            each.close()


def octets(number: int, size: int) -> bytes:
    return number.to_bytes(4) + bytes(size - 4)


def expected(sizes: list[int]) -> list[list[int]]:
    """As UDP_SEGMENT wants runs: all of one size, but for a last that may be shorter; so many, and within a packet."""
    runs: list[list[int]] = []
    for size in sizes:
        run = runs[-1] if runs else []
        open_ = run and run[-1] == run[0] and size <= run[0] and len(run) < RUN and sum(run) + size <= 65_000
        if open_:
            run.append(size)
        else:
            runs.append([size])
    return runs


SIZES = st.lists(st.sampled_from([36, 100, 100, 1400, 1400, 9000]), min_size=1, max_size=40)


@given(SIZES)
@settings(max_examples=15)
def test_runs_are_of_one_size_and_end_with_a_shorter_one(sizes: list[int]) -> None:
    with ends() as both:
        for number, size in enumerate(sizes):
            assert both.outbox.place(octets(number, size), both.there[socket.AF_INET])
        # Each place is a remote of its own, unless it is the same object; so these make runs.
        assert both.outbox.flush()[:2] == (len(sizes), 0)
        arrived = both.arrived()
    assert [[len(each) for each in run] for run in arrived] == expected(sizes)
    assert [each for run in arrived for each in run] == [octets(number, size) for number, size in enumerate(sizes)]


def test_no_more_than_sixty_four_in_one_call_to_the_kernel() -> None:
    with ends() as both:
        for number in range(2 * RUN + 3):
            both.outbox.place(octets(number, 100), both.there[socket.AF_INET])
        assert both.outbox.flush() == (2 * RUN + 3, 0, 1, 0, 0)
        assert [len(run) for run in both.arrived()] == [RUN, RUN, 3]


def test_without_runs_each_goes_by_itself() -> None:
    with ends(runs=False) as both:
        for number in range(5):
            both.outbox.place(octets(number, 100), both.there[socket.AF_INET])
        assert both.outbox.flush() == (5, 0, 1, 0, 0)
        assert both.arrived() == [[octets(number, 100)] for number in range(5)]


def test_another_class_and_another_place_are_another_run() -> None:
    with ends() as both:
        here = both.there[socket.AF_INET]
        for number, traffic_class in enumerate([0, 0, 2, 2, 0xB8]):
            both.outbox.place(octets(number, 100), here, traffic_class)
        both.outbox.flush()
        assert both.classes() == [0, 2, 0xB8]
        for number in range(4):
            both.outbox.place(octets(number, 100), here if number % 2 else both.there[socket.AF_INET6])
        assert both.outbox.flush()[:2] == (4, 0)
        for family, numbers in ((socket.AF_INET, (1, 3)), (socket.AF_INET6, (0, 2))):
            assert both.arrived(family) == [[octets(number, 100)] for number in numbers]


def test_what_is_withdrawn_was_never_there() -> None:
    with ends() as both:
        there = both.there[socket.AF_INET]
        both.outbox.place(octets(0, 100), there)
        both.outbox.withdraw()
        for number, size in enumerate([100, 100, 60]):  # the short one closes the run, and opens it again
            both.outbox.place(octets(number, size), there)
        both.outbox.withdraw()
        both.outbox.place(octets(3, 100), there)
        assert both.outbox.flush()[:2] == (3, 0)
        assert both.arrived() == [[octets(0, 100), octets(1, 100), octets(3, 100)]]
        assert both.outbox.flush()[:3] == (0, 0, 0)


def test_more_than_it_has_room_for_is_sent_before() -> None:
    """By octets: half a megabyte. By messages: 256."""
    with ends() as both:
        there = both.there[socket.AF_INET]
        for number in range(20):
            assert both.outbox.place(octets(number, 60_000), there)
        assert both.outbox.flush()[:2] == (20, 0)
        assert [each for run in both.arrived() for each in run] == [octets(number, 60_000) for number in range(20)]
        for number in range(600):
            assert both.outbox.place(octets(number, 100 + number), there)  # each longer: no runs
        assert both.outbox.flush()[:2] == (600, 0)
        assert [each for run in both.arrived() for each in run] == [
            octets(number, 100 + number) for number in range(600)
        ]


def test_a_socket_that_refuses_runs_sends_singly() -> None:
    """EINVAL, that of a socket without checksums (udp(7)), is said of this run and not of all."""
    with ends() as both:
        both.out[socket.AF_INET].setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        for number in range(3):
            both.outbox.place(octets(number, 100), both.there[socket.AF_INET])
        datagrams, refused, calls, errors, fell_back = both.outbox.flush()
        assert (datagrams, refused, errors, fell_back) == (3, 0, 0, 0)
        assert calls == 4
        assert both.arrived() == [[octets(number, 100)] for number in range(3)]


def test_an_error_about_an_earlier_datagram_is_told_and_costs_none() -> None:
    with ends() as both:
        both.out[socket.AF_INET].setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        with socket.socket(type=socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            gone = Place(*nobody.getsockname())
        both.outbox.place(octets(0, 100), gone)
        assert both.outbox.flush()[:4] == (1, 0, 1, 0)
        both.outbox.place(octets(1, 100), both.there[socket.AF_INET])
        datagrams, refused, _, errors, _ = both.outbox.flush()
        assert (datagrams, refused, errors) == (1, 0, 1)
        assert both.arrived() == [[octets(1, 100)]]


def test_what_is_too_long_for_a_datagram_is_refused_and_what_is_behind_it_goes() -> None:
    with ends() as both:
        for size in (100, 65_530, 101):
            both.outbox.place(octets(size, size), both.there[socket.AF_INET])
        datagrams, refused, _, errors, _ = both.outbox.flush()
        assert (datagrams, refused, errors) == (3, 1, 1)
        assert Counter(len(each) for run in both.arrived() for each in run) == {100: 1, 101: 1}


def test_a_place_that_no_socket_reaches_is_refused() -> None:
    with ends() as both:
        four = Outbox([(both.out[socket.AF_INET].fileno(), socket.AF_INET, False)], True)
        assert not four.place(octets(0, 100), both.there[socket.AF_INET6])
        assert not four.place(octets(0, 100), Place("127.0.0.1", 0))  # without UDP
        assert four.flush()[:3] == (0, 0, 0)
        raw = Outbox([(both.out[socket.AF_INET].fileno(), socket.AF_INET, True)], True)
        assert not raw.place(octets(0, 100), both.there[socket.AF_INET])


def test_the_runs_that_are_expected() -> None:
    assert expected([100, 100, 60, 100]) == [[100, 100, 60], [100]]
    assert expected([100] * 65) == [[100] * 64, [100]]
    assert expected([9000] * 8) == [[9000] * 7, [9000]]
