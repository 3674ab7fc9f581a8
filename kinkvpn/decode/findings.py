"""What can be said of a message besides its contents: a closed list of kinds, each of one severity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much a finding weighs."""

    WRONG = "wrong"  # not parsed, not verified or not decrypted: the exit code is 1
    ODD = "odd"  # against the RFC's letter or unusual, though the message can be used
    NOTE = "note"  # good to know


class Kind(Enum):
    """What was found; the value is the stable name in ``--json``."""

    # Wrong.
    MALFORMED = "malformed"
    CHECKSUM_WRONG = "checksum-wrong"
    CHECKSUM_MISSING = "checksum-missing"
    NOT_DECRYPTED = "not-decrypted"
    NO_KEY = "no-key"
    USER_TO_USER = "user-to-user"
    COMMAND_NOT_CAPTURED = "command-not-captured"
    AP_REQ_BAD = "ap-req-bad"
    AP_REP_BAD = "ap-rep-bad"
    CUT_SHORT = "cut-short"
    NO_AP_PAYLOAD = "no-ap-payload"
    # Odd.
    RESERVED_NOT_ZERO = "reserved-not-zero"
    PADDING_NOT_ZERO = "padding-not-zero"
    TRAILING_OCTETS = "trailing-octets"
    PAYLOAD_ORDER = "payload-order"
    PAYLOAD_OUT_OF_PLACE = "payload-out-of-place"
    UNKNOWN_NUMBER = "unknown-number"
    EXTENSION_MALFORMED = "extension-malformed"
    ACKREQ_OUT_OF_PLACE = "ackreq-out-of-place"
    REPLAYED = "replayed"
    CLOCK = "clock"
    TICKET_TIME = "ticket-time"
    WEAK_ENCTYPE = "weak-enctype"
    NO_MUTUAL = "no-mutual"
    AP_REP_UNMATCHED = "ap-rep-unmatched"
    # Notes.
    RETRANSMISSION = "retransmission"
    UNPROTECTED = "unprotected"
    UNSOLICITED = "unsolicited"
    EPOCH_CHANGED = "epoch-changed"

    @property
    def severity(self) -> Severity:
        """The one severity of this kind."""
        if self in _WRONG:
            return Severity.WRONG
        return Severity.NOTE if self in _NOTES else Severity.ODD


_WRONG = frozenset(
    {
        Kind.MALFORMED,
        Kind.CHECKSUM_WRONG,
        Kind.CHECKSUM_MISSING,
        Kind.NOT_DECRYPTED,
        Kind.NO_KEY,
        Kind.USER_TO_USER,
        Kind.COMMAND_NOT_CAPTURED,
        Kind.AP_REQ_BAD,
        Kind.AP_REP_BAD,
        Kind.CUT_SHORT,
        Kind.NO_AP_PAYLOAD,
    }
)
_NOTES = frozenset({Kind.RETRANSMISSION, Kind.UNPROTECTED, Kind.UNSOLICITED, Kind.EPOCH_CHANGED})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. ``text``: a sentence for an operator, without a secret in it."""

    kind: Kind
    text: str

    @property
    def wrong(self) -> bool:
        """Whether the message cannot be called parsed, verified and decrypted."""
        return self.kind.severity is Severity.WRONG

    def as_json(self) -> dict[str, str]:
        """Stable keys."""
        return {"kind": self.kind.value, "severity": self.kind.severity.value, "text": self.text}
