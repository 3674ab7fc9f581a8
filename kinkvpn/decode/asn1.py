"""The Kerberos messages inside KINK payloads, as far as they are in the clear or have been decrypted. Pure.

libkrb5 decodes only what it verifies, and tells nothing of a ticket that it has no key for. This reads the DER of
RFC 4120 §5 with what an operator needs to know of it; a key that is met is handed on and never kept in ``repr``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from kinkvpn.errors import MalformedMessage

# Specification: RFC 4120 §5.10, application tags.
TICKET, AUTHENTICATOR, ENC_TICKET_PART, AP_REQ, AP_REP, ENC_AP_REP_PART, KRB_ERROR = 1, 2, 3, 14, 15, 27, 30
APPLICATION: Final = 0x60
CONTEXT: Final = 0xA0
SEQUENCE, INTEGER, BIT_STRING, OCTET_STRING, GENERAL_STRING, GENERALIZED_TIME = 0x30, 0x02, 0x03, 0x04, 0x1B, 0x18

# Ours. Components of a name: two for a host, six at most in sight; a ticket with hundreds is an attack on the screen.
MAX_COMPONENTS: Final = 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """EncryptedData (RFC 4120 §5.2.9)."""

    enctype: int
    kvno: int | None
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """RFC 4120 §5.3. ``server``: principal with its realm."""

    server: str
    sealed: Sealed


@dataclass(frozen=True, slots=True)
class ApReq:
    """RFC 4120 §5.5.1."""

    use_session_key: bool
    mutual_required: bool
    ticket: Ticket
    authenticator: Sealed


@dataclass(frozen=True, slots=True)
class EncTicketPart:
    """RFC 4120 §5.3; times in POSIX seconds."""

    client: str
    enctype: int
    key: bytes = field(repr=False)
    auth_time: float = 0.0
    start_time: float | None = None
    end_time: float = 0.0


@dataclass(frozen=True, slots=True)
class Authenticator:
    """RFC 4120 §5.5.1; ``time`` is (seconds, microseconds)."""

    client: str
    time: tuple[int, int]
    has_subkey: bool


@dataclass(frozen=True, slots=True)
class KrbError:
    """RFC 4120 §5.9.1."""

    code: int
    server_time: float
    client_time: float | None
    server: str
    client: str | None
    text: str


class _Der:
    """A cursor over DER that raises MalformedMessage and nothing else."""

    __slots__ = ("_end", "_octets", "_position", "_what")

    def __init__(self, octets: bytes, what: str, start: int = 0, end: int | None = None) -> None:
        self._octets, self._what, self._position = octets, what, start
        self._end = len(octets) if end is None else end

    def fail(self, reason: str) -> MalformedMessage:
        return MalformedMessage(self._what, self._position, reason)

    @property
    def octets(self) -> bytes:
        """What is left."""
        return self._octets[self._position : self._end]

    def enter(self, tag: int) -> _Der:
        """Inside the next element, which must have ``tag`` and which this cursor passes."""
        found, inside = self.element()
        if found != tag:
            raise self.fail(f"DER tag 0x{found:02x} where 0x{tag:02x} belongs")
        return inside

    def element(self) -> tuple[int, _Der]:
        """Tag and inside of the next element."""
        start = self._position
        if self._end - start < 2:
            raise self.fail("DER cut short")
        tag, length, start = self._octets[start], self._octets[start + 1], start + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or self._end - start < count:
                raise self.fail("a DER length that cannot be")
            length, start = int.from_bytes(self._octets[start : start + count], "big"), start + count
        if length > self._end - start:
            raise self.fail("DER cut short")
        self._position = start + length
        return tag, _Der(self._octets, self._what, start, start + length)

    def fields(self) -> dict[int, _Der]:
        """The context-tagged fields of a SEQUENCE, by number."""
        sequence, found = self.enter(SEQUENCE), dict[int, _Der]()
        while sequence.octets:
            tag, inside = sequence.element()
            if tag & 0xE0 != CONTEXT:
                raise sequence.fail(f"DER tag 0x{tag:02x} among fields")
            found.setdefault(tag & 0x1F, inside)
        return found

    def integer(self) -> int:
        octets = self.enter(INTEGER).octets
        if not 1 <= len(octets) <= 8:
            raise self.fail(f"an INTEGER of {len(octets)} octets")
        return int.from_bytes(octets, "big", signed=True)

    def bits(self) -> int:
        """The first 32 of a BIT STRING."""
        octets = self.enter(BIT_STRING).octets
        if len(octets) < 5:
            raise self.fail(f"flags of {len(octets)} octets")
        return int.from_bytes(octets[1:5], "big")

    def time(self) -> float:
        """KerberosTime (RFC 4120 §5.2.3)."""
        octets = self.enter(GENERALIZED_TIME).octets
        try:
            return datetime.strptime(octets.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            raise self.fail("a KerberosTime that is none") from None

    def string(self) -> str:
        return self.enter(GENERAL_STRING).octets.decode("utf-8", "backslashreplace")


def _application(octets: bytes, tag: int, what: str) -> dict[int, _Der]:
    return _Der(octets, what).enter(APPLICATION | tag).fields()


def _field(fields: dict[int, _Der], number: int, what: str) -> _Der:
    if number not in fields:
        raise MalformedMessage(what, 0, f"field {number} is missing")
    return fields[number]


def _principal(realm: _Der, name: _Der) -> str:
    """``primary/instance@REALM`` with the escapes of RFC 1964 §2.1.3."""
    strings, parts = _field(name.fields(), 1, "PrincipalName").enter(SEQUENCE), list[str]()
    while strings.octets and len(parts) < MAX_COMPONENTS:
        parts.append(_escaped(strings.string()))
    return "/".join(parts) + "@" + _escaped(realm.string())


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\/@" else letter for letter in text)


def _sealed(der: _Der, what: str) -> Sealed:
    fields = der.fields()
    kvno = fields[1].integer() if 1 in fields else None
    ciphertext = _field(fields, 2, what).enter(OCTET_STRING).octets
    return Sealed(_field(fields, 0, what).integer(), kvno, ciphertext)


def _ticket(octets: bytes) -> Ticket:
    fields = _application(octets, TICKET, "Ticket")
    server = _principal(_field(fields, 1, "Ticket"), _field(fields, 2, "Ticket"))
    return Ticket(server, _sealed(_field(fields, 3, "Ticket"), "Ticket"))


def read_ticket(octets: bytes) -> Ticket:
    """A Ticket. Raises MalformedMessage."""
    return _ticket(octets)


def read_ap_req(octets: bytes) -> ApReq:
    """An AP-REQ. Raises MalformedMessage."""
    fields = _application(octets, AP_REQ, "AP-REQ")
    options = _field(fields, 2, "AP-REQ").bits()
    return ApReq(
        use_session_key=bool(options & 0x40000000),
        mutual_required=bool(options & 0x20000000),
        ticket=_ticket(_field(fields, 3, "AP-REQ").octets),
        authenticator=_sealed(_field(fields, 4, "AP-REQ"), "Authenticator"),
    )


def read_enc_ticket_part(octets: bytes) -> EncTicketPart:
    """What a ticket holds. Raises MalformedMessage."""
    what = "EncTicketPart"
    fields = _application(octets, ENC_TICKET_PART, what)
    key = _field(fields, 1, what).fields()
    return EncTicketPart(
        client=_principal(_field(fields, 2, what), _field(fields, 3, what)),
        enctype=_field(key, 0, what).integer(),
        key=_field(key, 1, what).enter(OCTET_STRING).octets,
        auth_time=_field(fields, 5, what).time(),
        start_time=fields[6].time() if 6 in fields else None,
        end_time=_field(fields, 7, what).time(),
    )


def read_authenticator(octets: bytes) -> Authenticator:
    """An Authenticator. Raises MalformedMessage."""
    what = "Authenticator"
    fields = _application(octets, AUTHENTICATOR, what)
    seconds = int(_field(fields, 5, what).time())
    return Authenticator(
        client=_principal(_field(fields, 1, what), _field(fields, 2, what)),
        time=(seconds, _field(fields, 4, what).integer()),
        has_subkey=6 in fields,
    )


def read_ap_rep(octets: bytes) -> Sealed:
    """The one thing in an AP-REP. Raises MalformedMessage."""
    return _sealed(_field(_application(octets, AP_REP, "AP-REP"), 2, "AP-REP"), "AP-REP")


def read_enc_ap_rep_part(octets: bytes) -> tuple[int, int]:
    """The authenticator's time that an AP-REP gives back. Raises MalformedMessage."""
    what = "EncAPRepPart"
    fields = _application(octets, ENC_AP_REP_PART, what)
    return int(_field(fields, 0, what).time()), _field(fields, 1, what).integer()


def read_krb_error(octets: bytes) -> KrbError:
    """A KRB-ERROR. Raises MalformedMessage."""
    what = "KRB-ERROR"
    fields = _application(octets, KRB_ERROR, what)
    client = _principal(fields[7], fields[8]) if 7 in fields and 8 in fields else None
    client_time = fields[2].time() + _micro(fields, 3) if 2 in fields else None
    return KrbError(
        code=_field(fields, 6, what).integer(),
        server_time=_field(fields, 4, what).time() + _micro(fields, 5),
        client_time=client_time,
        server=_principal(_field(fields, 9, what), _field(fields, 10, what)),
        client=client,
        text=fields[11].string() if 11 in fields else "",
    )


def _micro(fields: dict[int, _Der], number: int) -> float:
    return fields[number].integer() / 1_000_000 if number in fields else 0.0
