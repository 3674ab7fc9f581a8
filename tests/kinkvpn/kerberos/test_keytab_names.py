"""Whose keys a keytab has: of good ones, of those with holes, and of what is none."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keytabs import write_keytab

from kinkvpn.kerberos.keytab_names import KeytabNamesUnknown, principals_of

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("kink/west.example.com@EXAMPLE.COM", "host/west.example.com@EXAMPLE.COM", "alice@R")


def test_every_principal_once_and_holes_are_passed_over(tmp_path: Path) -> None:
    path = write_keytab(tmp_path / "keytab", *NAMES, NAMES[0])
    assert principals_of(path) == list(NAMES)
    octets = path.read_bytes()
    path.write_bytes(octets[:2] + b"\xff\xff\xff\xf0" + bytes(16) + octets[2:])
    assert principals_of(path) == list(NAMES)


def test_what_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "keytab"
    with pytest.raises(KeytabNamesUnknown, match="cannot be read: No such file"):
        principals_of(path)
    path.write_bytes(b"[host]")
    with pytest.raises(KeytabNamesUnknown, match=r"is no keytab$"):
        principals_of(path)
    whole = write_keytab(path, *NAMES).read_bytes()
    for length in range(2, len(whole)):
        path.write_bytes(whole[:length])
        with suppress(KeytabNamesUnknown):
            assert set(principals_of(path)) <= set(NAMES)


@given(st.binary(max_size=200))
def test_octets_raise_one_error_or_none(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "octets"
    path.write_bytes(b"\x05\x02" + octets)
    with suppress(KeytabNamesUnknown):
        principals_of(path)
