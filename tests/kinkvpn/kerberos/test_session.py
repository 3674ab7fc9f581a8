"""AP exchanges with a real KDC's tickets, session keys against an independent implementation and captured traffic."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import gssapi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.libs.rfc3961 import Key
from support.kdc import ALICE, BOB, Lab, free_port
from support.vectors import KEYTABS, Keymat, Layer, VectorMessage, load_messages

from kinkvpn.demo.realm import Realm
from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos import libkrb5, session
from kinkvpn.kerberos.libkrb5 import Context, Krb5Error
from kinkvpn.kerberos.literal_prf import literal_prf
from kinkvpn.kerberos.session import (
    MAX_TGTS,
    PERMITTED_ENCTYPES,
    Acceptor,
    OwnTgt,
    SessionKey,
    VerifiedRequest,
    printable,
    require_permitted,
    wire_code,
)
from kinkvpn.proto.ports import ApRequestRefused, TgtDenied
from kinkvpn.wire.kink import ApRep, ApReq, KrbError, parse_message, parse_plaintext, signed_octets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AP_OPTS_USE_SUBKEY = 1  # krb5.h: make a subkey and put it into the authenticator
KEY_SIZES = {17: 16, 18: 32, 19: 16, 20: 32}
TGS = "krbtgt/KINKVPN.TEST@KINKVPN.TEST"
CHECKSUM_SIZES = {17: 12, 18: 12, 19: 16, 20: 24}
PRF_SIZES = {17: 16, 18: 16, 19: 32, 20: 48}
ENCTYPES = pytest.mark.parametrize("enctype", sorted(KEY_SIZES))


def key_for(enctype: int, seed: bytes = b"") -> tuple[SessionKey, bytes]:
    octets = (seed + bytes(range(32)))[: KEY_SIZES[enctype]]
    context = Context()
    return SessionKey(context, context.key_of(enctype, octets)), octets


def refused(acceptor: Acceptor, ap_req: bytes) -> ApRequestRefused:
    with pytest.raises(ApRequestRefused) as caught:
        acceptor.accept(ap_req)
    return caught.value


class TestSessionKey:
    @ENCTYPES
    @given(text=st.binary(max_size=2000), seed=st.binary(min_size=32, max_size=32))
    def test_agrees_with_an_independent_implementation(self, enctype: int, text: bytes, seed: bytes) -> None:
        ours, octets = key_for(enctype, seed)
        theirs = Key(enctype, key=octets)
        assert ours.checksum(text) == theirs.make_checksum(40, text)
        assert ours.prf(text) == theirs.prf(text)
        assert theirs.decrypt(39, ours.encrypt(text)) == text
        assert ours.decrypt(theirs.encrypt(39, text)) == text

    @ENCTYPES
    def test_sizes_are_the_enctype_s(self, enctype: int) -> None:
        key, _ = key_for(enctype)
        assert key.enctype == enctype
        assert len(key.checksum(b"octets")) == CHECKSUM_SIZES[enctype]
        assert len(key.prf(b"octets")) == PRF_SIZES[enctype]

    @ENCTYPES
    @given(text=st.binary(max_size=200), bit=st.integers(min_value=0))
    def test_one_changed_bit_of_a_checksum_or_its_text_is_noticed(self, enctype: int, text: bytes, bit: int) -> None:
        key, _ = key_for(enctype)
        checksum = key.checksum(text)
        key.verify(text, checksum)
        with pytest.raises(AuthenticationFailed):
            key.verify(text, flipped(checksum, bit))
        with pytest.raises(AuthenticationFailed):
            key.verify(flipped(text, bit) if text else b"\0", checksum)

    @ENCTYPES
    @pytest.mark.parametrize("cut", [slice(0), slice(-1), slice(4)])
    def test_a_checksum_of_another_length_is_refused(self, enctype: int, cut: slice) -> None:
        key, _ = key_for(enctype)
        with pytest.raises(AuthenticationFailed):
            key.verify(b"octets", key.checksum(b"octets")[cut])
        with pytest.raises(AuthenticationFailed):
            key.verify(b"octets", key.checksum(b"octets") + b"\0")

    @ENCTYPES
    @given(text=st.binary(max_size=200), bit=st.integers(min_value=0))
    def test_one_changed_bit_of_a_ciphertext_is_noticed(self, enctype: int, text: bytes, bit: int) -> None:
        key, _ = key_for(enctype)
        with pytest.raises(AuthenticationFailed, match="does not open") as caught:
            key.decrypt(flipped(key.encrypt(text), bit))
        assert caught.value.__context__ is None

    @ENCTYPES
    @given(octets=st.binary(max_size=100))
    def test_random_octets_do_not_open(self, enctype: int, octets: bytes) -> None:
        key, _ = key_for(enctype)
        with pytest.raises(AuthenticationFailed):
            key.decrypt(octets)

    @ENCTYPES
    def test_every_encryption_is_fresh(self, enctype: int) -> None:
        key, _ = key_for(enctype)
        assert key.encrypt(b"octets") != key.encrypt(b"octets")

    @ENCTYPES
    def test_usages_are_kept_apart(self, enctype: int) -> None:
        key, octets = key_for(enctype)
        with pytest.raises(AuthenticationFailed):
            key.decrypt(Key(enctype, key=octets).encrypt(40, b"octets"))
        with pytest.raises(AuthenticationFailed):
            key.verify(b"octets", Key(enctype, key=octets).make_checksum(39, b"octets"))

    @ENCTYPES
    @given(text=st.binary(max_size=200))
    def test_the_literal_prf_differs_for_aes_sha1_alone(self, enctype: int, text: bytes) -> None:
        key, octets = key_for(enctype)
        if enctype in (17, 18):
            assert key.prf_rfc3962_literal(text) == literal_prf(octets, text)
            assert len(key.prf_rfc3962_literal(text)) == 20
        else:
            assert key.prf_rfc3962_literal(text) == key.prf(text)

    @ENCTYPES
    def test_no_secret_in_its_repr(self, enctype: int) -> None:
        key, _ = key_for(enctype)
        assert repr(key) == f"SessionKey(enctype={enctype})"


def flipped(octets: bytes, bit: int) -> bytes:
    at, mask = bit // 8 % len(octets), 1 << bit % 8
    return octets[:at] + bytes([octets[at] ^ mask]) + octets[at + 1 :]


def test_refused_enctypes_are_named() -> None:
    with pytest.raises(Krb5Error, match=r"the ticket has the refused enctype arcfour-hmac \(23\)") as caught:
        require_permitted(23, "the ticket")
    assert caught.value.protocol_code == 14
    assert {1, 3, 16, 23, 24} & PERMITTED_ENCTYPES == set()


class TestPlainExchange:
    pytestmark = pytest.mark.kdc

    def test_both_ends_have_the_session_key_of_the_ticket(self, lab: Lab) -> None:
        ticket, acceptor = lab.ticket(), lab.acceptor()
        request = ticket.make_request()
        accepted = acceptor.accept(request.ap_req)
        request.verify_reply(accepted.make_reply())
        assert (accepted.client, accepted.server) == (ticket.client, ticket.server) == (ALICE, BOB)
        assert accepted.endtime == ticket.endtime
        assert accepted.key.prf(b"seed") == ticket.key.prf(b"seed")

    def test_a_subkey_is_ignored(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """RFC 4430 §7: whoever sends one is answered under the ticket's session key all the same."""
        ticket, acceptor = lab.ticket(), lab.acceptor()
        plain = ticket.make_request()
        monkeypatch.setattr(libkrb5, "AP_OPTS_MUTUAL_REQUIRED", libkrb5.AP_OPTS_MUTUAL_REQUIRED | AP_OPTS_USE_SUBKEY)
        request = ticket.make_request()
        assert len(request.ap_req) > len(plain.ap_req) + 30, "there is a subkey in it"
        accepted = acceptor.accept(request.ap_req)
        request.verify_reply(accepted.make_reply())
        assert accepted.key.prf(b"seed") == ticket.key.prf(b"seed")
        assert accepted.key.checksum(b"seed") == ticket.key.checksum(b"seed")

    def test_ap_req_asks_mutual_authentication_and_nothing_more(self, lab: Lab) -> None:
        """RFC 4430 §4.2.1; the other implementation sends neither checksum, subkey nor sequence number."""
        ap_req = lab.ticket().make_request().ap_req
        assert ap_req[ap_req.index(b"\xa2\x07\x03\x05") :][:9] == b"\xa2\x07\x03\x05\x00\x20\x00\x00\x00"
        # The authenticator with no optional field is short: 16 octets of confounder, 24 of checksum, and the names.
        assert len(ap_req) < 720

    def test_every_outstanding_authenticator_takes_its_own_reply(self, lab: Lab) -> None:
        """RFC 4430 §9: the reply to the first transmission may come after the third."""
        ticket, acceptor = lab.ticket(), lab.acceptor()
        requests = [ticket.make_request() for _ in range(3)]
        replies = [acceptor.accept(request.ap_req).make_reply() for request in requests]
        for request, reply in reversed(list(zip(requests, replies, strict=True))):
            for other in replies:
                if other is not reply:
                    with pytest.raises(AuthenticationFailed, match="does not answer"):
                        request.verify_reply(other)
            request.verify_reply(reply)

    @pytest.mark.parametrize("ap_rep", [b"", b"\x6f", bytes(80)])
    def test_a_reply_that_is_none_is_refused(self, lab: Lab, ap_rep: bytes) -> None:
        with pytest.raises(AuthenticationFailed):
            lab.ticket().make_request().verify_reply(ap_rep)

    def test_a_reply_with_one_changed_octet_is_refused(self, lab: Lab) -> None:
        request = lab.ticket().make_request()
        reply = lab.acceptor().accept(request.ap_req).make_reply()
        with pytest.raises(AuthenticationFailed):
            request.verify_reply(reply[:-1] + bytes([reply[-1] ^ 1]))

    def test_no_secret_in_any_repr(self, lab: Lab) -> None:
        ticket = lab.ticket()
        accepted = lab.acceptor().accept(ticket.make_request().ap_req)
        assert repr(ticket) == f"ServiceTicket(client={ALICE!r}, server={BOB!r}, endtime={ticket.endtime:.0f})"
        assert repr(accepted) == f"VerifiedRequest(client={ALICE!r}, server={BOB!r}, endtime={ticket.endtime:.0f})"
        assert repr(accepted.key) == "SessionKey(enctype=20)"


class TestReplays:
    pytestmark = pytest.mark.kdc

    def test_an_ap_req_is_good_once(self, lab: Lab) -> None:
        acceptor, ap_req = lab.acceptor(), lab.ticket().make_request().ap_req
        acceptor.accept(ap_req)
        refusal = refused(acceptor, ap_req)
        assert (refusal.code, refusal.accepted) == (34, None)

    def test_a_fresh_authenticator_of_the_same_instant_is_good(self, lab: Lab) -> None:
        acceptor, ticket = lab.acceptor(), lab.ticket()
        for _ in range(50):
            acceptor.accept(ticket.make_request().ap_req)

    def test_a_restart_does_not_forget(self, lab: Lab, tmp_path: Path) -> None:
        cache, ap_req = f"file2:{tmp_path}/replays", lab.ticket().make_request().ap_req
        Acceptor([BOB], lab.keytab(BOB), replay_cache=cache).accept(ap_req)
        assert refused(Acceptor([BOB], lab.keytab(BOB), replay_cache=cache), ap_req).code == 34

    def test_the_default_cache_survives_too(self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KRB5RCACHEDIR", str(tmp_path))
        ap_req = lab.ticket().make_request().ap_req
        Acceptor([BOB], lab.keytab(BOB), replay_cache="dfl:").accept(ap_req)
        assert refused(Acceptor([BOB], lab.keytab(BOB), replay_cache="dfl:"), ap_req).code == 34
        assert len(list(tmp_path.iterdir())) == 1

    def test_none_checks_no_replay(self, lab: Lab) -> None:
        acceptor, ap_req = Acceptor([BOB], lab.keytab(BOB), replay_cache="none:"), lab.ticket().make_request().ap_req
        acceptor.accept(ap_req)
        acceptor.accept(ap_req)

    def test_without_the_replay_check_the_clock_is_still_looked_at(self, lab: Lab) -> None:
        context, ticket = Context({"default_rcache_name": "none:"}), lab.ticket()
        keytab, ap_req = context.keytab(f"FILE:{lab.keytab(BOB)}"), ticket.make_request().ap_req
        for _ in range(2):
            context.read_request(context.auth_context(replay_checked=False), ap_req, keytab)
        late = ticket.make_request(400.0).ap_req
        with pytest.raises(Krb5Error) as caught:
            context.read_request(context.auth_context(replay_checked=False), late, keytab)
        assert caught.value.protocol_code == 37

    def test_the_operator_s_environment_goes_first(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KRB5RCACHENAME", "none:")
        acceptor, ap_req = lab.acceptor(), lab.ticket().make_request().ap_req
        acceptor.accept(ap_req)
        acceptor.accept(ap_req)


class TestClocks:
    pytestmark = pytest.mark.kdc

    @pytest.mark.parametrize(
        ("acceptor_offset", "code"),
        [
            (310.0, 37),  # SKEW
            (-310.0, 33),  # not SKEW: by the responder's clock the ticket has not begun
            (40000.0, 32),  # TKT_EXPIRED
        ],
    )
    def test_an_error_of_clocks_can_be_sent_authenticated(self, lab: Lab, acceptor_offset: float, code: int) -> None:
        """RFC 4430 §3.5: the client's time is in the error, and the error can go out under the session key."""
        acceptor, ticket = lab.acceptor(clock_offset=acceptor_offset), lab.ticket()
        request = ticket.make_request()
        refusal = refused(acceptor, request.ap_req)
        assert refusal.code == code
        assert isinstance(refusal.accepted, VerifiedRequest)
        request.verify_reply(refusal.accepted.make_reply())
        assert refusal.accepted.key.prf(b"seed") == ticket.key.prf(b"seed")
        details = acceptor.read_error(refusal.krb_error)
        assert details.code == code
        assert details.server_time == pytest.approx(time.time() + acceptor_offset, abs=5)
        assert details.client_time == pytest.approx(time.time(), abs=5)

    @pytest.mark.parametrize("apart", [400.0, 5000.0])
    def test_the_offset_learned_from_the_error_makes_the_next_one_good(self, lab: Lab, apart: float) -> None:
        acceptor, ticket = lab.acceptor(clock_offset=apart), lab.ticket()
        refusal = refused(acceptor, ticket.make_request().ap_req)
        offset = acceptor.read_error(refusal.krb_error).server_time - time.time()
        request = ticket.make_request(offset)
        request.verify_reply(acceptor.accept(request.ap_req).make_reply())

    @pytest.mark.parametrize("offset", [-400.0, -100000.0, 100000.0])
    def test_making_a_request_is_never_refused_here(self, lab: Lab, offset: float) -> None:
        """Whether the ticket is valid by the peer's clock is for the peer to say."""
        ticket = lab.ticket()
        assert ticket.make_request(offset).ap_req != ticket.make_request().ap_req

    def test_a_small_difference_is_no_error(self, lab: Lab) -> None:
        for offset in (-290.0, 290.0):
            lab.acceptor(clock_offset=offset).accept(lab.ticket().make_request().ap_req)

    def test_a_late_request_is_answered_under_its_key_once(self, lab: Lab) -> None:
        """libkrb5 remembers it before it looks at the time, so that a copy of it draws no second answer."""
        acceptor, ap_req = lab.acceptor(), lab.ticket().make_request(400.0).ap_req
        assert refused(acceptor, ap_req).accepted is not None
        again = refused(acceptor, ap_req)
        assert (again.code, again.accepted) == (34, None)

    def test_a_late_request_that_is_forged_too_is_not_accepted(self, lab: Lab) -> None:
        ap_req = lab.ticket().make_request(400.0).ap_req
        refusal = refused(lab.acceptor(), ap_req[:-1] + bytes([ap_req[-1] ^ 1]))
        assert (refusal.code, refusal.accepted) == (31, None)

    def test_a_late_request_for_another_service_is_not_accepted(self, lab: Lab, tmp_path: Path) -> None:
        ap_req = lab.ticket(ALICE, "kink/carol.test@KINKVPN.TEST").make_request(400.0).ap_req
        acceptor = Acceptor([BOB], joint_keytab(lab, tmp_path), replay_cache="none:")
        assert refused(acceptor, ap_req).accepted is None


def own_tgt(lab: Lab, principal: str = BOB) -> OwnTgt:
    """A new one of the principal's."""
    return lab.ticket(principal, TGS).as_tgt()


def ccache_only(lab: Lab, *tgts: OwnTgt, principal: str = BOB) -> Acceptor:
    """What accepts on a host without a keytab."""
    acceptor = Acceptor([principal], None, replay_cache="none:")
    for tgt in tgts:
        acceptor.hold_tgt(tgt)
    return acceptor


class TestUserToUser:
    pytestmark = pytest.mark.kdc

    def test_both_ends_have_the_session_key_of_the_ticket(self, lab: Lab) -> None:
        """RFC 4430 §3.1: without any key that the KDC and the responder share."""
        lab.keytab(BOB)
        acceptor = ccache_only(lab, own_tgt(lab))
        ticket = lab.ticket(tgt=acceptor.offer_tgt(BOB.encode()))
        request = ticket.make_request()
        accepted = acceptor.accept(request.ap_req)
        request.verify_reply(accepted.make_reply())
        assert accepted.user_to_user
        assert (accepted.client, accepted.server) == (ticket.client, ticket.server) == (ALICE, BOB)
        assert accepted.key.prf(b"seed") == ticket.key.prf(b"seed")
        # RFC 4120 §5.5.1: mutual-required and use-session-key.
        assert bytes.fromhex("a20703050060000000") in request.ap_req

    def test_an_ap_req_is_good_once(self, lab: Lab, tmp_path: Path) -> None:
        acceptor = Acceptor([BOB], lab.keytab(BOB), replay_cache=f"file2:{tmp_path}/replays")
        acceptor.hold_tgt(own_tgt(lab))
        ap_req = lab.ticket(tgt=acceptor.offer_tgt(BOB.encode())).make_request().ap_req
        acceptor.accept(ap_req)
        refusal = refused(acceptor, ap_req)
        assert (refusal.code, refusal.accepted, refusal.tgt) == (34, None, None)

    def test_a_host_with_both_takes_both(self, lab: Lab) -> None:
        acceptor = lab.acceptor()
        acceptor.hold_tgt(own_tgt(lab))
        assert not acceptor.accept(lab.ticket().make_request().ap_req).user_to_user
        tgt = acceptor.offer_tgt(BOB.encode())
        assert acceptor.accept(lab.ticket(tgt=tgt).make_request().ap_req).user_to_user

    def test_the_bit_decides_about_the_key(self, lab: Lab) -> None:
        """libkrb5 takes the user's key whatever the bit says: a ticket is opened by the key that its AP-REQ names."""
        acceptor = lab.acceptor()
        acceptor.hold_tgt(own_tgt(lab))
        ap_req = lab.ticket(tgt=acceptor.offer_tgt(BOB.encode())).make_request().ap_req
        plain = ap_req.replace(bytes.fromhex("a20703050060000000"), bytes.fromhex("a20703050020000000"))
        assert plain != ap_req
        refusal = refused(acceptor, plain)
        assert refusal.accepted is None
        assert refusal.code == 44  # no key of that version in the keytab: it was tried with that, and with nothing else
        assert acceptor.accept(ap_req).user_to_user

    def test_a_ticket_for_another_name_is_not_us(self, lab: Lab) -> None:
        """libkrb5 does not look at the server's name of a user-to-user ticket."""
        lab.keytab(BOB)
        tgt = own_tgt(lab)
        ap_req = lab.ticket(tgt=tgt.ticket).make_request().ap_req
        refusal = refused(ccache_only(lab, tgt, principal=ALICE), ap_req)
        assert (refusal.code, refusal.accepted, refusal.tgt) == (35, None, None)

    def test_without_a_keytab_user_to_user_is_required(self, lab: Lab) -> None:
        ap_req = lab.ticket().make_request().ap_req
        refusal = refused(ccache_only(lab, own_tgt(lab)), ap_req)
        assert (refusal.code, refusal.accepted, refusal.tgt) == (69, None, None)
        assert refused(ccache_only(lab), ap_req).code == 45  # with neither, that would lead nowhere

    def test_tickets_of_recent_tgts_are_taken_and_an_older_one_is_answered_by_the_newest(self, lab: Lab) -> None:
        """RFC 4430 §3.7.1."""
        lab.keytab(BOB)
        tgts = [own_tgt(lab) for _ in range(MAX_TGTS + 1)]
        acceptor = ccache_only(lab, *tgts)
        tickets = [lab.ticket(tgt=tgt.ticket) for tgt in tgts]
        for ticket in tickets[1:]:
            assert acceptor.accept(ticket.make_request().ap_req).user_to_user
        refusal = refused(acceptor, tickets[0].make_request().ap_req)
        assert (refusal.code, refusal.accepted, refusal.tgt) == (45, None, tgts[-1].ticket)
        assert acceptor.offer_tgt(BOB.encode()) == tgts[-1].ticket
        assert not acceptor.hold_tgt(tgts[-1])  # nothing new

    @pytest.mark.parametrize("keytab", [False, True])
    def test_one_that_has_ended_opens_nothing_and_is_not_offered(self, lab: Lab, keytab: bool) -> None:
        """MIT's KDC makes tickets with it that last longer: they are answered as where there is no user-to-user."""
        late = Acceptor([BOB], lab.keytab(BOB) if keytab else None, replay_cache="none:", clock_offset=36000.0 + 310.0)
        tgt = own_tgt(lab)
        late.hold_tgt(tgt)
        ticket = lab.ticket(tgt=tgt.ticket)
        refusal = refused(late, ticket.make_request(36310.0).ap_req)
        assert (refusal.code, refusal.accepted, refusal.tgt) == (45, None, None)
        assert refused(late, lab.ticket().make_request(36310.0).ap_req).code == (32 if keytab else 45)

    def test_an_error_of_clocks_can_be_sent_authenticated(self, lab: Lab) -> None:
        acceptor = Acceptor([BOB], lab.keytab(BOB), replay_cache="none:", clock_offset=310.0)
        acceptor.hold_tgt(own_tgt(lab))
        ticket = lab.ticket(tgt=acceptor.offer_tgt(BOB.encode()))
        request = ticket.make_request()
        refusal = refused(acceptor, request.ap_req)
        assert (refusal.code, refusal.tgt) == (37, None)
        assert refusal.accepted is not None
        request.verify_reply(refusal.accepted.make_reply())

    def test_a_changed_octet_is_told_from_a_lost_tgt(self, lab: Lab) -> None:
        lab.keytab(BOB)
        acceptor = ccache_only(lab, own_tgt(lab))
        ap_req = lab.ticket(tgt=acceptor.offer_tgt(BOB.encode())).make_request().ap_req
        refusal = refused(acceptor, ap_req[:-1] + bytes([ap_req[-1] ^ 1]))
        assert refusal.accepted is None

    @pytest.mark.parametrize("name", [b"", ALICE.encode(), BOB.encode() + b"\0", b"\xff" * 70, BOB.upper().encode()])
    def test_a_tgt_is_given_for_our_name_only(self, lab: Lab, name: bytes) -> None:
        acceptor = lab.acceptor()
        acceptor.hold_tgt(own_tgt(lab))
        with pytest.raises(TgtDenied, match="who is not here") as denied:
            acceptor.offer_tgt(name)
        assert acceptor.read_error(denied.value.krb_error).code == 35

    @pytest.mark.parametrize("name", [BOB, r"a\/b@KINKVPN.TEST", r"we\@ird/\\host@KINKVPN.TEST"])
    def test_the_name_is_as_gss_api_exports_it(self, lab: Lab, name: str) -> None:
        """RFC 1964 §2.1.3: a token of four fields, of which RFC 4430 §4.2.4 takes the octets of the last."""
        token = gssapi.Name(name, gssapi.NameType.kerberos_principal).canonicalize(gssapi.MechType.kerberos).export()
        exported = token[token.index(name.encode()[-12:]) + 12 - len(name) :]
        assert int.from_bytes(token[-len(exported) - 4 : -len(exported)], "big") == len(exported)
        with pytest.raises(TgtDenied, match="no ticket-granting ticket"):  # and not that it is another's
            Acceptor([name], None, replay_cache="none:").offer_tgt(exported)

    def test_without_a_tgt_none_is_given(self, lab: Lab) -> None:
        with pytest.raises(TgtDenied) as denied:
            lab.acceptor().offer_tgt(BOB.encode())
        assert denied.value.krb_error == b""
        late = Acceptor([BOB], None, replay_cache="none:", clock_offset=100000.0)
        late.hold_tgt(own_tgt(lab))
        with pytest.raises(TgtDenied):  # it has ended by then
            late.offer_tgt(BOB.encode())

    def test_no_key_in_a_repr(self, lab: Lab) -> None:
        lab.keytab(BOB)
        tgt = own_tgt(lab)
        assert repr(tgt) == f"OwnTgt(client={BOB!r}, endtime={tgt.endtime:.0f})"


def joint_keytab(lab: Lab, directory: Path) -> Path:
    """Bob's keys and Carol's in one file, as on a host with several services."""
    path = directory / "joint.keytab"
    for principal in (BOB, "kink/carol.test@KINKVPN.TEST"):
        lab.keytab(principal)
        lab.realm.write_keytab(principal, path)
    return path


class TestRefusals:
    pytestmark = pytest.mark.kdc

    def test_a_ticket_for_another_service_of_the_keytab_is_refused(self, lab: Lab, tmp_path: Path) -> None:
        """libkrb5 takes any key of the keytab: the server that decrypted is compared here."""
        carol = "kink/carol.test@KINKVPN.TEST"
        keytab, ap_req = joint_keytab(lab, tmp_path), lab.ticket(ALICE, carol).make_request().ap_req
        refusal = refused(Acceptor([BOB], keytab, replay_cache="none:"), ap_req)
        assert (refusal.code, refusal.accepted) == (35, None)
        assert carol in str(refusal)
        assert Acceptor([BOB, carol], keytab, replay_cache="none:").accept(ap_req).server == carol

    def test_a_ticket_for_nobody_here_is_refused(self, lab: Lab) -> None:
        ap_req = lab.ticket(ALICE, "kink/carol.test@KINKVPN.TEST").make_request().ap_req
        refusal = refused(lab.acceptor(BOB), ap_req)
        assert refusal.code == 35
        assert refusal.accepted is None

    def test_a_key_that_was_changed_is_a_bad_key_version(self, lab: Lab, tmp_path: Path) -> None:
        dave = "kink/dave.test@KINKVPN.TEST"
        old = lab.keytab(dave)
        lab.realm.kadmin("ktadd", "-k", str(tmp_path / "new.keytab"), dave)  # random keys, kvno 2
        ticket = lab.ticket(ALICE, dave)
        assert refused(Acceptor([dave], old, replay_cache="none:"), ticket.make_request().ap_req).code == 44
        Acceptor([dave], tmp_path / "new.keytab", replay_cache="none:").accept(ticket.make_request().ap_req)

    def test_new_keys_in_the_file_count_at_once(self, lab: Lab, tmp_path: Path) -> None:
        erin = "kink/erin.test@KINKVPN.TEST"
        keytab = lab.keytab(erin)
        acceptor, old_ticket = Acceptor([erin], keytab, replay_cache="none:"), lab.ticket(ALICE, erin)
        acceptor.accept(old_ticket.make_request().ap_req)
        lab.realm.kadmin("ktadd", "-k", str(keytab), erin)
        acceptor.accept(lab.ticket(ALICE, erin).make_request().ap_req)
        acceptor.accept(old_ticket.make_request().ap_req)  # the old key stays in the file

    @pytest.mark.parametrize(("bits", "code"), [("60", 45), ("40", 60), ("00", 60)])
    def test_the_options_are_looked_at_first(self, lab: Lab, bits: str, code: int) -> None:
        """The use-session-key bit picks the key that libkrb5 should use; without mutual-required there is no AP-REP."""
        ap_req = lab.ticket().make_request().ap_req
        at = ap_req.index(bytes.fromhex("a2070305002000 0000")) + 5
        refusal = refused(lab.acceptor(), ap_req[:at] + bytes.fromhex(bits) + ap_req[at + 1 :])
        assert (refusal.code, refusal.accepted) == (code, None)

    def test_version_and_message_type_are_looked_at(self, lab: Lab) -> None:
        ap_req = lab.ticket().make_request().ap_req
        wrong_version = ap_req.replace(bytes.fromhex("a003020105"), bytes.fromhex("a003020104"), 1)
        assert refused(lab.acceptor(), wrong_version).code == 39
        wrong_type = ap_req.replace(bytes.fromhex("a10302010e"), bytes.fromhex("a10302010f"), 1)
        assert refused(lab.acceptor(), wrong_type).code == 40
        assert refused(lab.acceptor(), b"\x6f" + ap_req[1:]).code == 40

    def test_every_truncation_is_refused(self, lab: Lab) -> None:
        acceptor, ap_req = lab.acceptor(), lab.ticket().make_request().ap_req
        codes = {refused(acceptor, ap_req[:length]).code for length in range(len(ap_req))}
        assert codes == {41}

    def test_one_changed_octet_anywhere_is_refused_or_means_nothing(self, lab: Lab) -> None:
        """What an AP-REQ says outside its ciphertexts is not protected; who it is from must not change with it."""
        acceptor, ap_req = lab.acceptor(), lab.ticket().make_request().ap_req
        changed = [ap_req[:at] + bytes([ap_req[at] ^ 0x55]) + ap_req[at + 1 :] for at in range(len(ap_req))]
        accepted = [found for octets in changed if (found := outcome_of(acceptor, octets)) is not None]
        assert all((found.client, found.server) == (ALICE, BOB) for found in accepted)
        assert len(accepted) < 12  # the ticket's name, by which no key is chosen, and bits that mean nothing

    @given(octets=st.binary(max_size=300))
    def test_random_octets_are_refused(self, running_lab: Lab, octets: bytes) -> None:
        acceptor = garbage_acceptor(running_lab)
        assert refused(acceptor, octets).accepted is None
        assert refused(acceptor, b"\x6e" + octets).accepted is None

    @given(length=st.binary(max_size=8), octets=st.binary(max_size=40))
    def test_absurd_lengths_are_refused(self, running_lab: Lab, length: bytes, octets: bytes) -> None:
        head = b"\x6e" + bytes([0x80 | len(length)]) + length
        assert refused(garbage_acceptor(running_lab), head + octets).code in (39, 40, 41)

    def test_the_error_of_a_refusal_has_our_name_and_no_text(self, lab: Lab) -> None:
        acceptor = lab.acceptor()
        refusal = refused(acceptor, b"garbage")
        details = acceptor.read_error(refusal.krb_error)
        assert (details.code, details.client_time, details.text) == (refusal.code, None, "")
        assert b"bob.test" in refusal.krb_error

    def test_an_unreadable_keytab_is_told_here_and_not_to_the_peer(self, lab: Lab, tmp_path: Path) -> None:
        acceptor = Acceptor([BOB], tmp_path / "gone.keytab", replay_cache="none:")
        refusal = refused(acceptor, lab.ticket().make_request().ap_req)
        assert refusal.accepted is None
        assert b"gone.keytab" not in refusal.krb_error
        assert "gone.keytab" in str(refusal)


def outcome_of(acceptor: Acceptor, ap_req: bytes) -> VerifiedRequest | None:
    try:
        return acceptor.accept(ap_req)
    except ApRequestRefused:
        return None


def garbage_acceptor(lab: Lab) -> Acceptor:
    """One for all examples; garbage never reaches the replay cache."""
    found: Acceptor | None = lab.__dict__.get("garbage")
    if found is None:
        found = lab.__dict__["garbage"] = lab.acceptor()
    return found


@pytest.mark.kdc
@pytest.mark.parametrize(("weak", "name"), [(23, "arcfour-hmac"), (16, "des3-cbc-sha1")])
def test_tickets_and_session_keys_of_refused_enctypes(
    weak: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A realm that still gives out RC4 or 3DES: refused at both ends, by name."""
    with Realm(tmp_path / "realm", free_port(), enctypes=(18, weak)) as realm:
        monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
        lab = Lab(realm, tmp_path)
        lab.keytab(BOB)
        realm.kadmin("setstr", BOB, "session_enctypes", name)
        with pytest.raises(Krb5Error, match=rf"the session key has the refused enctype {name} \({weak}\)"):
            lab.ticket()
        # Now the ticket is under a weak key and the session key is good.
        realm.kadmin("addprinc", "-randkey", "-e", f"{name}:normal", "kink/weak.test")
        realm.kadmin("setstr", "kink/weak.test", "session_enctypes", "aes256-cts-hmac-sha1-96")
        realm.write_keytab("kink/weak.test", tmp_path / "kink_weak.test.keytab")
        ap_req = lab.ticket(ALICE, "kink/weak.test@KINKVPN.TEST").make_request().ap_req
        refusal = refused(lab.acceptor("kink/weak.test@KINKVPN.TEST"), ap_req)
        assert (refusal.code, refusal.accepted) == (14, None)
        assert f"the ticket has the refused enctype {name} ({weak})" in str(refusal)


@pytest.mark.kdc
@pytest.mark.parametrize("enctype", [17, 18, 19, 20])
def test_every_aes_enctype_works_end_to_end(enctype: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Realm(tmp_path / "realm", free_port(), enctypes=(enctype,)) as realm:
        monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
        lab = Lab(realm, tmp_path)
        request = lab.ticket().make_request()
        accepted = lab.acceptor().accept(request.ap_req)
        request.verify_reply(accepted.make_reply())
        assert accepted.key.enctype == enctype


@pytest.mark.kdc
def test_a_service_that_wants_user_to_user_says_so_at_the_kdc(lab: Lab) -> None:
    """``-allow_svr``: KDC_ERR_MUST_USE_USER2USER, 27, with which user-to-user begins (RFC 4430 §3.1)."""
    person = "person@KINKVPN.TEST"
    lab.keytab(person)
    lab.realm.kadmin("modprinc", "-allow_svr", person)
    with pytest.raises(Krb5Error) as caught:
        lab.ticket(ALICE, person)
    assert caught.value.protocol_code == 27


class TestReadError:
    @given(octets=st.binary(max_size=200))
    def test_garbage_is_malformed(self, octets: bytes) -> None:
        for hostile in (octets, b"\x7e" + octets):
            with pytest.raises(MalformedMessage):
                reader().read_error(hostile)

    def test_every_truncation_is_malformed(self) -> None:
        krb_error = refused(reader(), b"").krb_error
        for length in range(len(krb_error)):
            with pytest.raises(MalformedMessage):
                reader().read_error(krb_error[:length])

    def test_text_and_data_may_be_there(self) -> None:
        """e-text and e-data (RFC 4120 §5.9.1): read over, or logged (RFC 4430 §4.2.3)."""
        bare = refused(reader(), b"").krb_error
        data = bytes(range(200))
        fields = bare[4:] + b"\xab\x0e\x1b\x0ccome back \xfc\n" + b"\xac\x81\xcb\x04\x81\xc8" + data
        sequence = b"\x30\x82" + len(fields).to_bytes(2, "big") + fields
        details = reader().read_error(b"\x7e\x82" + len(sequence).to_bytes(2, "big") + sequence)
        assert (details.code, details.text) == (reader().read_error(bare).code, "come back \ufffd?")

    def test_hostile_text_becomes_one_short_line(self) -> None:
        assert printable(b"two\nlines\x1b[31m\xff") == "two?lines?[31m\ufffd"
        assert len(printable(bytes(1000))) == 128


READER: list[Acceptor] = []


def reader() -> Acceptor:
    """An acceptor without any realm: reading errors needs none."""
    if not READER:
        READER.append(Acceptor(["kink/x@X.TEST"], KEYTABS["a"], replay_cache="none:"))
    return READER[0]


@pytest.mark.parametrize(
    ("code", "wire"),
    [
        (session.ERROR_TABLE_BASE + 37, 37),
        (session.KRB5_NOPERM_ETYPE, 14),
        (session.KRB5_PROG_ETYPE_NOSUPP, 14),
        (1859794438, 41),  # ASN1_BAD_ID
        (2, 60),  # ENOENT
        (session.ERROR_TABLE_BASE + 181, 60),  # KRB5_KT_NOTFOUND
    ],
)
def test_codes_that_are_libkrb5_s_own_become_the_protocol_s(code: int, wire: int) -> None:
    assert wire_code(Krb5Error(code, "")) == wire


GOOD = [message for message in load_messages() if message.refusal is None]
WITH_AP_REQ = [message for message in GOOD if message.server is not None and message.session_key is not None]


def vector_acceptor(message: VectorMessage) -> Acceptor:
    """The responder of the capture, on the day of the capture."""
    assert message.server is not None
    assert message.authenticator_time is not None
    host = message.server.removeprefix("kink/")[0]
    offset = message.authenticator_time - time.time()
    return Acceptor([message.server], KEYTABS[host], replay_cache="none:", clock_offset=offset)


def key_of(message: VectorMessage) -> SessionKey:
    assert message.session_key is not None
    context = Context()
    return SessionKey(context, context.key_of(message.session_key.enctype, message.session_key.octets))


class TestOtherImplementation:
    """Every captured message of racoon2, with the keytabs of its realm."""

    @pytest.mark.parametrize("message", WITH_AP_REQ, ids=str)
    def test_its_ap_req_opens_with_the_keytab(self, message: VectorMessage) -> None:
        ap_req = next(payload for payload in parse_message(message.datagram).payloads if isinstance(payload, ApReq))
        accepted = vector_acceptor(message).accept(ap_req.ap_req)
        assert (accepted.client, accepted.server) == (message.client, message.server)
        assert accepted.key.prf(b"seed") == key_of(message).prf(b"seed")
        accepted.key.verify(signed_octets(message.datagram), parse_message(message.datagram).checksum)

    @pytest.mark.parametrize("message", [m for m in GOOD if m.checksum_ok], ids=str)
    def test_its_checksum_verifies(self, message: VectorMessage) -> None:
        key_of(message).verify(signed_octets(message.datagram), parse_message(message.datagram).checksum)

    @pytest.mark.parametrize("message", [m for m in GOOD if m.plaintext is not None], ids=str)
    def test_its_kink_encrypt_opens(self, message: VectorMessage) -> None:
        ciphertext = parse_message(message.datagram).payloads[-1].ciphertext  # it is last
        assert key_of(message).decrypt(ciphertext).startswith(message.plaintext or b"")

    @pytest.mark.parametrize(
        ("message", "keymat"), [(m, keymat) for m in GOOD for keymat in m.keymat], ids=lambda value: str(value)[:40]
    )
    def test_keymat_is_the_kernel_s(self, message: VectorMessage, keymat: Keymat) -> None:
        key = key_of(message)
        literal = expand(key.prf_rfc3962_literal, keymat.seed)
        assert literal == keymat.literal
        assert expand(key.prf, keymat.seed) == keymat.library
        if keymat.kernel is not None:
            assert literal.startswith(keymat.kernel.encryption + keymat.kernel.authentication)

    def test_the_kernel_s_keys_were_compared(self) -> None:
        assert sum(keymat.kernel is not None for m in GOOD for keymat in m.keymat) >= 10

    @pytest.mark.parametrize(
        "message",
        [m for m in load_messages() if m.refusal is not None and m.refusal.layer is Layer.CHECKSUM],
        ids=str,
    )
    def test_what_it_changed_on_purpose_fails_the_checksum(self, message: VectorMessage) -> None:
        """The AP-REQ is good; the message around it is not what was signed."""
        ap_req = next(payload for payload in parse_message(message.datagram).payloads if isinstance(payload, ApReq))
        accepted = vector_acceptor(message).accept(ap_req.ap_req)
        with pytest.raises(AuthenticationFailed):
            accepted.key.verify(signed_octets(message.datagram), parse_message(message.datagram).checksum)

    def test_its_skew_error_is_read(self) -> None:
        """Times as the independent decoder has them: 09:51:31 at the server, 09:41:31 and 927814 us at the client."""
        reply = next(m for m in GOOD if m.vector == "error-krb-skew" and "KINK_KRB_ERROR" in m.inner)
        assert reply.plaintext is not None
        (error,) = (p for p in parse_plaintext(reply.plaintext) if isinstance(p, KrbError))
        details = reader().read_error(error.krb_error)
        assert (details.code, details.text) == (37, "Clock skew too great")
        assert details.server_time == datetime(2026, 11, 23, 9, 51, 31, tzinfo=UTC).timestamp()
        assert details.client_time == datetime(2026, 11, 23, 9, 41, 31, 927814, tzinfo=UTC).timestamp()

    def test_its_unauthenticated_errors_are_read(self) -> None:
        payloads = [payload for m in GOOD for payload in parse_message(m.datagram).payloads]
        errors = [reader().read_error(payload.krb_error) for payload in payloads if isinstance(payload, KrbError)]
        assert {error.code for error in errors} >= {35}
        assert all(error.client_time is None for error in errors)

    @pytest.mark.kdc
    def test_its_ap_reps_answer_nothing_of_ours(self, lab: Lab) -> None:
        replies = [p.ap_rep for m in GOOD for p in parse_message(m.datagram).payloads if isinstance(p, ApRep)]
        assert len(replies) > 5
        request = lab.ticket().make_request()
        for ap_rep in replies:
            with pytest.raises(AuthenticationFailed):
                request.verify_reply(ap_rep)


def expand(prf: Callable[[bytes], bytes], seed: bytes) -> bytes:
    """RFC 4430 §7, RFC 2409 §5.5: K1 = prf(key, seed), Kn = prf(key, Kn-1 | seed); 80 octets."""
    block = stream = prf(seed)
    while len(stream) < 80:
        block = prf(block + seed)
        stream += block
    return stream[:80]
