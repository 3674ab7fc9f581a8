"""A pair of SAs, turned about."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from support.manual import pair

from esp.policy import Selector


def test_what_one_end_seals_the_other_opens() -> None:
    here = pair()
    there = here.turned_about()
    assert (there.local, there.remote) == (here.remote, here.local)
    assert (there.inbound.spi, there.inbound.keymat) == (here.outbound.spi, here.outbound.keymat)
    assert (there.outbound.spi, there.outbound.keymat) == (here.inbound.spi, here.inbound.keymat)
    assert there.outbound.remote == there.inbound.remote == here.local


def test_the_selector_is_seen_from_the_other_end() -> None:
    one, other = ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24")
    here = pair()
    selector = Selector(one, other, 6, local_port=1000, remote_port=443)
    here = replace(here, outbound=replace(here.outbound, selector=selector))
    assert here.turned_about().inbound.selector == Selector(other, one, 6, local_port=443, remote_port=1000)


def test_twice_is_as_it_was() -> None:
    assert pair().turned_about().turned_about() == pair()


def test_no_key_is_in_its_repr() -> None:
    here = pair()
    for sa in (here.outbound, here.inbound):
        assert repr(sa.keymat)[2:-1] not in repr(here)
        assert sa.keymat.hex() not in repr(here)
