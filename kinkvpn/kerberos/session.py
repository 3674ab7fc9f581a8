"""AP-REQ and AP-REP, and what a ticket's session key does: the ports of :mod:`kinkvpn.proto.ports` over MIT libkrb5."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos import pac
from kinkvpn.kerberos.keytab import KeptKeytab
from kinkvpn.kerberos.libkrb5 import (
    AP_OPTS_MUTUAL_REQUIRED,
    AP_OPTS_USE_SESSION_KEY,
    ERROR_TABLE_BASE,
    Context,
    Krb5Error,
    borrow,
    posix_seconds,
)
from kinkvpn.kerberos.library import NULL, ffi
from kinkvpn.kerberos.literal_prf import literal_prf
from kinkvpn.proto.ports import ApRequestRefused, KrbErrorDetails, TgtDenied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kinkvpn.kerberos.library import CData
    from kinkvpn.proto import ports

    # An auth context, the ticket that was read, and what it was opened with.
    _Read: TypeAlias = tuple[CData, CData, Callable[[CData], CData]]

# Specification.
KEY_USAGE_ENCRYPT: Final = 39  # RFC 4430 §8
KEY_USAGE_CHECKSUM: Final = 40  # RFC 4430 §8
REQUIRED_CHECKSUM: Final = 0  # libkrb5's number for "the enctype's required type" (RFC 3961 §3)
AP_REQ_TAG: Final = 0x6E  # RFC 4120 §5.5.1
PVNO: Final = 5
# The DER that nearly every AP-REQ begins with, as far as the four octets of its ap-options; lengths of two octets.
USUAL_AP_REQ: Final = re.compile(
    rb"\x6e\x82..\x30\x82..\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0e\xa2\x07\x03\x05\x00(....)", re.DOTALL
)
MSG_TYPE_AP_REQ: Final = 14
# RFC 4120 §7.5.9
KDC_ERR_ETYPE_NOSUPP: Final = 14
KRB_AP_ERR_BAD_INTEGRITY: Final = 31
KRB_AP_ERR_TKT_EXPIRED: Final = 32
KRB_AP_ERR_TKT_NYV: Final = 33
KRB_AP_ERR_REPEAT: Final = 34
KRB_AP_ERR_NOT_US: Final = 35
KRB_AP_ERR_SKEW: Final = 37
KRB_AP_ERR_BADVERSION: Final = 39
KRB_AP_ERR_MSG_TYPE: Final = 40
KRB_AP_ERR_MODIFIED: Final = 41
KRB_AP_ERR_NOKEY: Final = 45
KRB_ERR_GENERIC: Final = 60
KRB_AP_ERR_USER_TO_USER_REQUIRED: Final = 69
CLOCK_ERRORS: Final = frozenset({KRB_AP_ERR_TKT_EXPIRED, KRB_AP_ERR_TKT_NYV, KRB_AP_ERR_SKEW})

# com_err codes that libkrb5 uses for what has a code on the wire, or for what came from the wire.
KRB5_NOPERM_ETYPE: Final = -1765328148
KRB5_PROG_ETYPE_NOSUPP: Final = -1765328234
KRB5_BAD_ENCTYPE: Final = -1765328196
ASN1_TABLE: Final = range(1859794432, 1859794432 + 256)

# Ours. Names by which libkrb5 and its configuration know the enctypes.
ENCTYPE_NAMES: Final = {
    1: "des-cbc-crc",
    2: "des-cbc-md4",
    3: "des-cbc-md5",
    16: "des3-cbc-sha1",
    17: "aes128-cts-hmac-sha1-96",
    18: "aes256-cts-hmac-sha1-96",
    19: "aes128-cts-hmac-sha256-128",
    20: "aes256-cts-hmac-sha384-192",
    23: "arcfour-hmac",
    24: "arcfour-hmac-exp",
    25: "camellia128-cts-cmac",
    26: "camellia256-cts-cmac",
}
# A list of what may be, so that nothing old or new slips in: DES, 3DES and RC4 are out (RFC 6649, RFC 8429).
PERMITTED_ENCTYPES: Final = frozenset({17, 18, 19, 20, 25, 26})

# Ours. A ticket-granting ticket is renewed when it is half spent, so that two live at once; two more are for a person
# who does kinit by hand. A peer whose ticket was made with an older one is told the newest (RFC 4430 §3.7.1).
MAX_TGTS: Final = 4
# Seconds for which a ticket-granting ticket opens user-to-user tickets after its end: libkrb5's default for clockskew.
# MIT's KDC makes tickets with it that last longer; whoever has one is told the present ticket-granting ticket.
TGT_GRACE: Final = 300

# Seconds of skew that the second look at a late or early AP-REQ allows: 31 years, any clock that is merely wrong, yet
# far from wrapping libkrb5's 32-bit times.
ANY_SKEW: Final = "1000000000"
# KRB-ERROR e-text goes into logs and comes from anybody who can send a datagram: a line of it is enough.
MAX_ERROR_TEXT: Final = 128


def enctype_name(enctype: int) -> str:
    """Its name and number, for an operator."""
    return f"{ENCTYPE_NAMES.get(enctype, 'unknown')} ({enctype})"


def require_permitted(enctype: int, what: str) -> None:
    """Raises Krb5Error, code KDC_ERR_ETYPE_NOSUPP, that names the enctype of ``what``."""
    if enctype not in PERMITTED_ENCTYPES:
        raise protocol_error(KDC_ERR_ETYPE_NOSUPP, f"{what} has the refused enctype {enctype_name(enctype)}")


def protocol_error(code: int, words: str) -> Krb5Error:
    """An error of our own finding, as libkrb5 would have raised it."""
    return Krb5Error(ERROR_TABLE_BASE + code, words)


def patient_context() -> Context:
    """A context that takes no offence at any clock.

    For a second look at a request that came late or early, and for making requests: whether the ticket is valid by
    the peer's clock is for the peer to say, and it says it under authentication (RFC 4430 §3.5, §9).
    """
    return Context({"clockskew": ANY_SKEW})


class SessionKey:
    """The session key of a ticket, in libkrb5's hands; :class:`kinkvpn.proto.ports.SessionKey`."""

    __slots__ = ("_context", "_key", "_prf_data", "_prf_output", "enctype")

    def __init__(self, context: Context, key: CData) -> None:
        """``key`` is a krb5_key, which keeps what RFC 3961 derives from it from call to call."""
        self._context, self._key = context, key
        self.enctype: int = context.lib.krb5_k_key_enctype(context.handle, key)
        length = ffi.new("size_t *")
        context.check(context.lib.krb5_c_prf_length(context.handle, self.enctype, length))
        # Made once for the six calls that key a pair of SAs.
        self._prf_output: CData = ffi.new("char[]", length[0])
        self._prf_data: CData = ffi.new("krb5_data[2]", [(0, 0, NULL), (0, length[0], self._prf_output)])

    def __repr__(self) -> str:
        return f"SessionKey(enctype={self.enctype})"

    def checksum(self, octets: bytes) -> bytes:
        context = self._context
        out: CData = ffi.new("krb5_checksum *")
        context.check(
            context.lib.krb5_k_make_checksum(
                context.handle, REQUIRED_CHECKSUM, self._key, KEY_USAGE_CHECKSUM, borrow(octets), out
            )
        )
        try:
            return bytes(ffi.buffer(out.contents, out.length))
        finally:
            context.lib.krb5_free_checksum_contents(context.handle, out)

    def verify(self, octets: bytes, checksum: bytes) -> None:
        # The required checksums of every permitted enctype are deterministic MACs: making one and comparing settles
        # value, type and length at once.
        if not hmac.compare_digest(self.checksum(octets), checksum):
            raise AuthenticationFailed("the checksum does not verify")

    def encrypt(self, plaintext: bytes) -> bytes:
        context, length = self._context, ffi.new("size_t *")
        context.check(context.lib.krb5_c_encrypt_length(context.handle, self.enctype, len(plaintext), length))
        buffer = ffi.new("char[]", length[0])
        out: CData = ffi.new("krb5_enc_data *", (0, self.enctype, 0, (0, length[0], buffer)))
        context.check(
            context.lib.krb5_k_encrypt(context.handle, self._key, KEY_USAGE_ENCRYPT, NULL, borrow(plaintext), out)
        )
        return bytes(ffi.buffer(buffer, out.ciphertext.length))

    def decrypt(self, ciphertext: bytes) -> bytes:
        return self.decrypt_as(KEY_USAGE_ENCRYPT, ciphertext)

    def decrypt_as(self, usage: int, ciphertext: bytes) -> bytes:
        """For whoever looks on: libkrb5 itself opens authenticators and AP-REPs. Raises AuthenticationFailed."""
        context, buffer = self._context, ffi.new("char[]", len(ciphertext))
        sealed = ffi.new("krb5_enc_data *", (0, self.enctype, 0, borrow(ciphertext)[0]))
        out: CData = ffi.new("krb5_data *", (0, len(ciphertext), buffer))
        if context.lib.krb5_k_decrypt(context.handle, self._key, usage, NULL, sealed, out):
            raise AuthenticationFailed("the ciphertext does not open")
        return bytes(ffi.buffer(buffer, out.length))

    def prf(self, octets: bytes) -> bytes:
        context, data = self._context, self._prf_data
        data[0].length, data[0].data = len(octets), ffi.from_buffer(octets)
        context.check(context.lib.krb5_k_prf(context.handle, self._key, data, data + 1))
        return bytes(ffi.buffer(self._prf_output))

    def prf_rfc3962_literal(self, octets: bytes) -> bytes:
        """RFC 3962 §6 gives a message block of one octet, so that RFC 3961 §5.3 cuts nothing off the SHA-1 hash."""
        if self.enctype not in (17, 18):
            return self.prf(octets)
        return literal_prf(self._octets(), octets)

    def _octets(self) -> bytes:
        context, out = self._context, ffi.new("krb5_keyblock **")
        context.check(context.lib.krb5_k_key_keyblock(context.handle, self._key, out))
        try:
            return bytes(ffi.buffer(out[0].contents, out[0].length))
        finally:
            context.lib.krb5_free_keyblock(context.handle, out[0])


class SentRequest:
    """An AP-REQ that waits for its AP-REP; :class:`kinkvpn.proto.ports.OutstandingRequest`."""

    __slots__ = ("_auth_context", "_context", "ap_req")

    def __init__(self, context: Context, credentials: CData, *, user_to_user: bool = False) -> None:
        self._context, self._auth_context = context, context.auth_context()
        self.ap_req = context.make_request(self._auth_context, credentials, use_session_key=user_to_user)

    def verify_reply(self, ap_rep: bytes) -> None:
        try:
            self._context.read_reply(self._auth_context, ap_rep)
        except Krb5Error as error:
            raise AuthenticationFailed(f"the AP-REP does not answer this AP-REQ: {error}") from error


class ServiceTicket:
    """A ticket for a peer; :class:`kinkvpn.proto.ports.Ticket`.

    Args:
        context: of the thread that will make requests, one of :func:`patient_context`.
        credentials: ``krb5_creds *``, kept.
        clock_offset: seconds that the KDC's clock was found ahead of ours when it issued the ticket.
        tgt: the peer's ticket-granting ticket, DER, that a user-to-user ticket was made with.

    Raises:
        Krb5Error: the session key's enctype is refused or unknown to libkrb5.
    """

    __slots__ = ("_context", "_credentials", "client", "clock_offset", "endtime", "key", "server", "tgt")

    def __init__(
        self, context: Context, credentials: CData, clock_offset: float = 0.0, tgt: bytes | None = None
    ) -> None:
        require_permitted(credentials.keyblock.enctype, "the session key")
        self.tgt = tgt
        self._context, self._credentials, self.clock_offset = context, credentials, clock_offset
        self.client = context.unparse(credentials.client)
        self.server = context.unparse(credentials.server)
        self.endtime = float(posix_seconds(credentials.times.endtime))
        self.key = SessionKey(context, context.key(ffi.addressof(credentials, "keyblock")))

    def __repr__(self) -> str:
        return f"ServiceTicket(client={self.client!r}, server={self.server!r}, endtime={self.endtime:.0f})"

    def issued_to(self) -> str:
        """Whom it is for, as the KDC has it, where ``server`` leaves the realm to it."""
        return self._context.issued_to(self._credentials)

    def as_tgt(self) -> OwnTgt:
        """This ticket, if it is our ticket-granting one, as what others may have tickets made with."""
        return OwnTgt(self._context, self._credentials)

    def make_request(self, offset: float = 0.0) -> SentRequest:
        # Our clock put right as the KDC taught it, and from there to the peer's, as it said under authentication.
        shift = self.clock_offset + offset
        context = self._context.shifted(shift) if shift else self._context
        return SentRequest(context, self._credentials, user_to_user=self.tgt is not None)


class VerifiedRequest:
    """An AP-REQ that was good; :class:`kinkvpn.proto.ports.AcceptedRequest`."""

    __slots__ = (
        "_auth_context",
        "_context",
        "_opener",
        "_ticket",
        "client",
        "endtime",
        "key",
        "server",
        "user_to_user",
    )

    def __init__(
        self,
        context: Context,
        auth_context: CData,
        ticket: CData,
        opener: Callable[[CData], CData],
        *,
        user_to_user: bool = False,
    ) -> None:
        """``opener`` returns the key (``krb5_keyblock *``) that a ticket was opened with."""
        self._context, self._auth_context, self.user_to_user = context, auth_context, user_to_user
        self._ticket, self._opener = ticket, opener
        self.client = context.unparse(ticket.enc_part2.client)
        self.server = context.unparse(ticket.server)
        self.endtime = float(posix_seconds(ticket.enc_part2.times.endtime))
        self.key = SessionKey(context, context.session_key(auth_context))

    def __repr__(self) -> str:
        return f"VerifiedRequest(client={self.client!r}, server={self.server!r}, endtime={self.endtime:.0f})"

    @property
    def client_time(self) -> tuple[int, int]:
        """ctime and cusec of the authenticator."""
        return self._context.authenticator_time(self._auth_context)

    def make_reply(self) -> bytes:
        return self._context.make_reply(self._auth_context)

    def groups(self) -> frozenset[str]:
        try:
            pacs = self._context.authorization_data(self._ticket, pac.AD_WIN2K_PAC)
            if not pacs:
                return frozenset()
            told = self._context.pac_buffer(pacs[0], pac.LOGON_INFO, self._ticket, self._opener(self._ticket))
            return pac.groups_of(told) if told else frozenset()  # MIT's KDC signs PACs without any
        except (Krb5Error, MalformedMessage) as error:
            raise AuthenticationFailed(f"the ticket's PAC tells no groups: {error}") from error


class OwnTgt:
    """A ticket-granting ticket of ours: what others get user-to-user tickets with, and the key that opens those.

    Args:
        context: any.
        credentials: ``krb5_creds *``, kept.
    """

    __slots__ = ("_credentials", "client", "endtime", "ticket")

    def __init__(self, context: Context, credentials: CData) -> None:
        self._credentials = credentials
        self.client = context.unparse(credentials.client)
        self.endtime = float(posix_seconds(credentials.times.endtime))
        self.ticket = bytes(ffi.buffer(credentials.ticket.data, credentials.ticket.length))

    def __repr__(self) -> str:
        return f"OwnTgt(client={self.client!r}, endtime={self.endtime:.0f})"

    @property
    def keyblock(self) -> CData:
        """Its session key, ``krb5_keyblock *``; good for as long as this object is kept."""
        return ffi.addressof(self._credentials, "keyblock")


class Acceptor:
    """Takes AP-REQs for our own principals; :class:`kinkvpn.proto.ports.Kerberos`.

    Args:
        principals: the servers that we are; the first one signs errors.
        keytab: where their keys are; None on a host that is reached by user-to-user alone. A file that was
            changed is read again at the next request, so new keys count at once.
        replay_cache: ``dfl:``, ``none:`` or ``file2:PATH``; None for the host's. KRB5RCACHENAME goes before it.
        clock_offset: seconds by which our clock goes ahead of the host's: hosts that disagree, in one process.

    Raises:
        LibraryUnusable, Krb5Error: the configuration or a principal does not parse.
    """

    def __init__(
        self,
        principals: Sequence[str],
        keytab: Path | None,
        *,
        replay_cache: str | None = None,
        clock_offset: float = 0.0,
    ) -> None:
        self._context = Context({"default_rcache_name": replay_cache} if replay_cache else None, clock_offset)
        self._patient = patient_context()
        self._keytab = None if keytab is None else KeptKeytab(self._context, keytab)
        self.principals = tuple(self._context.canonical(name) for name in principals)
        self._server = self._context.principal(self.principals[0])
        self._tgts: list[OwnTgt] = []

    def hold_tgt(self, tgt: OwnTgt) -> bool:
        """Offer ``tgt`` from now on, and take tickets made with it or with the ones before while those last.

        Returns whether it was new.
        """
        if any(held.ticket == tgt.ticket for held in self._tgts):
            return False
        self._tgts = [tgt, *self._tgts[: MAX_TGTS - 1]]
        return True

    def _lasting(self, grace: float = 0.0) -> list[OwnTgt]:
        """Our ticket-granting tickets that have not ended more than ``grace`` seconds ago, the newest first."""
        now = self._context.now()[0]
        return [tgt for tgt in self._tgts if tgt.endtime > now - grace]

    def offer_tgt(self, name: bytes) -> bytes:
        # The exported name has the very escapes of krb5_unparse_name (RFC 1964 §2.1.3), so octets are compared.
        if name not in [principal.encode() for principal in self.principals]:
            error = self._context.make_error(KRB_AP_ERR_NOT_US, self._server, None)
            raise TgtDenied(f"GETTGT for {printable(name)}, who is not here", error)
        offered = [tgt.ticket for tgt in self._lasting() if tgt.client.encode() == name]
        if not offered:
            raise TgtDenied("no ticket-granting ticket to give away")
        return offered[0]

    def accept(self, ap_req: bytes) -> VerifiedRequest:
        try:
            return self._verify(self._context, ap_req, replay_checked=True)
        except Krb5Error as error:
            raise self._refusal(ap_req, error) from error

    def read_error(self, krb_error: bytes) -> KrbErrorDetails:
        try:
            error = self._context.read_error(krb_error)
        except Krb5Error as failure:
            raise MalformedMessage("KRB-ERROR", 0, str(failure)) from failure
        return KrbErrorDetails(
            code=error.error,
            server_time=seconds_of(error.stime, error.susec),
            client_time=seconds_of(error.ctime, error.cusec) if error.ctime else None,
            text=printable(bytes(ffi.buffer(error.text.data, error.text.length)) if error.text.length else b""),
        )

    def _verify(self, context: Context, ap_req: bytes, *, replay_checked: bool) -> VerifiedRequest:
        user_to_user = uses_session_key(ap_req)
        read = self._read_with_tgt if user_to_user else self._read_with_keytab
        auth_context, ticket, opener = read(context, ap_req, replay_checked)
        require_permitted(ticket.enc_part.enctype, "the ticket")
        require_permitted(ticket.enc_part2.session.enctype, "the session key")
        request = VerifiedRequest(context, auth_context, ticket, opener, user_to_user=user_to_user)
        # The keytab may hold keys of other services, and libkrb5 would take any of them; of a user-to-user ticket it
        # does not look at the name at all.
        if request.server not in self.principals:
            raise protocol_error(KRB_AP_ERR_NOT_US, f"the ticket is for {request.server}")
        return request

    def _read_with_keytab(self, context: Context, ap_req: bytes, replay_checked: bool) -> _Read:
        if self._keytab is None:
            if self._lasting():
                raise protocol_error(KRB_AP_ERR_USER_TO_USER_REQUIRED, "this host has no keytab, only tickets")
            raise protocol_error(KRB_AP_ERR_NOKEY, "this host has neither a keytab nor a ticket-granting ticket")
        auth_context, keytab = context.auth_context(replay_checked=replay_checked), self._keytab.current()
        ticket = context.read_request(auth_context, ap_req, keytab)
        return auth_context, ticket, lambda opened: context.keytab_key(keytab, opened)

    def _read_with_tgt(self, context: Context, ap_req: bytes, replay_checked: bool) -> _Read:
        """With the session key of whichever of our recent ticket-granting tickets fits."""
        for tgt in self._lasting(TGT_GRACE):
            auth_context = context.auth_context(replay_checked=replay_checked)
            context.use_key(auth_context, tgt.keyblock)
            try:
                ticket = context.read_request(auth_context, ap_req, NULL)
            except Krb5Error as error:
                # Of a ticket that did decrypt, the error is the answer: a clock, a replay, a bad authenticator.
                if not undecryptable(error):
                    raise
            else:
                return auth_context, ticket, lambda _ticket, tgt=tgt: tgt.keyblock
        if not self._lasting():
            raise protocol_error(KRB_AP_ERR_NOKEY, "user-to-user is not accepted here")
        raise UnknownTgt

    def _refusal(self, ap_req: bytes, error: Krb5Error) -> ApRequestRefused:
        code = wire_code(error)
        accepted = self._verify_anytime(ap_req) if code in CLOCK_ERRORS else None
        client_time = accepted.client_time if accepted else None
        krb_error = self._context.make_error(code, self._server, client_time)
        tgt = self._lasting()[0].ticket if isinstance(error, UnknownTgt) else None
        return ApRequestRefused(code, krb_error, accepted, f"AP-REQ refused: {error} (code {code})", tgt)

    def _verify_anytime(self, ap_req: bytes) -> VerifiedRequest | None:
        """A second look with the clock left out, so that the error can go out under the session key."""
        try:
            return self._verify(self._patient, ap_req, replay_checked=False)
        except Krb5Error:
            return None


class UnknownTgt(Krb5Error):
    """A user-to-user ticket that none of our ticket-granting tickets opens (RFC 4430 §3.7.1)."""

    def __init__(self) -> None:
        words = "a user-to-user ticket made with a ticket-granting ticket that is not ours now"
        super().__init__(ERROR_TABLE_BASE + KRB_AP_ERR_NOKEY, words)


def undecryptable(error: Krb5Error) -> bool:
    """Whether the key was the wrong one: wrong in value (RFC 4120 §3.2.3), or of another enctype than the ticket's."""
    return error.protocol_code == KRB_AP_ERR_BAD_INTEGRITY or error.code == KRB5_BAD_ENCTYPE


def uses_session_key(ap_req: bytes) -> bool:
    """Looks at the DER of an AP-REQ (RFC 4120 §5.5.1) before libkrb5 does: whether its ticket is a user-to-user one.

    libkrb5 picks the key by what it was given, not by the use-session-key bit, so the bit is ours to look at; so is
    mutual-required, without which RFC 4430 §4.2.1 has no AP-REP. Raises Krb5Error with a protocol code.
    """
    usual = USUAL_AP_REQ.match(ap_req)
    if usual:
        return use_of_session_key(usual[1])
    tag, sequence, _ = der_element(ap_req, 0)
    if tag != AP_REQ_TAG:
        raise protocol_error(KRB_AP_ERR_MSG_TYPE, "not an AP-REQ")
    _, fields, _ = der_element(ap_req, sequence)
    version, after_version = der_field(ap_req, fields, 0xA0)
    if version != bytes([PVNO]):
        raise protocol_error(KRB_AP_ERR_BADVERSION, "not Kerberos version 5")
    message_type, after_type = der_field(ap_req, after_version, 0xA1)
    if message_type != bytes([MSG_TYPE_AP_REQ]):
        raise protocol_error(KRB_AP_ERR_MSG_TYPE, "not an AP-REQ")
    bit_string, _ = der_field(ap_req, after_type, 0xA2)
    return use_of_session_key(bit_string[1:5])  # after the count of unused bits


def use_of_session_key(ap_options: bytes) -> bool:
    options = int.from_bytes(ap_options, "big")
    if not options & AP_OPTS_MUTUAL_REQUIRED:
        raise protocol_error(KRB_ERR_GENERIC, "mutual authentication is not asked for")
    return bool(options & AP_OPTS_USE_SESSION_KEY)


def der_field(octets: bytes, offset: int, tag: int) -> tuple[bytes, int]:
    """Contents of the one element inside the context tag at ``offset``, and the offset after it."""
    found, inner, end = der_element(octets, offset)
    if found != tag:
        raise protocol_error(KRB_AP_ERR_MODIFIED, "not the DER of an AP-REQ")
    _, start, stop = der_element(octets, inner)
    return octets[start:stop], end


def der_element(octets: bytes, offset: int) -> tuple[int, int, int]:
    """Tag, offset of the contents and offset after them. Raises Krb5Error, KRB_AP_ERR_MODIFIED."""
    header = octets[offset : offset + 2]
    if len(header) < 2:
        raise protocol_error(KRB_AP_ERR_MODIFIED, "an AP-REQ cut short")
    start, length = offset + 2, header[1]
    if length & 0x80:
        # The long form: that many octets of length follow. Absurd ones end beyond the octets and are refused below.
        start, length = start + (length & 0x7F), int.from_bytes(octets[start : start + (length & 0x7F)], "big")
    if start + length > len(octets):
        raise protocol_error(KRB_AP_ERR_MODIFIED, "an AP-REQ cut short")
    return header[0], start, start + length


def wire_code(error: Krb5Error) -> int:
    """The RFC 4120 code that says the same as libkrb5's."""
    if error.protocol_code is not None:
        return error.protocol_code
    if error.code in ASN1_TABLE:
        return KRB_AP_ERR_MODIFIED
    if error.code in (KRB5_NOPERM_ETYPE, KRB5_PROG_ETYPE_NOSUPP):
        return KDC_ERR_ETYPE_NOSUPP
    return KRB_ERR_GENERIC


def seconds_of(seconds: int, microseconds: int) -> float:
    return posix_seconds(seconds) + microseconds / 1_000_000


def printable(octets: bytes) -> str:
    """Hostile octets as one short line."""
    words = octets[:MAX_ERROR_TEXT].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in words)


if TYPE_CHECKING:
    PORTS: tuple[
        type[ports.SessionKey],
        type[ports.OutstandingRequest],
        type[ports.Ticket],
        type[ports.AcceptedRequest],
        type[ports.Kerberos],
    ] = (SessionKey, SentRequest, ServiceTicket, VerifiedRequest, Acceptor)
