"""Which groups somebody is in, as Active Directory's KDC has it in tickets: the logon information of a PAC.

MS-PAC §2.5 KERB_VALIDATION_INFO, in the encoding of MS-RPCE §2.2.6 (NDR, little-endian). Whether to believe it libkrb5
has decided before: it is signed with the key that the ticket is sealed with. Octets in, SIDs out, pure.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kinkvpn.wire.cursor import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

# Specification.
AD_WIN2K_PAC: Final = 128  # RFC 4120 §7.5.4
LOGON_INFO: Final = 1  # MS-PAC §2.4
# MS-RPCE §2.2.6.1 and §2.2.6.2: version 1, little-endian, 8 octets of header; length of what follows; then a pointer.
_SERIALIZED = struct.Struct("<BBH4x I4x I")
# MS-PAC §2.5. Times; six strings; counts.
# ---- UserId, PrimaryGroupId, GroupCount, GroupIds (pointer); flags and key; two strings; LogonDomainId (pointer)
# ---- reserved; SidCount, ExtraSids (pointer); ResourceGroupDomainSid (pointer); ResourceGroupCount, ResourceGroupIds
_STRINGS_BEFORE, _STRINGS_BETWEEN = 6, 2
_STRING = struct.Struct("<HHI")  # Length, MaximumLength, Buffer (pointer): RPC_UNICODE_STRING
_TIMES_OCTETS, _COUNTS_OCTETS, _KEY_OCTETS, _RESERVED_OCTETS = 48, 4, 20, 40
_MEMBERSHIPS = struct.Struct("<IIII")
_POINTER = struct.Struct("<I")
_EXTRA = struct.Struct("<IIIII")
_VARYING = struct.Struct("<III")  # maximum count, offset, actual count
_PAIR = struct.Struct("<II")
_SID = struct.Struct("<I BB 6s")  # conformance, Revision, SubAuthorityCount, IdentifierAuthority
_ENABLED, _DENY_ONLY = 0x4, 0x10  # MS-PAC §2.2.1: SE_GROUP_ENABLED, SE_GROUP_USE_FOR_DENY_ONLY
MOST_SUB_AUTHORITIES: Final = 15  # MS-DTYP §2.4.2
# Ours. MaxTokenSize stops Windows at 1,015 groups.
MOST_GROUPS: Final = 4096


def groups_of(logon_info: bytes) -> frozenset[str]:
    """The SIDs of the groups in ``logon_info`` that count for somebody, such as ``S-1-5-21-1-2-3-513``.

    Raises:
        MalformedMessage: it is not as MS-PAC has it.
    """
    reader = Reader(logon_info)
    version, order, header, _, pointer = reader.unpack(_SERIALIZED, "header")
    if (version, order, header) != (1, 0x10, 8) or not pointer:
        raise reader.fail("header", "not type serialization version 1, little-endian", 0)
    return frozenset(_groups(reader))


def _groups(reader: Reader) -> Iterator[str]:
    """What is fixed comes first, then what the pointers in it point to, in their order."""
    reader.take(_TIMES_OCTETS, "times")
    before = _strings(reader, _STRINGS_BEFORE)
    reader.take(_COUNTS_OCTETS, "LogonCount")
    _, primary, count, groups = reader.unpack(_MEMBERSHIPS, "UserId")
    reader.take(_KEY_OCTETS, "UserFlags")
    between = _strings(reader, _STRINGS_BETWEEN)
    (domain,) = reader.unpack(_POINTER, "LogonDomainId")
    reader.take(_RESERVED_OCTETS, "Reserved1")
    extra_count, extra, resource_domain, resource_count, resources = reader.unpack(_EXTRA, "SidCount")

    _skip_strings(reader, before)
    members = [primary, *_enabled(reader, groups, count)]
    _skip_strings(reader, between)
    if domain:
        authority = _sid(reader)
        yield from (f"{authority}-{member}" for member in members)
    yield from _extra_sids(reader, extra, extra_count)
    authority = _sid(reader) if resource_domain else ""
    local = _enabled(reader, resources, resource_count)
    yield from (f"{authority}-{member}" for member in local if authority)


def _strings(reader: Reader, number: int) -> int:
    """How many of the strings are there at all."""
    return sum(bool(reader.unpack(_STRING, "RPC_UNICODE_STRING")[2]) for _ in range(number))


def _skip_strings(reader: Reader, number: int) -> None:
    for _ in range(number):
        _, _, actual = reader.unpack(_VARYING, "string")
        reader.take(2 * actual, "string")
        reader.align(4, "string")


def _length(reader: Reader, expected: int) -> int:
    (length,) = reader.unpack(_POINTER, "maximum count")
    if length != expected or length > MOST_GROUPS:
        raise reader.fail("maximum count", f"{length}, where {expected} were announced and {MOST_GROUPS} are allowed")
    return int(length)


def _counts(attributes: int) -> bool:
    return bool(attributes & _ENABLED) and not attributes & _DENY_ONLY


def _enabled(reader: Reader, pointer: int, count: int) -> list[int]:
    """Relative identifiers of an array of GROUP_MEMBERSHIP (MS-PAC §2.2.2)."""
    if not pointer:
        return []
    pairs = [reader.unpack(_PAIR, "GROUP_MEMBERSHIP") for _ in range(_length(reader, count))]
    return [identifier for identifier, attributes in pairs if _counts(attributes)]


def _extra_sids(reader: Reader, pointer: int, count: int) -> list[str]:
    """Those of an array of KERB_SID_AND_ATTRIBUTES (MS-PAC §2.2.1)."""
    if not pointer:
        return []
    pairs = [reader.unpack(_PAIR, "KERB_SID_AND_ATTRIBUTES") for _ in range(_length(reader, count))]
    sids = [(_sid(reader), attributes) for there, attributes in pairs if there]
    return [sid for sid, attributes in sids if _counts(attributes)]


def _sid(reader: Reader) -> str:
    """In text form (MS-DTYP §2.4.2.1)."""
    conformance, revision, count, authority = reader.unpack(_SID, "SID")
    if conformance != count or count > MOST_SUB_AUTHORITIES or revision != 1:
        raise reader.fail("SID", f"revision {revision}, {count} of {conformance} sub-authorities")
    numbers = [reader.unpack(_POINTER, "SubAuthority")[0] for _ in range(count)]
    return "-".join(map(str, ["S", revision, int.from_bytes(authority), *numbers]))
