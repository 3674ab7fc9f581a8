from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kinkvpn.people.acceptance import Wishes, accept
from kinkvpn.proto.lease import Lease


def lease(*routes: str, six: bool = True) -> Lease:
    addresses = [ip_address("10.8.0.7"), *([ip_address("fd00:8::7")] if six else [])]
    return Lease(tuple(addresses), tuple(map(ip_network, routes)), (ip_address("10.1.0.53"),), ("example.com",))


PRIVATE = ("10.1.0.0/16", "172.16.0.0/12", "192.168.7.0/24", "100.64.0.0/10", "fd00:1::/48")
PUBLIC = ("0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "8.8.8.0/24", "2a00::/16", "11.0.0.0/8", "10.0.0.0/7")


def test_private_networks_are_a_gateway_s_to_have() -> None:
    accepted, refused = accept(lease(*PRIVATE), Wishes())
    assert accepted == lease(*PRIVATE)
    assert refused == ()


@pytest.mark.parametrize("route", PUBLIC)
def test_others_are_not_unless_they_were_asked_for(route: str) -> None:
    assert accept(lease(route), Wishes()) == (lease(), (ip_network(route),))
    assert accept(lease(route), Wishes(all_traffic=True)) == (lease(route), ())
    assert accept(lease(route), Wishes(routes=(ip_network(route),))) == (lease(route), ())


def test_what_is_in_an_allowed_one_is_allowed_and_what_is_around_it_is_not() -> None:
    wishes = Wishes(routes=(ip_network("8.8.0.0/16"),))
    assert accept(lease("8.8.8.0/24", "8.0.0.0/8"), wishes) == (lease("8.8.8.0/24"), (ip_network("8.0.0.0/8"),))


def test_routes_in_others_are_the_others_and_of_no_address_s_family_none() -> None:
    accepted, refused = accept(lease("10.1.0.0/24", "10.1.0.0/16", "fd00:1::/48", six=False), Wishes())
    assert (accepted, refused) == (lease("10.1.0.0/16", six=False), ())


def test_name_servers_may_be_left_alone() -> None:
    accepted, _ = accept(lease("10.1.0.0/16"), Wishes(dns=False))
    assert (accepted.servers, accepted.domains) == ((), ())
