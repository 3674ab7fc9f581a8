"""Whose fault, and what a responder answers."""

from __future__ import annotations

import pytest

from kinkvpn.errors import (
    AuthenticationFailed,
    KinkvpnError,
    LocalMisuse,
    MalformedMessage,
    MalformedQuickMode,
    UnsupportedDoi,
    UnsupportedMajorVersion,
)
from kinkvpn.wire.ipsec_doi import NotifyType
from kinkvpn.wire.kink import ErrorCode


@pytest.mark.parametrize("kind", [LocalMisuse, AuthenticationFailed])
def test_everything_raised_on_purpose_has_one_root(kind: type[KinkvpnError]) -> None:
    with pytest.raises(KinkvpnError, match=r"^why$"):
        raise kind("why")


def test_a_malformed_message_says_where_and_why() -> None:
    error = MalformedMessage("Payload Length", 18, "3 is less than its own header")
    assert str(error) == "Payload Length at octet 18: 3 is less than its own header"
    assert (error.field, error.offset, error.reason) == ("Payload Length", 18, "3 is less than its own header")
    assert (error.xid, error.message_type) == (None, None)


@pytest.mark.parametrize(
    ("kind", "code", "notify"),
    [
        (MalformedMessage, ErrorCode.PROTOERR, None),
        (UnsupportedMajorVersion, ErrorCode.INVMAJ, None),
        (UnsupportedDoi, ErrorCode.INVDOI, None),
        (MalformedQuickMode, ErrorCode.PROTOERR, NotifyType.PAYLOAD_MALFORMED),
    ],
)
def test_the_class_carries_what_to_answer(kind: type[MalformedMessage], code: int, notify: int | None) -> None:
    error = kind("field", 0, "reason")
    assert (error.code, error.notify) == (code, notify)


@pytest.mark.parametrize(
    ("message_type", "answerable"),
    [(None, False), (0, False), (1, True), (2, True), (3, False), (4, True), (5, False), (6, True), (7, False)],
)
def test_only_commands_are_answered(message_type: int | None, answerable: bool) -> None:
    error = MalformedMessage("field", 0, "reason")
    error.message_type = message_type
    assert error.answerable is answerable
