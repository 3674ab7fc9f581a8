"""Whose fault it is: ours, the peer's, or a message that cannot be read."""

from __future__ import annotations


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
    """

    def __init__(self, field: str, offset: int, reason: str) -> None:
        super().__init__(f"{field} at octet {offset}: {reason}")
        self.field = field
        self.offset = offset
        self.reason = reason


class AuthenticationFailed(KinkvpnError):
    """A checksum, ciphertext, AP-REQ or AP-REP did not verify. Says nothing of the octets (habit 14)."""
