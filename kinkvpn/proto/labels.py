"""What a message says, in labels to count it by: its errors and notifies, in and out. Names are in docs/counters.md.

A label comes out of a closed set, so that no number which a stranger makes up becomes a counter of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kinkvpn.errors import MalformedMessage
from kinkvpn.proto.events import Family, Label
from kinkvpn.wire.ipsec_doi import LAST_ERROR_NOTIFY, NotifyType
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import ErrorCode, Isakmp, KinkError, KrbError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kinkvpn.proto.ports import Kerberos
    from kinkvpn.wire.kink import KinkPayload

_KNOWN_NOTIFIES = frozenset(NotifyType)
# RFC 4120 §7.5.9 assigns codes up to 76, RFC 6113 and others up to 100.
LAST_KRB_ERROR = 127


def kink_error(code: int) -> str:
    """Label of a KINK error code: the registry's name without KINK_ (RFC 4430 §4.2.8)."""
    try:
        return ErrorCode(code).name.lower()
    except ValueError:
        return "other"


def krb_error(code: int | None) -> str:
    """Label of a Kerberos error code: its number (RFC 4120 §7.5.9)."""
    if code is None:
        return "unreadable"
    return str(code) if 0 <= code <= LAST_KRB_ERROR else "other"


def notify(number: int) -> str:
    """Label of a notify type: the registry's name, or which half of the range it is from (RFC 4430 §5.5)."""
    try:
        return NotifyType(number).name.lower()
    except ValueError:
        return "other_error" if number <= LAST_ERROR_NOTIFY else "other_status"


def received(payloads: Iterable[KinkPayload], kerberos: Kerberos) -> tuple[Label, ...]:
    """Labels of the errors and notifies in a message that came."""
    return tuple(
        label
        for payload in payloads
        for label in (
            [Label(Family.KRB_ERRORS_RECEIVED, krb_error(_code(payload, kerberos)))]
            if isinstance(payload, KrbError)
            else _labels(payload, Family.KINK_ERRORS_RECEIVED, Family.NOTIFIES_RECEIVED)
        )
    )


def sent(payloads: Iterable[KinkPayload], krb_code: int | None = None) -> tuple[Label, ...]:
    """Labels of the errors and notifies in a message of ours.

    Args:
        payloads: before they were encrypted.
        krb_code: of the KRB-ERROR among them, if there is one.
    """
    return tuple(
        label
        for payload in payloads
        for label in (
            [Label(Family.KRB_ERRORS_SENT, krb_error(krb_code))]
            if isinstance(payload, KrbError)
            else _labels(payload, Family.KINK_ERRORS_SENT, Family.NOTIFIES_SENT)
        )
    )


def unknown_notifies(payloads: Iterable[KinkPayload]) -> str:
    """The notify types in a message that nobody here knows, for the log (RFC 4430 §5.5); empty where there are none."""
    found = {
        inside.type
        for payload in payloads
        if isinstance(payload, Isakmp)
        for inside in payload.payloads
        if isinstance(inside, Notify) and inside.type not in _KNOWN_NOTIFIES
    }
    return ", ".join(map(str, sorted(found)))


def _labels(payload: KinkPayload, errors: Family, notifies: Family) -> Iterator[Label]:
    if isinstance(payload, KinkError):
        yield Label(errors, kink_error(payload.code))
    elif isinstance(payload, Isakmp):
        for inside in payload.payloads:
            if isinstance(inside, Notify):
                yield Label(notifies, notify(inside.type))


def _code(payload: KrbError, kerberos: Kerberos) -> int | None:
    try:
        return kerberos.read_error(payload.krb_error).code
    except MalformedMessage:
        return None
