"""Keytab files with principals and a key that opens nothing, as MIT writes them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_keytab(path: Path, *principals: str) -> Path:
    """A keytab at ``path`` with an entry for each, of enctype 18."""
    path.write_bytes(b"\x05\x02" + b"".join(_entry(principal) for principal in principals))
    return path


def _entry(principal: str) -> bytes:
    name, _, realm = principal.rpartition("@")
    components = name.split("/")
    counted = b"".join(struct.pack("!H", len(part)) + part.encode() for part in (realm, *components))
    body = struct.pack("!H", len(components)) + counted + struct.pack("!IIBHH", 1, 0, 2, 18, 32) + bytes(32)
    return struct.pack("!i", len(body)) + body
