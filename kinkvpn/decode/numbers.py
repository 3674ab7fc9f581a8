"""Names for numbers, from the tables of ``kinkvpn.wire``: a number that gets a name there has it here. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from kinkvpn.wire import ipsec_doi, kink
from kinkvpn.wire.ipsec_doi import NotifyType, PayloadType, Protocol, SaAttribute

# Specification: RFC 4120 §7.5.9, those that an AP exchange or a KDC's answer about a service can bring.
KERBEROS_ERRORS: Final = {
    6: "KDC_ERR_C_PRINCIPAL_UNKNOWN",
    7: "KDC_ERR_S_PRINCIPAL_UNKNOWN",
    12: "KDC_ERR_POLICY",
    14: "KDC_ERR_ETYPE_NOSUPP",
    27: "KDC_ERR_MUST_USE_USER2USER",
    29: "KDC_ERR_SVC_UNAVAILABLE",
    31: "KRB_AP_ERR_BAD_INTEGRITY",
    32: "KRB_AP_ERR_TKT_EXPIRED",
    33: "KRB_AP_ERR_TKT_NYV",
    34: "KRB_AP_ERR_REPEAT",
    35: "KRB_AP_ERR_NOT_US",
    36: "KRB_AP_ERR_BADMATCH",
    37: "KRB_AP_ERR_SKEW",
    38: "KRB_AP_ERR_BADADDR",
    39: "KRB_AP_ERR_BADVERSION",
    40: "KRB_AP_ERR_MSG_TYPE",
    41: "KRB_AP_ERR_MODIFIED",
    42: "KRB_AP_ERR_BADORDER",
    44: "KRB_AP_ERR_BADKEYVER",
    45: "KRB_AP_ERR_NOKEY",
    46: "KRB_AP_ERR_MUT_FAIL",
    47: "KRB_AP_ERR_BADDIRECTION",
    48: "KRB_AP_ERR_METHOD",
    49: "KRB_AP_ERR_BADSEQ",
    50: "KRB_AP_ERR_INAPP_CKSUM",
    51: "KRB_AP_PATH_NOT_ACCEPTED",
    52: "KRB_ERR_RESPONSE_TOO_BIG",
    60: "KRB_ERR_GENERIC",
    61: "KRB_ERR_FIELD_TOOLONG",
    67: "KRB_AP_ERR_NO_TGT",
    69: "KRB_AP_ERR_USER_TO_USER_REQUIRED",
}
# IP protocols in selectors, as people say them; any other is its number.
IP_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 58: "icmpv6", 89: "ospf", 132: "sctp"}

# RFC 4430 §11: message and payload types from here on are for private use; error codes in their own range.
FIRST_PRIVATE_OCTET: Final = 128

Named = dict[str, Any]


def name_of(table: type[IntEnum] | None, number: int) -> str | None:
    """The table's name for ``number``, None where it has none."""
    if table is None:
        return None
    try:
        return table(number).name
    except ValueError:
        return None


def named(table: type[IntEnum] | None, number: int, prefix: str = "") -> Named:
    """``{"number": 3, "name": "ESP"}``; the name is None where there is none."""
    name = name_of(table, number)
    return {"number": number, "name": None if name is None else prefix + name}


def spoken(what: Named) -> str:
    """The name, or the number where it has none."""
    return what["name"] or f"unknown ({what['number']})"


def payload_name(kind: int) -> Named:
    """Of an outer payload, with the RFC's prefix."""
    return named(kink.PayloadType, kind, "KINK_")


def transform_name(protocol: int, identifier: int) -> Named:
    """Of a Transform-Id: which table depends on the proposal's protocol."""
    table = (
        {Protocol.ESP: ipsec_doi.EspTransform, Protocol.AH: ipsec_doi.AhTransform}.get(Protocol(protocol))
        if name_of(Protocol, protocol)
        else None
    )
    return named(table, identifier)


def values_of(attribute: int) -> type[IntEnum] | None:
    """The table of an attribute's values, by the name of its class: LifeType for LIFE_TYPE, Group for
    GROUP_DESCRIPTION, and so on for every class that has one.
    """
    words = [word.capitalize() for word in (name_of(SaAttribute, attribute) or "").split("_")]
    for name in ("".join(words), words[0]):
        table = getattr(ipsec_doi, name, None) if name else None
        if isinstance(table, type) and issubclass(table, IntEnum):
            return table
    return None


def notify_name(kind: int) -> Named:
    """Of a Notify Message Type; what is for private use says so."""
    found = named(NotifyType, kind)
    private = ipsec_doi.FIRST_PRIVATE_STATUS <= kind <= ipsec_doi.LAST_PRIVATE_STATUS
    if found["name"] is None and private:
        found["name"] = f"private use {kind}"
    return found


def quick_mode_name(kind: int) -> Named:
    """Of a Quick Mode payload."""
    return named(PayloadType, kind)


def kerberos_error_name(code: int) -> Named:
    """Of a KRB-ERROR's error-code."""
    return {"number": code, "name": KERBEROS_ERRORS.get(code)}


def hexadecimal(octets: bytes, most: int = 64) -> str:
    """0x..., cut after ``most`` octets: the rest is counted."""
    more = f"... ({len(octets)} octets)" if len(octets) > most else ""
    return f"0x{octets[:most].hex()}{more}"
