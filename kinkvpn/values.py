"""What one value of the configuration may be: readers that return what it stands for, or say what they wanted."""

from __future__ import annotations

import ipaddress
import re
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from esp.errors import UnknownSuite
from esp.headers import DSCP_COPIED, DSCP_VALUES
from esp.policy import AddressRange, PortRange, networks_of
from esp.suite import Suite, suite_named
from kinkvpn.document import Unexpected
from kinkvpn.wire.ipsec_doi import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from esp.policy import Addresses, Network

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
E = TypeVar("E", bound=Enum)

# specification
SOCKET_PATH_OCTETS = 107  # sun_path less its NUL (unix(7))
KERNEL_TABLES = {253, 254, 255}  # default, main, local (linux/rtnetlink.h)
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132, "udplite": 136}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PRINCIPAL = re.compile(r"[^@/\s]+(/[^@/\s]+)*@[^@/\s]+")
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")  # RFC 1123 §2.1, and the _ people use
_DEVICE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with the NUL (netdevice(7))


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Unexpected(expected)
    return value


def _matched(pattern: re.Pattern[str], expected: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if pattern.fullmatch(_text(value, expected)) is None:
            raise Unexpected(expected)
        return str(value)

    return read


label = _matched(_NAME, "1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first")
principal = _matched(_PRINCIPAL, "a principal with its realm, such as kink/gw.example.com@EXAMPLE.COM")
device_name = _matched(_DEVICE, "a device name: 1 to 15 letters, digits, dots, dashes and underscores")


def boolean(value: object) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise Unexpected("true or false")
    return value


def integer(low: int, high: int) -> Callable[[object], int]:
    """A reader of integers from ``low`` to ``high``."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Unexpected(f"an integer from {low} to {high}")
        return value

    return read


def automatic(low: int, high: int) -> Callable[[object], int | None]:
    """A reader of integers from ``low`` to ``high``, or None for "auto"."""
    number = integer(low, high)

    def read(value: object) -> int | None:
        if value == "auto":
            return None
        try:
            return number(value)
        except Unexpected as expected:
            raise Unexpected(f'"auto", or {expected}') from None

    return read


port = integer(1, 65535)


def own_port(value: object) -> int:
    """A port of ours, or 0 for "any": whichever is free, told to nobody beforehand."""
    if value == "any":
        return 0
    try:
        return port(value)
    except Unexpected as expected:
        raise Unexpected(f'"any", or {expected}') from None


def _span(low: int, high: int, example: str) -> Callable[[object], PortRange]:
    """A reader of a number, or of the first and last of several: 80, "8000-8010"."""
    single = integer(low, high)

    def read(value: object) -> PortRange:
        if not isinstance(value, str):
            number = single(value)
            return PortRange(number, number)
        first, _, last = (part.strip() for part in value.partition("-"))
        numbers = [int(part) for part in (first, last) if part.isdecimal() and part.isascii()]
        if len(numbers) != 2 or not low <= numbers[0] <= numbers[1] <= high:
            raise Unexpected(f'an integer from {low} to {high}, or a range such as "{example}"')
        return PortRange(*numbers)

    return read


ports = _span(1, 65534, "8000-8010")  # for routing rules, and the kernel's cannot name the last one
octets = _span(0, 255, "0-4")


def routing_table(value: object) -> int:
    """The number of a routing table of our own, which leaves room for rules ahead of the main table's, 32766."""
    number = integer(1, 30000)(value)
    if number in KERNEL_TABLES:
        raise Unexpected("a routing table of its own: 253, 254 and 255 are the kernel's")
    return number


def seconds(low: float, high: float) -> Callable[[object], float]:
    """A reader of durations, in seconds, from ``low`` to ``high``."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise Unexpected(f"a number of seconds, from {low:g} to {high:g}")
        return float(value)

    return read


def integer_or_zero(low: int, high: int) -> Callable[[object], int]:
    """A reader of integers from ``low`` to ``high``, or 0, which turns off what the key is for."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not (value == 0 or low <= value <= high):
            raise Unexpected(f"0, or an integer from {low} to {high}")
        return value

    return read


def zero_or(low: float, high: float, unit: str) -> Callable[[object], float]:
    """A reader of numbers from ``low`` to ``high``, or 0, which turns off what the key is for."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or low <= value <= high):
            raise Unexpected(f"0, or {unit} from {low:g} to {high:g}")
        return value

    return read


def one_of(choices: type[E]) -> Callable[[object], E]:
    """A reader of the values of an enum."""

    def read(value: object) -> E:
        for choice in choices:
            if choice.value == value:
                return choice
            if not isinstance(value, str) and choice.value == str(value):  # a port that is a word: over = 4500
                raise Unexpected(f'"{choice.value}", in quotes')
        raise Unexpected(_choices(str(value), [choice.value for choice in choices]))

    return read


def suite(value: object) -> Suite:
    """The name of a suite."""
    try:
        return suite_named(value if isinstance(value, str) else "")
    except UnknownSuite as unknown:
        raise Unexpected(str(unknown)) from None


def pfs(value: object) -> Group | None:
    """The name of a key exchange group, or "none"."""
    groups = {group.label: group for group in Group}
    if value == "none":
        return None
    if isinstance(value, str) and value in groups:
        return groups[value]
    raise Unexpected(_choices(str(value), [*groups, "none"]))


def protocol(value: object) -> int:
    """An IP protocol, by number or by name."""
    if isinstance(value, str) and value.lower() in PROTOCOLS:
        return PROTOCOLS[value.lower()]
    if value in ("esp", "ah"):
        raise Unexpected(f'the protocol inside; what seals it is said by ipsec = "{value}"')
    if isinstance(value, str):
        raise Unexpected(f"an IP protocol number, or {_choices(value, PROTOCOLS)}")
    return integer(1, 255)(value)


def dscp(value: object) -> bytes:
    """ "copy", one DSCP for all, or a table from inner to outer ones: 64 octets, as in esp.headers."""
    if value == "copy":
        return DSCP_COPIED
    if isinstance(value, int):
        return bytes([_dscp_number(value)]) * DSCP_VALUES
    if not isinstance(value, dict):
        raise Unexpected(_DSCP_EXPECTED)
    rest = value.get("other", None)
    outer = list(DSCP_COPIED) if rest is None else [_dscp_number(rest)] * DSCP_VALUES
    for inner, mapped in value.items():
        if inner != "other":
            outer[_dscp_number(int(inner) if re.fullmatch(r"[0-9]{1,2}", inner) else inner)] = _dscp_number(mapped)
    return bytes(outer)


_DSCP_EXPECTED = '"copy", a DSCP from 0 to 63, or a table such as { 46 = 34, other = 0 }'


def _dscp_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < DSCP_VALUES:
        raise Unexpected(_DSCP_EXPECTED)
    return value


def ip_address(value: object) -> str:
    """An IPv4 or IPv6 address, as text in its usual form."""
    try:
        return str(ipaddress.ip_address(_text(value, "")))
    except (Unexpected, ValueError):
        raise Unexpected("an IPv4 or IPv6 address") from None


def host_address(value: object) -> str:
    """An address in its usual form, or a DNS name in lower case."""
    expected = "an IP address or a DNS name"
    text = _text(value, expected)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _dns_name(text, expected)
    if address.is_unspecified or address.is_multicast:
        raise Unexpected("the address of one host")
    return str(address)


def domain(value: object) -> str:
    """A DNS name in lower case."""
    return _dns_name(_text(value, "a DNS name"), "a DNS name").removesuffix(".")


def _dns_name(text: str, expected: str) -> str:
    labels = text.removesuffix(".").split(".")
    # A last label of digits only is an IPv4 address that went wrong, never a name (RFC 1123 §2.1).
    if len(text) > 253 or not all(map(_DNS_LABEL.fullmatch, labels)) or labels[-1].isdigit():
        raise Unexpected(expected)
    return text.lower()


def interface(value: object) -> Interface:
    """A host's address with the prefix length of its subnet."""
    expected = "an address with its prefix length, such as 10.1.0.1/24"
    text = _text(value, expected)
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise Unexpected(expected) from None
    if "/" not in text or found.ip.is_multicast or found.ip.is_unspecified:
        raise Unexpected(expected)
    network = found.network
    if found.version == 4 and network.prefixlen < 31 and found.ip in (network[0], network[-1]):
        raise Unexpected(f"the address of a host in {network}, such as {network[1]}/{network.prefixlen}")
    return found


def network(value: object) -> Network:
    """A subnet with no host bits set."""
    expected = "a subnet, such as 10.1.0.0/24 or fd00:1::/64"
    text = _text(value, expected)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Unexpected(expected) from None
    raise Unexpected(f"a subnet without host bits: {meant}")


def addresses(value: object) -> Addresses:
    """A subnet with no host bits set, or a range; one that is a subnet is read as that."""
    if not isinstance(value, str) or "-" not in value:
        return network(value)
    try:
        first, last = (ipaddress.ip_address(part.strip()) for part in value.split("-"))
    except ValueError:
        raise Unexpected("a range of addresses, such as 10.1.0.5-10.1.0.9") from None
    if first.version != last.version or int(first) > int(last):
        raise Unexpected("a range of addresses of one family, the lower one first")
    found = AddressRange(first, last)
    subnets = networks_of(found)
    return subnets[0] if len(subnets) == 1 else found


def file_path(directory: Path) -> Callable[[object], Path]:
    """A reader of paths; a relative one starts at ``directory``."""

    def read(value: object) -> Path:
        text = _text(value, "the path of a file")
        if "\0" in text:
            raise Unexpected("the path of a file")
        return directory / text

    return read


def command(value: object) -> tuple[str, ...]:
    """A program with its arguments, in an array; or alone. No shell reads it."""
    expected = 'a command: ["/etc/kinkvpn/hook", "argument"], a path or a name in PATH first'
    given = value if isinstance(value, list) else [value]
    words = tuple(word for word in given if isinstance(word, str) and "\0" not in word)
    program = words[0].strip() if words else ""
    if len(words) < len(given) or not program or ("/" in program and not program.startswith("/")):
        raise Unexpected(expected)
    return words


def socket_path(directory: Path) -> Callable[[object], Path]:
    """A reader of paths short enough for a Unix socket."""

    def read(value: object) -> Path:
        path = file_path(directory)(value)
        if len(bytes(path)) > SOCKET_PATH_OCTETS:
            raise Unexpected(f"a path of at most {SOCKET_PATH_OCTETS} octets, which is all that a Unix socket takes")
        return path

    return read


def cache_name(value: object) -> str:
    """A credential cache, as libkrb5 names it."""
    return _text(value, "the name of a credential cache, such as FILE:/run/kinkvpn/ccache")


def replay_cache(value: object) -> str:
    """A replay cache as libkrb5 names it; a path alone is one too.

    ``none:`` is not accepted: RFC 4430 §9 leans on replay detection.
    """
    expected = 'a replay cache: "dfl:" or an absolute path'
    text = _text(value, expected)
    if text == "dfl:" or text.startswith("file2:/"):
        return text
    if text.startswith("/"):
        return f"file2:{text}"
    raise Unexpected(expected)


def _choices(value: str, names: Iterable[str]) -> str:
    known = list(names)
    near = _nearest(value, known) or get_close_matches(value, known, n=1)
    listed = f"one of {', '.join(known)}"
    return f"{listed} (did you mean {near[0]}?)" if near else listed


def _nearest(value: str, known: Iterable[str]) -> list[str]:
    """Of names that are letters and a number, such as ``modp2048``, the same letters with the next number."""
    family, number = _family(value)
    alike = [name for name in known if family and _family(name)[0] == family]
    return sorted(alike, key=lambda name: abs(_family(name)[1] - number))[:1]


def _family(name: str) -> tuple[str, int]:
    letters = name.rstrip("0123456789")
    digits = name[len(letters) :]
    return (letters, int(digits)) if letters.isalpha() and digits and len(digits) < 10 else ("", 0)
