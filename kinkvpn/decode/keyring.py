"""Keytabs and credential caches, and the tickets, authenticators and AP-REPs that their keys open.

Whether a ticket is still valid is not asked: captures are old. Time, replay and transited realms were the responder's
to judge; here only a key decides. What is opened stays in libkrb5's hands and in this process.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kinkvpn.decode import asn1
from kinkvpn.decode.findings import Finding, Kind
from kinkvpn.errors import AuthenticationFailed, KinkvpnError, MalformedMessage
from kinkvpn.kerberos.libkrb5 import Context, Krb5Error
from kinkvpn.kerberos.session import SessionKey, enctype_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kinkvpn.kerberos.library import CData

# Specification: RFC 4120 §7.5.1.
USAGE_TICKET, USAGE_AUTHENTICATOR, USAGE_AP_REP = 2, 11, 12

# Ours. A ticket serves every transaction until it expires, so few are in use at once.
MAX_TICKETS: Final = 256


class KeysUnreadable(KinkvpnError):
    """A file given with --keytab or --ccache is not there or no such file."""


class NotOpened(KinkvpnError):
    """Something sealed stays sealed; ``finding`` says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """One keytab entry; or the session key of a principal's ticket-granting ticket, which has no kvno."""

    principal: str
    kvno: int
    enctype: int
    key: CData = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedTicket:
    """A ticket that a key opened.

    Args:
        client, server: principals.
        key: the session key.
        start, end: POSIX seconds; ``start`` None where the ticket has none.
        opened_by: whose entry it was: under an alias not the ticket's server.
    """

    client: str
    server: str
    key: SessionKey
    start: float | None
    end: float
    opened_by: str


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """An AP-REQ of which ticket and authenticator were opened; ``stamp``: seconds and microseconds."""

    ticket: OpenedTicket
    stamp: tuple[int, int]
    subkey: bool


class Keyring:
    """The keys of some keytabs, and of the ticket-granting tickets in some credential caches.

    Raises:
        KeysUnreadable: says which file.
        LibraryUnusable: no MIT libkrb5.
    """

    def __init__(self, keytabs: Sequence[Path], ccaches: Sequence[Path] = ()) -> None:
        self._context = Context()
        self._keys = [key for path in keytabs for key in self._read(path)]
        self._session_keys = [key for path in ccaches for key in self._read_ccache(path)]
        self._opened: OrderedDict[asn1.Sealed, OpenedTicket] = OrderedDict()

    def _read(self, path: Path) -> list[ServiceKey]:
        try:
            path.open("rb").close()
            keys = [ServiceKey(*entry) for entry in self._context.keytab_keys(self._context.keytab(f"FILE:{path}"))]
        except OSError as error:
            raise KeysUnreadable(f"keytab {path} cannot be read: {error.strerror}") from error
        except Krb5Error as error:
            raise KeysUnreadable(f"keytab {path}: {error}") from error
        if not keys:
            raise KeysUnreadable(f"keytab {path} holds no key")
        return keys

    def _read_ccache(self, path: Path) -> list[ServiceKey]:
        try:
            path.open("rb").close()
            found = list(self._context.ccache_keys(self._context.ccache(f"FILE:{path}")))
        except OSError as error:
            raise KeysUnreadable(f"ccache {path} cannot be read: {error.strerror}") from error
        except Krb5Error as error:
            raise KeysUnreadable(f"ccache {path}: {error}") from error
        keys = [ServiceKey(client, 0, enctype, key) for client, server, enctype, key in found if _grants(server)]
        if not keys:
            raise KeysUnreadable(f"ccache {path} holds no ticket-granting ticket")
        return keys

    def open_request(self, ap_req: asn1.ApReq) -> OpenedRequest:
        """Raises NotOpened."""
        ticket = self._ticket(ap_req.ticket, user_to_user=ap_req.use_session_key)
        try:
            plain = ticket.key.decrypt_as(USAGE_AUTHENTICATOR, ap_req.authenticator.ciphertext)
            authenticator = asn1.read_authenticator(plain)
        except (AuthenticationFailed, MalformedMessage) as error:
            text = f"the ticket opens, its authenticator does not: {error}"
            raise NotOpened(Finding(Kind.AP_REQ_BAD, text)) from None
        if authenticator.client != ticket.client:
            text = f"the ticket is {ticket.client}'s, the authenticator {authenticator.client}'s"
            raise NotOpened(Finding(Kind.AP_REQ_BAD, text))
        return OpenedRequest(ticket, authenticator.time, authenticator.has_subkey)

    def open_reply(self, key: SessionKey, ap_rep: asn1.Sealed) -> tuple[int, int]:
        """The authenticator's time that an AP-REP gives back. Raises AuthenticationFailed: it is of another key."""
        try:
            return asn1.read_enc_ap_rep_part(key.decrypt_as(USAGE_AP_REP, ap_rep.ciphertext))
        except MalformedMessage:
            raise AuthenticationFailed("the AP-REP does not open") from None

    def error_text(self, code: int) -> str:
        """libkrb5's words for a protocol error code (RFC 4120 §7.5.9)."""
        return self._context.protocol_message(code)

    def _ticket(self, ticket: asn1.Ticket, *, user_to_user: bool) -> OpenedTicket:
        if (known := self._opened.get(ticket.sealed)) is not None:
            self._opened.move_to_end(ticket.sealed)
            return known
        opened = self._try_keys(ticket, self._session_keys if user_to_user else self._keys)
        if opened is None:
            why = Finding(Kind.USER_TO_USER, self._why_not_between_users(ticket)) if user_to_user else None
            raise NotOpened(why or Finding(Kind.NO_KEY, self._why_not(ticket)))
        self._opened[ticket.sealed] = opened
        if len(self._opened) > MAX_TICKETS:
            self._opened.popitem(last=False)
        return opened

    def _try_keys(self, ticket: asn1.Ticket, keys: Sequence[ServiceKey]) -> OpenedTicket | None:
        """Every key of the enctype, the likeliest first: a keytab may know the principal under another name."""
        sealed = ticket.sealed
        likely = [key for key in keys if key.enctype == sealed.enctype]
        likely.sort(key=lambda key: (key.principal != ticket.server, key.kvno != sealed.kvno))
        for key in likely:
            try:
                plain = self._context.decrypt(key.key, USAGE_TICKET, sealed.enctype, sealed.ciphertext)
            except Krb5Error:
                continue
            try:
                part = asn1.read_enc_ticket_part(plain)
                session = SessionKey(self._context, self._context.key_of(part.enctype, part.key))
            except (Krb5Error, MalformedMessage) as error:
                raise NotOpened(Finding(Kind.AP_REQ_BAD, f"the ticket opens, and holds no key: {error}")) from None
            return OpenedTicket(part.client, ticket.server, session, part.start_time, part.end_time, key.principal)
        return None

    def _why_not_between_users(self, ticket: asn1.Ticket) -> str:
        sealed = f"user-to-user: the ticket for {ticket.server} is sealed with the session key of its TGT"
        if any(key.principal == ticket.server for key in self._session_keys):
            return f"{sealed}, and that of the ccache is another one, got later or earlier"
        lacking = "no ccache given has it" if self._session_keys else "which no keytab holds"
        return f"{sealed}, {lacking}: give the credential cache that it had then with --ccache"

    def _why_not(self, ticket: asn1.Ticket) -> str:
        sealed = ticket.sealed
        wanted = f"kvno {sealed.kvno}, {enctype_name(sealed.enctype)}"
        here = [key for key in self._keys if key.principal == ticket.server]
        if not self._keys:
            return f"no keytab given: the ticket for {ticket.server} stays closed ({wanted})"
        if not here:
            return f"no keytab has a key of {ticket.server} ({wanted})"
        if any((key.kvno, key.enctype) == (sealed.kvno, sealed.enctype) for key in here):
            return f"the key of {ticket.server}, {wanted}, does not open the ticket: it is another key of that number"
        known = ", ".join(sorted({f"kvno {key.kvno}, {enctype_name(key.enctype)}" for key in here}))
        return f"the ticket for {ticket.server} needs {wanted}; the keytabs have {known}"


def _grants(server: str) -> bool:
    """Whether ``server`` is a KDC's ticket-granting service (RFC 4120 §7.3)."""
    return server.startswith("krbtgt/")
