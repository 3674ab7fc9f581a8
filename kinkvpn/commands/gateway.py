"""A gateway's name in place of a configuration: what a person may say of it on the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kinkvpn import values
from kinkvpn.document import Unexpected

if TYPE_CHECKING:
    from esp.policy import Network
    from kinkvpn.config import Configuration


def add_gateway_options(command: argparse.ArgumentParser) -> None:
    """What goes with GATEWAY."""
    group = command.add_argument_group("with a GATEWAY")
    everything = "send everything through it, not only what is private"
    group.add_argument("--all-traffic", action="store_true", help=everything)
    public = "send this public subnet through it, if it offers that; repeatable"
    group.add_argument("--accept-route", type=subnet, action="append", default=[], metavar="SUBNET", help=public)
    group.add_argument("--no-dns", action="store_true", help="go on asking the name servers that this host has")
    group.add_argument("--ccache", metavar="NAME", help="where the tickets are; default what kinit has filled")
    theirs = "the gateway's principal; default kink/GATEWAY in its realm"
    group.add_argument("--principal", type=principal, metavar="NAME", help=theirs)


def subnet(text: str) -> Network:
    """Raises argparse's error."""
    try:
        return values.network(text)
    except Unexpected as expected:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}") from None


def principal(text: str) -> str:
    """Raises argparse's error."""
    try:
        return values.principal(text)
    except Unexpected as expected:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}") from None


async def configuration_of(asked: argparse.Namespace, machine: bytes) -> Configuration:
    """What ``asked.gateway`` lends to ``machine``, as far as it is wanted. Raises StartRefused."""
    from kinkvpn.people import Wishes, configuration_for

    wishes = Wishes(asked.all_traffic, tuple(asked.accept_route), dns=not asked.no_dns)
    return await configuration_for(
        asked.gateway, wishes=wishes, ccache=asked.ccache, principal=asked.principal, machine=machine
    )
