"""What the engine and its link hand each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from esp.datagram import Incoming, Outgoing, Run, gather
from esp.sa import Endpoint

HERE = Endpoint("192.0.2.1", 4500)


def test_a_link_that_knows_nothing_of_outer_headers_need_not_say_so() -> None:
    assert Outgoing(b"x", HERE) == (b"x", HERE, 0, None, 0, 50)
    assert Incoming(b"x", HERE) == (b"x", HERE, 0)


HEADERS = st.tuples(st.sampled_from([0, 1, 7, 2**32 - 1]), st.sampled_from([0, 1, 2, 3, 2**32 - 2, 2**32 - 1]))


@given(st.lists(HEADERS, min_size=1, max_size=12), st.integers(8, 30), st.integers(0, 29), st.booleans())
def test_what_comes_as_one_is_the_same_datagrams(
    headers: list[tuple[int, int]], octets: int, rest: int, in_a_row: bool
) -> None:
    if in_a_row:
        headers = [(headers[0][0], headers[0][1] + number & 0xFFFF_FFFF) for number in range(len(headers))]
    datagrams = b"".join(spi.to_bytes(4) + low.to_bytes(4) + bytes(octets - 8) for spi, low in headers)
    datagrams += bytes(min(rest, octets - 1))
    gathered = gather(datagrams, octets, HERE, 3)
    alone = [one for each in gathered for one in (each.split() if isinstance(each, Run) else [each])]
    cut = [datagrams[at : at + octets] for at in range(0, len(datagrams), octets)]
    assert alone == [Incoming(datagram, HERE, 3) for datagram in cut]
    for run in gathered:
        if isinstance(run, Run):
            numbers = [int.from_bytes(each.datagram[:8]) for each in run.split()]
            assert numbers == list(range(numbers[0], numbers[0] + run.count))
            assert len({number >> 32 for number in numbers} - {0}) == 1, "of one SPI, and that is one of ESP's"
            assert run.count > 1
            assert {len(each.datagram) for each in run.split()} == {octets}
            assert run.split(1) == run.split()[1:]


def test_a_burst_of_one_sa_is_one_run_and_its_last_is_alone() -> None:
    burst = b"".join((5).to_bytes(4) + number.to_bytes(4) + bytes(92) for number in range(40))
    assert gather(burst + b"\xff", 100, HERE, 0) == [Run(burst, 100, HERE, 0), Incoming(b"\xff", HERE)]
    gap = burst[:1000] + burst[1100:]
    assert gather(gap, 100, HERE, 0) == [Run(gap[:1000], 100, HERE, 0), Run(gap[1000:], 100, HERE, 0)]
    assert gather(b"\xff\xff\xff", 1, HERE, 0) == [Incoming(b"\xff", HERE)] * 3
