"""Logon information of our own making, octet by octet as MS-PAC has it; test_realms.py has a KDC's."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinkvpn.errors import MalformedMessage
from kinkvpn.kerberos.pac import groups_of

DOMAIN, OTHER = (21, 1, 2, 3), (21, 7, 8, 9)
ENABLED, DENIED = 7, 0x17


def sid(*numbers: int) -> bytes:
    return struct.pack("<IBB6s", len(numbers), 1, len(numbers), (5).to_bytes(6)) + struct.pack(
        f"<{len(numbers)}I", *numbers
    )


def string(text: str) -> bytes:
    octets = text.encode("utf-16-le")
    return struct.pack("<III", len(text), 0, len(text)) + octets + bytes(-len(octets) % 4)


def pairs(*found: tuple[int, int]) -> bytes:
    return struct.pack("<I", len(found)) + b"".join(struct.pack("<II", *one) for one in found)


def logon_info(
    groups: tuple[tuple[int, int], ...] = ((513, ENABLED),),
    extra: tuple[tuple[int, ...], ...] = (),
    local: tuple[tuple[int, int], ...] = (),
    attributes: int = ENABLED,
) -> bytes:
    """Of a user with a name of odd length and a domain's name, the other strings missing."""
    fixed = bytes(48) + struct.pack("<HHI", 10, 10, 4) + bytes(5 * 8) + bytes(4)
    fixed += struct.pack("<IIII", 1104, 513, len(groups), 8 if groups else 0) + bytes(20)
    fixed += struct.pack("<HHI", 4, 4, 12) + struct.pack("<HHI", 6, 6, 16) + struct.pack("<I", 20) + bytes(40)
    fixed += struct.pack("<II", len(extra), 24 if extra else 0)
    fixed += struct.pack("<III", 28 if local else 0, len(local), 32 if local else 0)
    assert len(fixed) == 216
    after = string("alice") + (pairs(*groups) if groups else b"") + string("DC") + string("DOM") + sid(*DOMAIN)
    if extra:
        after += pairs(*((40, attributes) for _ in extra)) + b"".join(sid(*one) for one in extra)
    if local:
        after += sid(*OTHER) + pairs(*local)
    body = struct.pack("<I", 4) + fixed + after
    return struct.pack("<BBHIII", 1, 0x10, 8, 0xCCCCCCCC, len(body), 0) + body


FULL = logon_info(
    ((512, ENABLED), (1105, ENABLED), (1106, DENIED), (1107, 0)), ((1, 0), (21, 4, 5, 6, 999)), ((1200, ENABLED),)
)


def test_groups_of_the_domain_of_others_and_local_ones() -> None:
    assert groups_of(FULL) == {
        "S-1-5-21-1-2-3-512",
        "S-1-5-21-1-2-3-513",
        "S-1-5-21-1-2-3-1105",
        "S-1-5-1-0",
        "S-1-5-21-4-5-6-999",
        "S-1-5-21-7-8-9-1200",
    }
    assert groups_of(logon_info()) == groups_of(logon_info(groups=())) == {"S-1-5-21-1-2-3-513"}
    assert groups_of(logon_info(extra=((1, 0),), attributes=DENIED)) == {"S-1-5-21-1-2-3-513"}


def test_cut_short_anywhere_it_is_malformed() -> None:
    for length in range(len(FULL)):
        with pytest.raises(MalformedMessage):
            groups_of(FULL[:length])


@pytest.mark.parametrize(
    ("offset", "octets"),
    [
        (0, b"\2"),
        (1, b"\0"),
        (2, b"\x09"),
        (16, bytes(4)),
        (20 + 48 + 48 + 4 + 8, struct.pack("<I", 3)),
        (20 + 48 + 48 + 4 + 8, struct.pack("<I", 100_000)),
        (FULL.index(sid(*DOMAIN)), struct.pack("<I", 5)),
        (FULL.index(sid(*DOMAIN)) + 4, b"\2"),
        (FULL.index(sid(*DOMAIN)), struct.pack("<IBB", 200, 1, 200)),
    ],
)
def test_what_cannot_be_is_malformed(offset: int, octets: bytes) -> None:
    with pytest.raises(MalformedMessage):
        groups_of(FULL[:offset] + octets + FULL[offset + len(octets) :])


@settings(max_examples=100)
@given(st.integers(0, len(FULL) - 1), st.binary(max_size=8))
def test_any_octets_are_read_or_malformed(offset: int, octets: bytes) -> None:
    with suppress(MalformedMessage):
        assert all(found.startswith("S-1-") for found in groups_of(FULL[:offset] + octets + FULL[offset:]))
