"""A realm that is not Kerberos: for simulation only. The daemon never imports it.

Deterministic, given its clock and its random octets. The cryptography is real (HMAC-SHA-256, AES-GCM), so that a
changed octet is noticed; the formats are ours, so that nothing of it could ever be mistaken for Kerberos on a wire.
"""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos.tickets import TicketUnavailable
from kinkvpn.proto.ports import ApRequestRefused, KrbErrorDetails, TgtDenied, TicketRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Not an enctype that exists (RFC 3961 §8 leaves negative numbers to local use).
FAKE_ENCTYPE = -1910
CLOCK_SKEW = 300.0
TICKET_LIFE = 36000.0
KRB_AP_ERR_BAD_INTEGRITY = 31
KRB_AP_ERR_TKT_EXPIRED = 32
KRB_AP_ERR_TKT_NYV = 33
KRB_AP_ERR_REPEAT = 34
KRB_AP_ERR_NOT_US = 35
KRB_AP_ERR_SKEW = 37
KRB_AP_ERR_NOKEY = 45
KRB_AP_ERR_USER_TO_USER_REQUIRED = 69
KDC_ERR_S_PRINCIPAL_UNKNOWN = 7
KDC_ERR_SERVER_NOMATCH = 26
KDC_ERR_MUST_USE_USER2USER = 27

_MAGIC = b"FAKE-AP-REQ"
_MAGIC_SESSION_KEY = b"FAKE-AP-U2U"  # the use-session-key bit
_TGT = b"FAKE-TGT"
_REQUEST = struct.Struct("!11s16sdI32s")  # magic, ticket, ctime, serial, MAC
_ERROR = struct.Struct("!14sidd")  # magic, code, stime, ctime (NaN: absent)
_ERROR_MAGIC = b"FAKE-KRB-ERROR"
_SERIAL = struct.Struct("!dI")
# Ours: more authenticators than any simulation sends within the clock skew.
_MAX_REPLAYS = 100_000


class FakeSessionKey:
    """HMAC-SHA-256 and AES-256-GCM under keys cut from one."""

    enctype = FAKE_ENCTYPE

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._key = key
        self._random = random
        self._aead = AESGCM(self._mac(b"encrypt"))

    def __repr__(self) -> str:
        return "FakeSessionKey()"

    def _mac(self, octets: bytes) -> bytes:
        return hmac.digest(self._key, octets, "sha256")

    def checksum(self, octets: bytes) -> bytes:
        """Sixteen octets."""
        return self._mac(b"checksum" + octets)[:16]

    def verify(self, octets: bytes, checksum: bytes) -> None:
        """Raises AuthenticationFailed."""
        if not hmac.compare_digest(self.checksum(octets), checksum):
            raise AuthenticationFailed("the Cksum is missing or wrong")

    def encrypt(self, plaintext: bytes) -> bytes:
        """Nonce, ciphertext, tag."""
        nonce = self._random(12)
        return nonce + self._aead.encrypt(nonce, plaintext, None)

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Raises AuthenticationFailed."""
        if len(ciphertext) < 28:
            raise AuthenticationFailed("the ciphertext is too short")
        try:
            return self._aead.decrypt(ciphertext[:12], ciphertext[12:], None)
        except InvalidTag:
            raise AuthenticationFailed("the ciphertext does not verify") from None

    def prf(self, octets: bytes) -> bytes:
        """32 octets."""
        return self._mac(b"prf" + octets)

    def prf_rfc3962_literal(self, octets: bytes) -> bytes:
        """The same: this is no RFC 3962 enctype."""
        return self.prf(octets)

    def authenticate(self, what: bytes, ctime: float, serial: int) -> bytes:
        """MAC of an authenticator or of the answer to one."""
        return self._mac(what + _SERIAL.pack(ctime, serial))


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """An authenticator that was sent."""

    key: FakeSessionKey = field(repr=False)
    ap_req: bytes = field(repr=False)
    ctime: float
    serial: int

    def verify_reply(self, ap_rep: bytes) -> None:
        """Raises AuthenticationFailed unless ``ap_rep`` is the answer to this authenticator."""
        if not hmac.compare_digest(self.key.authenticate(b"reply", self.ctime, self.serial), ap_rep):
            raise AuthenticationFailed("the AP-REP is not for this authenticator")


@dataclass(frozen=True, slots=True)
class FakeTicket:
    """A ticket and its key."""

    realm: FakeRealm = field(repr=False)
    identity: bytes
    client: str
    server: str
    starttime: float
    endtime: float
    key: FakeSessionKey = field(repr=False)
    tgt: bytes | None = field(default=None, repr=False)

    def make_request(self, offset: float = 0.0) -> FakeRequest:
        """A fresh authenticator."""
        ctime, serial = self.realm.clock() + offset, self.realm.next_serial()
        mac = self.key.authenticate(b"request", ctime, serial)
        magic = _MAGIC if self.tgt is None else _MAGIC_SESSION_KEY
        return FakeRequest(self.key, _REQUEST.pack(magic, self.identity, ctime, serial, mac), ctime, serial)


@dataclass(frozen=True, slots=True)
class FakeAccepted:
    """A request that verified."""

    client: str
    server: str
    endtime: float
    key: FakeSessionKey = field(repr=False)
    ctime: float
    serial: int
    user_to_user: bool = False
    sids: frozenset[str] = frozenset()

    def groups(self) -> frozenset[str]:
        """Of the client."""
        return self.sids

    @property
    def client_time(self) -> tuple[int, int]:
        """Of the authenticator."""
        return int(self.ctime), int(self.ctime % 1 * 1e6)

    def make_reply(self) -> bytes:
        """What only the holder of the session key could answer to this authenticator."""
        return self.key.authenticate(b"reply", self.ctime, self.serial)


class FakeRealm:
    """KDC and every principal's key in one object.

    Args:
        principals: who exists.
        clock: POSIX seconds.
        random: octets; seed it for a reproducible run.

    Attributes:
        ticket_life: seconds, of tickets issued from now on.
        keyless: principals that have user-to-user tickets only.
    """

    def __init__(
        self, principals: Iterable[str], *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> None:
        self.clock = clock
        self.ticket_life = TICKET_LIFE
        self.keyless: set[str] = set()
        self._random = random
        self._principals = set(principals)
        self._issued: dict[bytes, FakeTicket] = {}
        self._tgts: dict[bytes, tuple[str, float]] = {}
        self._serial = 0

    def next_serial(self) -> int:
        """Tells two authenticators of one instant apart, as cusec does."""
        self._serial += 1
        return self._serial

    def issue_tgt(self, client: str) -> bytes:
        """A ticket-granting ticket, which names ``client`` to nobody but this realm."""
        tgt = _TGT + self._random(16)
        self._tgts[tgt] = client, self.clock() + self.ticket_life
        return tgt

    def holder(self, tgt: bytes) -> tuple[str, float]:
        """Whose a ticket-granting ticket is, and until when. Raises TicketUnavailable."""
        if tgt not in self._tgts:
            raise TicketUnavailable(TicketRefusal("no such ticket-granting ticket", KRB_AP_ERR_BAD_INTEGRITY))
        return self._tgts[tgt]

    def _check_tgt(self, server: str, tgt: bytes | None) -> None:
        if tgt is None:
            if server in self.keyless:
                raise TicketUnavailable(TicketRefusal(f"{server} has no key", KDC_ERR_MUST_USE_USER2USER))
            return
        client, endtime = self.holder(tgt)
        if client != server:
            raise TicketUnavailable(TicketRefusal(f"the TGT is {client}'s, not {server}'s", KDC_ERR_SERVER_NOMATCH))
        if endtime <= self.clock():
            raise TicketUnavailable(TicketRefusal(f"the TGT of {server} has expired", KRB_AP_ERR_TKT_EXPIRED))

    def issue(self, client: str, server: str, tgt: bytes | None = None) -> FakeTicket:
        """What a KDC does at once.

        Args:
            client: for whom.
            server: for use with whom.
            tgt: the server's, for a user-to-user ticket.

        Raises:
            TicketUnavailable: no such principal, or not with this ticket-granting ticket.
        """
        for name in (client, server):
            if name not in self._principals:
                raise TicketUnavailable(TicketRefusal(f"no principal {name}", KDC_ERR_S_PRINCIPAL_UNKNOWN))
        self._check_tgt(server, tgt)
        identity = self._random(16)
        key = FakeSessionKey(self._random(32), self._random)
        now = self.clock()
        ticket = FakeTicket(self, identity, client, server, now, now + self.ticket_life, key, tgt)
        self._issued[identity] = ticket
        return ticket

    def find(self, identity: bytes) -> FakeTicket | None:
        """What a server's key would reveal of a ticket."""
        return self._issued.get(identity)


class FakeTickets:
    """Tickets for one client, after a delay on Trio's clock.

    Args:
        realm: who issues them.
        client: for whom.
        latency: seconds that each trip takes, asked anew each time.
    """

    def __init__(self, realm: FakeRealm, client: str, *, latency: Callable[[], float] = lambda: 0.0) -> None:
        self._realm = realm
        self._client = client
        self._latency = latency
        self._cache: dict[tuple[str, bytes | None], FakeTicket] = {}

    async def get(self, server: str, *, deadline: float, fresh: bool = False, tgt: bytes | None = None) -> FakeTicket:
        """Raises TicketUnavailable at the latest ``deadline`` seconds from now."""
        cached = None if fresh else self.at_hand(server, tgt=tgt)
        if cached is not None:
            await trio.lowlevel.checkpoint()
            return cached
        with trio.move_on_after(deadline) as scope:
            await trio.sleep(self._latency())
        if scope.cancelled_caught:
            raise TicketUnavailable(TicketRefusal(f"the fake KDC did not answer within {deadline} s"))
        self._cache[server, tgt] = ticket = self._realm.issue(self._client, server, tgt)
        return ticket

    def at_hand(self, server: str, *, tgt: bytes | None = None) -> FakeTicket | None:
        """What ``get`` would return at once."""
        cached = self._cache.get((server, tgt))
        return cached if cached is not None and cached.endtime > self._realm.clock() else None


class FakeKerberos:
    """One principal's acceptor, with a replay cache of its own.

    Args:
        realm: whose tickets to believe.
        server: our principal.
        clock_offset: seconds that this host's clock is ahead of the realm's.
        keytab: whether it has the server's key; without it there is user-to-user alone. May be changed.

    Attributes:
        tgts: its ticket-granting tickets, the newest last; none until ``renew_tgt``.
    """

    def __init__(self, realm: FakeRealm, server: str, *, clock_offset: float = 0.0, keytab: bool = True) -> None:
        self._realm = realm
        self._server = server
        self._clock_offset = clock_offset
        self.keytab = keytab
        self.tgts: list[bytes] = []
        self._replays: OrderedDict[bytes, None] = OrderedDict()

    def renew_tgt(self) -> None:
        """Get another ticket-granting ticket; the ones before still open what was made with them."""
        self.tgts.append(self._realm.issue_tgt(self._server))

    def lose_tgts(self) -> None:
        """What a restart of a host does that keeps its tickets in memory."""
        self.tgts.clear()

    def offer_tgt(self, name: bytes) -> bytes:
        """Raises TgtDenied, and nothing else."""
        if name != self._server.encode():
            raise TgtDenied("another principal", self._error(KRB_AP_ERR_NOT_US, None))
        if not self.tgts:
            raise TgtDenied("no ticket-granting ticket")
        return self.tgts[-1]

    def accept(self, ap_req: bytes) -> FakeAccepted:
        """Raises ApRequestRefused, and nothing else."""
        if len(ap_req) != _REQUEST.size:
            raise self._refusal(KRB_AP_ERR_BAD_INTEGRITY, None, "not a fake AP-REQ")
        magic, identity, ctime, serial, mac = _REQUEST.unpack(ap_req)
        ticket = self._realm.find(identity)
        if magic not in (_MAGIC, _MAGIC_SESSION_KEY):
            raise self._refusal(KRB_AP_ERR_BAD_INTEGRITY, None, "not a fake AP-REQ")
        self._check_key(magic == _MAGIC_SESSION_KEY, ticket)
        if ticket is None:
            raise self._refusal(KRB_AP_ERR_BAD_INTEGRITY, None, "no such ticket")
        if not hmac.compare_digest(ticket.key.authenticate(b"request", ctime, serial), mac):
            raise self._refusal(KRB_AP_ERR_BAD_INTEGRITY, None, "the authenticator does not verify")
        if ticket.server != self._server:
            raise self._refusal(KRB_AP_ERR_NOT_US, None, "a ticket for somebody else")
        accepted = FakeAccepted(
            ticket.client, ticket.server, ticket.endtime, ticket.key, ctime, serial, ticket.tgt is not None
        )
        now = self._now()
        # In MIT's order: of a ticket that has not begun, a clock behind never gets to say SKEW.
        if ticket.starttime > now + CLOCK_SKEW:
            raise self._refusal(KRB_AP_ERR_TKT_NYV, accepted, "the ticket is not yet valid")
        if ticket.endtime < now - CLOCK_SKEW:
            raise self._refusal(KRB_AP_ERR_TKT_EXPIRED, accepted, "the ticket has expired")
        if abs(now - ctime) > CLOCK_SKEW:
            raise self._refusal(KRB_AP_ERR_SKEW, accepted, f"the client's clock is {ctime - now:+.0f} s from ours")
        if mac in self._replays:
            raise self._refusal(KRB_AP_ERR_REPEAT, None, "this authenticator has been here")
        self._replays[mac] = None
        if len(self._replays) > _MAX_REPLAYS:
            self._replays.popitem(last=False)
        return accepted

    def _check_key(self, session_key: bool, ticket: FakeTicket | None) -> None:
        """Whether we could open the ticket at all: by the key of the keytab, or by that of a TGT of ours."""
        if not session_key:
            if not self.keytab:
                raise self._refusal(KRB_AP_ERR_USER_TO_USER_REQUIRED, None, "no keytab here")
            if ticket is not None and ticket.tgt is not None:
                raise self._refusal(KRB_AP_ERR_BAD_INTEGRITY, None, "made with another key than the keytab's")
        elif not self.tgts:
            raise self._refusal(KRB_AP_ERR_NOKEY, None, "no user-to-user here")
        elif ticket is None or ticket.tgt not in self.tgts:
            raise self._refusal(KRB_AP_ERR_NOKEY, None, "not made with a TGT of ours", self.tgts[-1])

    def _now(self) -> float:
        return self._realm.clock() + self._clock_offset

    def _error(self, code: int, accepted: FakeAccepted | None) -> bytes:
        ctime = float("nan") if accepted is None else accepted.ctime
        return _ERROR.pack(_ERROR_MAGIC, code, self._now(), ctime)

    def _refusal(
        self, code: int, accepted: FakeAccepted | None, reason: str, tgt: bytes | None = None
    ) -> ApRequestRefused:
        return ApRequestRefused(code, self._error(code, accepted), accepted, reason, tgt)

    def read_error(self, krb_error: bytes) -> KrbErrorDetails:
        """Raises MalformedMessage, and nothing else."""
        if len(krb_error) != _ERROR.size:
            raise MalformedMessage("KRB-ERROR", 0, "not a fake one")
        magic, code, stime, ctime = _ERROR.unpack(krb_error)
        if magic != _ERROR_MAGIC:
            raise MalformedMessage("KRB-ERROR", 0, "not a fake one")
        return KrbErrorDetails(code, stime, None if ctime != ctime else ctime, "fake")
