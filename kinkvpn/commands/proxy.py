"""``kinkvpn proxy``: the tunnel for programs that can use a proxy, without root, device or namespace."""

from __future__ import annotations

import argparse
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from esp.sa import Endpoint
from kinkvpn.commands.gateway import subnet
from kinkvpn.commands.outcome import CANNOT, DONE, FAILED, complain
from kinkvpn.config import DEFAULT_PATH, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinkvpn.commands.subcommands import Subcommands
    from kinkvpn.proxy.forwards import Forward
    from kinkvpn.proxy.socks import Password

ABOUT = """Offers what is behind the tunnel at a port of this host, as SOCKS 5 (with UDP) and as an HTTP proxy, and by
forwards as ssh has them. Needs no root, no capability and no device: connections are made by the kernel in a namespace
of its own where there may be one, and by lwIP in this process where not. Names are resolved in the tunnel alone."""
LISTEN = Endpoint("127.0.0.1", 1080)
STACKS = ("auto", "kernel", "lwip")


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser(
        "proxy", help="offer the tunnel as SOCKS and HTTP proxy and by forwards; needs no root", description=ABOUT
    )
    way = command.add_mutually_exclusive_group()
    way.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"default {DEFAULT_PATH}")
    way.add_argument("-g", "--gateway", metavar="NAME", help="a gateway for people: after kinit nothing else is needed")
    command.add_argument("--all-traffic", action="store_true", help="with --gateway: everything may go through it")
    command.add_argument(
        "--accept-route",
        type=subnet,
        action="append",
        default=[],
        metavar="SUBNET",
        help="with --gateway: a public subnet that may go through it; repeatable",
    )
    command.add_argument(
        "--listen",
        type=endpoint,
        action="append",
        metavar="[ADDRESS:]PORT",
        help=f"where SOCKS and HTTP are spoken; repeatable; default {LISTEN.address}:{LISTEN.port}",
    )
    command.add_argument(
        "--password-file", type=Path, metavar="FILE", help="a line, user:password, that clients have to know"
    )
    command.add_argument(
        "--without-password",
        action="store_true",
        help="listen off loopback, with no password: whoever reaches the port is in the tunnel",
    )
    to_there = "a port of this host leads to HOST behind the tunnel; udp/ before it for datagrams; repeatable"
    command.add_argument("-L", dest="local", type=forward, action="append", default=[], metavar=_FORM, help=to_there)
    to_here = "a port of ours in the tunnel leads to HOST as this host sees it; likewise"
    command.add_argument("-R", dest="remote", type=forward, action="append", default=[], metavar=_FORM, help=to_here)
    command.add_argument(
        "--dns", type=address, action="append", default=[], metavar="ADDRESS", help="a name server behind the tunnel"
    )
    command.add_argument("--stack", choices=STACKS, default="auto", help="what makes the connections; default auto")
    command.set_defaults(run=run)


_FORM = "[BIND:]PORT:HOST:PORT"


def address(text: str) -> IPv4Address | IPv6Address:
    """Raises argparse's error."""
    try:
        return ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no address") from None


def endpoint(text: str) -> Endpoint:
    """Raises argparse's error."""
    from kinkvpn.proxy.target import MalformedRequest, parse_host, parse_port

    host, _, port = text.rpartition(":")
    try:
        found = parse_host(host) if host else LISTEN.address
        if isinstance(found, str) and host:
            raise MalformedRequest(f"{host!r} is no address")
        return Endpoint(str(found), parse_port(port))
    except MalformedRequest as error:
        raise argparse.ArgumentTypeError(f"{error}: expected [address:]port") from None


def forward(text: str) -> Forward:
    """Raises argparse's error."""
    from kinkvpn.proxy.forwards import parse_forward
    from kinkvpn.proxy.target import MalformedRequest

    try:
        return parse_forward(text)
    except MalformedRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def read_password(path: Path) -> Password:
    """The first line of a file that is its owner's alone. Raises ValueError with what is wrong with it."""
    from kinkvpn.proxy.socks import Password

    try:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path}: everybody may read it: run `chmod 600 {path}`")
        user, colon, secret = (path.read_bytes().splitlines() or [b""])[0].partition(b":")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if not colon or not user or not secret or max(len(user), len(secret)) > 255:
        raise ValueError(f"{path}: expected a line, user:password, each of 1 to 255 octets")
    return Password(user, secret)


def refuse_strangers(listen: Sequence[Endpoint]) -> None:
    """Raises ValueError: one of the ports is for others than this host's users."""
    for each in listen:
        if not ip_address(each.address).is_loopback:
            raise ValueError(
                f"--listen {each.address}: whoever reaches this port would be in the tunnel: "
                "give --password-file, or --without-password if that is meant"
            )


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn proxy``."""
    if (asked.all_traffic or asked.accept_route) and not asked.gateway:
        return complain("--all-traffic and --accept-route go with --gateway: a file has policies", CANNOT)
    try:
        password = None if asked.password_file is None else read_password(asked.password_file)
        listen = tuple(asked.listen or [LISTEN])
        if password is None and not asked.without_password:
            refuse_strangers(listen)
    except ValueError as error:
        return complain(error, CANNOT)
    configuration = None if asked.gateway else load(asked.config or DEFAULT_PATH)

    from esp.errors import EspError
    from kinkvpn.config import LogFormat
    from kinkvpn.people import Wishes
    from kinkvpn.proxy import run as proxy
    from kinkvpn.service import log
    from kinkvpn.service.obstacles import StartRefused

    level = "info" if configuration is None else configuration.log.level.value
    as_json = configuration is not None and configuration.log.format is LogFormat.JSON
    log.configure(sys.stderr, level=level, as_json=as_json)
    wanted = proxy.Wanted(
        configuration,
        asked.gateway or "",
        Wishes(asked.all_traffic, tuple(asked.accept_route)),
        listen,
        password,
        tuple(asked.local),
        tuple(asked.remote),
        tuple(asked.dns),
        proxy.StackChoice(asked.stack),
    )
    try:
        proxy.run(wanted)
    except StartRefused as refused:
        return complain(refused, CANNOT)
    except EspError as error:
        return complain(error, FAILED)
    return DONE
