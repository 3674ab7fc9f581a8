"""The two vocabularies of the machines: events in the past tense, effects in the imperative. All frozen.

An event says what happened; a machine answers it with the effects that must follow, in the order they must happen.
``service.keying`` performs them and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from esp.sa import Endpoint, SaParameters
    from kinkvpn.proto.ports import Ticket, TicketRefusal
    from kinkvpn.wire.kink import Message


class Path(NamedTuple):
    """Where a datagram came from or goes to.

    Args:
        remote: the other end.
        marked: behind the non-ESP marker on the ESP port (RFC 3948 §2.2).
        local: our address that it came to, which the answer goes out from; empty where the host's routes decide.
    """

    remote: Endpoint
    marked: bool = False
    local: str = ""


class Tally(StrEnum):
    """What is counted. A message that leads to nothing counts under exactly one of these."""

    MALFORMED = "malformed"  # a parser refused it
    WRONG_VERSION = "wrong_version"  # KINK_INVMAJ (RFC 4430 §4.2.8)
    WRONG_DOI = "wrong_doi"  # KINK_INVDOI
    UNKNOWN_PEER = "unknown_peer"  # a valid ticket of a principal that no peer is configured for
    AP_REQUEST_REFUSED = "ap_request_refused"  # libkrb5 said no; a KRB-ERROR went back
    BAD_CHECKSUM = "bad_checksum"  # Cksum missing or wrong, or KINK_ENCRYPT does not decrypt: dropped (RFC 4430 §4)
    UNEXPECTED_PAYLOAD = "unexpected_payload"  # legal payloads in a message that may not carry them (RFC 4430 §6)
    DUPLICATE = "duplicate"  # the same datagram again: answered from the reply cache
    RETRANSMITTED = "retransmitted"  # the same transaction under a fresh authenticator: answered from the cache
    XID_TAKEN = "xid_taken"  # a command with the epoch and the XID of another machine's of its principal: dropped
    UNKNOWN_XID = "unknown_xid"  # a REPLY or ACK to nothing outstanding
    UNAUTHENTICATED_ERROR = "unauthenticated_error"  # seen, remembered as a hint, not acted upon (RFC 4430 §3.5, §10)
    UNAUTHENTICATED_REPLY = "unauthenticated_reply"  # AP-REP, Cksum or ciphertext wrong
    ERROR_SUPPRESSED = "error_suppressed"  # an error that the allowance kept back, or longer than what it answers
    REPEAT_SUPPRESSED = "repeat_suppressed"  # the same command or REPLY again, more often than anybody honest does
    IGNORED_EVENT = "ignored_event"  # an event that means nothing in the machine's state
    ACK_ABANDONED = "ack_abandoned"  # nobody acknowledged a REPLY: the SA is deleted
    PEERS_PROBED = "peers_probed"  # STATUS, because nothing came back or ICMP hinted at it (RFC 4430 §3.7)
    PATHS_PROBED = "paths_probed"  # STATUS of a size, to see whether the path to the peer carries it (RFC 8899)
    PATH_BLACK_HOLES = "path_black_holes"  # it carried a size and does no more, and nobody has said so
    PEER_DEAD = "peer_dead"  # it left a probe unanswered: its SAs are torn down
    PEER_RESTARTED = "peer_restarted"  # epoch changed (RFC 4430 §3.7)
    STALE_EPOCH = "stale_epoch"  # authentic, from before the peer's restart: late, or kept back
    COMMANDS_SENT = "commands_sent"
    COMMANDS_RETRANSMITTED = "commands_retransmitted"
    COMMANDS_CONCLUDED = "commands_concluded"  # of ours: completed, failed or started again
    COMMANDS_RECEIVED = "commands_received"
    COMMANDS_REFUSED = "commands_refused"  # answered with an error notify
    REPLIES_RECEIVED = "replies_received"
    SUPPRESSED_RETRY = "suppressed_retry"  # a packet asked for an SA while the last failure was too fresh
    NOTIFY_IGNORED = "notify_ignored"  # status notify, or error notify in a request, that we do not know (§5.5)
    DEFECT = "defect"  # what this program went wrong on: a datagram, a timer; the log has where
    SEND_FAILED = "send_failed"  # the kernel would not take a KINK datagram
    EXTENSION_MALFORMED = "extension_malformed"  # a notify of ours by number and magic that cannot be read: ignored
    PEER_UNLOCATED = "peer_unlocated"  # a packet for a peer without an address, which has not been heard yet
    KEY_EXCHANGES = "key_exchanges"  # secrets computed for PFS, in either role (RFC 4430 §5.7)
    GETTGT_ANSWERED = "gettgt_answered"  # with our ticket-granting ticket
    GETTGT_REFUSED = "gettgt_refused"  # KINK_U2UDENIED: user-to-user is not offered here, or there is no ticket now
    GETTGT_NOT_US = "gettgt_not_us"  # KRB_AP_ERR_NOT_US: for a principal that we are not (RFC 4430 §4.2.4)
    STALE_TGT = "stale_tgt"  # a ticket made with a TGT that is not ours now: answered by the present one (§3.7.1)
    TGT_RECEIVED = "tgt_received"  # the peer's, in answer to GETTGT; whether it is good the KDC says
    TGT_OFFERED = "tgt_offered"  # the peer's, in answer to a command whose ticket it cannot open (§3.7.1)
    USER_TO_USER_REQUIRED = "user_to_user_required"  # peer or KDC want user-to-user, and nobody vouches for that (§3.1)


class Family(StrEnum):
    """What is counted by label, beside the tallies: docs/counters.md has the labels of each.

    The labels of a family are a fixed set, whatever a stranger sends: numbers without a name here share one.
    """

    MESSAGES_RECEIVED = "messages_received"  # by message type, believed or not
    MESSAGES_SENT = "messages_sent"  # by message type
    KINK_ERRORS_RECEIVED = "kink_errors_received"  # by error code (RFC 4430 §4.2.8), authenticated or not
    KINK_ERRORS_SENT = "kink_errors_sent"
    KRB_ERRORS_RECEIVED = "krb_errors_received"  # by error code (RFC 4120 §7.5.9), authenticated or not
    KRB_ERRORS_SENT = "krb_errors_sent"
    NOTIFIES_RECEIVED = "notifies_received"  # by notify type (RFC 4430 §5.5)
    NOTIFIES_SENT = "notifies_sent"
    EXCHANGES = "exchanges"  # commands of ours, by command and how they ended
    ANSWERS = "answers"  # commands of peers, by command and what became of them
    TICKETS = "tickets"  # what came of asking for one: ready, or the KDC's error


class Label(NamedTuple):
    """One counter of a family; the name is lower case, and parts of it are joined by a dot."""

    family: Family
    name: str


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class TicketReady:
    """The ticket that a FetchTicket asked for."""

    ticket: Ticket = field(repr=False)


@dataclass(frozen=True, slots=True)
class TicketRefused:
    """No ticket, and why."""

    refusal: TicketRefusal


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """A REPLY with this exchange's XID; nothing of it is believed yet."""

    message: Message
    datagram: bytes = field(repr=False)
    path: Path | None = None  # that it came by


@dataclass(frozen=True, slots=True)
class CommandRepeated:
    """A verified command of this transaction came again, under a fresh authenticator."""


@dataclass(frozen=True, slots=True)
class AckReceived:
    """A verified ACK of this transaction."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time that a WakeAt named has come."""


Event = TicketReady | TicketRefused | ReplyReceived | CommandRepeated | AckReceived | DeadlineReached

# ---------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class FetchTicket:
    """Get a ticket for ``server`` and tell exchange ``xid``."""

    xid: int
    server: str
    fresh: bool = False  # not the cached one: the peer called it expired
    tgt: bytes | None = field(default=None, repr=False)  # the peer's, for a user-to-user ticket


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send this datagram.

    Args:
        labels: what is in it that is counted when it leaves; says nothing new, so it makes no two messages differ.
        whole: not in fragments, neither from here nor on its way.
    """

    datagram: bytes = field(repr=False)
    path: Path
    labels: tuple[Label, ...] = field(default=(), compare=False)
    whole: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Call ``wake`` at ``time`` (the clock of ``now``).

    Args:
        peer: name of the peer to wake; empty for whoever returned this effect. A responder returns effects of its
            peers among its own.
    """

    time: float
    peer: str = ""


@dataclass(frozen=True, slots=True)
class InstallInbound:
    """Install, or replace under the same SPI (RFC 4430 §3.2)."""

    sa: SaParameters


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    """Install; packets held for its policy leave now."""

    sa: SaParameters


@dataclass(frozen=True, slots=True)
class RemoveInbound:
    """Remove, or release when it was only reserved."""

    spi: int


@dataclass(frozen=True, slots=True)
class RemoveOutbound:
    """Remove; the next newest SA of the policy carries on."""

    policy: str
    spi: int


@dataclass(frozen=True, slots=True)
class FollowPeer:
    """Send what the SAs of ``policy`` carry to ``remote`` from now on: the peer was authentically heard there."""

    policy: str
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class LimitMtu:
    """Let no inner packet to ``peer`` be larger than ``octets``: the narrower of the two ends' TUN devices."""

    peer: str
    octets: int


@dataclass(frozen=True, slots=True)
class ConfirmPath:
    """The path to the outer ``address`` carries IP packets of ``octets``, and none that are larger, as far as is known.

    It has been tried (RFC 8899).
    """

    address: str
    octets: int


@dataclass(frozen=True, slots=True)
class Count:
    """Add one, to the tally and to each of the labels.

    Args:
        labels: the same event told more closely; says nothing new, so it makes no two events differ.
        took: seconds that it took, where that is of interest; the first label says what. Nor does this.
    """

    tally: Tally
    labels: tuple[Label, ...] = field(default=(), compare=False)
    took: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Tell:
    """A line for the operator: an event name and its fields, never a secret.

    Args:
        event: what happened, in snake case.
        fields: pairs of name and value.
        warning: the operator should look.
    """

    event: str
    fields: tuple[tuple[str, str | int | float], ...] = ()
    warning: bool = False


Effect = (
    FetchTicket
    | SendMessage
    | WakeAt
    | InstallInbound
    | InstallOutbound
    | RemoveInbound
    | RemoveOutbound
    | FollowPeer
    | LimitMtu
    | ConfirmPath
    | Count
    | Tell
)
