"""What one value may be: the table of what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import contextlib
import ipaddress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.policy import AddressRange, PortRange
from esp.suite import SUITES
from kinkvpn import values
from kinkvpn.document import Unexpected
from kinkvpn.proto.whereabouts import KinkOver

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(Enum):
    RED = "red"
    GREEN = "green"


FILE = values.file_path(Path("/etc/kinkvpn"))
SOCKET = values.socket_path(Path("/run"))

READERS: dict[str, Callable[[object], Any]] = {
    "label": values.label,
    "principal": values.principal,
    "device_name": values.device_name,
    "boolean": values.boolean,
    "integer": values.integer(2, 4),
    "port": values.port,
    "routing_table": values.routing_table,
    "ports": values.ports,
    "octets": values.octets,
    "addresses": values.addresses,
    "seconds": values.seconds(0.5, 60),
    "colour": values.one_of(Colour),
    "kink_over": values.one_of(KinkOver),
    "suite": values.suite,
    "pfs": values.pfs,
    "protocol": values.protocol,
    "dscp": values.dscp,
    "ip_address": values.ip_address,
    "host_address": values.host_address,
    "interface": values.interface,
    "network": values.network,
    "file_path": FILE,
    "socket_path": SOCKET,
    "cache_name": values.cache_name,
    "replay_cache": values.replay_cache,
}

TAKEN = [
    ("dscp", "copy", bytes(range(64))),
    ("dscp", 46, bytes([46]) * 64),
    ("dscp", {"46": 34}, bytes([*range(46), 34, *range(47, 64)])),
    ("dscp", {"00": 1, "63": 2, "other": 0}, bytes([1, *[0] * 62, 2])),
    ("dscp", {}, bytes(range(64))),
    ("label", "west-1.a_b", "west-1.a_b"),
    ("principal", "kink/gw.example.com@EXAMPLE.COM", "kink/gw.example.com@EXAMPLE.COM"),
    ("principal", "alice@EXAMPLE.COM", "alice@EXAMPLE.COM"),
    ("device_name", "kink0", "kink0"),
    ("boolean", False, False),
    ("integer", 2, 2),
    ("integer", 4, 4),
    ("port", 65535, 65535),
    ("routing_table", 910, 910),
    ("ports", 80, PortRange(80, 80)),
    ("ports", "8000-8010", PortRange(8000, 8010)),
    ("ports", "1 - 65534", PortRange(1, 65534)),
    ("octets", 0, PortRange(0, 0)),
    ("octets", "0-255", PortRange(0, 255)),
    ("addresses", "10.1.0.0/24", ipaddress.ip_network("10.1.0.0/24")),
    ("addresses", "10.1.0.0-10.1.0.255", ipaddress.ip_network("10.1.0.0/24")),
    ("addresses", "fd00::1-fd00::1", ipaddress.ip_network("fd00::1/128")),
    (
        "addresses",
        "10.1.0.5 - 10.1.0.9",
        AddressRange(ipaddress.IPv4Address("10.1.0.5"), ipaddress.IPv4Address("10.1.0.9")),
    ),
    ("routing_table", 30000, 30000),
    ("seconds", 1, 1.0),
    ("seconds", 0.5, 0.5),
    ("colour", "red", Colour.RED),
    ("suite", "aes256-gcm16", SUITES["aes256-gcm16"]),
    ("protocol", "TCP", 6),
    ("protocol", 255, 255),
    ("ip_address", "FD00:0:0::1", "fd00::1"),
    ("host_address", "192.0.2.1", "192.0.2.1"),
    ("host_address", "2001:DB8::0:1", "2001:db8::1"),
    ("host_address", "West.Example.COM", "west.example.com"),
    ("host_address", "3com", "3com"),
    ("interface", "10.1.0.1/24", ipaddress.ip_interface("10.1.0.1/24")),
    ("interface", "10.1.0.0/31", ipaddress.ip_interface("10.1.0.0/31")),
    ("interface", "fd00::1/64", ipaddress.ip_interface("fd00::1/64")),
    ("network", "0.0.0.0/0", ipaddress.ip_network("0.0.0.0/0")),
    ("network", "10.1.0.1", ipaddress.ip_network("10.1.0.1/32")),
    ("file_path", "krb5.keytab", Path("/etc/kinkvpn/krb5.keytab")),
    ("file_path", "/etc/krb5.keytab", Path("/etc/krb5.keytab")),
    ("socket_path", "k.sock", Path("/run/k.sock")),
    ("cache_name", "KCM:0", "KCM:0"),
    ("replay_cache", "dfl:", "dfl:"),
    ("replay_cache", "/var/lib/kinkvpn/rcache", "file2:/var/lib/kinkvpn/rcache"),
    ("replay_cache", "file2:/x", "file2:/x"),
]

REFUSED = [
    ("label", "", "letters"),
    ("label", "a b", "letters"),
    ("label", "-a", "a letter or digit first"),
    ("label", "x" * 64, "1 to 63"),
    ("label", 3, "letters"),
    ("principal", "kink/gw.example.com", "with its realm"),
    ("principal", "kink/@R", "with its realm"),
    ("principal", "a@b@C", "with its realm"),
    ("principal", "a b@C", "with its realm"),
    ("device_name", "a-name-of-16-oct", "1 to 15"),
    ("device_name", "a/b", "device name"),
    ("device_name", "..", "device name"),
    ("device_name", "kink%d", "device name"),
    ("boolean", 1, "true or false"),
    ("boolean", "true", "true or false"),
    ("integer", 1, "from 2 to 4"),
    ("integer", 5, "from 2 to 4"),
    ("integer", True, "an integer"),
    ("integer", 3.0, "an integer"),
    ("port", 0, "from 1 to 65535"),
    ("routing_table", 254, "the kernel's"),
    ("ports", 65535, "from 1 to 65534"),
    ("ports", "80", 'or a range such as "8000-8010"'),
    ("ports", "80-", 'or a range such as "8000-8010"'),
    ("ports", "90-80", 'or a range such as "8000-8010"'),
    ("ports", "-1-5", 'or a range such as "8000-8010"'),
    ("ports", "0-5", 'or a range such as "8000-8010"'),
    ("ports", "1-65536", 'or a range such as "8000-8010"'),
    ("ports", True, "from 1 to 65534"),
    ("octets", 256, "from 0 to 255"),
    ("octets", "3-256", 'or a range such as "0-4"'),
    ("addresses", "10.1.0.1/24", "without host bits"),
    ("addresses", "10.1.0.9-10.1.0.5", "the lower one first"),
    ("addresses", "10.1.0.9-fd00::1", "of one family"),
    ("addresses", "10.1.0.9-", "such as 10.1.0.5-10.1.0.9"),
    ("addresses", "a-b", "such as 10.1.0.5-10.1.0.9"),
    ("addresses", 5, "a subnet"),
    ("routing_table", 30001, "from 1 to 30000"),
    ("seconds", 0.4, "a number of seconds, from 0.5 to 60"),
    ("seconds", True, "seconds"),
    ("seconds", float("nan"), "seconds"),
    ("colour", "gren", "one of red, green (did you mean green?)"),
    ("colour", 1, "one of red, green"),
    ("kink_over", 4500, '"4500", in quotes'),
    ("kink_over", True, "one of auto, 910, 4500"),
    ("suite", "aes256gcm16", "a suite (did you mean aes256-gcm16 or "),
    ("suite", ["aes256-gcm16"], "a suite: aes{256,192,128}-{gcm16,"),
    ("pfs", "modp1024", "did you mean modp2048?"),
    ("pfs", "modp5000", "did you mean modp4096?"),
    ("pfs", "ecp255", "did you mean ecp256?"),
    ("pfs", "x25518", "did you mean x25519?"),
    ("pfs", "mod2048", "did you mean modp2048?"),
    ("pfs", "modp" + "9" * 5000, "x448, none"),
    *(
        ("dscp", value, "a DSCP from 0 to 63, or a table such as")
        for value in ("ef", True, -1, 64, {"64": 0}, {"ef": 0}, {"-1": 0}, {"1": 64}, {"1": True}, {"other": "copy"})
    ),
    ("protocol", "tpc", "did you mean tcp?"),
    ("protocol", "ah", 'said by ipsec = "ah"'),
    ("protocol", 0, "from 1 to 255"),
    ("ip_address", "10.0.0.300", "an IPv4 or IPv6 address"),
    ("ip_address", 167772161, "an IPv4 or IPv6 address"),
    ("ip_address", "fe80::1::2", "an IPv4 or IPv6 address"),
    ("host_address", "10.0.0.256", "an IP address or a DNS name"),
    ("host_address", "a..b", "an IP address or a DNS name"),
    ("host_address", "gw:910", "an IP address or a DNS name"),
    ("host_address", "x" * 64 + ".example", "an IP address or a DNS name"),
    ("host_address", "a." * 128, "an IP address or a DNS name"),
    ("host_address", ".", "an IP address or a DNS name"),
    ("host_address", "0.0.0.0", "one host"),
    ("host_address", "ff02::1", "one host"),
    ("interface", "10.1.0.1", "with its prefix length"),
    ("interface", "10.1.0.0/24", "such as 10.1.0.1/24"),
    ("interface", "10.1.0.255/24", "such as 10.1.0.1/24"),
    ("interface", "224.0.0.1/24", "with its prefix length"),
    ("interface", "10.1.0.1/33", "with its prefix length"),
    ("network", "10.1.0.1/24", "without host bits: 10.1.0.0/24"),
    ("network", "fd00:1::1/64", "without host bits: fd00:1::/64"),
    ("network", "10.1.0/24", "a subnet"),
    ("network", 10, "a subnet"),
    ("file_path", "", "the path of a file"),
    ("file_path", "a\0b", "the path of a file"),
    ("socket_path", "/" + "x" * 107, "at most 107 octets"),
    ("cache_name", 1, "the name of a credential cache"),
    ("replay_cache", "none:", "a replay cache"),
    ("replay_cache", "rcache", "a replay cache"),
]


@pytest.mark.parametrize(("reader", "value", "result"), TAKEN)
def test_taken(reader: str, value: object, result: object) -> None:
    found = READERS[reader](value)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(("reader", "value", "expected"), REFUSED)
def test_refused(reader: str, value: object, expected: str) -> None:
    with pytest.raises(Unexpected) as caught:
        READERS[reader](value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(sorted(READERS)), TOML_VALUES)
def test_whatever_toml_holds_is_taken_or_unexpected(reader: str, value: object) -> None:
    with contextlib.suppress(Unexpected):
        READERS[reader](value)
