"""Whose keys a keytab file has, without libkrb5, whose configuration is not decided yet when this is asked.

The format is MIT's (doc/formats/keytab_file_format): two octets of version, then entries, each behind its length, which
is negative for a hole; an entry begins with the number of components, the realm and the components, all counted.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = b"\x05\x02"
# Ours. A keytab of a thousand keys is 80 kB: beyond this it is something else.
MAXIMUM_OCTETS = 1 << 20


class KeytabNamesUnknown(KinkvpnError):
    """The file cannot be read, or is no keytab."""


def principals_of(path: Path) -> list[str]:
    """Every principal once, in the order of the file at ``path``.

    Raises:
        KeytabNamesUnknown: with the reason.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(MAXIMUM_OCTETS)
    except OSError as error:
        raise KeytabNamesUnknown(f"keytab {path} cannot be read: {error.strerror}") from None
    if not octets.startswith(VERSION):
        raise KeytabNamesUnknown(f"{path} is no keytab")
    try:
        return list(dict.fromkeys(_names(octets)))
    except (struct.error, UnicodeDecodeError):
        raise KeytabNamesUnknown(f"{path} is no keytab, or a part of one") from None


def _names(octets: bytes) -> Iterator[str]:
    at = len(VERSION)
    while at + 4 <= len(octets):
        (length,) = struct.unpack_from("!i", octets, at)
        at += 4
        if length == 0:
            return
        if length > 0:
            yield _name(octets[at : at + length])
        at += abs(length)


def _name(entry: bytes) -> str:
    (count,) = struct.unpack_from("!H", entry)
    at, parts = 2, []
    for _ in range(count + 1):
        (length,) = struct.unpack_from("!H", entry, at)
        parts.append(struct.unpack_from(f"{length}s", entry, at + 2)[0].decode())
        at += 2 + length
    realm, *components = parts
    return f"{'/'.join(components)}@{realm}"
