"""Where a client wants to go: an address or a name, and a port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

# RFC 1035 §2.3.4, without the root's dot; underscores are no letters of a host's name, and are in many.
LONGEST_NAME = 253
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class MalformedRequest(Exception):
    """A client's octets are not what they have to be; the one error that the parsers of the proxy raise."""


@dataclass(frozen=True, slots=True)
class Target:
    """An end of a connection.

    Args:
        host: an address, or a name in lower case.
        port: 0 to 65535.
    """

    host: IPv4Address | IPv6Address | str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return f"{host}:{self.port}"


def parse_host(text: str) -> IPv4Address | IPv6Address | str:
    """A name or an address, IPv6 with brackets or without.

    Raises:
        MalformedRequest: neither.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return ip_address(bare)
    except ValueError:
        pass
    name = text.removesuffix(".").lower()
    labels = name.split(".")
    # A name whose last label is a number is an address that somebody has mistyped (RFC 1123 §2.1).
    if len(name) > LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        raise MalformedRequest(f"{text[:64]!r} is neither a name nor an address")
    return name


def parse_port(text: str) -> int:
    """1 to 65535.

    Raises:
        MalformedRequest: anything else.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65_535):
        raise MalformedRequest(f"{text[:64]!r} is no port: 1 to 65535")
    return int(text)


def parse_target(text: str) -> Target:
    """``host:port``; an IPv6 address has to be in brackets (RFC 3986 §3.2.2).

    Raises:
        MalformedRequest: anything else.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise MalformedRequest(f"{text[:64]!r} is no host:port")
    return Target(parse_host(host), parse_port(port))
