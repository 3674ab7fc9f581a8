"""When the main table does not do, and what then goes past the tunnel."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from esp.sa import Endpoint
from kinkvpn.service.rules import ANY, RoutingRule, needs_rules, own_rules


@pytest.mark.parametrize(
    ("routes", "outside", "needed"),
    [
        (["10.2.0.0/24", "fd00:2::/64"], ["192.0.2.2", "2001:db8::2"], False),
        (["10.2.0.0/24"], ["10.2.0.2"], True),
        (["fd00:2::/64"], ["fd00:2::2%eth0"], True),
        (["10.2.0.0/24"], ["fd00:2::2"], False),
        (["128.0.0.0/1"], ["192.0.2.2"], True),
        (["0.0.0.0/0"], [], True),
        (["::/0"], [], True),
        ([], ["192.0.2.2"], False),
    ],
)
def test_rules_are_needed_where_esp_would_be_caught_or_a_place_is_taken(
    routes: list[str], outside: list[str], needed: bool
) -> None:
    assert needs_rules(map(ip_network, routes), outside) is needed


def test_our_own_are_told_by_the_port_that_they_leave_from() -> None:
    sockets = [Endpoint("0.0.0.0", 4500), Endpoint("::", 910), Endpoint("192.0.2.1", 0)]
    assert own_rules(sockets) == (
        RoutingRule(ANY[4], ANY[4], 17, (4500, 4500), own=True),
        RoutingRule(ANY[6], ANY[6], 17, (910, 910), own=True),
        RoutingRule(ip_network("192.0.2.1/32"), ANY[4], 50, own=True),
    )
