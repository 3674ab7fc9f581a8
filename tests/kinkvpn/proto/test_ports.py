from __future__ import annotations

from support.kinkhosts import Wire, principal

from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.fake import FakeKerberos
from kinkvpn.proto.ports import (
    AcceptedRequest,
    ApRequestRefused,
    Kerberos,
    KrbErrorDetails,
    OutstandingRequest,
    SessionKey,
    Ticket,
    TicketRefusal,
)


def test_a_refusal_carries_what_is_answered() -> None:
    refused = ApRequestRefused(37, b"error", None, "clock skew")
    assert isinstance(refused, KinkvpnError)
    assert (refused.code, refused.krb_error, refused.accepted, str(refused)) == (37, b"error", None, "clock skew")
    assert TicketRefusal("no KDC").code is None
    assert KrbErrorDetails(37, 1.0, None).text == ""


def test_the_fake_realm_fills_the_ports() -> None:
    """mypy checks the assignments; here they are run."""
    wire = Wire()
    ticket: Ticket = wire.realm.issue(principal("a"), principal("b"))
    request: OutstandingRequest = ticket.make_request()
    kerberos: Kerberos = FakeKerberos(wire.realm, principal("b"))
    accepted: AcceptedRequest = kerberos.accept(request.ap_req)
    key: SessionKey = accepted.key
    request.verify_reply(accepted.make_reply())
    assert key.prf(b"x") == ticket.key.prf(b"x")
    assert (accepted.client, accepted.server, accepted.endtime) == (ticket.client, ticket.server, ticket.endtime)
