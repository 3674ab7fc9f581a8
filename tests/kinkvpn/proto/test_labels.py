from __future__ import annotations

import pytest
from support.kinkhosts import Wire, principal

from kinkvpn.kerberos.fake import FakeKerberos
from kinkvpn.proto import labels
from kinkvpn.proto.events import Family, Label
from kinkvpn.proto.ports import ApRequestRefused
from kinkvpn.wire.isakmp import Delete, Notify
from kinkvpn.wire.kink import ApReq, Isakmp, KinkError, KrbError


def kerberos() -> FakeKerberos:
    return FakeKerberos(Wire().realm, principal("b"))


def krb_error() -> KrbError:
    with pytest.raises(ApRequestRefused) as refused:
        kerberos().accept(b"garbage")
    assert refused.value.code == 31
    return KrbError(refused.value.krb_error)


def test_errors_and_notifies_of_a_message_that_came() -> None:
    said = (
        ApReq(1, b""),
        KinkError(1),
        krb_error(),
        KrbError(b"nonsense"),
        Isakmp((Delete(3, (b"abcd",)), Notify(3, b"", 14), Notify(3, b"", 40000))),
    )
    assert labels.received(said, kerberos()) == (
        Label(Family.KINK_ERRORS_RECEIVED, "protoerr"),
        Label(Family.KRB_ERRORS_RECEIVED, "31"),
        Label(Family.KRB_ERRORS_RECEIVED, "unreadable"),
        Label(Family.NOTIFIES_RECEIVED, "no_proposal_chosen"),
        Label(Family.NOTIFIES_RECEIVED, "other_status"),
    )


def test_of_a_message_of_ours_the_code_is_known() -> None:
    said = (KinkError(7), KrbError(b"not looked into"), Isakmp((Notify(3, b"", 11),)))
    assert labels.sent(said, 37) == (
        Label(Family.KINK_ERRORS_SENT, "u2udenied"),
        Label(Family.KRB_ERRORS_SENT, "37"),
        Label(Family.NOTIFIES_SENT, "invalid_spi"),
    )


def test_no_number_that_a_stranger_makes_up_is_a_label_of_its_own() -> None:
    kink = {labels.kink_error(code) for code in (*range(70_000), 2**32 - 1)}
    krb = {labels.krb_error(code) for code in (*range(-1000, 70_000), 2**31 - 1, -(2**31))}
    notify = {labels.notify(number) for number in range(65_536)}
    assert len(kink) == 9
    assert len(krb) == 129
    assert len(notify) < 100
    assert {"other"} < kink
    assert {"other_error", "other_status"} < notify
