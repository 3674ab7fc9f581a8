"""SOCKS messages: as RFC 1928 and RFC 1929 draw them, cut at every octet, and made of anything."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.proxy import socks
from kinkvpn.proxy.socks import Command, Method, Password, ReplyCode, Request
from kinkvpn.proxy.target import MalformedRequest, Target

if TYPE_CHECKING:
    from collections.abc import Callable

REST = b"and what follows"
HOSTS = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z][a-z0-9]{0,20}){0,3}", fullmatch=True),
)
TARGETS = st.builds(Target, HOSTS, st.integers(0, 65_535))


def request(command: int, target: Target) -> bytes:
    """As a client writes it: a reply differs in the meaning of the second octet."""
    reply = bytearray(socks.build_reply(ReplyCode.SUCCEEDED, target))
    reply[1] = command
    return bytes(reply)


def test_messages_of_the_rfcs_octet_by_octet() -> None:
    assert socks.parse_greeting(b"\x05\x02\x00\x02" + REST) == (frozenset({0, 2}), 4)
    assert socks.build_choice(Method.PASSWORD) == b"\x05\x02"
    assert socks.parse_password(b"\x01\x05alice\x03abc" + REST) == (Password(b"alice", b"abc"), 11)
    assert socks.build_verdict(accepted=True) == b"\x01\x00"
    assert socks.build_verdict(accepted=False)[1] != 0
    asked = b"\x05\x01\x00\x03\x0bexample.com\x00\x50"
    assert socks.parse_request(asked + REST) == (Request(Command.CONNECT, Target("example.com", 80)), len(asked))
    asked = b"\x05\x03\x00\x04" + bytes(15) + b"\x01\x00\x35"
    assert socks.parse_request(asked) == (Request(Command.UDP_ASSOCIATE, Target(IPv6Address("::1"), 53)), 22)
    assert socks.build_reply(ReplyCode.REFUSED) == b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"
    assert (
        socks.build_datagram(Target(IPv4Address("10.0.0.1"), 53), b"x") == b"\x00\x00\x00\x01\x0a\x00\x00\x01\x00\x35x"
    )


def test_a_secret_is_not_in_what_is_printed_of_it() -> None:
    assert "sesame" not in repr(socks.parse_password(b"\x01\x01a\x06sesame"))


def test_an_address_in_the_place_of_a_name_is_an_address() -> None:
    found = socks.parse_request(b"\x05\x01\x00\x03\x08" + b"10.0.0.1" + b"\x00\x50")
    assert found is not None
    assert found[0].target == Target(IPv4Address("10.0.0.1"), 80)


@given(st.integers(0, 255), TARGETS)
def test_a_request_is_found_whole_and_no_sooner(command: int, target: Target) -> None:
    whole = request(command, target)
    assert socks.parse_request(whole + REST) == (Request(command, target), len(whole))
    for cut in range(len(whole)):
        assert socks.parse_request(whole[:cut]) is None


@given(TARGETS, st.binary(max_size=50))
def test_a_datagram_there_is_one_back(target: Target, octets: bytes) -> None:
    whole = socks.build_datagram(target, octets)
    assert socks.parse_datagram(whole) == (target, octets)
    for cut in range(len(whole) - len(octets)):
        with pytest.raises(MalformedRequest):
            socks.parse_datagram(whole[:cut])


@pytest.mark.parametrize("fragment", [1, 0x80, 0xFF])
def test_fragments_are_refused(fragment: int) -> None:
    whole = bytearray(socks.build_datagram(Target(IPv4Address("10.0.0.1"), 53), b"part"))
    whole[2] = fragment
    with pytest.raises(MalformedRequest, match="fragment"):
        socks.parse_datagram(bytes(whole))


@pytest.mark.parametrize(
    ("parse", "octets"),
    [
        (socks.parse_greeting, b"\x04\x01\x00"),
        (socks.parse_greeting, b"GET / HTTP/1.1"),
        (socks.parse_password, b"\x05\x01a\x01b"),
        (socks.parse_request, b"\x04\x01\x00\x01" + bytes(6)),
        (socks.parse_request, b"\x05\x01\x00\x02" + bytes(6)),
        (socks.parse_request, b"\x05\x01\x00\x03\x00\x00\x50"),
        (socks.parse_request, b"\x05\x01\x00\x03\x03a b\x00\x50"),
        (socks.parse_request, b"\x05\x01\x00\x03\x03a\x00b\x00\x50"),
        (socks.parse_request, b"\x05\x01\x00\x03\x02\xc3\xa4\x00\x50"),
    ],
)
def test_what_is_no_message_is_refused(parse: Callable[[bytes], object], octets: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse(octets)


@given(st.binary(max_size=600))
def test_octets_of_anybody_make_a_message_or_the_one_error(octets: bytes) -> None:
    for parse in (socks.parse_greeting, socks.parse_password, socks.parse_request, socks.parse_datagram):
        try:
            found = parse(octets)
        except MalformedRequest:
            continue
        # With as much as the longest message has, none is still waited for.
        assert found is not None or len(octets) < socks.LONGEST_MESSAGE
