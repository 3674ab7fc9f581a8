"""Whose fault it is: ours, the peer's, or a message that cannot be read."""

from __future__ import annotations

# RFC 4430 §4: CREATE, DELETE, GETTGT, STATUS. Only a command is answered; an error about a REPLY or an ACK, or about
# a type nobody knows, would be a packet the other end never asked for (§3.5), and two such ends would never stop.
_COMMAND_TYPES = frozenset({1, 2, 4, 6})


class KinkvpnError(Exception):
    """Root of what this package raises on purpose; the message is one line and fit for an operator."""


class LocalMisuse(KinkvpnError):
    """The caller asked for something that cannot be: a value out of its field, an event out of order."""


class MalformedMessage(KinkvpnError):
    """The only error that octets from the network raise in a parser.

    Args:
        field: the RFC's name of the field at fault.
        offset: where it starts, in octets from the start of what was parsed.
        reason: what is wrong with it, without the octets themselves.

    Attributes:
        code: the KINK_ERROR to answer with (RFC 4430 §4.2.8), when ``notify`` is None or no key is at hand.
        notify: the ISAKMP Notify type to answer with instead, inside KINK_ENCRYPT (RFC 4430 §5.5), or None.
        message_type: Type of the message whose header could be read (any octet), or None.
        xid: XID of the message whose header could be read, or None.
    """

    code: int = 1  # KINK_PROTOERR
    notify: int | None = None

    def __init__(self, field: str, offset: int, reason: str) -> None:
        super().__init__(f"{field} at octet {offset}: {reason}")
        self.field = field
        self.offset = offset
        self.reason = reason
        self.message_type: int | None = None
        self.xid: int | None = None

    @property
    def answerable(self) -> bool:
        """Whether an error reply may be made: the header was read and the message is a command."""
        return self.message_type in _COMMAND_TYPES


class UnsupportedMajorVersion(MalformedMessage):
    """MjVer of the KINK header is not 1 (RFC 4430 §4.2.8)."""

    code = 3  # KINK_INVMAJ


class UnsupportedDoi(MalformedMessage):
    """The DOI is not IPsec, or a payload's DOI is not the header's (RFC 4430 §4)."""

    code = 2  # KINK_INVDOI


class MalformedQuickMode(MalformedMessage):
    """A KINK_ISAKMP payload with some type, length or value out of range (RFC 4430 §5.5)."""

    notify = 16  # PAYLOAD-MALFORMED


class AuthenticationFailed(KinkvpnError):
    """A checksum, ciphertext, AP-REQ or AP-REP did not verify. Says nothing of the octets (habit 14)."""
