"""How a command of ours ends, whatever it asked: done, in vain, or to be asked again in another way."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kinkvpn.proto.events import Count, Family, Label, Tally, Tell

if TYPE_CHECKING:
    from kinkvpn.wire.kink import MessageType


@dataclass(frozen=True, slots=True)
class Completed:
    """The command did what it was for."""

    took: float


class Cause(StrEnum):
    """What sort of failure, for whoever counts them."""

    NO_TICKET = "no_ticket"  # the KDC would not, or did not answer; the peer cannot open ours, and offers its own
    SILENCE = "silence"  # no authentic answer to any transmission, and none to GETTGT
    REFUSED = "refused"  # the peer says no, under the key
    UNUSABLE = "unusable"  # the peer's answer does not keep to what was asked
    UNCURED = "uncured"  # a second try met the error that it was to cure


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not.

    Args:
        reason: for the operator.
        peer_may_hold_state: the peer may have installed something: silence, or an answer that cannot be used.
        offset: what the peer said of its clock, under authentication, towards ours in seconds.
        cause: says nothing that ``reason`` does not.
    """

    reason: str
    peer_may_hold_state: bool = False
    offset: float | None = None
    cause: Cause = field(default=Cause.REFUSED, compare=False)


@dataclass(frozen=True, slots=True)
class Restart:
    """A new transaction is better: under a shifted clock, with a fresh ticket, or with a user-to-user one.

    Args:
        reason: for the operator: an authentic Kerberos error, or what the KDC has made of a hint.
        offset: of the clock, in seconds.
        fresh_ticket: not the ticket that was kept.
        tgt: the peer's ticket-granting ticket that a user-to-user ticket is at hand for.
    """

    reason: str
    offset: float = 0.0
    fresh_ticket: bool = False
    tgt: bytes | None = field(default=None, repr=False)


Outcome = Completed | Failed | Restart


def told_failure(kind: MessageType, peer: str, subject: str, reason: str) -> Tell:
    """A command of ours to ``peer``, or what it asked for ``subject``, came to nothing."""
    fields = (("peer", peer), ("subject", subject), ("reason", reason))
    return Tell(f"{kind.name.lower()}_failed", fields, warning=True)


def count_ended(kind: MessageType, outcome: Outcome) -> Count:
    """One command of ours has come to its end, for whoever counts how they end."""
    if isinstance(outcome, Failed):
        how = f"failed.{outcome.cause}"
    else:
        how = "restarted" if isinstance(outcome, Restart) else "completed"
    took = outcome.took if isinstance(outcome, Completed) else None
    return Count(Tally.COMMANDS_CONCLUDED, (Label(Family.EXCHANGES, f"{kind.name.lower()}.{how}"),), took)
