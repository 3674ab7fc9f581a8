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
# Python calls these private, and nobody has them at home.
SPECIAL = ("0.0.0.0/8", "192.0.2.0/24", "198.18.0.0/15", "240.0.0.0/4", "2001:db8::/32", "64:ff9b:1::/48")


def test_private_networks_are_a_gateway_s_to_have() -> None:
    assert accept(lease(*PRIVATE), Wishes()) == (lease(*PRIVATE), (), ())


@pytest.mark.parametrize("route", [*PUBLIC, *SPECIAL])
def test_others_are_not_unless_they_were_asked_for(route: str) -> None:
    asked, inside = ip_network(route), "10.1.0.0/16"
    assert accept(lease(inside, route), Wishes()).routes == (asked,)
    for wishes in (Wishes(all_traffic=True), Wishes(routes=(asked,))):
        accepted = accept(lease("172.16.0.0/12", route), wishes)
        assert asked in accepted.lease.routes
        assert accepted.routes == ()


def test_what_is_in_an_allowed_one_is_allowed_and_what_is_around_it_is_not() -> None:
    wishes = Wishes(routes=(ip_network("8.8.0.0/16"),))
    accepted = accept(lease("8.8.8.0/24", "8.0.0.0/8"), wishes)
    assert (accepted.lease.routes, accepted.routes) == ((ip_network("8.8.8.0/24"),), (ip_network("8.0.0.0/8"),))


def test_routes_in_others_are_the_others_and_of_no_address_s_family_none() -> None:
    accepted = accept(lease("10.1.0.0/24", "10.1.0.0/16", "fd00:1::/48", six=False), Wishes())
    assert accepted == (lease("10.1.0.0/16", six=False), (), ())


def test_name_servers_may_be_left_alone() -> None:
    accepted, _, refused = accept(lease("10.1.0.0/16"), Wishes(dns=False))
    assert (accepted.servers, accepted.domains, refused) == ((), (), ())


def test_a_name_server_that_would_be_asked_in_the_clear_is_not_taken() -> None:
    accepted = accept(lease("10.2.0.0/16"), Wishes())
    assert (accepted.lease.servers, accepted.lease.domains) == ((), ())
    assert accepted.servers == (ip_address("10.1.0.53"),)
