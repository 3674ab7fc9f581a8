"""``-L`` and ``-R``: ports of one side that lead to an endpoint of the other, as ssh(1) writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinkvpn.proxy.target import MalformedRequest, Target, parse_host, parse_port

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_PART = re.compile(r"\[[^\[\]]*\]|[^:\[\]]+|(?=:)")


@dataclass(frozen=True, slots=True)
class Forward:
    """A port that is listened on, and where what comes there goes.

    Args:
        bind: an address; None is loopback at this host, and every address of this host in the tunnel.
        port: that is listened on.
        target: on the other side.
        udp: datagrams, and not TCP.
    """

    bind: IPv4Address | IPv6Address | None
    port: int
    target: Target
    udp: bool = False

    def __str__(self) -> str:
        bind = "" if self.bind is None else f"[{self.bind}]:" if self.bind.version == 6 else f"{self.bind}:"
        return f"{'udp/' if self.udp else ''}{bind}{self.port}:{self.target}"


def parse_forward(text: str) -> Forward:
    """``[udp/][bind:]port:host:port``, IPv6 addresses in brackets; ``*`` binds the wildcard.

    Raises:
        MalformedRequest: anything else.
    """
    bare = text.removeprefix("udp/").removeprefix("tcp/")
    parts = _split(bare)
    if len(parts) not in (3, 4):
        raise MalformedRequest(f"{text!r}: expected [bind:]port:host:port, IPv6 addresses in brackets")
    bind = None
    if len(parts) == 4:
        host = parse_host("0.0.0.0" if parts[0] == "*" else parts[0])  # noqa: S104 # asked for
        if isinstance(host, str):
            raise MalformedRequest(f"{text!r}: {parts[0]!r} is no address to listen on")
        bind = host
    port, host_text, there = parts[-3:]
    return Forward(bind, parse_port(port), Target(parse_host(host_text), parse_port(there)), text.startswith("udp/"))


def _split(text: str) -> list[str]:
    """At the colons that are not inside brackets. An empty list where brackets are not those of an address."""
    parts, at = [], 0
    while at <= len(text):
        found = _PART.match(text, at)
        if found is None:
            return []
        parts.append(found.group())
        at = found.end()
        if at < len(text) and text[at] != ":":
            return []
        at += 1
    return parts
