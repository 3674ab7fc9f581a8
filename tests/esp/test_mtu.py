"""The largest packet fits the path and one octet more does not: by sealing both."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tunnel import ipv4, ipv6

from esp import mtu as sizes
from esp.crypto import make_sealer
from esp.mtu import IP_HEADER_OCTETS, UDP_HEADER_OCTETS, largest_inner
from esp.sa import Encapsulation, Mode
from esp.suite import SUITES
from esp.wire import build_trailers


def outer_octets(suite_name: str, mode: Mode, encapsulation: Encapsulation, outer: int, inner: int) -> int:
    """Octets of the IP packet that carries an inner one of ``inner`` octets."""
    suite = SUITES[suite_name]
    packet = (ipv4 if outer == 4 else ipv6)(bytes(inner - IP_HEADER_OCTETS[outer]))
    payload = packet if mode is Mode.TUNNEL else packet[IP_HEADER_OCTETS[outer] :]
    text = payload + build_trailers(suite.block_octets, 4)[len(payload) % suite.block_octets]
    sealed = make_sealer(suite, 0x1000, bytes(suite.keymat_octets), bytes).seal(1, text)
    udp = UDP_HEADER_OCTETS if encapsulation is Encapsulation.UDP else 0
    return IP_HEADER_OCTETS[outer] + udp + len(sealed)


@pytest.mark.parametrize("suite", SUITES)
@given(
    mode=st.sampled_from(Mode),
    encapsulation=st.sampled_from(Encapsulation),
    outer=st.sampled_from([4, 6]),
    path=st.integers(576, 9000),
)
@settings(max_examples=8)  # of 88 suites
def test_the_largest_fits_and_one_more_does_not(
    suite: str, mode: Mode, encapsulation: Encapsulation, outer: int, path: int
) -> None:
    mtu = largest_inner(SUITES[suite], mode, encapsulation, outer, path)
    assert outer_octets(suite, mode, encapsulation, outer, mtu) <= path
    assert outer_octets(suite, mode, encapsulation, outer, mtu + 1) > path
    for inner in (mtu, mtu + 1):
        said = sizes.outer_octets(SUITES[suite], mode, encapsulation, outer, inner)
        assert said == outer_octets(suite, mode, encapsulation, outer, inner)


def test_the_figure_that_was_measured() -> None:
    """A packet of 1,438 octets fills 1,500 with UDP, AES-GCM and IPv4."""
    assert largest_inner(SUITES["aes256-gcm16"], Mode.TUNNEL, Encapsulation.UDP, 4, 1500) == 1438
