"""``-L`` and ``-R`` as they are written."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.proxy.forwards import Forward, parse_forward
from kinkvpn.proxy.target import MalformedRequest, Target

WEB = Target("web.example", 80)


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080:web.example:80", Forward(None, 8080, WEB)),
        ("tcp/8080:web.example:80", Forward(None, 8080, WEB)),
        ("udp/5353:10.0.0.1:53", Forward(None, 5353, Target(IPv4Address("10.0.0.1"), 53), udp=True)),
        ("127.0.0.2:8080:web.example:80", Forward(IPv4Address("127.0.0.2"), 8080, WEB)),
        ("*:8080:web.example:80", Forward(IPv4Address("0.0.0.0"), 8080, WEB)),
        ("[::1]:8080:[fd00::1]:80", Forward(IPv6Address("::1"), 8080, Target(IPv6Address("fd00::1"), 80))),
        ("[::]:8080:web.example:80", Forward(IPv6Address("::"), 8080, WEB)),
    ],
)
def test_forwards(text: str, forward: Forward) -> None:
    assert parse_forward(text) == forward
    assert parse_forward(str(forward)) == forward


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "80:web",
        "80:web:",
        ":80:web:80",
        "0:web:80",
        "80:web:80:",
        "web:80:web:80",
        "::1:80:web:80",
        "[::1]80:web:80",
        "80:[::1:80",
        "80:fd00::1:80",
        "1:2:3:4:5",
        "sctp/80:web:80",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_forward(text)


@given(st.text(alphabet="ab1:[]*./", max_size=30))
def test_any_text_is_a_forward_or_the_one_error(text: str) -> None:
    with suppress(MalformedRequest):
        assert parse_forward(text).port
