"""What the machines need of Kerberos and of Diffie-Hellman, and nothing more.

``kerberos/`` fills the ports of Kerberos, the fake realm too; ``key_exchange`` the other one.

Everything here is synchronous and fast (microseconds, no KDC): fetching a ticket is not, so it is an effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from kinkvpn.wire.ipsec_doi import Group


class SessionKey(Protocol):
    """The session key of a ticket: never a subkey (RFC 4430 §7)."""

    @property
    def enctype(self) -> int:
        """RFC 3961 encryption type number."""
        ...

    def checksum(self, octets: bytes) -> bytes:
        """The enctype's required checksum over ``octets``, key usage 40 (RFC 4430 §4, §8)."""
        ...

    def verify(self, octets: bytes, checksum: bytes) -> None:
        """Raises AuthenticationFailed unless ``checksum`` is right, of the required type and length."""
        ...

    def encrypt(self, plaintext: bytes) -> bytes:
        """Key usage 39, fresh cipher state (RFC 4430 §4.2.7, §8)."""
        ...

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Raises AuthenticationFailed. May return octets beyond what was encrypted (RFC 3961 padding)."""
        ...

    def prf(self, octets: bytes) -> bytes:
        """The enctype's RFC 3961 PRF, as krb5_c_prf has it."""
        ...

    def prf_rfc3962_literal(self, octets: bytes) -> bytes:
        """20 octets for enctypes 17 and 18 (docs: decisions, PRF); for other enctypes the same as ``prf``."""
        ...


class OutstandingRequest(Protocol):
    """An AP-REQ that was sent: one authenticator, remembered until its AP-REP comes (RFC 4430 §9)."""

    @property
    def ap_req(self) -> bytes:
        """DER, mutual authentication required."""
        ...

    def verify_reply(self, ap_rep: bytes) -> None:
        """Raises AuthenticationFailed unless ``ap_rep`` answers this very authenticator."""
        ...


class Ticket(Protocol):
    """A service ticket and its session key."""

    @property
    def client(self) -> str: ...
    @property
    def server(self) -> str: ...
    @property
    def endtime(self) -> float:
        """POSIX seconds."""
        ...

    @property
    def key(self) -> SessionKey: ...
    @property
    def tgt(self) -> bytes | None:
        """The peer's ticket-granting ticket that a user-to-user ticket was made with; None of a service ticket."""
        ...

    def make_request(self, offset: float = 0.0) -> OutstandingRequest:
        """A fresh authenticator, its clock shifted by ``offset`` seconds towards the peer's (RFC 4430 §3.5).

        Of a user-to-user ticket the AP-REQ says use-session-key (RFC 4120 §5.5.1).
        """
        ...


class AcceptedRequest(Protocol):
    """An AP-REQ that verified."""

    @property
    def client(self) -> str: ...
    @property
    def server(self) -> str: ...
    @property
    def endtime(self) -> float: ...
    @property
    def key(self) -> SessionKey: ...
    @property
    def client_time(self) -> tuple[int, int]:
        """ctime, POSIX seconds, and cusec of the authenticator (RFC 4120 §5.5.1)."""
        ...

    @property
    def user_to_user(self) -> bool:
        """Whether its ticket was made with a ticket-granting ticket of ours."""
        ...

    def make_reply(self) -> bytes:
        """The AP-REP, DER."""
        ...

    def groups(self) -> frozenset[str]:
        """SIDs of the client's groups, out of the ticket's PAC (MS-PAC §2.5); none where it has no PAC.

        Raises:
            AuthenticationFailed: there is one, and it does not verify or cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class KrbErrorDetails:
    """What KINK acts on in a KRB-ERROR (RFC 4120 §5.9.1)."""

    code: int
    server_time: float  # stime + susec, POSIX seconds
    client_time: float | None  # ctime + cusec when present
    text: str = ""


class ApRequestRefused(KinkvpnError):
    """The AP-REQ is no good.

    Args:
        code: the KRB-ERROR code (RFC 4120 §7.5.9).
        krb_error: the KRB-ERROR to answer with, DER, client time filled in where it is known.
        accepted: the request all the same, when the ticket could be decrypted (SKEW, TKT_EXPIRED, TKT_NYV), so
            that the error can go out authenticated (RFC 4430 §3.5); None otherwise.
        tgt: our present ticket-granting ticket, when this user-to-user ticket was made with one that is gone: the
            answer is then KINK_TGT_REP instead of the error (RFC 4430 §3.7.1).
    """

    def __init__(
        self,
        code: int,
        krb_error: bytes,
        accepted: AcceptedRequest | None,
        reason: str,
        tgt: bytes | None = None,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.krb_error = krb_error
        self.accepted = accepted
        self.tgt = tgt


class NotAdmitted(KinkvpnError):
    """Whoever sent an authentic command is no peer, and is not to become one; the message says why."""


class TgtDenied(KinkvpnError):
    """No ticket-granting ticket for whoever asks.

    Args:
        krb_error: KRB_AP_ERR_NOT_US, DER, when the name is not ours (RFC 4430 §4.2.4); empty for KINK_U2UDENIED.
    """

    def __init__(self, reason: str, krb_error: bytes = b"") -> None:
        super().__init__(reason)
        self.krb_error = krb_error


class Kerberos(Protocol):
    """The acceptor's half, and reading errors."""

    def accept(self, ap_req: bytes) -> AcceptedRequest:
        """Raises ApRequestRefused, and nothing else, whatever the octets are."""
        ...

    def offer_tgt(self, name: bytes) -> bytes:
        """Our ticket-granting ticket, DER, for user-to-user tickets (RFC 4430 §3.1).

        Args:
            name: whose is asked for, as RFC 1964 §2.1.3 exports names: the NAME octets.

        Raises:
            TgtDenied: and nothing else, whatever the octets are.
        """
        ...

    def read_error(self, krb_error: bytes) -> KrbErrorDetails:
        """Raises MalformedMessage, and nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class TicketRefusal:
    """Why there is no ticket.

    Args:
        reason: one line for the operator.
        code: the Kerberos error, or None.
        peer_silent: the peer left every GETTGT unanswered.
    """

    reason: str
    code: int | None = field(default=None)
    peer_silent: bool = False


class InvalidPublicValue(KinkvpnError):
    """A KE payload holds no value of its group that could be used (RFC 6989 §2)."""


class Ephemeral(Protocol):
    """Our private key of one key exchange: used for one Quick Mode, and dropped with it."""

    @property
    def group(self) -> Group: ...
    @property
    def public(self) -> bytes:
        """Body of our KE payload, as long as the group says."""
        ...

    def shared_secret(self, peer_public: bytes) -> bytes:
        """g(qm)^xy, as long as the group says (RFC 4430 §7). Raises InvalidPublicValue."""
        ...


class KeyExchange(Protocol):
    """Where private keys come from."""

    def generate(self, group: Group) -> Ephemeral:
        """A fresh one."""
        ...
