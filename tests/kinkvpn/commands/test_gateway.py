from __future__ import annotations

import argparse
from ipaddress import ip_network

import pytest

from kinkvpn.commands.gateway import add_gateway_options


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_gateway_options(parser)
    return parser.parse_args(arguments)


def test_what_is_asked_for() -> None:
    asked = parsed("--accept-route", "8.8.8.0/24", "--accept-route", "2001:db8::/32", "--no-dns", "--ccache", "FILE:x")
    assert asked.accept_route == [ip_network("8.8.8.0/24"), ip_network("2001:db8::/32")]
    assert (asked.no_dns, asked.all_traffic, asked.ccache, asked.principal) == (True, False, "FILE:x", None)
    assert parsed("--all-traffic", "--principal", "kink/gw@A.COM").principal == "kink/gw@A.COM"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--accept-route", "8.8.8.8/24"), "'8.8.8.8/24': expected a subnet without host bits: 8.8.8.0/24"),
        (("--principal", "kink/gw"), "'kink/gw': expected a principal with its realm"),
    ],
)
def test_what_cannot_be_meant_is_named(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(argparse.ArgumentError) as refused:
        parsed(*arguments)
    assert words in str(refused.value)
