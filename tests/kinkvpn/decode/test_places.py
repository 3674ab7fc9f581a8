"""Which payload may be where: RFC 4430 §6, message by message."""

from __future__ import annotations

import pytest

from kinkvpn.decode.findings import Kind
from kinkvpn.decode.places import check_payloads, check_quick_mode
from kinkvpn.wire.ipsec_doi import PayloadType as Q
from kinkvpn.wire.kink import MessageType as M
from kinkvpn.wire.kink import PayloadType as P

GOOD = [
    (M.CREATE, [P.AP_REQ, P.ENCRYPT], [P.ISAKMP, P.ISAKMP]),
    (M.DELETE, [P.AP_REQ, P.ENCRYPT], [P.ISAKMP]),
    (M.STATUS, [P.AP_REQ], []),
    (M.STATUS, [P.AP_REQ, P.ENCRYPT], [P.ISAKMP]),
    (M.ACK, [P.AP_REQ], []),
    (M.GETTGT, [P.TGT_REQ], []),
    (M.REPLY, [P.AP_REP, P.ENCRYPT], [P.ERROR, P.ISAKMP]),
    (M.REPLY, [P.KRB_ERROR], []),
    (M.REPLY, [P.ERROR], []),
    (M.REPLY, [P.TGT_REP], []),
]


@pytest.mark.parametrize(("message", "outer", "inner"), GOOD)
def test_the_forms_of_the_rfc(message: M, outer: list[P], inner: list[P]) -> None:
    assert check_payloads(message, outer, inner, ackreq=False) == []


BAD = [
    (M.CREATE, [], [], [Kind.NO_AP_PAYLOAD]),
    (M.CREATE, [P.ISAKMP, P.AP_REQ], [], [Kind.PAYLOAD_OUT_OF_PLACE, Kind.PAYLOAD_ORDER]),
    (M.CREATE, [P.AP_REQ, P.ENCRYPT, P.ISAKMP], [], [Kind.PAYLOAD_OUT_OF_PLACE, Kind.PAYLOAD_ORDER]),
    (M.ACK, [P.AP_REQ, P.ENCRYPT], [P.ISAKMP], [Kind.PAYLOAD_OUT_OF_PLACE]),
    (M.GETTGT, [P.AP_REQ], [], [Kind.PAYLOAD_OUT_OF_PLACE, Kind.NO_AP_PAYLOAD]),
    (M.REPLY, [P.ENCRYPT], [], [Kind.NO_AP_PAYLOAD]),
    (M.REPLY, [P.ERROR, P.AP_REP], [], [Kind.PAYLOAD_OUT_OF_PLACE, Kind.PAYLOAD_ORDER]),
    (M.CREATE, [P.AP_REQ, 99], [], [Kind.UNKNOWN_NUMBER]),
    (77, [P.AP_REQ], [], [Kind.UNKNOWN_NUMBER]),
]


@pytest.mark.parametrize(("message", "outer", "inner", "kinds"), BAD)
def test_what_has_no_place(message: int, outer: list[int], inner: list[int], kinds: list[Kind]) -> None:
    assert [finding.kind for finding in check_payloads(message, outer, inner, ackreq=False)] == kinds


def test_only_a_reply_asks_for_an_ack() -> None:
    (finding,) = check_payloads(M.CREATE, [P.AP_REQ], [], ackreq=True)
    assert finding.kind is Kind.ACKREQ_OUT_OF_PLACE
    assert check_payloads(M.REPLY, [P.AP_REP], [], ackreq=True) == []


QUICK = [
    (M.CREATE, [Q.SA, Q.NONCE, Q.KE, Q.ID, Q.ID, Q.NOTIFY, Q.NOTIFY], []),
    (M.REPLY, [Q.SA], []),
    (M.REPLY, [Q.DELETE, Q.NOTIFY], []),
    (M.DELETE, [Q.DELETE, Q.DELETE], []),
    (M.STATUS, [Q.NOTIFY], []),
    (77, [Q.NONCE, Q.SA], []),
    (M.CREATE, [Q.NONCE, Q.SA], [Kind.PAYLOAD_ORDER]),
    (M.CREATE, [Q.SA], [Kind.PAYLOAD_ORDER]),
    (M.CREATE, [Q.SA, Q.NONCE, Q.ID], [Kind.PAYLOAD_ORDER]),
    (M.CREATE, [Q.SA, Q.ID, Q.ID, Q.NONCE], [Kind.PAYLOAD_ORDER]),
    (M.DELETE, [Q.SA, Q.NONCE], [Kind.PAYLOAD_OUT_OF_PLACE]),
]


@pytest.mark.parametrize(("message", "types", "kinds"), QUICK)
def test_the_order_of_quick_mode_payloads(message: int, types: list[int], kinds: list[Kind]) -> None:
    assert [finding.kind for finding in check_quick_mode(message, types)] == kinds
